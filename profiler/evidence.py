"""Evidence for a reader: what was done and observed, the verdict, and why no verdict is no failure."""

from collections.abc import Mapping
from typing import Any, Literal

from profiler.combo import Combo, choices

Verdict = Literal["confirmed", "not confirmed", "out of sight", "nothing to show"]

NO_MARK = "a baseline choice leaves no mark of its own in a trace"

# What the trace's operators say of a family, where they are there.
_OPERATORS_TELL = {
    "attention": "which layers ran which kernel",
    "precision": "which types the matmuls take",
    "memory_format": "in which layout convolutions get their images",
    "fusion": "which fused operators a forward calls",
    "quantization": "which products are in 8 bits",
    "checkpointing": "what runs again in the backward",
    "optimizer": "which operators update the parameters",
    "parallelism": "which collectives are called",
    "compilation": "which blocks ran compiled code",
    "cuda_graphs": "which graphs are launched",
}


def replays_graphs(combo: Combo, device: str) -> bool:
    """Whether the step, or what a compiler made of it, replays CUDA graphs: its trace has kernels without operators."""
    return device == "cuda" and (combo.cuda_graphs != "off" or combo.compilation in ("reduce_overhead", "max_autotune"))


def verdict(family: str, choice: str, confirmed: bool | None) -> Verdict:
    """What the trace says of a choice, in two words; the baseline's leave no mark to look for."""
    if confirmed is not None:
        return "confirmed" if confirmed else "not confirmed"
    return "nothing to show" if choice == choices(family)[0] else "out of sight"


def why_no_verdict(family: str, choice: str, confirmed: bool | None, combo: Combo, device: str) -> str:
    """What is out of sight and why; empty where nothing is. combo, device: all of the run's choices."""
    if verdict(family, choice, confirmed) != "out of sight":
        return ""
    unseen = f"{_OPERATORS_TELL[family]} cannot be seen"
    if replays_graphs(combo, device):
        return f"{unseen}: a replayed CUDA graph shows kernels, not the operators that launched them at its recording"
    if combo.compilation != "eager":
        return f"{unseen}: compiled code puts kernels of its own in the place of operators"
    return f"{unseen}: the run has no trace that could tell"


def facts_in_words(facts: Mapping[str, Any]) -> str:
    """Evidence's facts or observations for a reader, e.g. 'layers: 8; head dims: 16 (6 times); none: flex'."""
    absent = [name for name, value in facts.items() if type(value) is int and not value and _counts_by_name(name)]
    said = [_fact(name, value) for name, value in facts.items() if name not in absent]
    return "; ".join([*said, f"none: {', '.join(map(_spelt, absent))}"] if absent else said)


def _counts_by_name(name: str) -> bool:
    return not name.startswith("num_") and not name.endswith("_bytes")


def _fact(name: str, value: Any) -> str:
    words = _spelt(name)
    if name == "note":
        return str(value)
    if isinstance(value, bool):
        return words if value else f"{words}: no"
    if isinstance(value, int | float) and name.startswith("share_"):
        return f"{value:.0%} {words.removeprefix('share ')}"
    if isinstance(value, int | float) and name.endswith("_bytes"):
        return f"{words.removesuffix(' bytes')}: {value / 2**20:,.4g} MiB"
    return f"{words.removeprefix('num ')}: {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            ", ".join(
                f"{key} ({inner} times)" if type(inner) is int else f"{key} {_value(inner)}"
                for key, inner in value.items()
            )
            or "none seen"
        )
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return f"{value:.10g}" if isinstance(value, float) else "unknown" if value is None else str(value)


def _spelt(name: str) -> str:
    return name if name.startswith(("flash_attn", "sdpa_")) else name.replace("_", " ")
