"""Parallelism: several processes share one step, each with a GPU of its own.

The batch is that of all processes together, so that a run is the same work whatever its world_size, and its speedup
over one process is honest (strong scaling: more processes get less each).

- ddp: every process has the whole UNet and a part of the batch; gradients are averaged by all-reduce, in buckets, while
  the backward still runs (DistributedDataParallel, arXiv 2006.15704). A ring moves 2(N-1)/N of the gradients' bytes per
  GPU: 1.7 GB of bf16 for SD1.5. Buckets are views of the gradients and the graph is static, which saves a copy and
  lets checkpointed blocks pass.
- fsdp2: the same split of the batch, but each process keeps only 1/N of parameters, gradients and optimizer state.
- tensor: every process sees the whole batch and computes some of the heads and feed-forward columns.
- pipeline: one process runs the way down, the other the rest, on micro-batches.
- cfg: two processes, one runs the unconditional and one the conditional half of guidance; one all-gather of the noise
  prediction per denoising step. Exact, and it leaves the UNet as it is: the simplest use of two GPUs for one image.

With world_size=1 ddp, fsdp2 and tensor show what their machinery costs by itself. Applied before the families that
count or hold parameters, since it may shard or drop them. profiler/optims/ has a file for each of the longer ones.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from profiler import ranks
from profiler.optims import pipeline_parallel, sharded_data_parallel, tensor_parallel
from profiler.record import Evidence
from profiler.sampling import guides
from profiler.schedulers import num_forwards
from profiler.subject import NotApplicable, Subject
from profiler.traces.messages import Message, messages_of
from profiler.tracing import Trace

_CLOSE = 0.01  # of bytes: padding to whole elements per rank


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Join the other processes and share the step with them. Raises NotApplicable for a UNet that cannot be split."""
    if choice == "none":
        return subject, Evidence(family="parallelism", choice=choice)
    subject = replace(subject, parallel=ranks.Parallel(world=ranks.join(subject.workload)))
    subject, facts = _APPLY[choice](subject)
    return subject, Evidence(
        family="parallelism", choice=choice, facts={"world_size": subject.parallel.world.size} | facts
    )


def _ddp(subject: Subject) -> tuple[Subject, dict[str, Any]]:
    wrapped = DistributedDataParallel(subject.unet, gradient_as_bucket_view=True, static_graph=True)
    trained = [parameter for parameter in subject.unet.parameters() if parameter.requires_grad]
    facts = {"gradient_bytes": sum(parameter.nbytes for parameter in trained)}
    return replace(subject, call=wrapped, parallel=replace(subject.parallel, splits_batch=True)), facts


def _cfg(subject: Subject) -> tuple[Subject, dict[str, Any]]:
    if not guides(subject):
        raise NotApplicable("parallelism=cfg: this UNet takes no condition that guidance could drop; choose none")
    parallel = replace(subject.parallel, splits_guidance=True)
    return replace(subject, parallel=parallel), {"num_exchanges": num_forwards(subject.workload)}


def check(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """What was sent in a step, against what the strategy must send."""
    messages = messages_of(trace.attribution)
    if evidence.choice == "none":
        return {}, f"{len(messages)} messages are sent to other processes" if messages else ""
    kinds = Counter(one.kind for one in messages)
    seen = {f"num_{kind}": trace.per_step(number) for kind, number in sorted(kinds.items())}
    facts, finding = _CHECK[evidence.choice](evidence, messages, trace, subject)
    return seen | facts, finding


def _check_ddp(
    evidence: Evidence, messages: list[Message], trace: Trace, subject: Subject
) -> tuple[dict[str, Any], str]:
    if subject.workload.mode != "train":
        return {}, ""
    sizes = [one.num_bytes for one in messages if one.kind == "all_reduce"]
    if None in sizes:
        return {}, "the trace does not say how much is averaged"
    reduced = trace.per_step(sum(size for size in sizes if size is not None))
    promised = evidence.facts["gradient_bytes"]
    is_close = abs(reduced - promised) <= _CLOSE * promised
    return {"reduced_bytes": reduced}, "" if is_close else f"{reduced:.0f} bytes are averaged per step, not {promised}"


def _check_cfg(
    evidence: Evidence, messages: list[Message], trace: Trace, subject: Subject
) -> tuple[dict[str, Any], str]:
    found = trace.per_step(sum(one.kind == "all_gather" for one in messages))
    promised = evidence.facts["num_exchanges"]
    return {}, "" if found == promised else f"{found:g} exchanges of the noise prediction per image, not {promised}"


_APPLY: dict[str, Callable[[Subject], tuple[Subject, dict[str, Any]]]] = {
    "ddp": _ddp,
    "fsdp2": sharded_data_parallel.apply,
    "tensor": tensor_parallel.apply,
    "pipeline": pipeline_parallel.apply,
    "cfg": _cfg,
}
_CHECK: dict[str, Callable[[Evidence, list[Message], Trace, Subject], tuple[dict[str, Any], str]]] = {
    "ddp": _check_ddp,
    "fsdp2": sharded_data_parallel.check,
    "tensor": tensor_parallel.check,
    "pipeline": pipeline_parallel.check,
    "cfg": _check_cfg,
}
