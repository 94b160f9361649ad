"""Vectors: fields of many events at once, as arrays of 64-bit numbers."""

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from operator import attrgetter
from typing import Any

import numpy as np

from profiler.traces.columns import Bools, Floats, Ints
from profiler.traces.decode import Event

LONGEST_US = 4e15  # 127 years: a start and a duration of that many microseconds add up in 64 bits of nanoseconds


class Codes(dict[Any, int]):
    """Numbers values in the order of their first appearance."""

    def __missing__(self, key: Any) -> int:
        code = self[key] = len(self)
        return code


def each(items: Sequence[Any], name: str) -> Iterable[Any]:
    return map(attrgetter(name), items)


def codes(codes: Codes, values: Iterable[Any], count: int) -> Ints:
    lookup: Callable[[Any], int] = codes.__getitem__
    return np.fromiter(map(lookup, values), np.int64, count)


def wrapped(value: Any) -> int:
    """A number's lower 64 bits, which still tell ids apart; -1 for what is no number (as the legacy stream's name)."""
    try:
        return (int(value) + 2**63) % 2**64 - 2**63
    except (TypeError, ValueError, OverflowError):
        return -1


def start_ns(events: Sequence[Event]) -> tuple[Ints, Bools]:
    """Starts in nanoseconds, and which of them are known."""
    if isinstance(events[0].ts, Decimal):
        known = np.array([event.ts.is_finite() and abs(event.ts) < LONGEST_US for event in events])  # type: ignore[union-attr, operator]
        exact = (int(event.ts * 1000) if fine else 0 for event, fine in zip(events, known, strict=True))
        return np.fromiter(exact, np.int64, len(events)), known
    micros = np.fromiter(each(events, "ts"), np.float64, len(events))
    known = np.isfinite(micros) & (np.abs(micros) < LONGEST_US)
    return to_ns(np.where(known, micros, 0)), known


def to_ns(micros: Floats) -> Ints:
    """Exact: a double holds the thousandths of microseconds that kineto writes, but not a thousand times the number."""
    whole = np.floor(micros)
    nanos: Ints = whole.astype(np.int64) * 1000 + np.rint((micros - whole) * 1000).astype(np.int64)
    return nanos
