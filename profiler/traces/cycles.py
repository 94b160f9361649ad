"""Cycles: what makes a great many objects that hold none goes without Python's collector of cycles.

The collector walks over all of them, and over torch's own half a million, again and again while they are made.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_cycles() -> Iterator[None]:
    """Without the collector in here, as a block or as a decorator."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
