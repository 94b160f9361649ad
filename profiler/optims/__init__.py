"""The optimisation families, in the order in which they are applied."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from profiler.combo import Combo
from profiler.optims import (
    attention,
    checkpointing,
    compilation,
    cuda_graphs,
    fusion,
    memory_format,
    optimizer,
    parallelism,
    precision,
    quantization,
)
from profiler.record import Evidence
from profiler.subject import Subject
from profiler.tracing import Trace

Apply = Callable[[Subject, str], tuple[Subject, Evidence]]
# What the trace says beyond names that must or must not appear: facts, and a finding ("" is good, None is not checked).
Check = Callable[[Evidence, Trace, Subject], tuple[dict[str, Any], str | None]]


@dataclass(frozen=True, slots=True)
class Family:
    """How a family's choices are applied, and how a trace proves them."""

    apply: Apply
    check: Check | None = None


FAMILY: dict[str, Family] = {
    # first: it may convert the weights that all others look at
    "precision": Family(precision.apply, precision.check),
    # before the optimizer copies the parameters' layout into its state
    "memory_format": Family(memory_format.apply, memory_format.check),
    # changes the parameters that the optimizer gets, and the projections that attention calls
    "fusion": Family(fusion.apply, fusion.check),
    # on the plain modules, before anything wraps them
    "attention": Family(attention.apply, attention.check),
    # on the layers that are left, in the dtype that they have; before anything refers to their parameters
    "quantization": Family(quantization.apply, quantization.check),
    # before whatever counts blocks or holds parameters: a pipeline keeps one stage's, FSDP shards them
    "parallelism": Family(parallelism.apply, parallelism.check),
    # inside the compiled region, so that the compiler sees it
    "checkpointing": Family(checkpointing.apply, checkpointing.check),
    # needs the final parameters
    "optimizer": Family(optimizer.apply, optimizer.check),
    # it freezes the code path that the others have built
    "compilation": Family(compilation.apply, compilation.check),
    # last: it records what the compiled code launches, too
    "cuda_graphs": Family(cuda_graphs.apply, cuda_graphs.check),
}


def apply_all(subject: Subject, combo: Combo) -> tuple[Subject, tuple[Evidence, ...]]:
    """Apply every family of the combo. Raises NotApplicable as soon as one cannot serve the model."""
    evidence = []
    subject = replace(subject, combo=combo)
    for name, family in FAMILY.items():
        subject, found = family.apply(subject, getattr(combo, name))
        evidence.append(found)
    return subject, tuple(evidence)
