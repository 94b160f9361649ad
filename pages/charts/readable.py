"""Numbers as a reader wants them: three significant digits, a unit, and a dash for what is unknown."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from profiler.record import UNSTEADY

UNKNOWN = "—"
_MARKS = frozenset("\\`*_{}[]()<>#+-.!|~$:&")  # ASCII punctuation that Markdown lets a backslash defuse
SHARES = ("mfu", "ceiling_share", "gpu_busy_share")


def escaped(text: str) -> str:
    """A text of others (a file's name, a kernel's) for Markdown: shown as it is, without links, images or signs."""
    return "".join(f"\\{letter}" if letter in _MARKS else letter for letter in text)


def number(value: Any, unit: str = "") -> str:
    """Three significant digits without an exponent where one can be avoided, e.g. '36.3 ms'."""
    if value is None or pd.isna(value):
        return UNKNOWN
    return f"{_digits(float(value))} {unit}".strip()


def metric(name: str, value: Any) -> str:
    """A field of Metrics as its name wants it: a share in percent, a count whole, else three digits."""
    if name in SHARES:
        return percent(value)
    if name.startswith("num_") and value is not None and not pd.isna(value):
        return f"{value:,.0f}"
    return number(value)


@dataclass(frozen=True, slots=True)
class MemoryUnit:
    """What an axis of memory counts in."""

    name: str
    per_gib: float


def memory_unit(largest_gib: Any) -> MemoryUnit:
    """GiB, or MiB for a chart whose largest value is below half a GiB."""
    is_small = pd.notna(largest_gib) and abs(largest_gib) < 0.5
    return MemoryUnit("MiB", 1024.0) if is_small else MemoryUnit("GiB", 1.0)


def median_step(step_ms: Any, num_samples: Any) -> str:
    """A step time with what it is of, e.g. '36.3 ms (median of 20 steps)'; a trace without steps has no median."""
    known = num_samples is not None and not pd.isna(num_samples)
    return f"{number(step_ms, 'ms')} (median of {num_samples:,.0f} steps)" if known else number(step_ms, "ms")


def memory_part(name: str) -> str:
    """What holds memory, e.g. 'optimizer state'."""
    return "temporaries" if name == "temporary" else name.replace("_", " ")


def gib(value: Any) -> str:
    """An amount of memory given in GiB; small ones are told in MiB."""
    if value is None or pd.isna(value):
        return UNKNOWN
    unit = memory_unit(value)
    return number(value * unit.per_gib, unit.name)


def times(value: Any) -> str:
    """A ratio, e.g. '2.31×'."""
    return UNKNOWN if value is None or pd.isna(value) else f"{_digits(float(value))}×"


def percent(value: Any) -> str:
    """A share of one, e.g. '37%'."""
    if value is None or pd.isna(value):
        return UNKNOWN
    return f"{value:.0%}" if abs(value) >= 0.1 else f"{value:.1%}"


def unsteady(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows (step_ms, step_iqr_ms) are of runs that their own pages call unsteady."""
    return rows["step_iqr_ms"] > UNSTEADY * rows["step_ms"]


def apart(row: Any, whose: str) -> str:
    """How far an unsteady run's steps lie apart, e.g. "half of its steps lie 34% apart"."""
    return f"half of {whose} steps lie {percent(row.step_iqr_ms / row.step_ms)} apart"


def gpu_waits(rows: pd.DataFrame) -> "pd.Series[str]":
    """How much of each step the GPU was idle, e.g. '2.0%', '45% (launches)' where that bound it, '12% (partly)' where
    that bound some of it; unknown on a CPU."""
    ends = {"gpu-bound": "", "partly launch-bound": " (partly)", "launch-bound": " (launches)"}
    verdicts = zip(rows["launch_verdict"], rows["gpu_busy_share"], strict=True)
    texts = [idle(share) + ends[by] if by in ends else UNKNOWN for by, share in verdicts]
    return pd.Series(texts, index=rows.index, dtype="str")


def idle(busy_share: Any) -> str:
    """The rest of a step in which the GPU was busy; none where the traced kernels took longer than the timed step."""
    return percent(None if pd.isna(busy_share) else max(0.0, 1 - busy_share))


def duration(seconds: Any) -> str:
    """Whole seconds, minutes or hours, e.g. '4 min 30 s'."""
    if seconds is None or pd.isna(seconds):
        return UNKNOWN
    whole = round(float(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def interval(value: Any, low: Any, high: Any) -> str:
    """A ratio with its interval, e.g. '2.31× (2.28 to 2.35)'."""
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return times(value)
    return f"{times(value)} ({_digits(float(low))} to {_digits(float(high))})"


def _digits(value: float) -> str:
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    if size >= 0.1:
        return f"{value:.3f}"
    if size >= 0.001:
        return f"{value:.3g}"
    return f"{value:.1e}"
