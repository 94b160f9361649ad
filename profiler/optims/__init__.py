"""The optimisation families, in the order in which they are applied."""

from collections.abc import Callable

from profiler.combo import Combo
from profiler.optims import attention, checkpointing, compilation, memory_format, optimizer, precision
from profiler.record import Evidence
from profiler.subject import Subject

Apply = Callable[[Subject, str], tuple[Subject, Evidence]]

ORDER: tuple[tuple[str, Apply], ...] = (
    ("precision", precision.apply),  # first: it may convert the weights that all others look at
    ("memory_format", memory_format.apply),  # before the optimizer copies the parameters' layout into its state
    ("attention", attention.apply),  # on the plain modules, before anything wraps them
    ("checkpointing", checkpointing.apply),  # inside the compiled region, so that the compiler sees it
    ("optimizer", optimizer.apply),  # needs the final parameters
    ("compilation", compilation.apply),  # last: it freezes the code path that the others have built
)


def apply_all(subject: Subject, combo: Combo) -> tuple[Subject, tuple[Evidence, ...]]:
    """Apply every family of the combo. Raises NotApplicable as soon as one cannot serve the model."""
    evidence = []
    for family, apply in ORDER:
        subject, found = apply(subject, getattr(combo, family))
        evidence.append(found)
    return subject, tuple(evidence)
