"""Optimize: one combo on the user's own UNet, in the user's own script, through the families that a run measures.

    unet, evidence = optimize(pipe.unet, Combo(attention="sdpa", precision="bf16", memory_format="channels_last"))

The object stays the same, so that a pipeline's `unet` needs no exchange; its forward gets the combo's autocast, casts
what it is given to the weights' dtype and layout, and answers in the dtype of the sample. tf32 and strict fp32 are set
for the whole process, since PyTorch knows them for nothing smaller.
"""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor

from profiler.combo import FAMILIES, Combo, choices
from profiler.environment import probe
from profiler.flops import to_meta
from profiler.optims import FAMILY
from profiler.optims.precision import WEIGHTS
from profiler.record import Evidence
from profiler.subject import Subject, UNet
from profiler.why_not import why_not
from profiler.workload import DEVICES, Workload

# What belongs to the loop round the UNet, and how the loop gets it.
_OF_THE_LOOP = {
    "optimizer": "make the optimizer in your loop, e.g. torch.optim.AdamW(unet.parameters(), fused=True)",
    "parallelism": "wrap the UNet in your own distributed script",
    "cuda_graphs": "record the whole step in your loop, or choose compilation=reduce_overhead",
}


def optimize(
    unet: UNet, combo: Combo, mode: Literal["inference", "train"] = "inference"
) -> tuple[UNet, tuple[Evidence, ...]]:
    """Change the UNet in place, on its device, to run under the combo; returns it, and what each family did.

    The forward keeps its signature; under compilation each new shape compiles anew. With precision=fp16_amp and
    mode="train" the loop needs a torch.amp.GradScaler of its own. Copies (for EMA) are made before, not after.

    Raises ValueError or NotApplicable, with the remedy, before anything is changed.
    """
    workload = _workload(unet, mode)
    if reason := _why_not(unet, combo, workload):
        raise ValueError(reason)
    _rehearse(unet, combo, workload)
    subject, evidence = _apply(Subject(unet=unet, workload=workload, call=unet, combo=combo))
    forward = unet.forward
    if subject.call is not unet:
        compiled = next(found for found in evidence if found.family == "compilation")
        forward = torch.compile(forward, mode=compiled.facts["mode"], dynamic=False)
    unet.forward = functools.wraps(unet.forward)(_Forward(subject, forward, inspect.signature(unet.forward)))
    return unet, evidence


class _Forward:
    """What stands in for the UNet's forward."""

    def __init__(self, subject: Subject, call: Callable[..., Any], signature: inspect.Signature) -> None:
        self._call, self._signature = call, signature
        self._dtype, self._memory_format = subject.dtype, subject.memory_format
        self._device, self._autocast = subject.workload.device, subject.autocast
        self._uses_graphs = subject.uses_graphs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = self._signature.bind(*args, **kwargs).arguments
        given |= given.pop("kwargs", {})
        sample = given["sample"]
        # Neither rounded nor left on the host, where a Python number would compile once per step.
        timestep = torch.as_tensor(given.pop("timestep"), device=sample.device)
        given = {name: self._cast(value) for name, value in given.items()}
        if self._uses_graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with self._context():
            out = self._call(timestep=timestep, **given)
        if isinstance(out, tuple):
            return (out[0].to(sample.dtype), *out[1:])
        out.sample = out.sample.to(sample.dtype)
        return out

    def _context(self) -> AbstractContextManager[object]:
        return nullcontext() if self._autocast is None else torch.autocast(self._device, dtype=self._autocast)

    def _cast(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self._cast(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._cast(inner) for inner in value)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return value.to(self._dtype, memory_format=self._memory_format) if value.dim() == 4 else value.to(self._dtype)


def _workload(unet: UNet, mode: str) -> Workload:
    if not isinstance(unet, UNet2DModel | UNet2DConditionModel):
        raise ValueError(f"{type(unet).__name__} is no UNet: give a UNet2DModel or UNet2DConditionModel")
    if mode not in ("inference", "train"):
        raise ValueError(f"unknown mode {mode!r}: choose inference or train")
    if unet.device.type not in DEVICES:
        raise ValueError(f"the UNet lies on {unet.device.type}: move it to {' or '.join(DEVICES)} first")
    return Workload(model=type(unet).__name__, mode=mode, device=unet.device.type)  # type: ignore[arg-type]


def _why_not(unet: UNet, combo: Combo, workload: Workload) -> str | None:
    if "forward" in unet.__dict__ or unet._compiled_call_impl is not None:
        return "this UNet's forward was replaced or compiled before: give optimize a UNet as diffusers builds it"
    for family, remedy in _OF_THE_LOOP.items():
        if family in FAMILIES and getattr(combo, family) != choices(family)[0]:
            return f"{family}={getattr(combo, family)} changes the step, not the UNet: {remedy}"
    wanted = WEIGHTS.get(combo.precision, torch.float32)
    if unet.dtype not in (torch.float32, wanted):
        return f"precision={combo.precision} needs weights in {wanted}, these are {unet.dtype}: load them in float32"
    return why_not(combo, workload, probe())


def _rehearse(unet: UNet, combo: Combo, workload: Workload) -> None:
    """Apply the combo to a copy without data, so that a family that refuses does so before the UNet is changed."""
    modes = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    copy = to_meta(unet)
    try:
        _apply(Subject(unet=copy, workload=workload, call=copy, combo=combo))
    except Exception:
        torch.backends.cuda.matmul.fp32_precision = modes[0]
        torch.backends.cudnn.conv.fp32_precision = modes[1]  # type: ignore[attr-defined]
        raise


def _apply(subject: Subject) -> tuple[Subject, tuple[Evidence, ...]]:
    evidence = []
    for name, family in FAMILY.items():
        if name not in _OF_THE_LOOP:
            subject, found = family.apply(subject, getattr(subject.combo, name))
            evidence.append(found)
    return subject, tuple(evidence)
