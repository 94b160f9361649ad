"""Estimate: about how long jobs take, from earlier runs where there are any, else by rule of thumb."""

from collections.abc import Iterable, Mapping

from runs.job import Job

Durations = Mapping[tuple[str, str, str, str], float]  # (model, mode, compilation, device) -> seconds

# Rough figures of a whole job, torch's import included. On two CPU cores the tiny model took 5 to 8 s (inference)
# and 9 to 11 s (train), compiled 56 and 120 s; an H200 took 8 s (SD1.5 inference) and 16 s (train) and compiles it
# in 50 to 140 s.
_START_S = {"cuda": 8.0, "cpu": 4.0}
_LOAD_S = 6.0  # torch's import, which comes before what a record calls its duration
_MEASURE_S = {"cuda": 9.0, "cpu": 8.0}  # passes of a few seconds each, trace and checks
_COMPILE_S = {"eager": 0.0, "regional": 20.0, "default": 55.0, "reduce_overhead": 65.0, "max_autotune": 1200.0}
_SIZE = {"tiny": 0.1, "ddpm-cifar10": 0.3, "sd15": 1.0, "sd2": 1.0, "sdxl": 1.8}
_CPU_SLOWER = 30.0  # a CPU core pair against a GPU, per step, for models that are not tiny


def estimate_s(jobs: Iterable[Job], durations: Durations | None = None) -> float:
    """Seconds that the jobs take one after another; rough unless all of them were run before."""
    return sum(estimate_job_s(job, durations) for job in jobs)


def is_rough(jobs: Iterable[Job], durations: Durations | None = None) -> bool:
    """Whether the estimate rests on rules of thumb for at least one measured job."""
    return any(job.kind == "measure" and _key(job) not in (durations or {}) for job in jobs)


def estimate_job_s(job: Job, durations: Durations | None = None) -> float:
    """Seconds of one job: the median of its like before, else by rule of thumb."""
    if job.kind == "probe":
        return _START_S["cuda"]
    known = (durations or {}).get(_key(job)) if job.kind == "measure" else None
    return _LOAD_S + known if known is not None else _rule_of_thumb_s(job)


def _rule_of_thumb_s(job: Job) -> float:
    workload, compilation = job.workload, job.combo.compilation
    size = _SIZE.get(workload.model, 1.0)
    slower = _CPU_SLOWER if workload.device == "cpu" and size > 0.1 else 1.0
    training, backward = (1.7, 2.4) if workload.mode == "train" else (1.0, 1.0)
    compiling = _COMPILE_S[compilation] * max(size, 0.6) * backward if job.kind == "measure" else 0.0
    measuring = (_MEASURE_S[workload.device] * max(size, 0.3) + workload.min_seconds) * training * slower
    return min(_START_S[workload.device] + measuring + compiling, job.timeout_s)


def _key(job: Job) -> tuple[str, str, str, str]:
    workload = job.workload
    return (workload.model, workload.mode, job.combo.compilation, workload.device)
