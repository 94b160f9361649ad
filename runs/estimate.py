"""Estimate: how long jobs take, as a range: from earlier runs where there are any, else by rule of thumb."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from profiler.combo import Combo
from profiler.workload import Workload
from runs.job import Job


class Like(NamedTuple):
    """What runs share that take about as long as one another."""

    model: str
    mode: str
    compilation: str
    device: str
    batch: int
    resolution: int


Durations = Mapping[Like, tuple[float, ...]]  # seconds of each run of this home that measured to its end

# Rough figures of a whole job, torch's import included. On two CPU cores the tiny model took 7 to 22 s (inference)
# and 14 to 43 s (train), compiled 56 to 176 s and 120 to 250 s, depending on the cores and what else they did; an
# H200 took 8 s (SD1.5 inference) and 16 s (train) and compiles it in 50 to 140 s.
_START_S = {"cuda": 8.0, "cpu": 12.0}
_LOAD_S = 6.0  # torch's import, which comes before what a record calls its duration
_MEASURE_S = {"cuda": 9.0, "cpu": 8.0}  # passes of a few seconds each, trace and checks
_COMPILE_S: dict[str, dict[str, float]] = {
    "cuda": {"eager": 0.0, "regional": 20.0, "default": 55.0, "reduce_overhead": 65.0, "max_autotune": 1200.0},
    "cpu": {"eager": 0.0, "regional": 100.0, "default": 150.0, "reduce_overhead": 150.0, "max_autotune": 1200.0},
}
_SIZE = {"tiny": 0.1, "ddpm-cifar10": 0.3, "sd15": 1.0, "sd2": 1.0, "sdxl": 1.8}
_CPU_SLOWER = 30.0  # a CPU core pair against a GPU, per step, for models that are not tiny
_REPEATED = 1.25  # runs of the very same kind again: within that much beyond those seen
_GUESSED = 2.0  # a rule of thumb, or a run of another batch: within that much either way


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Seconds that something takes: likely, and between which bounds. Rough: no run of the same kind tells a part."""

    low_s: float = 0.0
    likely_s: float = 0.0
    high_s: float = 0.0
    is_rough: bool = False

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(
            low_s=self.low_s + other.low_s,
            likely_s=self.likely_s + other.likely_s,
            high_s=self.high_s + other.high_s,
            is_rough=self.is_rough or other.is_rough,
        )

    @property
    def words(self) -> str:
        """No finer than it is known, e.g. '3 to 6 min'."""
        if not self.high_s:
            return "no time"
        size, unit = (10.0, "s") if self.high_s < 100 else (60.0, "min") if self.high_s < 5400 else (3600.0, "h")
        low, high = (max(1, round(seconds / size)) for seconds in (self.low_s, self.high_s))
        if unit == "s":
            low, high = 10 * low, 10 * high
        return f"about {high} {unit}" if low == high else f"{low} to {high} {unit}"


def estimate(jobs: Iterable[Job], durations: Durations | None = None) -> Estimate:
    """How long the jobs take one after another."""
    return sum((estimate_job(job, durations) for job in jobs), start=Estimate())


def estimate_job(job: Job, durations: Durations | None = None) -> Estimate:
    """How long one job takes, at most its timeout: by runs of its like, or of its like at any batch, or rule of thumb.

    The bounds hold the middle half of what earlier runs took: one more narrows a plan's range and seldom moves it.
    """
    seen = durations or {}
    if job.kind == "measure":
        kind = like(job.combo, job.workload)
        if same := seen.get(kind):
            return _of_earlier(same, _REPEATED, job)
        if alike := tuple(seconds for other, all_s in seen.items() if other[:4] == kind[:4] for seconds in all_s):
            return _of_earlier(alike, _GUESSED, job)
    guess = _START_S["cuda"] if job.kind == "probe" else _rule_of_thumb_s(job)
    return _within(guess, [guess], _GUESSED, job, is_rough=job.kind == "measure")


def like(combo: Combo, workload: Workload) -> Like:
    """The kind of a run of this combo on this workload."""
    return Like(
        model=workload.model,
        mode=workload.mode,
        compilation=combo.compilation,
        device=workload.device,
        batch=workload.batch,
        resolution=workload.resolution,
    )


def _of_earlier(seconds: tuple[float, ...], factor: float, job: Job) -> Estimate:
    whole = sorted(_LOAD_S + one for one in seconds)
    end = len(whole) // 4  # the middle half: one run that was disturbed moves nothing
    return _within(whole[len(whole) // 2], whole[end : len(whole) - end], factor, job, is_rough=factor == _GUESSED)


def _within(likely: float, seen: list[float], factor: float, job: Job, *, is_rough: bool) -> Estimate:
    low, high = min(seen) / factor, max(seen) * factor
    low, likely, high = (min(seconds, job.timeout_s) for seconds in (low, likely, high))
    return Estimate(low_s=low, likely_s=likely, high_s=high, is_rough=is_rough)


def _rule_of_thumb_s(job: Job) -> float:
    workload, compilation = job.workload, job.combo.compilation
    size = _SIZE.get(workload.model, 1.0)
    slower = _CPU_SLOWER if workload.device == "cpu" and size > 0.1 else 1.0
    training, backward = (1.7, 2.4) if workload.mode == "train" else (1.0, 1.0)
    compiling = _COMPILE_S[workload.device][compilation] * max(size, 0.6) * backward if job.kind == "measure" else 0.0
    measuring = (_MEASURE_S[workload.device] * max(size, 0.3) + workload.min_seconds) * training * slower
    return _START_S[workload.device] + measuring + compiling
