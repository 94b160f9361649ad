"""Inductor with the processor's vector types: what a user's run has, and most tests go without (tests/conftest.py)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch._inductor.config as inductor
from torch._inductor.cpu_vec_isa import VecISA, supported_vec_isa_list, valid_vec_isa_list

# Whether the machine builds and loads a type does not change, and to load it takes a process of its own
# (torch 2.13).
VecISA.check_build = cache(VecISA.check_build)


@contextmanager
def vector_types() -> Iterator[None]:
    """Kernels are generated with vector types in here; flex attention has no others."""
    _ask_again()
    try:
        with inductor.patch({"cpp.vec_isa_ok": True}):
            yield
    finally:
        _ask_again()


def _ask_again() -> None:
    """Which types there are is asked once in a process, and each set of them keeps its own answer (torch 2.13)."""
    valid_vec_isa_list.cache_clear()
    for isa in supported_vec_isa_list:
        if hasattr(type(isa).__bool__, "cache_clear"):
            type(isa).__bool__.cache_clear()
