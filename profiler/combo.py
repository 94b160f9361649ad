"""Combo: one choice per optimisation family; and why_not, the incompatibilities as data."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

from profiler.machine import Machine
from profiler.workload import Workload

Attention = Literal[
    "math", "sdpa", "sdpa_flash", "sdpa_efficient", "sdpa_cudnn", "xformers", "flash_attn_2", "flash_attn_4", "flex"
]  # fmt: skip
Precision = Literal["fp32", "tf32", "bf16_amp", "fp16_amp", "bf16", "fp16"]
MemoryFormat = Literal["contiguous", "channels_last"]
Fusion = Literal["none", "qkv", "norm_act", "geglu", "all"]
Checkpointing = Literal["none", "full", "selective", "alternate"]
Optimizer = Literal["adamw", "adamw_foreach", "adamw_fused", "adamw_8bit"]
Parallelism = Literal["none", "ddp", "fsdp2", "tensor", "pipeline", "cfg"]
Compilation = Literal["eager", "regional", "default", "reduce_overhead", "max_autotune"]
CudaGraphs = Literal["off", "whole_step"]
Quantization = Literal["none", "fp8", "int8"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Combo:
    """One choice per optimisation family; the first choice of each family is the baseline."""

    attention: Attention = field(
        default="math",
        metadata={
            "help": "Kernel of softmax(QK^T)V. math materialises the scores (diffusers' AttnProcessor); "
            "sdpa is PyTorch's own choice (cuDNN first on Hopper); flash_attn_4 and flex compile at the first call."
        },
    )
    precision: Precision = field(
        default="fp32",
        metadata={
            "help": "fp32 is strict IEEE for matmul and convolution; *_amp keeps fp32 weights under "
            "autocast (fp16_amp with loss scaling); bf16 and fp16 convert the weights too."
        },
    )
    memory_format: MemoryFormat = field(
        default="contiguous",
        metadata={"help": "Layout of images and convolution weights: NCHW or NHWC (channels_last)."},
    )
    fusion: Fusion = field(
        default="none",
        metadata={
            "help": "qkv joins the attention projections into one matmul; norm_act runs GroupNorm and SiLU, geglu the "
            "gated unit, as one Triton kernel each (CUDA); all does every one that the model has layers for."
        },
    )
    quantization: Quantization = field(
        default="none",
        metadata={
            "help": "Linear layers multiply in 8 bits (torchao, scales of rows found at every call): fp8 for inference "
            "and training in bf16, int8 for inference. Slow without a compiler."
        },
    )
    checkpointing: Checkpointing = field(
        default="none",
        metadata={
            "help": "full recomputes every ResNet and transformer block in the backward, alternate every second; "
            "selective keeps the results of convolutions and attention (compiled: a memory budget of 0.5)."
        },
    )
    optimizer: Optimizer = field(
        default="adamw",
        metadata={
            "help": "AdamW as a loop over tensors, in foreach groups, as one fused kernel, or (torchao) with 8-bit "
            "moments: a quarter of the state, for a larger batch rather than for speed."
        },
    )
    parallelism: Parallelism = field(
        default="none",
        metadata={
            "help": "How world_size processes share a step: ddp and fsdp2 split the batch, tensor the attention heads "
            "and feed-forward columns, pipeline the UNet in two, cfg the two halves of guidance."
        },
    )
    compilation: Compilation = field(
        default="eager",
        metadata={
            "help": "torch.compile mode; regional compiles block by block, in less time; "
            "reduce_overhead adds CUDA graphs, max_autotune also searches "
            "for the fastest kernels (many minutes for a large UNet)."
        },
    )
    cuda_graphs: CudaGraphs = field(
        default="off",
        metadata={
            "help": "whole_step records the training step, or each forward, as one CUDA graph and replays it: "
            "no launch cost, without a compiler."
        },
    )

    def __post_init__(self) -> None:
        for family, choice in asdict(self).items():
            if choice not in choices(family):
                raise ValueError(f"unknown {family} {choice!r}: choose one of {', '.join(choices(family))}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Combo":
        """A Combo from its JSON form; families that are left out keep their baseline choice.

        Raises ValueError for an unknown family or choice.
        """
        unknown = sorted(set(values) - set(FAMILIES))
        if unknown:
            raise ValueError(f"unknown family {', '.join(unknown)}: the families are {', '.join(FAMILIES)}")
        return cls(**values)

    def to_dict(self) -> dict[str, str]:
        return asdict(self)

    @property
    def key(self) -> str:
        """Eight hex digits that are equal for equal combos; a family that is added later changes no key."""
        canonical = json.dumps(self.difference(BASELINE), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:8]

    def difference(self, other: "Combo") -> dict[str, str]:
        """The choices of self in the families where the two differ."""
        mine, theirs = asdict(self), asdict(other)
        return {family: mine[family] for family in FAMILIES if mine[family] != theirs[family]}

    @property
    def compiles(self) -> bool:
        """Whether torch.compile runs at the first steps: for the UNet, its attention, or torchao's optimizer step."""
        return self.compilation != "eager" or self.optimizer == "adamw_8bit" or self.attention == "flex"

    @property
    def label(self) -> str:
        """What differs from the baseline, e.g. 'bf16 · sdpa · channels_last', else 'baseline'."""
        return " · ".join(name_choice(*item) for item in self.difference(BASELINE).items()) or "baseline"


FAMILIES: tuple[str, ...] = tuple(f.name for f in fields(Combo))
_CHOICES = {name: get_args(hint) for name, hint in get_type_hints(Combo).items() if name in FAMILIES}


def name_choice(family: str, choice: str) -> str:
    """A choice's name where its family is not in sight: 'bf16', but 'compile default' and 'checkpointing full'."""
    prefix = {
        "fusion": "fusion ",
        "checkpointing": "checkpointing ",
        "parallelism": "" if choice in ("ddp", "fsdp2") else "parallel ",
        "compilation": "" if choice == "eager" else "compile ",
        "cuda_graphs": "graph ",
    }
    return prefix.get(family, "") + choice


def name_run(combo: Combo, workload: Workload) -> str:
    """The combo's label with the number of its processes, e.g. 'bf16 · ddp x2'."""
    return combo.label + (f" x{workload.world_size}" if workload.world_size > 1 else "")


def choices(family: str) -> tuple[str, ...]:
    """All choices of a family, the baseline first."""
    return _CHOICES[family]


BASELINE = Combo()

_HALF = ("bf16_amp", "fp16_amp", "bf16", "fp16")
_TRAIN_ONLY = ("checkpointing", "optimizer")
_PARALLEL_MODES: dict[str, tuple[str, ...]] = {
    "ddp": ("train",),
    "fsdp2": ("train",),
    "tensor": ("train", "inference"),
    "pipeline": ("train", "inference"),
    "cfg": ("sample",),
}
# Package, its oldest version that Steplens knows to work, and what follows "pip install".
_PACKAGE = {
    "xformers": ("xformers", "0.0.35", "xformers"),
    "flash_attn_2": ("flash-attn", "2.8.3", "flash-attn --no-build-isolation"),
    "flash_attn_4": ("flash-attn-4", "4.0.0b36", "--pre flash-attn-4, after flash-attn"),
}


def applies(family: str, mode: str) -> bool:
    """Whether a family can make any difference in a mode."""
    return mode == "train" or family not in _TRAIN_ONLY


def why_not(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    """Why this combination cannot run here, in one sentence that names the remedy; None if it can.

    The form, the sweep and the worker all ask here, so that they say the same. What only the
    built model can tell (head dims, missing modules) is raised by the family's apply instead.
    """
    for rule in _RULES:
        reason = rule(combo, workload, machine)
        if reason:
            return reason
    return None


def _why_not_device(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    if workload.device == "cuda" and not machine.has_cuda:
        return f"device=cuda needs CUDA, and {machine.no_cuda_reason or 'none was found here'}: choose device=cpu"
    return None


def _why_not_mode(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    for family in _TRAIN_ONLY:
        choice = getattr(combo, family)
        if not applies(family, workload.mode) and choice != choices(family)[0]:
            return f"{family}={choice} has no effect without a backward pass: choose mode=train"
    return None


def _why_not_attention(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    choice, label = combo.attention, f"attention={combo.attention}"
    if choice in ("math", "sdpa"):
        return None
    if choice == "flex":
        return _why_not_flex(label, workload, machine)
    if workload.device == "cpu":
        if choice == "sdpa_flash":
            return None  # PyTorch has a CPU flash kernel for every floating dtype
        return f"{label} needs CUDA: on a CPU choose math, sdpa or sdpa_flash"
    if choice in _PACKAGE and (reason := _why_no_package(label, *_PACKAGE[choice], machine)):
        return reason
    if choice in ("sdpa_flash", "sdpa_cudnn", "flash_attn_2", "flash_attn_4"):
        if combo.precision not in _HALF:
            return f"{label} computes in 16 bits only: choose precision {', '.join(_HALF)}"
        if machine.compute_capability < (8, 0):
            return f"{label} needs compute capability 8.0 (Ampere) or newer, this GPU has {machine.capability_text}"
    if choice == "flash_attn_4" and workload.mode == "train" and machine.compute_capability < (9, 0):
        return f"{label} has no backward for compute capability {machine.capability_text}: choose flash_attn_2"
    return None


def _why_not_flex(label: str, workload: Workload, machine: Machine) -> str | None:
    if workload.device == "cpu" and workload.mode == "train":
        return f"{label} has no backward on a CPU (torch 2.13): choose sdpa, or mode=inference"
    if workload.device == "cuda" and machine.compute_capability < (8, 0):
        return f"{label} needs compute capability 8.0 (Ampere) or newer, this GPU has {machine.capability_text}"
    return _why_no_compiler(label, workload, machine)


def _why_no_package(label: str, package: str, least: str, pip: str, machine: Machine) -> str | None:
    have = machine.packages.get(package)
    if have is None:
        return f"{label} needs the package {package}: pip install {pip} (see requirements-gpu.txt)"
    if _version_order(have) < _version_order(least):
        remedy = f"pip install --upgrade {pip} (see requirements-gpu.txt)"
        return f"{label} needs {package} {least} or newer, here is {have}: {remedy}"
    return None


def _version_order(version: str) -> tuple[tuple[int, ...], str, int]:
    """Sorts '4.0.0b36' before '4.0.0': numbers, stage (a, b, rc, then none), number of the stage."""
    found = re.match(r"(\d+(?:\.\d+)*)(?:(a|b|rc)(\d+))?", version)
    if found is None:
        return (), "", 0
    numbers = tuple(int(part) for part in found[1].split("."))
    return numbers, found[2] or "~", int(found[3] or 0)


def _why_not_precision(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    choice, label = combo.precision, f"precision={combo.precision}"
    if workload.device == "cpu":
        if choice == "tf32":
            return f"{label} needs the Tensor Cores of an NVIDIA GPU: on a CPU choose fp32 or bf16"
        if choice in ("fp16", "fp16_amp"):
            return f"{label} needs CUDA: PyTorch's CPU kernels serve fp16 only by conversion; choose bf16"
    elif choice in ("tf32", "bf16", "bf16_amp") and machine.compute_capability < (8, 0):
        return f"{label} needs compute capability 8.0 (Ampere) or newer, this GPU has {machine.capability_text}"
    return None


def _why_not_compile(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    choice, label = combo.compilation, f"compilation={combo.compilation}"
    if choice == "eager":
        return None
    if workload.device == "cpu" and choice == "reduce_overhead":
        return f"{label} is CUDA graphs: on a CPU choose default"
    return _why_no_compiler(label, workload, machine)


def _why_not_graphs(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    label = f"cuda_graphs={combo.cuda_graphs}"
    if combo.cuda_graphs == "off":
        return None
    if workload.device == "cpu":
        return f"{label} needs CUDA: on a CPU choose off"
    if combo.compilation in ("reduce_overhead", "max_autotune"):
        return f"{label} goes without compilation={combo.compilation}, which records graphs itself: choose default"
    if combo.precision == "fp16_amp" and workload.mode == "train":
        return f"{label} cannot record loss scaling, which reads from the GPU: choose precision=bf16_amp"
    if combo.optimizer == "adamw_8bit":
        return f"{label} cannot record torchao's optimizer: choose optimizer=adamw_fused"
    return None


def _why_not_fusion(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    label = f"fusion={combo.fusion}"
    if combo.fusion in ("none", "qkv"):
        return None
    if workload.device == "cpu":
        return f"{label} is Triton kernels, which need CUDA: on a CPU choose none or qkv"
    if machine.compute_capability < (8, 0):
        return f"{label} needs compute capability 8.0 (Ampere) or newer, this GPU has {machine.capability_text}"
    return _why_no_compiler(label, workload, machine)


def _why_not_quantization(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    choice, label = combo.quantization, f"quantization={combo.quantization}"
    if choice == "none":
        return None
    if choice == "int8" and workload.mode == "train":
        return f"{label} has no backward in torchao: choose fp8, or mode=inference"
    if choice == "fp8" and workload.device == "cpu":
        return f"{label} needs CUDA: torchao serves no fp8 on a CPU; choose int8"
    if reason := _why_no_package(label, "torchao", "0.18", "'torchao>=0.18,<0.19'", machine):
        return reason
    least = (8, 9) if choice == "fp8" else (8, 0)
    if workload.device == "cuda" and machine.compute_capability < least:
        name = "8.9 (Ada)" if choice == "fp8" else "8.0 (Ampere)"
        return f"{label} needs compute capability {name} or newer, this GPU has {machine.capability_text}"
    return _why_not_quantized_precision(combo, workload)


def _why_not_quantized_precision(combo: Combo, workload: Workload) -> str | None:
    label, is_training = f"quantization={combo.quantization}", workload.mode == "train"
    if combo.quantization == "fp8":
        wanted = ("bf16", "bf16_amp") if is_training else ("bf16",)
        if combo.precision not in wanted:
            return f"{label} multiplies into bf16: choose precision={' or '.join(wanted)}"
        return None
    if combo.precision in ("bf16_amp", "fp16_amp"):
        return f"{label} is not seen by autocast, which leaves its inputs in fp32: choose precision=bf16"
    if combo.cuda_graphs != "off" and combo.compilation == "eager":
        return f"{label} without a compiler reads from the GPU, which no graph records: choose compilation=default"
    return None


def _why_not_checkpointing(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    """Kernels that are no PyTorch operators cannot be kept by name; compiled, selective is a memory budget instead."""
    is_by_name = combo.checkpointing == "selective" and combo.compilation == "eager"
    if is_by_name and combo.attention in ("flash_attn_4", "flex"):
        return (
            f"checkpointing=selective cannot keep what attention={combo.attention} computes, which is no operator: "
            "choose full or alternate, or compilation=default"
        )
    return None


def _why_not_optimizer(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    label = f"optimizer={combo.optimizer}"
    if combo.optimizer != "adamw_8bit":
        return None
    if "torchao" not in machine.packages:
        return f"{label} needs the package torchao: pip install torchao (see requirements-gpu.txt)"
    return _why_no_compiler(label, workload, machine)  # torchao compiles its update


def _why_not_parallelism(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    choice, label, size = combo.parallelism, f"parallelism={combo.parallelism}", workload.world_size
    if choice == "none":
        return (
            f"{label} runs one process, not {size}: choose world_size=1, or another parallelism" if size > 1 else None
        )
    if workload.mode not in _PARALLEL_MODES[choice]:
        return f"{label} is not for mode={workload.mode}: choose mode={' or '.join(_PARALLEL_MODES[choice])}"
    if choice in ("pipeline", "cfg") and size != 2:
        return f"{label} is for two processes, not {size}: choose world_size=2"
    if choice == "cfg" and workload.guidance_scale == 1:
        return f"{label} splits guidance, which guidance_scale=1 switches off: choose another guidance_scale"
    if workload.device == "cuda" and size > machine.num_gpus:
        return f"{label} needs a GPU per process, {size}, and here are {machine.num_gpus}: choose a smaller world_size"
    if choice in ("ddp", "fsdp2") and workload.batch % size:
        return f"{label} cannot split batch {workload.batch} evenly over {size} processes: choose a multiple of {size}"
    return _why_not_beside(combo, label)


def _why_not_beside(combo: Combo, label: str) -> str | None:
    """What a strategy does not go with, whatever its size."""
    choice = combo.parallelism
    if choice == "cfg":
        return None  # it leaves the UNet as it is
    if combo.quantization != "none":
        return f"{label} would split weights that torchao has packed: choose quantization=none"
    if choice in ("fsdp2", "tensor") and combo.fusion in ("qkv", "all"):
        return f"{label} splits projections that fusion={combo.fusion} has joined: choose fusion=norm_act or none"
    if choice in ("fsdp2", "pipeline") and combo.memory_format == "channels_last":
        return f"{label} takes contiguous tensors only (torch 2.13): choose memory_format=contiguous"
    if choice != "ddp" and combo.precision == "fp16_amp":
        return f"{label} would let each process scale the loss by itself: choose precision=bf16_amp"
    if choice in ("fsdp2", "tensor") and combo.optimizer == "adamw_8bit":
        return f"{label} shards what torchao's 8-bit optimizer packs in blocks: choose optimizer=adamw_fused"
    if combo.cuda_graphs != "off":
        return f"{label} talks to other processes within the step: choose cuda_graphs=off"
    if choice == "pipeline" and combo.compilation != "eager":
        return f"{label} runs the UNet's blocks one by one, outside of its forward: choose compilation=eager"
    if choice == "tensor" and combo.compilation != "eager":
        return f"{label} compiles through DTensor, which took over five minutes on a CPU: choose compilation=eager"
    if combo.compilation not in ("eager", "regional"):
        return f"{label} talks between blocks, where one graph of the whole UNet has none: choose compilation=regional"
    return None


def _why_no_compiler(label: str, workload: Workload, machine: Machine) -> str | None:
    if workload.device == "cpu" and not machine.has_cxx_compiler:
        return f"{label} needs a C++ compiler on a CPU: install g++ (Debian: apt-get install g++)"
    if workload.device == "cuda" and "triton" not in machine.packages:
        return f"{label} needs the package triton: pip install triton"
    return None


_RULES = (
    _why_not_device,
    _why_not_mode,
    _why_not_attention,
    _why_not_precision,
    _why_not_fusion,
    _why_not_quantization,
    _why_not_checkpointing,
    _why_not_optimizer,
    _why_not_compile,
    _why_not_graphs,
    _why_not_parallelism,
)
