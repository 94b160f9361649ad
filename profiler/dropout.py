"""Dropout: switched off where two runs are compared number by number, left on where they are timed.

Its masks hang on the random generator's state and on the shapes and kernels that drew before, so no two combos draw
the same: with dropout on, every training run would differ from its reference by the masks alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from profiler.record import DROPOUT

NOTE = (
    f"{DROPOUT}: the error check runs without it, here and in the reference, since no two combos draw the "
    "same masks; times and memory are with dropout, and compile_s holds a compilation with and one without it"
)


def layers(model: nn.Module) -> list[_DropoutNd]:
    """The dropout layers that draw in training; zoo models have only those with p=0, which do nothing."""
    return [module for module in model.modules() if isinstance(module, _DropoutNd) and module.p > 0]


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """Without dropout inside. Layers with p=0 are not touched: a compiler that guards on them would start again."""
    drawing = [layer for layer in layers(model) if layer.training]
    for layer in drawing:
        layer.eval()
    try:
        yield
    finally:
        for layer in drawing:
            layer.train()
