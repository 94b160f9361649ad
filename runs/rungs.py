"""Rungs: what every sweep is made of; the baseline first, and once more at the end, so that drift is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from profiler.combo import BASELINE, FAMILIES, Combo, applies, choices
from profiler.record import Role
from profiler.workload import Workload

Models = Literal["zoo", "variants", "all"]

COMPARED_WITH = "what all others are compared with"
REPEAT = "the baseline again: how far the machine drifted meanwhile"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One run of a sweep to be, and why it is in it."""

    combo: Combo
    workload: Workload
    reason: str
    role: Role = "candidate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What can be chosen about a sweep, beyond its workload."""

    max_autotune: bool = field(
        default=False, metadata={"help": "Ladders: add a max_autotune rung (many minutes for a large UNet)."}
    )
    sdpa_kernels: bool = field(
        default=False,
        metadata={"help": "Ladders: force each of PyTorch's attention kernels (flash, efficient, cudnn) too."},
    )
    max_batch: int = field(
        default=64,
        metadata={"help": "scaling_batch: double the batch up to this, or until it does not fit. [default: 64]"},
    )
    models: Models = field(
        default="zoo",
        metadata={
            "help": "scaling_model: the zoo's models, sd15 and its variants in width and depth, or all of both. "
            "[default: zoo]"
        },
    )
    vary: str = field(
        default="",
        metadata={
            "help": "around: the families whose choices are exchanged, or single choices of them, "
            "e.g. attention,compilation=regional. [default: all but max_autotune]"
        },
    )
    families: Mapping[str, Sequence[str]] = field(default_factory=dict)  # family -> choices, for the sweeps that ask


class Ladder:
    """Collects rungs: each changes some choices of the one before, or branches off it."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.rungs = [Rung(combo=BASELINE, workload=workload, reason=COMPARED_WITH, role="baseline")]
        self.combo = BASELINE

    def step(self, reason: str, **choice: Any) -> None:
        """A rung that the next ones stand on."""
        self.combo = replace(self.combo, **choice)
        self.branch(reason)

    def branch(self, reason: str, **choice: Any) -> None:
        """A rung aside: the next ones do not stand on it."""
        combo = replace(self.combo, **choice)
        self.rungs.append(Rung(combo=combo, workload=self.workload, reason=reason))

    def end(self) -> list[Rung]:
        return [*self.rungs, replace(self.rungs[0], reason=REPEAT, role="baseline_repeat")]


def checked_families(families: Mapping[str, Sequence[str]], mode: str) -> dict[str, list[str]]:
    """The lists of choices that can make a difference in this mode.

    Raises ValueError for an unknown family or choice, and for one that makes no difference.
    """
    lists = {family: _checked(family, chosen) for family, chosen in families.items()}
    for family, chosen in lists.items():
        if not applies(family, mode) and set(chosen) - {choices(family)[0]}:
            raise ValueError(f"{family} makes no difference with mode={mode}: leave it out, or choose mode=train")
    return {family: chosen for family, chosen in lists.items() if chosen and applies(family, mode)}


def _checked(family: str, chosen: Sequence[str]) -> list[str]:
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}: the families are {', '.join(FAMILIES)}")
    unknown = [choice for choice in chosen if choice not in choices(family)]
    if unknown:
        raise ValueError(f"unknown {family} {', '.join(unknown)}: choose from {', '.join(choices(family))}")
    return list(chosen)
