"""Inductor with the processor's vector types: what a user's run has, and most tests go without (tests/conftest.py)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch._inductor.config as inductor
from torch._inductor.cpu_vec_isa import valid_vec_isa_list


@contextmanager
def vector_types() -> Iterator[None]:
    """Kernels are generated with vector types in here; flex attention has no others."""
    valid_vec_isa_list.cache_clear()  # it is asked once in a process
    try:
        with inductor.patch({"cpp.vec_isa_ok": True}):
            yield
    finally:
        valid_vec_isa_list.cache_clear()
