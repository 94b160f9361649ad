"""Timing, drawn as one run goes (each | is a pass of its own; only `time` gives times):

  build | apply | first call | fidelity | warm up | time            | energy     | memory | trace | verify
                  compile      outputs    until     >= min_samples    NVML at      peaks,   torch.  evidence
                  timed apart  gradients  steady    >= min_seconds    20 Hz        split    profiler

No profiler, no NVML polling and no synchronise happen between two timed steps; a step's time runs from its mark to
the next one's, so launch gaps count. Inputs rotate, so that no step meets its own data in a cache.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from profiler.clock import Clock
from profiler.steps import Step, no_phase
from profiler.subject import Inputs

Agree = Callable[[bool], bool]  # the first rank's answer, where several run the same loop

CHUNK = 10  # steps between two synchronisations, so that the loop can look at the time
STEADY = 0.02  # warm when two neighbouring medians differ by less
MAX_WARM_UP = 30
WARM_UP_BUDGET = 5.0  # times the workload's min_seconds: the longest that warming up may take after three steps
MAX_TIMED = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Samples of one timing pass, in milliseconds."""

    step_ms: tuple[float, ...]
    phase_ms: dict[str, tuple[float, ...]]
    host_enqueue_ms: tuple[float, ...]  # CPU time of the first step after each synchronise


def alone(holds: bool) -> bool:
    return holds


def warm_up(
    step: Step,
    inputs: Sequence[Inputs],
    clock: Clock,
    *,
    min_seconds: float,
    before: Sequence[float] = (),
    now: Callable[[], float] = time.monotonic,
    agree: Agree = alone,
) -> int:
    """Repeat the step until the medians of two neighbouring groups of three agree; returns how many it took.

    Steps that were taken just before, in milliseconds, count. A workload that is timed for a short while is warmed up
    for a short while, too.
    """
    taken = list(before[-6:])
    started, times = now(), taken.copy()
    while agree(not _is_warm(times, now() - started > WARM_UP_BUDGET * min_seconds)):
        start = clock.mark()
        step(inputs[len(times) % len(inputs)], no_phase)
        end = clock.mark()
        clock.synchronize()
        times.append(clock.between_ms(start, end))
    return len(times) - len(taken)


def _is_warm(times: Sequence[float], is_late: bool) -> bool:
    if len(times) >= MAX_WARM_UP or (len(times) >= 3 and is_late):
        return True
    if len(times) < 6:
        return False
    older, newer = statistics.median(times[-6:-3]), statistics.median(times[-3:])
    return abs(newer - older) <= STEADY * older


def time_steps(
    step: Step,
    inputs: Sequence[Inputs],
    clock: Clock,
    *,
    min_samples: int,
    min_seconds: float,
    now: Callable[[], float] = time.monotonic,
    agree: Agree = alone,
) -> Timing:
    """Time steps until both minima are reached (at most 2000 steps)."""
    started = now()
    recorder = _PhaseRecorder(clock)
    step_ms, enqueue_ms = list[float](), list[float]()
    while agree(len(step_ms) < MAX_TIMED and (len(step_ms) < min_samples or now() - started < min_seconds)):
        size = min(CHUNK, min_samples - len(step_ms)) if len(step_ms) < min_samples else CHUNK
        clock.synchronize()
        marks = [clock.mark()]
        for index in range(size):
            launched = time.perf_counter()
            step(inputs[(len(step_ms) + index) % len(inputs)], recorder.phase)
            if index == 0:
                enqueue_ms.append((time.perf_counter() - launched) * 1e3)
            marks.append(clock.mark())
        clock.synchronize()
        step_ms += [clock.between_ms(a, b) for a, b in itertools.pairwise(marks)]
    return Timing(step_ms=tuple(step_ms), phase_ms=recorder.read(len(step_ms)), host_enqueue_ms=tuple(enqueue_ms))


def repeat_for(
    step: Step, inputs: Sequence[Inputs], clock: Clock, *, seconds: float, at_least: int = 3, agree: Agree = alone
) -> int:
    """Repeat the step for about `seconds`, for the energy pass; returns the number of steps, all finished."""
    started, count = time.monotonic(), 0
    while agree(count < at_least or time.monotonic() - started < seconds):
        step(inputs[count % len(inputs)], no_phase)
        count += 1
        if count % CHUNK == 0 or count <= at_least:
            clock.synchronize()
    clock.synchronize()
    return count


class _PhaseRecorder:
    """Marks both ends of every phase; phases that occur several times in a step are summed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._marks: dict[str, list[tuple[object, object]]] = {}

    def phase(self, name: str) -> AbstractContextManager[object]:
        return self._recorded(name)

    @contextmanager
    def _recorded(self, name: str) -> Iterator[None]:
        start = self._clock.mark()
        yield
        self._marks.setdefault(name, []).append((start, self._clock.mark()))

    def read(self, num_steps: int) -> dict[str, tuple[float, ...]]:
        return {name: self._per_step(marks, num_steps) for name, marks in self._marks.items()}

    def _per_step(self, marks: list[tuple[object, object]], num_steps: int) -> tuple[float, ...]:
        times = [self._clock.between_ms(start, end) for start, end in marks]
        each = len(times) // num_steps
        return tuple(sum(times[at : at + each]) for at in range(0, len(times), each))
