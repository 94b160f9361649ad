"""Combo: one choice per optimisation family."""

import hashlib
import json
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

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
        for family, choice in self.to_dict().items():
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
        return {family: getattr(self, family) for family in FAMILIES}

    @property
    def key(self) -> str:
        """Eight hex digits that are equal for equal combos; a family that is added later changes no key."""
        canonical = json.dumps(self.difference(BASELINE), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:8]

    def difference(self, other: "Combo") -> dict[str, str]:
        """The choices of self in the families where the two differ."""
        theirs = other.to_dict()
        return {family: choice for family, choice in self.to_dict().items() if choice != theirs[family]}

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

# The family of kernels that an attention choice prescribes, as Record.attention_observed names it. sdpa and xformers
# choose for themselves: what they chose is observed, not prescribed.
ATTENTION_KERNELS = {
    "math": "math",
    "sdpa_flash": "flash",
    "sdpa_efficient": "efficient",
    "sdpa_cudnn": "cudnn",
    "flash_attn_2": "flash_attn",
    "flash_attn_4": "flash_attn_4",
    "flex": "flex",
}

_TRAIN_ONLY = ("checkpointing", "optimizer")


def applies(family: str, mode: str) -> bool:
    """Whether a family can make any difference in a mode."""
    return mode == "train" or family not in _TRAIN_ONLY
