"""why_not: the incompatibilities of choices, workload and machine as data, one rule per family."""

import re

from profiler.combo import FAMILIES, Combo, applies, choices
from profiler.machine import Machine
from profiler.workload import Workload

_HALF = ("bf16_amp", "fp16_amp", "bf16", "fp16")
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
        remedy = "see" if machine.cuda else "install a torch built with CUDA: see"
        why = machine.no_cuda_reason or "none was found here"
        return f"device=cuda needs CUDA, and {why}: choose device=cpu, or {remedy} the README"
    return None


def _why_not_mode(combo: Combo, workload: Workload, machine: Machine) -> str | None:
    for family in FAMILIES:
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
    if choice == "xformers" and workload.mode == "train" and combo.compilation != "eager":
        return _why_not_compiled_xformers(label, combo, machine)
    return None


def _why_not_compiled_xformers(label: str, combo: Combo, machine: Machine) -> str | None:
    """Dynamo cannot run the backward of xformers' CUTLASS kernel (xformers 0.0.35, torch 2.11, seen on an H200)."""
    is_half, has_flash_attn = combo.precision in _HALF, "flash-attn" in machine.packages
    if is_half and has_flash_attn:
        return None  # dispatched to flash-attn, which compiles
    needs = ("" if is_half else f"choose precision {', '.join(_HALF)}", "" if has_flash_attn else "install flash-attn")
    remedy = " and ".join(filter(None, needs))
    return f"{label} runs a kernel here whose backward torch.compile cannot trace: {remedy}, or attention=sdpa"


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
    choice, attention = combo.checkpointing, combo.attention
    is_whole = combo.compilation not in ("eager", "regional")
    if choice in ("full", "alternate") and is_whole and attention == "flash_attn_4":
        return (
            f"attention={attention} breaks the graph, and torch recomputes a checkpointed block that holds a break "
            "without compiled code: choose compilation=regional, or checkpointing=none or selective"
        )
    if choice == "selective" and combo.compilation == "eager" and attention in ("flash_attn_4", "flex"):
        return (
            f"checkpointing=selective cannot keep what attention={attention} computes, which is no operator: "
            "choose full or alternate, or compilation=regional"
        )
    if choice == "selective" and is_whole and attention == "flex":
        return (
            "checkpointing=selective is a memory budget under a compiler, and torch (2.11 to 2.13) cannot weigh "
            "attention=flex in the graph of a whole step (KeyError 'val' in its partitioner): choose "
            "compilation=regional, or full or alternate"
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
