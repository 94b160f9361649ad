"""Fusion: fewer passes over memory, and fewer launches, for what stands between the large matmuls.

- qkv: self-attention's query, key and value projections as one matmul, cross-attention's key and value as one: fewer
  and larger matmuls over the same input, 0.6% of SDXL's time in PyTorch's diffusion-fast ladder. Diffusers' own
  fuse_qkv_projections keeps the separate layers beside the joined one (0.96 GB for SDXL; parameters without gradient in
  training) and puts its own attention processor in the place of any other; here the separate layers go, every kernel of
  the family attention stays, and state dicts keep their names. Cost: the backward of the split is a copy of the three
  gradients. Code that reaches for to_q, to_k or to_v by itself (LoRA loaders, other processors) fails: fuse after it.
- norm_act: GroupNorm with the SiLU that follows it as one operator, in every ResNet block and before the last
  convolution. These are bound by memory: of the 23 ms that a forward of SD1.5 at batch 16 takes at least when it runs
  eagerly, 6 are norms and element-wise work. One pass less each way, one tensor less kept for the backward, and NHWC
  stays NHWC, which eager PyTorch before 2.14 undoes at every norm. Statistics and arithmetic are fp32. Under autocast
  PyTorch's GroupNorm answers in fp32 and the next convolution rounds that to 16 bits; here the answer is rounded at
  once: the same numbers, at half of the traffic.
- geglu: value * gelu(gate) as one operator, exact gelu; the projection before it stays a matmul.
- all: every one of the three that the model has layers for.

Blocks with another activation, or whose time embedding scales the norm's output (scale_shift), keep the plain pair and
are counted. Triton kernels are launched from Python, which costs the CPU more than PyTorch's own launches (how much,
tests/benchmarks/bench_fusion.py prints): at small batches, where the GPU waits for the CPU, look for the gain with CUDA
graphs. torch.compile fuses the same by itself, and treats these operators as closed boxes. fused_kernels.py says why no
library served, and how the kernels work.
"""

import re
from collections import Counter
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from profiler.joined import PARTS, join, joined_shape, why_not_joined
from profiler.record import Evidence
from profiler.subject import NotApplicable, Subject, UNet
from profiler.text import KeptProjection
from profiler.traces.objects import Op
from profiler.traces.words import PHASE
from profiler.tracing import Trace

_FUSIONS = {
    "none": (),
    "qkv": ("qkv",),
    "norm_act": ("norm_act",),
    "geglu": ("geglu",),
    "all": ("qkv", "norm_act", "geglu"),
}
_MISSING = {
    "qkv": "has no attention layer",
    "norm_act": "has no GroupNorm that a SiLU follows directly",
    "geglu": "has no GEGLU",
    "all": "has nothing to fuse",
}
_KERNELS = {"norm_act": "group_norm_silu", "geglu": "geglu"}
_GRADIENT_KERNELS = {what: f"{kernel}_backward" for what, kernel in _KERNELS.items()}


class GroupNormSiLU(nn.GroupNorm):
    """A GroupNorm that applies the SiLU behind it, too; its parameters keep their names."""

    out_dtype: torch.dtype | None  # of autocast; None is the input's own

    def forward(self, hidden_states: Tensor) -> Tensor:
        out: Tensor = torch.ops.steplens.group_norm_silu(
            hidden_states, self.weight, self.bias, self.num_groups, self.eps, self.out_dtype or hidden_states.dtype
        )[0]
        return out


class EmbeddingSiLU(nn.SiLU):
    """The activation of a block whose norms apply it themselves: left over for the time embedding (batch, channels)."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states) if hidden_states.dim() == 2 else hidden_states


class FusedGEGLU(GEGLU):  # type: ignore[misc]
    """Diffusers' GEGLU, of which all behind the projection is one operator."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        out: Tensor = torch.ops.steplens.geglu(self.proj(hidden_states))
        return out


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Fuse what the choice names, in place. Raises NotApplicable, with nothing changed, where there is nothing."""
    if choice == "none":
        return subject, Evidence(family="fusion", choice=choice)
    unet, chosen = subject.unet, _FUSIONS[choice]
    layers = [m for m in unet.modules() if isinstance(m, Attention)] if "qkv" in chosen else []
    blocks = [m for m in unet.modules() if _is_fusible(m)] if "norm_act" in chosen else []
    has_last = "norm_act" in chosen and _ends_with_silu(unet)
    gates = [m for m in unet.modules() if type(m) is GEGLU] if "geglu" in chosen else []
    if not (layers or blocks or has_last or gates):
        raise NotApplicable(f"fusion={choice}: this UNet {_MISSING[choice]}; choose none")
    if reason := next(filter(None, map(why_not_joined, layers)), None):
        raise NotApplicable(f"fusion={choice}: {reason} in an attention layer; choose norm_act, geglu or none")
    if blocks or has_last or gates:
        _load_kernels(choice)
    joined = Counter(join(layer) for layer in layers)
    norms = [norm for block in blocks for norm in _take_activation(block)] + ([_take_last(unet)] if has_last else [])
    for norm in norms:
        norm.__class__ = GroupNormSiLU  # in place: its parameters, their names and its hooks stay
        norm.__dict__["out_dtype"] = subject.autocast
    for gate in gates:
        gate.__class__ = FusedGEGLU
    facts = {f"num_joined_{name}": joined[name] for name in PARTS} if "qkv" in chosen else {}
    return subject, Evidence(
        family="fusion",
        choice=choice,
        facts=facts | _facts(unet, chosen),
        must_appear=_appearances(chosen, norms, gates, subject),
    )


def _facts(unet: UNet, chosen: tuple[str, ...]) -> dict[str, Any]:
    """What the changed model must do in a forward."""
    facts: dict[str, Any] = {}
    if "qkv" in chosen:
        facts["joined_shapes"] = _joined_shapes(unet)
    if "norm_act" in chosen:
        facts["num_group_norm_silu"] = _count(unet, GroupNormSiLU)
        facts["num_plain_group_norms"] = _count(unet, nn.GroupNorm) - facts["num_group_norm_silu"]
        facts["num_blocks_left_out"] = sum(isinstance(m, ResnetBlock2D) and not _is_fused(m) for m in unet.modules())
    if "geglu" in chosen:
        facts["num_geglu"] = _count(unet, FusedGEGLU)
    return facts


def _count(unet: UNet, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in unet.modules())


def _joined_shapes(unet: UNet) -> dict[str, int]:
    """How many linear layers, of any kind, have the weight shape of a joined projection: '96x32': 4."""
    shapes = Counter(_shape(m.weight.shape) for m in unet.modules() if isinstance(m, nn.Linear))
    layers = [module for module in unet.modules() if isinstance(module, Attention)]
    wanted = {_shape(shape) for layer in layers if (shape := joined_shape(layer))}
    return {shape: shapes[shape] for shape in sorted(wanted)}


def _shape(sizes: Any) -> str:
    return "x".join(str(int(size)) for size in sizes)


def _is_fusible(module: nn.Module) -> bool:
    return (
        isinstance(module, ResnetBlock2D)
        and type(module.nonlinearity) is nn.SiLU
        and module.time_embedding_norm == "default"
        and type(module.norm1) is type(module.norm2) is nn.GroupNorm
    )


def _is_fused(block: ResnetBlock2D) -> bool:
    return isinstance(block.norm1, GroupNormSiLU) and isinstance(block.norm2, GroupNormSiLU)


def _ends_with_silu(unet: UNet) -> bool:
    norm, activation = getattr(unet, "conv_norm_out", None), getattr(unet, "conv_act", None)
    return type(norm) is nn.GroupNorm and type(activation) is nn.SiLU


def _take_activation(block: nn.Module) -> list[nn.GroupNorm]:
    block.nonlinearity = EmbeddingSiLU()
    return [block.get_submodule("norm1"), block.get_submodule("norm2")]  # type: ignore[list-item]


def _take_last(unet: UNet) -> nn.GroupNorm:
    unet.conv_act = nn.Identity()
    norm: nn.GroupNorm = unet.conv_norm_out
    return norm


def _load_kernels(choice: str) -> None:
    """Register the operators; Triton compiles a kernel at its first call. Raises NotApplicable without Triton."""
    try:
        import profiler.optims.fused_operators  # noqa: F401
    except ImportError as error:
        raise NotApplicable(f"fusion={choice}: Triton does not load ({error}): pip install triton") from error


def _appearances(chosen: tuple[str, ...], norms: list[Any], gates: list[Any], subject: Subject) -> dict[str, str]:
    used = [what for what, layers in (("norm_act", norms), ("geglu", gates)) if what in chosen and layers]
    found = {f"{_KERNELS[what]} kernels": f"^{_KERNELS[what]}_forward" for what in used}
    if subject.workload.mode == "train":
        found |= {f"{_GRADIENT_KERNELS[what]} kernels": f"^{_GRADIENT_KERNELS[what]}" for what in used}
    return found


def check(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """Modules changed, and how often a forward ran the fused operators, the joined matmuls and plain GroupNorms.

    A step that replays a graph shows no operators: there the forward's kernels are counted. Compiled code does as it
    likes with matmuls, and 8-bit layers have products of their own, so shapes are compared in plain eager code alone.
    A sampling loop projects the text once, outside of its forwards.
    """
    if evidence.choice == "none":
        return {}, None
    changed = _facts(subject.unet, _FUSIONS[evidence.choice])
    for what, promised in evidence.facts.items():
        if changed.get(what, promised) != promised:
            return changed, f"the model has {what} {changed[what]}, not the promised {promised}"
    seen = _replayed(trace, evidence) if subject.uses_graphs else _called(trace, evidence, subject)
    for what, promised in evidence.facts.items():
        found = seen.get(what, promised)
        if found != promised and not (subject.uses_graphs and found > promised):  # checkpoints run a forward again
            return seen, f"a forward shows {what} {found}, not the promised {promised}"
    return seen, ""


def _called(trace: Trace, evidence: Evidence, subject: Subject) -> dict[str, Any]:
    """The forward's operators, for one forward."""
    forwards = _num_forwards(trace)
    ops = [op for op in trace.found.ops if op.phase == "forward" and _is_outermost(op)]
    calls = Counter(op.event.name for op in ops)
    seen: dict[str, Any] = {f"num_{k}": calls[f"steplens::{k}"] / forwards for k in _KERNELS.values()}
    if subject.combo.compilation == "eager":
        seen["num_plain_group_norms"] = calls["aten::group_norm"] / forwards
    if subject.combo.compilation == "eager" and subject.combo.quantization == "none":
        shapes = Counter(
            _shape(dims[1]) for op in ops if op.event.name == "aten::linear" and (dims := op.event.args.input_dims)
        )
        once = Counter(
            _shape(m.projection.weight.shape) for m in subject.unet.modules() if isinstance(m, KeptProjection)
        )
        found = {s: shapes[s] / forwards + once[s] for s in evidence.facts.get("joined_shapes", ())}
        seen["joined_shapes"] = found
    return {what: number for what, number in seen.items() if what in evidence.facts}


def _is_outermost(op: Op) -> bool:
    """Autocast calls an operator again inside itself, with its inputs cast, and autograd ours with its graph's node."""
    above = op.parent
    while above and above.event.name != op.event.name:
        above = above.parent
    return above is None


def _replayed(trace: Trace, evidence: Evidence) -> dict[str, Any]:
    names = [kernel.name for kernel in trace.found.kernels]
    seen = {f"num_{k}": sum(bool(re.match(f"{k}_forward", name)) for name in names) for k in _KERNELS.values()}
    forwards = _num_forwards(trace)
    return {what: number / forwards for what, number in seen.items() if what in evidence.facts}


def _num_forwards(trace: Trace) -> int:
    return trace.names[PHASE + "forward"] or trace.num_steps  # a recorded training step has no phases
