"""Timing on a clock that only moves when a step says so."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from profiler import measure
from profiler.clock import CpuClock
from profiler.measure import CHUNK, MAX_TIMED, MAX_WARM_UP, time_steps, warm_up
from profiler.subject import Inputs

INPUTS = [Inputs(sample=torch.full((1,), float(i)), timestep=torch.zeros(1), target=torch.zeros(1)) for i in range(3)]


class FakeClock:
    """Milliseconds that pass when told; a mark is the moment it was made."""

    def __init__(self) -> None:
        self.now_ms, self.num_synchronisations = 0.0, 0

    def mark(self) -> float:
        return self.now_ms

    def between_ms(self, start: float, end: float) -> float:
        return end - start

    def synchronize(self) -> None:
        self.num_synchronisations += 1

    def seconds(self) -> float:
        return self.now_ms / 1e3


class FakeStep:
    """Takes the given milliseconds, the last of them for ever; remembers which inputs it met."""

    def __init__(self, clock: FakeClock, *durations_ms: float) -> None:
        self.clock, self.durations_ms, self.met = clock, list(durations_ms), list[int]()

    def __call__(self, inputs: Inputs, phase: Callable[[str], AbstractContextManager[object]]) -> torch.Tensor:
        self.met.append(int(inputs.sample))
        duration = self.durations_ms.pop(0) if len(self.durations_ms) > 1 else self.durations_ms[0]
        for name, share in (("forward", 0.25), ("backward", 0.5), ("forward", 0.25)):
            with phase(name):
                self.clock.now_ms += duration * share
        return inputs.sample


def timed(*durations_ms: float, min_samples: int = 1, min_seconds: float = 0.0) -> tuple[Any, FakeClock, FakeStep]:
    clock = FakeClock()
    step = FakeStep(clock, *durations_ms)
    timing = time_steps(step, INPUTS, clock, min_samples=min_samples, min_seconds=min_seconds, now=clock.seconds)
    return timing, clock, step


def test_every_step_is_a_sample() -> None:
    timing, _, _ = timed(3.0, 1.0, 2.0, 9.0, min_samples=4)
    assert timing.step_ms == (3.0, 1.0, 2.0, 9.0)


def test_phases_that_occur_twice_are_summed() -> None:
    timing, _, _ = timed(4.0, 8.0, min_samples=2)
    assert timing.phase_ms == {"forward": (2.0, 4.0), "backward": (2.0, 4.0)}


def test_a_step_without_phases_has_none() -> None:
    clock = FakeClock()
    timing = time_steps(lambda inputs, phase: inputs.sample, INPUTS, clock, min_samples=3, min_seconds=0)
    assert timing.phase_ms == {}
    assert len(timing.step_ms) == 3


@pytest.mark.parametrize("min_samples", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 2])
def test_as_many_steps_as_asked_when_time_is_no_limit(min_samples: int) -> None:
    timing, _, _ = timed(1.0, min_samples=min_samples)
    assert len(timing.step_ms) == min_samples


def test_the_seconds_are_reached_in_whole_chunks() -> None:
    timing, clock, _ = timed(10.0, min_samples=2, min_seconds=1.0)
    assert clock.seconds() >= 1.0
    assert len(timing.step_ms) == 2 + 10 * CHUNK


def test_timing_ends_for_a_step_that_takes_no_time() -> None:
    timing, _, _ = timed(0.0, min_seconds=1.0)
    assert MAX_TIMED <= len(timing.step_ms) < MAX_TIMED + CHUNK


def test_the_device_is_waited_for_around_chunks_only() -> None:
    timing, clock, _ = timed(1.0, min_samples=3 * CHUNK)
    assert clock.num_synchronisations == 2 * 3
    assert len(timing.host_enqueue_ms) == 3


def test_inputs_rotate_through_chunks() -> None:
    _, _, step = timed(1.0, min_samples=CHUNK + 4)
    assert step.met == [index % 3 for index in range(CHUNK + 4)]


def _warm(*durations_ms: float, min_seconds: float = 2.0, before: Sequence[float] = ()) -> int:
    clock = FakeClock()
    step = FakeStep(clock, *durations_ms)
    return warm_up(step, INPUTS, clock, min_seconds=min_seconds, before=before, now=clock.seconds)


def test_warm_up_ends_when_two_medians_agree() -> None:
    assert _warm(10.0) == 6
    assert _warm(100.0, 50.0, 30.0, 20.0, 10.0) == 9  # medians of steps 4 to 6 and 7 to 9 are the first to agree
    assert _warm(10.0, 10.0, 10.0, 99.0, 10.1, 10.1) == 6  # a single outlier does not count


def test_steps_that_were_taken_before_are_part_of_warming_up() -> None:
    assert _warm(10.0, before=[99.0] * 60 + [10.0] * 6) == 0
    assert _warm(10.0, before=[10.0] * 4) == 2
    assert _warm(10.0, before=[50.0, 40.0, 30.0, 20.0, 15.0, 10.0]) == 4


def test_warm_up_gives_up_on_a_step_that_never_settles() -> None:
    assert _warm(*(2.0**index for index in range(60))) < MAX_WARM_UP  # by its seconds
    assert _warm(*(1.0 + 0.1 * index for index in range(60))) == MAX_WARM_UP


def test_warm_up_of_a_slow_step_takes_three() -> None:
    assert _warm(60_000.0) == 3


def test_a_short_measurement_warms_up_for_a_short_while() -> None:
    growing = [100.0 * 1.1**index for index in range(60)]
    assert 3 < _warm(*growing, min_seconds=0.2) < _warm(*growing) < MAX_WARM_UP
    assert _warm(*growing, min_seconds=0.0) == 3


def test_repeating_counts_finished_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(measure.time, "monotonic", clock.seconds)
    assert measure.repeat_for(FakeStep(clock, 100.0), INPUTS, clock, seconds=2.0) == 20
    assert measure.repeat_for(FakeStep(clock, 5000.0), INPUTS, clock, seconds=2.0) == 3


def test_a_step_that_fails_takes_its_error_with_it() -> None:
    def broken(inputs: Inputs, phase: Callable[[str], AbstractContextManager[object]]) -> torch.Tensor:
        with phase("forward"):
            raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError, match="no kernel"):
        time_steps(broken, INPUTS, FakeClock(), min_samples=1, min_seconds=0)


def test_the_cpu_clock_counts_milliseconds() -> None:
    assert CpuClock().between_ms(1.0, 1.25) == 250.0
