"""Subject: what an optimisation may touch (the UNet, how it is called, its optimizer) and its inputs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from diffusers import UNet2DConditionModel, UNet2DModel

from profiler.combo import BASELINE, Combo
from profiler.conditions import make_condition, why_not_feed
from profiler.ranks import Parallel
from profiler.workload import ZOO, Workload

UNet: TypeAlias = UNet2DModel | UNet2DConditionModel


class NotApplicable(Exception):  # noqa: N818, a finding rather than an error
    """This choice cannot serve this model; the message says why and what to choose instead."""


class ModelError(ValueError):
    """This model cannot be built, or not at this resolution; the message names the remedy."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What apply() receives and returns, changed by dataclasses.replace."""

    unet: UNet
    workload: Workload
    call: Callable[..., Any]  # what a step calls: the UNet, or its compiled form
    combo: Combo = BASELINE  # all that is asked for, for a family that must know of another
    dtype: torch.dtype = torch.float32  # of weights and inputs
    autocast: torch.dtype | None = None
    memory_format: torch.memory_format = torch.contiguous_format
    quantized: dict[str, torch.Tensor] = field(default_factory=dict)  # 8-bit layer -> norms of its weight's rows before
    optimizer: torch.optim.Optimizer | None = None
    scaler: torch.amp.GradScaler | None = None
    parallel: Parallel = field(default_factory=Parallel)  # how several processes share a step
    uses_graphs: bool = False  # CUDA graphs replay: the trace holds kernels without operators
    records_steps: bool = False  # the step itself is recorded as a graph, not what a compiler made of the UNet


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """One batch. sample and target: (batch, channels, height, width); timestep: (batch,)."""

    sample: torch.Tensor
    timestep: torch.Tensor
    target: torch.Tensor
    condition: dict[str, Any] = field(default_factory=dict)


def casting(subject: Subject) -> torch.autocast:
    """The autocast that the subject's UNet runs under; switched off where its precision is none of autocast's."""
    return torch.autocast(
        subject.workload.device,
        dtype=subject.autocast,
        enabled=subject.autocast is not None,
        cache_enabled=not subject.records_steps,  # a graph must not refer to a cast that was made outside of it
    )


def resolve_resolution(unet: UNet, workload: Workload) -> int:
    """The image side in pixels: the workload's, or the model's own where that is 0.

    Raises ModelError when neither names one.
    """
    if workload.resolution:
        return workload.resolution
    size = unet.config.sample_size
    if size is None:
        raise ModelError("this UNet's configuration names no sample_size: give the workload a resolution")
    side: int = size if isinstance(size, int) else size[0]
    return side * pixels_per_latent(unet)


def pixels_per_latent(unet: UNet) -> int:
    """8 for latent models (their VAE halves three times; 4 latent channels or more), 1 in pixel space."""
    return 8 if unet.config.in_channels >= 4 else 1


def make_inputs(unet: UNet, workload: Workload, *, batch: int, draw: int = 0, device: str | None = None) -> Inputs:
    """Random inputs in fp32 that do not depend on the batch: sample i is the same in every batch.

    `draw` gives another set (the timed steps rotate through several). Raises ModelError when the
    resolution does not fit the model's down-sampling, or the model needs inputs that nobody can draw.
    """
    config, device = unet.config, device or workload.device
    class_name = "UNet2DConditionModel" if isinstance(unet, UNet2DConditionModel) else "UNet2DModel"
    if reason := why_not_feed(config, class_name):
        raise ModelError(reason)
    resolution = resolve_resolution(unet, workload)
    side = resolution // pixels_per_latent(unet)
    step = 2 ** (len(config.block_out_channels) - 1) * pixels_per_latent(unet)
    if resolution % step:
        raise ModelError(f"resolution {resolution} does not fit this UNet: choose a multiple of {step} px")

    def normal(name: int, *shape: int) -> torch.Tensor:
        rows = [_normal(workload.seed, draw, name, row, shape) for row in range(batch)]
        return torch.stack(rows).to(device)

    # Spread over the schedule, and on the device: a Python number would force a host sync every call.
    timestep = torch.tensor([(row * 389 + draw * 127 + 251) % 1000 for row in range(batch)], device=device)
    return Inputs(
        sample=normal(0, config.in_channels, side, side),
        timestep=timestep,
        target=normal(3, config.out_channels, side, side),
        condition=make_condition(config, normal, batch=batch, resolution=resolution, device=device),
    )


def cast_inputs(inputs: Inputs, dtype: torch.dtype, memory_format: torch.memory_format) -> Inputs:
    """The same inputs in the subject's dtype and layout."""

    def cast(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: cast(inner) for name, inner in value.items()}
        if not value.is_floating_point():
            return value
        return value.to(dtype, memory_format=memory_format) if value.dim() == 4 else value.to(dtype)

    return Inputs(
        sample=cast(inputs.sample),
        timestep=inputs.timestep,
        target=cast(inputs.target),
        condition=cast(inputs.condition),
    )


def own_share(subject: Subject, inputs: Inputs) -> Inputs:
    """This rank's samples of a batch: r, r + size, ... where the batch is split, else all."""
    if not subject.parallel.splits_batch:
        return inputs
    world = subject.parallel.world

    def share(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: share(inner) for name, inner in value.items()}
        # the layout that the batch has: a slice of one sample would be contiguous in both
        kept = value[world.rank :: world.size]
        is_nhwc = value.dim() == 4 and not value.is_contiguous()
        return kept.contiguous(memory_format=torch.channels_last if is_nhwc else torch.contiguous_format)

    return Inputs(
        sample=share(inputs.sample),
        timestep=share(inputs.timestep),
        target=share(inputs.target),
        condition=share(inputs.condition),
    )


def tensors_of(inputs: Inputs) -> Iterator[torch.Tensor]:
    """Every tensor of a batch, in an order that is the same for all batches of a model."""
    yield from (inputs.sample, inputs.timestep, inputs.target)
    stack = list(inputs.condition.values())
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value.values())
        else:
            yield value


def zoo_note(workload: Workload) -> tuple[str, ...]:
    """What the reader must know of the weights."""
    if workload.model not in ZOO:
        return ()
    random = "random weights: speed, memory and numerical error are real, images would not be"
    return (random, f"{workload.model} is {ZOO[workload.model].help}") if ZOO[workload.model].variant_of else (random,)


def _normal(seed: int, draw: int, name: int, row: int, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(((seed * 1009 + draw) * 1013 + name) * 100_003 + row)
    return torch.randn(shape, generator=generator)
