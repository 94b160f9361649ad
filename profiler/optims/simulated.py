"""Simulated: what 8-bit products cost in accuracy, from a few plain lines that know nothing of torchao.

Each operand of a product is rounded as 8 bits with one scale for each row that is summed over would hold it, and
multiplied in fp32. No scale, layout or kernel is shared with torchao, so that a fault of those shows as a difference.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

LARGEST = {"int8": 127.0, "fp8": 448.0}  # of float8_e4m3fn, for weights, activations and gradients alike
_SMALLEST = 1e-12  # a row of zeros has no scale


def simulate(linears: Iterable[nn.Linear], choice: str) -> None:
    """Make these layers compute as `choice` would, forward and backward, in place."""
    for linear in linears:
        linear.forward = partial(_forward, linear, choice)  # type: ignore[method-assign]


def rounded(tensor: Tensor, choice: str, along: int) -> Tensor:
    """The tensor as 8 bits would hold it, one scale for each row along a dimension: its largest number fits exactly."""
    scale = tensor.abs().amax(along, keepdim=True).clamp_min(_SMALLEST) / LARGEST[choice]
    scaled = tensor / scale
    eight = scaled.round() if choice == "int8" else scaled.to(torch.float8_e4m3fn).to(tensor.dtype)
    return eight * scale


def _forward(linear: nn.Linear, choice: str, hidden: Tensor) -> Tensor:
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        rows = hidden.to(dtype).float().flatten(0, -2)
        out = _Product.apply(rows, linear.weight.float(), choice)  # type: ignore[no-untyped-call]
        out = out if linear.bias is None else out + linear.bias.float()
    made: Tensor = out.unflatten(0, hidden.shape[:-1]).to(dtype)
    return made


class _Product(torch.autograd.Function):
    """rows (n, in) times weight (out, in) transposed, and its two gradients: three products of rounded operands."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, choice: str) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.choice = choice
        return rounded(rows, choice, -1) @ rounded(weight, choice, -1).T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (rows, weight), (gradient,) = ctx.saved_tensors, gradients
        of_rows = rounded(gradient, ctx.choice, -1) @ rounded(weight, ctx.choice, 0)
        of_weight = rounded(gradient, ctx.choice, 0).T @ rounded(rows, ctx.choice, 0)
        return of_rows, of_weight, None
