"""CUDA graphs: the whole step recorded once and replayed as a single launch, without a compiler.

An eager SD1.5 forward launches about 800 operators, a training step with a for-loop optimizer ten times as many. Where
the CPU needs longer to launch them than the GPU to run them, the GPU waits. A graph (torch.cuda.CUDAGraph) keeps the
kernels with their arguments: replaying it costs the CPU one call, so that a step takes what its kernels take, max(CPU,
GPU) becoming GPU. compilation=reduce_overhead does the same for what Inductor compiled, forward and backward alone.

- whole_step, training: forward, loss, backward and optimizer are one graph; inference and sampling: each forward is.

Cost: everything is at fixed addresses. Batches are copied into buffers, a result is overwritten by the next step, and
intermediates stay in a memory pool that the graph owns: reserved memory, though allocated memory looks small. Nothing
may ask the GPU for a value: GradScaler does, torchao's optimizer is not capturable, dropout under checkpointing reads
the random-number state. Learning rate and shapes are frozen. The cache of autocast's casts is off: a graph must not
refer to a tensor that was cast outside of it. Phases of a replayed step cannot be told apart.

Sources: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs, MLPerf's Stable Diffusion training entries.
"""

from dataclasses import replace
from typing import Any

from torch import nn

from profiler.record import Evidence
from profiler.schedulers import num_forwards
from profiler.subject import NotApplicable, Subject
from profiler.tracing import Trace

GRAPH_LAUNCH = "cudaGraphLaunch"
_GRAPHS = {"graph launches": GRAPH_LAUNCH + "|cuGraphLaunch"}
_KERNEL_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel")  # and their variants with Ex and ExC
# Share of a step's kernels that may be launched one by one. In sampling the scheduler's arithmetic and the projections
# of the text are: 25 kernels a step and 3 a projection, against 200 of a very small UNet's forward.
_LOOSE = {"inference": 0.1, "train": 0.1, "sample": 0.25}


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Have profiler/steps.py record the steps that it makes.

    Raises NotApplicable where checkpointed blocks drop out.
    """
    if choice == "off":
        by_compiler = subject.combo.compilation in ("reduce_overhead", "max_autotune")
        return subject, Evidence(family="cuda_graphs", choice=choice, must_not_appear={} if by_compiler else _GRAPHS)
    if subject.combo.checkpointing != "none" and _drops_out(subject):
        raise NotApplicable(
            "cuda_graphs=whole_step: this UNet's dropout makes checkpointing read the random-number state, which a "
            "recorded step may not: choose checkpointing=none"
        )
    workload = subject.workload
    launches = num_forwards(workload) if workload.mode == "sample" else 1
    return replace(subject, uses_graphs=True, records_steps=True), Evidence(
        family="cuda_graphs", choice=choice, facts={"num_graph_launches": launches}, must_appear=_GRAPHS
    )


def _drops_out(subject: Subject) -> bool:
    return any(module.p > 0 for module in subject.unet.modules() if isinstance(module, nn.Dropout))


def check(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """Graph launches per step as promised, and hardly a kernel launched beside them."""
    if evidence.choice == "off":
        return {}, None
    calls = trace.found.launches
    graphs = trace.per_step(sum(name.startswith(GRAPH_LAUNCH) for name in calls))
    alone = trace.per_step(sum(name.startswith(_KERNEL_LAUNCHES) for name in calls))
    seen = {"num_graph_launches": graphs, "num_kernel_launches": alone}
    promised = evidence.facts["num_graph_launches"]
    if graphs != promised:
        return seen, f"{graphs:g} graph launches per step, not {promised}"
    if alone > _LOOSE[subject.workload.mode] * trace.num_kernels:
        return seen, f"{alone:g} of {trace.num_kernels:g} kernels per step are launched one by one"
    return seen, ""
