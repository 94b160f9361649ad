"""Attention: which kernel computes softmax(Q K^T / sqrt(d)) V.

A UNet attends at every resolution below the first: SD1.5 has 32 calls with head dims 40, 80 and 160,
half of them against 77 text tokens. Materialising the scores costs quadratic memory (336 MB per layer
and sample for SDXL's 4096 tokens in bf16); the fused kernels never write them (FlashAttention, arXiv 2205.14135).

`unet.set_attention_backend` is without effect on diffusers' UNets (their processors call SDPA themselves,
diffusers 0.42), so one processor of our own calls each kernel directly, for UNet2DModel and UNet2DConditionModel
alike. Tensors stay in (batch, tokens, heads, dim); SDPA gets a transposed view, so no copy is made.

- math: diffusers' AttnProcessor, materialised scores. Not the same as SDPA's math backend. Where projections are
  joined (fusion), the same operations by our own processor.
- sdpa: F.scaled_dot_product_attention; PyTorch chooses (on Hopper with cuDNN above 9.15: cuDNN first).
- sdpa_flash, sdpa_efficient, sdpa_cudnn: SDPA held to one backend. Which head dims a backend serves depends on the
  GPU and the library's version (cuDNN 9.19 on an H200 runs d160, older ones stop at 128), so PyTorch is asked; layers
  that it cannot serve keep sdpa and are counted.
- xformers: memory_efficient_attention; 0.0.35 dispatches to flash-attn where that is installed.
- flash_attn_2: flash_attn.flash_attn_func, head dims up to 256.
- flash_attn_4: flash_attn.cute's CuTe kernels for Hopper and Blackwell, compiled at the first call of each head dim
  and direction. Launching one costs the CPU about twice a cuDNN call, and the call breaks torch.compile's graph at
  every layer (an autograd.Function around a JIT). On sm_90 its dQ is wrong, silently, for head dims that round to a
  multiple of 16 but not of 32 (40, 80; flash-attention PR 2896, open with 4.0.0b36), so training pads those with
  zeros, under the softmax scale of the true head dim: exact, for 20 to 60% more work in these layers.
- flex: torch's flex_attention through Inductor's template. Without a mask or a score function it computes what SDPA
  does, from a Triton kernel. Head dims that are no power of two are masked by the template; those below 16 are
  padded. On a CPU it has no backward (torch 2.13).

Each fused kernel brings its own backward. The check reads, from the forward's operators, which kernel each head dim
got, and compares it layer by layer with what was promised.
"""

import re
from collections import Counter
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch.backends.cuda import (
    SDPAParams,
    can_use_cudnn_attention,
    can_use_efficient_attention,
    can_use_flash_attention,
)

from profiler.combo import ATTENTION_KERNELS
from profiler.joined import is_joined
from profiler.optims.attention_kernels import load, materialised, padded_dim
from profiler.optims.attention_processor import KernelProcessor
from profiler.record import Evidence
from profiler.subject import NotApplicable, Subject, UNet
from profiler.traces.objects import Op
from profiler.tracing import Trace

_CAN_USE = {
    "sdpa_flash": can_use_flash_attention,
    "sdpa_efficient": can_use_efficient_attention,
    "sdpa_cudnn": can_use_cudnn_attention,
}
FLASH_ATTN_MAX_HEAD_DIM = 256
FLASH_ATTN_4_MAX_HEAD_DIM = {8: 256, 9: 256}  # by compute capability's first number; 128 on newer ones
# Of a head's row: at 640 (160 features in fp32) Inductor's templates want 344 to 459 kB of shared memory; an H100 has
# 227 KiB (torch 2.11: "No valid triton configs").
FLEX_MAX_HEAD_BYTES = 512

# What the trace calls each kernel: regular expressions over kernel names and operator names. Inductor's Triton kernels
# name the operators around them (triton_poi_fused__scaled_dot_product_cudnn_attention_...), so they are no evidence.
_NOT_TRITON = r"^(?!triton_).*"
FLASH_SDPA = _NOT_TRITON + r"(pytorch_flash::|_scaled_dot_product_flash_attention)"
EFFICIENT = _NOT_TRITON + r"(fmha_cutlass|_scaled_dot_product_efficient_attention)"
CUDNN = _NOT_TRITON + r"(cudnn_generated_fort_native_sdpa|cudnn.*(sdpa|fmha)|_scaled_dot_product_cudnn_attention)"
FLASH_ATTN = _NOT_TRITON + r"((?<!pytorch_)flash::flash_(fwd|bwd)|flash_attn::)"
FLASH_ATTN_4 = _NOT_TRITON + r"flash_attn_?cute"  # kernel_cutlass_kernel_flash_attncuteflash_fwd_sm90...
FLEX = r"^triton_tem\w*flex_attention"
SOFTMAX = r"[Ss]oft[Mm]ax"
_BACKWARD = re.compile(r"backward|_bwd|bprop|fmha_cutlassB")
# Kernels that one call launches beside its main one: FlashAttention adds up a split sequence, prepares a backward and
# converts its dQ. A call is counted once, by the main one.
_HELPER = re.compile(r"splitkv_combine|dot_do_o|convert_d[qk]|bwd_(pre|post)process")

# What a trace shows, most specific first; math is the softmax of materialised scores.
OBSERVED = {
    "cudnn": CUDNN,
    "flash_attn_4": FLASH_ATTN_4,
    "flash_attn": FLASH_ATTN,
    "flash": FLASH_SDPA,
    "efficient": EFFICIENT,
    "flex": FLEX,
    "math": SOFTMAX,
}
_REGION = r"^Torch-Compiled Region"  # flex on a CPU: Inductor's C++ code has no name of its own in a trace

# Operators that are one attention call of the forward. Where one lies in another, the inner one tells the kernel:
# both flash-attn and flash-attn-4 call their autograd.Function FlashAttnFunc; only the first has an operator inside.
_CALLS = {
    "cudnn": r"^aten::(_scaled_dot_product_cudnn_attention|_cudnn_attention_forward)$",
    "flash_attn_4": r"^FlashAttnFunc$",
    "flash_attn": r"^(flash_attn::_flash_attn_forward|xformers_flash::flash_fwd)$",
    "flash": r"^aten::(_scaled_dot_product_flash_attention(_for_cpu)?|_flash_attention_forward)$",
    "efficient": r"^aten::(_scaled_dot_product_efficient_attention|_efficient_attention_forward)$",
    "math": r"^aten::_softmax$",
}


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Give every attention layer the chosen kernel.

    Raises NotApplicable when the model has no attention layer that the kernel can serve.
    """
    layers = layers_in_order(subject.unet)
    if not layers:
        raise NotApplicable(f"attention={choice}: this UNet has no attention layer; choose attention=math")
    dims = sorted({head_dim(layer) for layer in layers.values()})
    served = [dim for dim in dims if _serves(choice, dim, subject)]
    if not served:
        raise NotApplicable(f"attention={choice} serves none of this model's head dims {dims}: choose sdpa")
    rest = load("sdpa", 0, subject)
    kernels = {dim: load(choice, dim, subject) if dim in served else rest for dim in dims}
    for layer in layers.values():
        kernel = kernels[head_dim(layer)]
        if kernel is None and is_joined(layer):
            kernel = materialised(layer)
        layer.set_processor(AttnProcessor() if kernel is None else KernelProcessor(kernel))
    expected = [ATTENTION_KERNELS[choice]] if choice in ATTENTION_KERNELS else []
    excluded = [name for name in OBSERVED if name not in expected] if expected else ["math"]
    if choice == "math" and subject.combo.compilation != "eager" and subject.workload.device == "cpu":
        expected = []  # Inductor fuses the softmax into C++ code that a CPU trace has no name for
    return subject, Evidence(
        family="attention",
        choice=choice,
        facts=_facts(choice, layers, served, subject),
        must_appear={name: _appearance(name, subject) for name in expected},
        # Layers beyond the kernel's head dims keep sdpa, whatever that is; so nothing can be excluded then.
        must_not_appear={name: OBSERVED[name] for name in excluded} if served == dims else {},
    )


def layers_in_order(unet: UNet) -> dict[str, Attention]:
    """The attention layers by name, in the order in which a forward calls them: down, middle, up."""
    found = {name: module for name, module in unet.named_modules() if isinstance(module, Attention)}
    place = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    return dict(sorted(found.items(), key=lambda item: place.get(item[0].partition(".")[0], 0)))


def _facts(choice: str, layers: dict[str, Attention], served: list[int], subject: Subject) -> dict[str, Any]:
    dims = Counter(map(head_dim, layers.values()))
    facts: dict[str, Any] = {
        "num_layers": len(layers),
        "num_layers_served": sum(dims[dim] for dim in served),
        "head_dims": {str(dim): count for dim, count in sorted(dims.items())},
    }
    if kept := [name for name, layer in layers.items() if head_dim(layer) not in served]:
        facts["layers_on_sdpa"] = kept
    widths = {str(dim): padded_dim(choice, dim, subject) for dim in served}
    if grown := {dim: width for dim, width in widths.items() if width != int(dim)}:
        facts["padded_head_dims"] = grown
        if choice == "flash_attn_4":
            facts["padded_because"] = "wrong dQ on sm_90, github.com/Dao-AILab/flash-attention/pull/2896"
    if choice == "flash_attn_4" and subject.combo.compilation != "eager":
        facts["num_graph_breaks_expected"] = facts["num_layers_served"]
    return facts


def _appearance(family: str, subject: Subject) -> str:
    return _REGION if family == "flex" and subject.workload.device == "cpu" else OBSERVED[family]


def check(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """How many layers of each head dim ran which kernel in a forward, e.g. {"cudnn d40": 10}.

    The forward's calls are matched with the layers by their order. Where their number does not fit (graphs replay
    without operators, a compiler may rename them) kernels are counted, unless eager code must have shown all calls.
    """
    is_flex = evidence.choice == "flex" and subject.combo.compilation == "eager"
    families = [family for family, _ in calls_of(trace, "forward", is_flex=is_flex)]
    layers = list(layers_in_order(subject.unet).items())
    promised = ATTENTION_KERNELS.get(evidence.choice)
    if not families or len(families) % len(layers):
        if families and promised and subject.combo.compilation == "eager":
            return {}, f"the forward shows {len(families)} attention calls for {len(layers)} layers"
        return _check_kernels(evidence, trace)
    num_forwards = len(families) // len(layers)
    kept = set(evidence.facts.get("layers_on_sdpa", ()))
    ran: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    for (name, layer), family in zip(layers * num_forwards, families, strict=True):
        what = f"{family} d{head_dim(layer)}"
        ran[what] += 1
        broken[what] += family != promised and name not in kept
    observed = {what: number // num_forwards for what, number in sorted(ran.items())}
    if promised is None:
        return observed, None
    others = ", ".join(f"{what} in {number // num_forwards}" for what, number in sorted(broken.items()) if number)
    return observed, f"layers that were promised {promised} ran {others}" if others else ""


def observed_calls(trace: Trace) -> dict[str, int]:
    """Attention calls per step by the family of their kernel, forward and backward together.

    A call is its main kernel on a GPU and its operator on a CPU; the most specific family wins.
    """
    if trace.found.attribution.on_gpu:
        kernels = (kernel.name for kernel in trace.found.kernels if kernel.category == "attention")
        names = Counter(name for name in kernels if not _HELPER.search(name))
    else:  # aten::softmax calls aten::_softmax, which counts
        names = Counter(op.event.name for op in trace.found.ops if op.event.name.startswith("aten::_"))
    calls: Counter[str] = Counter()
    for name, number in names.items():
        family = next((family for family, pattern in OBSERVED.items() if re.search(pattern, name)), None)
        if family:
            calls[family] += number
    return {family: round(number / trace.num_steps) for family, number in calls.most_common()}


def _check_kernels(evidence: Evidence, trace: Trace) -> tuple[dict[str, Any], str | None]:
    """Whether as many forward kernels ran as layers were promised the kernel; recomputation may add to them."""
    pattern = evidence.must_appear.get(ATTENTION_KERNELS.get(evidence.choice, ""))
    if pattern in (None, SOFTMAX, _REGION):  # a compiler fuses a softmax, and a region of a CPU holds many layers
        return {}, None
    on_gpu = trace.found.attribution.on_gpu
    names = [k.name for k in trace.found.kernels] if on_gpu else [op.event.name for op in trace.found.ops]
    served = [name for name in names if re.search(pattern, name)]
    calls = trace.per_step(sum(not (_BACKWARD.search(name) or _HELPER.search(name)) for name in served))
    seen, promised = {"num_forward_kernels": calls}, evidence.facts["num_layers_served"]
    return seen, "" if calls >= promised else f"only {calls:g} of the {promised} promised layers ran the kernel"


def calls_of(trace: Trace, phase: str, *, is_flex: bool = False) -> list[tuple[str, Op]]:
    """The attention calls of a phase in order of time: the kernel's family, and the innermost operator, which tells."""
    patterns = {"flex": _REGION} | _CALLS if is_flex else _CALLS
    families = {
        name: next((family for family, pattern in patterns.items() if re.search(pattern, name)), None)
        for name in {op.event.name for op in trace.found.ops}
    }
    calls: dict[int, tuple[str, Op]] = {}  # the outermost operator of a call -> what the innermost tells
    outermost: dict[int, int] = {}  # every operator of a call -> the outermost
    for op in sorted(trace.found.ops, key=lambda op: (op.event.start_ns, -op.event.duration_ns)):
        family = families[op.event.name]
        above = op.parent
        while above is not None and id(above) not in outermost:
            above = above.parent
        if family is None or op.phase != phase:
            continue
        outermost[id(op)] = outermost[id(above)] if above is not None else id(op)
        calls[outermost[id(op)]] = family, op
    return list(calls.values())


def _serves(choice: str, dim: int, subject: Subject) -> bool:
    """Whether a kernel takes this head dim here, in the subject's mode and dtype."""
    if choice == "flash_attn_2":
        return dim <= FLASH_ATTN_MAX_HEAD_DIM
    if choice == "flash_attn_4":
        limit = FLASH_ATTN_4_MAX_HEAD_DIM.get(torch.cuda.get_device_capability()[0], 128)
        return dim % 8 == 0 and dim <= limit
    dtype = subject.autocast or subject.dtype
    if choice == "flex" and subject.workload.device == "cuda":
        return dim * dtype.itemsize <= FLEX_MAX_HEAD_BYTES
    if choice not in _CAN_USE or subject.workload.device == "cpu":
        return True
    is_training = subject.workload.mode == "train"
    query, key = (
        torch.empty(1, 2, tokens, dim, device="cuda", dtype=dtype, requires_grad=is_training) for tokens in (64, 77)
    )
    return bool(_CAN_USE[choice](SDPAParams(query, key, key, None, 0.0, False, False)))


def head_dim(layer: Attention) -> int:
    return int(layer.inner_dim // layer.heads)
