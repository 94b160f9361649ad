"""Operators of fusion: how a tensor is cut into tiles for fused_kernels.py, and what PyTorch sees of the kernels.

The operators are registered with shapes and derivatives, so that torch.compile keeps them whole, without graph breaks,
CUDA graphs record them, and a trace shows them by name. Each new tile shape and dtype is compiled by Triton once.
"""
# mypy: disable-error-code="no-untyped-call"
# (torch.library has no types)

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton
from torch import Tensor

from profiler.optims.fused_kernels import (
    geglu_backward,
    geglu_forward,
    group_norm_silu_backward,
    group_norm_silu_backward_statistics,
    group_norm_silu_backward_sums,
    group_norm_silu_forward,
    group_norm_silu_forward_small,
    group_norm_silu_moments,
    group_norm_silu_statistics,
)

_TILE = 2048  # elements: 16 a thread at 4 warps, whose loads of 16 bits are two vectors of 16 bytes
_WHOLE_GROUP = 16384  # elements that one program of 8 warps holds: 64 a thread
_CHANNELS_NHWC = 64  # a whole line of the cache in 16 bits
_SUM_PROGRAMS = 1024  # wanted, for 132 multiprocessors: enough to hide latency, few enough to sum up quickly
_MAX_CHUNKS = 64


@dataclass(frozen=True)
class _Plan:
    """How one tensor is cut into tiles, and how many chunks its sums come from."""

    size: tuple[int, int]  # channels, pixels
    steps: tuple[int, int, int]  # strides of sample, channel, pixel
    per_group: int
    chunk: int  # pixels of a chunk
    num_chunks: int
    tile: dict[str, int]
    group_tile: dict[str, int]
    whole_tile: dict[str, int] | None  # of a group that fits the registers of a program
    chunk_grid: tuple[int, int, int]
    tile_grid: tuple[int, int, int]


@cache
def _plan(shape: tuple[int, ...], is_nhwc: bool, groups: int) -> _Plan:
    samples, channels, pixels = shape[0], shape[1], math.prod(shape[2:])
    if is_nhwc:
        block_c = min(triton.next_power_of_2(channels), _CHANNELS_NHWC)
        block_p = _TILE // block_c
    else:
        block_p = min(triton.next_power_of_2(pixels), _TILE // 2)
        block_c = _TILE // block_p
    columns, tiles = triton.cdiv(channels, block_c), triton.cdiv(pixels, block_p)
    wanted = min(triton.cdiv(_SUM_PROGRAMS, columns * samples), _MAX_CHUNKS, tiles)
    chunk = triton.cdiv(tiles, wanted) * block_p
    num_chunks = triton.cdiv(pixels, chunk)
    whole = {"block_c": triton.next_power_of_2(channels // groups), "block_p": triton.next_power_of_2(pixels)}
    elements = math.prod(whole.values())
    whole |= {"per_group": channels // groups, "num_warps": max(1, min(8, elements // 512))}
    return _Plan(
        size=(channels, pixels),
        steps=(channels * pixels, 1, channels) if is_nhwc else (channels * pixels, pixels, 1),
        per_group=channels // groups,
        chunk=chunk,
        num_chunks=num_chunks,
        tile={"block_c": block_c, "block_p": block_p},
        group_tile={
            "per_group": channels // groups,
            "block_c": triton.next_power_of_2(channels // groups),
            "block_s": triton.next_power_of_2(num_chunks),
        },
        whole_tile=whole if elements <= _WHOLE_GROUP else None,
        chunk_grid=(columns, num_chunks, samples),
        tile_grid=(columns, tiles, samples),
    )


def _laid_out(x: Tensor, groups: int) -> tuple[Tensor, _Plan]:
    """The tensor without gaps, and its plan."""
    layout = layout_of(x)
    return x.contiguous(memory_format=layout), _plan(tuple(x.shape), layout is torch.channels_last, groups)


def layout_of(x: Tensor) -> torch.memory_format:
    """NHWC only where it is not NCHW, too (one channel, or one pixel)."""
    is_nhwc = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if is_nhwc else torch.contiguous_format


def _norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    x, plan = _laid_out(x, groups)
    samples, channels = x.shape[:2]
    y = torch.empty_like(x, dtype=dtype)
    mean, rstd = (x.new_empty((samples, groups), dtype=torch.float32) for _ in range(2))
    if plan.whole_tile:
        with torch.cuda.device_of(x):
            group_norm_silu_forward_small[(samples * groups,)](
                x, y, weight, bias, mean, rstd, *plan.size, *plan.steps, eps, **plan.whole_tile
            )
        return y, mean, rstd
    means, squares = x.new_empty((2, samples, plan.num_chunks, channels), dtype=torch.float32)
    with torch.cuda.device_of(x):
        group_norm_silu_moments[plan.chunk_grid](x, means, squares, *plan.size, *plan.steps, plan.chunk, **plan.tile)
        group_norm_silu_statistics[(samples * groups,)](
            means, squares, mean, rstd, *plan.size, plan.chunk, plan.num_chunks, eps, **plan.group_tile
        )
        group_norm_silu_forward[plan.tile_grid](
            x, y, weight, bias, mean, rstd, *plan.size, *plan.steps, plan.per_group, **plan.tile
        )
    return y, mean, rstd


def _norm_silu_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    (samples, groups), channels = mean.shape, x.shape[1]
    x, plan = _laid_out(x, groups)
    dy = dy.contiguous(memory_format=layout_of(x))
    dx = torch.empty_like(x)
    sums = x.new_empty((2, samples * plan.num_chunks, channels), dtype=torch.float32)
    means = x.new_empty((2, samples, groups), dtype=torch.float32)
    given = (weight, bias, mean, rstd)
    with torch.cuda.device_of(x):
        group_norm_silu_backward_sums[plan.chunk_grid](
            x, dy, *given, sums, *plan.size, *plan.steps, plan.per_group, plan.chunk, **plan.tile
        )
        group_norm_silu_backward_statistics[(samples * groups,)](
            sums, weight, means, *plan.size, plan.num_chunks, sums[0].numel(), **plan.group_tile
        )
        group_norm_silu_backward[plan.tile_grid](
            x, dy, dx, *given, means[0], means[1], *plan.size, *plan.steps, plan.per_group, **plan.tile
        )
    of_bias, of_weight = sums.sum(1)
    return dx, of_weight.to(weight.dtype), of_bias.to(bias.dtype)


def _geglu(x: Tensor) -> Tensor:
    x = x.contiguous()
    y = x.new_empty((*x.shape[:-1], x.shape[-1] // 2))
    with torch.cuda.device_of(x):
        geglu_forward[(triton.cdiv(y.numel(), 1024),)](x, y, y.numel(), width=y.shape[-1], block=1024)
    return y


def _geglu_backward(dy: Tensor, x: Tensor) -> Tensor:
    x, dy = x.contiguous(), dy.contiguous()
    dx = torch.empty_like(x)
    with torch.cuda.device_of(x):
        geglu_backward[(triton.cdiv(dy.numel(), 1024),)](x, dy, dx, dy.numel(), width=dy.shape[-1], block=1024)
    return dx


def _fake_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    y = torch.empty_like(x.contiguous(memory_format=layout_of(x)), dtype=dtype)
    mean, rstd = (x.new_empty((x.shape[0], groups), dtype=torch.float32) for _ in range(2))
    return y, mean, rstd


def _fake_norm_silu_backward(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty_like(x.contiguous(memory_format=layout_of(x)))
    return dx, torch.empty_like(weight), torch.empty_like(bias)


def _fake_geglu(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))


def _fake_geglu_backward(dy: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _keep_for_norm_silu(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, *_ = inputs
    _, mean, rstd = output
    ctx.save_for_backward(x, weight, bias, mean, rstd)


def _differentiate_norm_silu(ctx: Any, dy: Tensor, d_mean: Tensor, d_rstd: Tensor) -> tuple[Tensor | None, ...]:
    return (*torch.ops.steplens.group_norm_silu_backward(dy, *ctx.saved_tensors), None, None, None)


def _keep_for_geglu(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_geglu(ctx: Any, dy: Tensor) -> Tensor:
    found: Tensor = torch.ops.steplens.geglu_backward(dy, *ctx.saved_tensors)
    return found


# Not torch.library.custom_op, whose wrappers cost the CPU several times more at every call.
_LIBRARY = torch.library.Library("steplens", "FRAGMENT")
for _schema, _run, _fake in (
    (
        "group_norm_silu(Tensor x, Tensor weight, Tensor bias, int groups, float eps, ScalarType dtype)"
        " -> (Tensor, Tensor, Tensor)",
        _norm_silu,
        _fake_norm_silu,
    ),
    (
        "group_norm_silu_backward(Tensor dy, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd)"
        " -> (Tensor, Tensor, Tensor)",
        _norm_silu_backward,
        _fake_norm_silu_backward,
    ),
    ("geglu(Tensor x) -> Tensor", _geglu, _fake_geglu),
    ("geglu_backward(Tensor dy, Tensor x) -> Tensor", _geglu_backward, _fake_geglu_backward),
):
    _LIBRARY.define(_schema)
    _name = _schema.partition("(")[0]
    _LIBRARY.impl(_name, _run, "CompositeExplicitAutograd")  # CUDA; a CPU under Triton's interpreter
    torch.library.register_fake(f"steplens::{_name}", _fake, lib=_LIBRARY)
torch.library.register_autograd(
    "steplens::group_norm_silu", _differentiate_norm_silu, setup_context=_keep_for_norm_silu, lib=_LIBRARY
)
torch.library.register_autograd("steplens::geglu", _differentiate_geglu, setup_context=_keep_for_geglu, lib=_LIBRARY)
