"""Tensor parallelism: each process computes some of the attention heads and feed-forward columns.

Query, key and value projections and the feed-forward's first layer are split by output column, the layers after them by
input row, so that one all-reduce per attention and per feed-forward puts the sum together, and one in the backward
(Megatron-LM, arXiv 1909.08053). Every process sees the whole batch. GEGLU packs value and gate into one projection: its
rows are put in another order first, so that each process's slice holds both halves of the same columns; gradients are
put back in order when they are compared.

Convolutions, norms and the time embedding are computed by every process: 55% of SD1.5's work and 24% of SDXL's, so that
two GPUs can save at most a quarter of SD1.5's step. Heads bound the number of processes: 8 in SD1.5, 10 in SDXL's upper
level. Source: torch.distributed.tensor.parallel; arXiv 1909.08053.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from profiler.record import Evidence
from profiler.subject import NotApplicable, Subject, UNet
from profiler.traces.messages import Message
from profiler.tracing import Trace

_ATTENTION = {"to_q": ColwiseParallel, "to_k": ColwiseParallel, "to_v": ColwiseParallel, "to_out.0": RowwiseParallel}
_FEED_FORWARD = {"net.0.proj": ColwiseParallel, "net.2": RowwiseParallel}


def apply(subject: Subject) -> tuple[Subject, dict[str, Any]]:
    """Split attention and feed-forward layers. Raises NotApplicable when their sizes are no multiple of world_size."""
    unet, size = subject.unet, subject.parallel.world.size
    attentions, feed_forwards = _layers(unet)
    _refuse_uneven(attentions, feed_forwards, size)
    mesh = init_device_mesh(subject.workload.device, (size,))
    orders: dict[str, Tensor] = {}
    for name, layer in feed_forwards.items():
        projection = layer.net[0].proj
        if isinstance(layer.net[0], GEGLU):
            order = _interleaved(projection.out_features, size)
            orders |= {f"{name}.net.0.proj.{part}": order for part in ("weight", "bias")}
            _reorder(projection, order)
        parallelize_module(layer, mesh, _plan(_FEED_FORWARD))
    for attention in attentions.values():
        parallelize_module(attention, mesh, _plan(_ATTENTION))
        attention.heads //= size
        attention.inner_dim //= size
    parallel = replace(subject.parallel, whole=partial(_whole, orders))
    return replace(subject, parallel=parallel), _split(unet)


def _layers(unet: UNet) -> tuple[dict[str, Attention], dict[str, FeedForward]]:
    attentions = {name: module for name, module in unet.named_modules() if isinstance(module, Attention)}
    feed_forwards = {name: module for name, module in unet.named_modules() if isinstance(module, FeedForward)}
    return attentions, feed_forwards


def _refuse_uneven(attentions: dict[str, Attention], feed_forwards: dict[str, FeedForward], size: int) -> None:
    if not attentions:
        raise NotApplicable("parallelism=tensor: this UNet has no attention layer to split; choose ddp")
    heads = sorted({layer.heads for layer in attentions.values()})
    if odd := [number for number in heads if number % size]:
        raise NotApplicable(f"parallelism=tensor: {odd[0]} heads cannot be split over {size} processes; choose fewer")
    if any(layer.net[2].in_features % size for layer in feed_forwards.values()):
        raise NotApplicable(f"parallelism=tensor: a feed-forward cannot be split over {size} processes; choose fewer")


def _plan(styles: dict[str, type[Any]]) -> dict[str, ParallelStyle]:
    return {name: style() for name, style in styles.items()}


def _interleaved(num_rows: int, size: int) -> Tensor:
    """The order of GEGLU's rows in which each of `size` slices has its values, then the gates of the same columns."""
    values, gates = torch.arange(num_rows).chunk(2)
    return torch.cat([part for pair in zip(values.chunk(size), gates.chunk(size), strict=True) for part in pair])


@torch.no_grad()
def _reorder(projection: nn.Linear, order: Tensor) -> None:
    for parameter in projection.parameters():
        parameter.copy_(parameter[order.to(parameter.device)].clone())


def _whole(orders: dict[str, Tensor], name: str, gradient: Tensor) -> Tensor:
    """A gradient of all ranks' slices, its rows in the order of the plain UNet."""
    found = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    return found if name not in orders else found[orders[name].argsort().to(found.device)]


def _split(unet: UNet) -> dict[str, int]:
    attentions, feed_forwards = _layers(unet)
    split = [p for p in unet.parameters() if isinstance(p, DTensor)]
    return {
        "num_attentions": sum(isinstance(layer.to_q.weight, DTensor) for layer in attentions.values()),
        "num_feed_forwards": sum(isinstance(layer.net[2].weight, DTensor) for layer in feed_forwards.values()),
        "num_local_elements": sum(parameter.to_local().numel() for parameter in split),
        "num_local_heads": sum(layer.heads for layer in attentions.values()),
    }


def check(evidence: Evidence, messages: list[Message], trace: Trace, subject: Subject) -> tuple[dict[str, Any], str]:
    """Layers hold their slices, and each puts its sum together once in the forward."""
    seen: dict[str, Any] = _split(subject.unet)
    for name, number in seen.items():
        if number != evidence.facts[name]:
            return seen, f"{name.removeprefix('num_').replace('_', ' ')}: {number}, not {evidence.facts[name]}"
    sums = sum(one.kind == "all_reduce" and one.phase == "forward" for one in messages)
    seen["num_forward_sums"] = trace.per_step(sums)
    promised = seen["num_attentions"] + seen["num_feed_forwards"]
    if subject.parallel.world.size > 1 and seen["num_forward_sums"] != promised:
        return seen, f"{seen['num_forward_sums']:g} sums in the forward, not one for each of {promised} layers"
    return seen, ""
