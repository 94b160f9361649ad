"""Compilation: torch.compile of the whole UNet, or of its blocks.

An eager SD1.5 forward launches about 800 operators; at small batches the GPU waits for the CPU. Inductor fuses norms,
activations and element-wise chains into Triton kernels, chooses layouts for the convolutions, and

- regional: compiles each ResNet block, transformer block and free-standing attention layer in place; blocks of one
  class and shape share their code, so that compiling takes less time. Diffusers' own compile_repeated_blocks takes
  the transformer blocks alone, which leaves 55% of SD1.5's work eager, and refuses UNet2DModel;
- default: launches what it generated one kernel at a time;
- reduce_overhead: records the step as CUDA graphs and replays them, which removes the launch cost;
- max_autotune: the same, and times candidate kernels for every matmul and convolution shape.

Cost: 40 s to many minutes at the first call, again whenever a shape changes (dynamic=False here: one shape, the
fastest code). Source: arXiv 10.1145/3620665.3640366 (PyTorch 2), torch.compile's documentation.
"""

import gc
import re
from dataclasses import replace
from typing import Any

import torch
import torch._dynamo.config as dynamo
import torch._inductor.config as inductor
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch._dynamo.utils import clear_compilation_metrics, counters, get_compilation_metrics
from torch._inductor.utils import clear_caches

from profiler.record import Evidence
from profiler.subject import NotApplicable, Subject, UNet
from profiler.traces.objects import Op
from profiler.tracing import Trace

_MODES = {
    "regional": "default",
    "default": "default",
    "reduce_overhead": "reduce-overhead",
    "max_autotune": "max-autotune",
}
_REGION = {"compiled regions": r"Torch-Compiled Region|CompiledFxGraph|CompiledFunction"}
_REGION_CALL = "Torch-Compiled Region"
_COMPILED = re.compile(_REGION_CALL)
_WORK = re.compile(r"aten::(convolution|convolution_backward|addmm|mm|bmm|baddbmm|_scaled_mm|_int_mm)$")
# Of one class of block: SDXL has a dozen, and Dynamo gives up after eight and runs the rest as it is. A whole UNet is
# compiled block by block, too, where a kernel breaks the graph (flash-attn-4).
_MAX_SHAPES = 64
_TRITON = {"Triton kernels": r"^triton_(poi|red|per|tem|mm|conv)"}
_GRAPHS = {"graph launches": r"cudaGraphLaunch|cuGraphLaunch"}


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Replace what a step calls by the compiled UNet; nothing is compiled before the first call."""
    if choice == "eager":
        # a kernel or an optimizer may compile by itself; graphs are the business of cuda_graphs
        excluded = {} if subject.combo.compiles else _REGION | _TRITON
        return subject, Evidence(family="compilation", choice=choice, must_not_appear=excluded)
    torch._dynamo.reset()
    dynamo.recompile_limit = max(dynamo.recompile_limit, _MAX_SHAPES)
    counters.clear()
    clear_compilation_metrics()
    on_gpu = subject.workload.device == "cuda"
    uses_graphs = on_gpu and choice in ("reduce_overhead", "max_autotune")
    facts: dict[str, object] = {"mode": _MODES[choice], "dynamic": False}
    if not on_gpu and subject.workload.mode == "train":
        facts["layout_optimization"] = _keep_cpu_gradients()
    if choice == "regional":
        facts["num_regions"] = _compile_blocks(subject.unet)
    else:
        subject = replace(subject, call=torch.compile(subject.unet, mode=_MODES[choice], dynamic=False))
    return replace(subject, uses_graphs=uses_graphs), Evidence(
        family="compilation",
        choice=choice,
        facts=facts,
        must_appear=(_TRITON if on_gpu else _REGION) | (_GRAPHS if uses_graphs else {}),
    )


def _compile_blocks(unet: UNet) -> int:
    blocks = [module for module in unet.modules() if isinstance(module, ResnetBlock2D | BasicTransformerBlock)]
    inside = {id(part) for block in blocks for part in block.modules()}
    blocks += [module for module in unet.modules() if isinstance(module, Attention) and id(module) not in inside]
    if not blocks:
        raise NotApplicable("compilation=regional: this UNet has no ResNet or transformer block; choose default")
    for block in blocks:
        nn.Module.compile(block, mode="default", dynamic=False)  # in place: names in the state dict stay
    return len(blocks)


def num_graphs() -> int:
    """How many graphs were compiled in this process since a combo was applied."""
    return int(counters["stats"]["unique_graphs"])


def forget() -> None:
    """Drop all that is compiled from this process, so that the next call starts from the caches on disk."""
    torch._dynamo.reset()
    clear_caches()
    gc.collect()


def check(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """What the compiler did in this process, and whether every block of a regional compilation was compiled."""
    if evidence.choice == "eager":
        return {}, None
    seen: dict[str, Any] = {
        "num_graphs": num_graphs(),
        "num_graph_breaks": sum(counters["graph_break"].values()),
        "num_recompiles": sum(bool(metrics.recompile_reason) for metrics in get_compilation_metrics()),
    }
    if evidence.choice != "regional":
        share = None if subject.records_steps else _share_compiled(trace, subject.uses_graphs)
        seen["share_compiled"] = share
        if share is None:
            return seen, None
        return seen, "" if share >= 0.9 else f"only {share:.0%} of the matmuls and convolutions ran in compiled code"
    # of the operators alone: on a CPU each of them stands among the kernels, too
    calls = trace.per_step(sum(op.event.name.startswith(_REGION_CALL) for op in trace.found.ops))
    seen["num_region_calls"] = calls
    if subject.uses_graphs:
        return seen, None  # a replay calls nothing
    promised = evidence.facts["num_regions"]
    return seen, "" if calls >= promised else f"only {calls:g} of the {promised} promised blocks ran compiled code"


def _share_compiled(trace: Trace, uses_graphs: bool) -> float | None:
    """The share of the matmuls and convolutions that compiled code made; None where none is seen.

    Of their calls in the forward. A compiler's CUDA graph replays without operators, so that those which are seen are
    what was left out of it: there, of the time of all matmul and convolution kernels, since one call of a backward
    launches several. (A Triton template is neither.) A recorded step would hide what was left out, too.
    """
    ops = trace.found.ops
    if uses_graphs:
        outside = sum(op.device_self_ns or 0 for op in ops if _is_within(op, _WORK) and not _is_within(op, _COMPILED))
        work = sum(kernel.duration_ns for kernel in trace.found.kernels if kernel.category in ("gemm", "conv"))
        whole = max(work, outside)
    else:
        calls = [op for op in ops if _WORK.match(op.event.name) and op.phase == "forward"]
        outside, whole = sum(not _is_within(op, _COMPILED) for op in calls), len(calls)
    return 1 - outside / whole if whole else None


def _is_within(op: Op, names: re.Pattern[str]) -> bool:
    """Whether the operator, or one that it is called in, has such a name."""
    one: Op | None = op
    while one and not names.match(one.event.name):
        one = one.parent
    return one is not None


def _keep_cpu_gradients() -> bool:
    """Switch Inductor's layout optimization off: on a CPU, torch 2.13 loses gradients with it.

    Seen on UNets of two and three levels: every parameter before the last up block gets a zero or partial gradient
    (docs/LOG.md tells how it was found). Removable once the gradient check passes without it on a newer torch.
    """
    inductor.layout_optimization = False
    return False
