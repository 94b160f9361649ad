"""Supervise one worker: wait for it, or end it for a reason."""

import subprocess
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from runs.budget import stop_after
from runs.job import Job
from runs.launchers import Worker
from runs.outcome import has_outcome
from runs.processes import end_group, end_strays
from runs.queue_folder import cancel_request

LINGER_S = 20.0  # for a worker that has written its record and does not end
UNKILLABLE_S = 60.0  # a process inside a hung driver call outlives even SIGKILL


class Ending(Enum):
    """Why a worker is no more."""

    ITSELF = "it ended by itself"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    BUDGET = "its sweep's budget ran out"
    LINGERED = "it had written its record but did not end"

    @property
    def is_to_be_continued(self) -> bool:
        return self is Ending.BUDGET


def supervise(job: Job, process: Worker, home: Path, poll_s: float, log: Callable[[str], None]) -> Ending:
    """Return when the worker and all of its processes are gone, and say why."""
    ending, started, recorded = Ending.ITSELF, time.monotonic(), None
    while process.poll() is None:
        now = time.monotonic()
        recorded = recorded or (now if has_outcome(job, home) else None)
        reason = _reason_to_end(job, home, now - started, now - recorded if recorded else None)
        if reason:
            ending = reason
            log(f"{job.job_id}: is ended ({reason.value})")
            end_group(process.pid)
            break
        time.sleep(poll_s)
    num_strays = end_strays(job.job_id)
    if num_strays:
        log(f"{job.job_id}: killed {num_strays} processes that it left")
    try:
        process.wait(timeout=UNKILLABLE_S)
    except subprocess.TimeoutExpired:
        log(f"{job.job_id}: process {process.pid} does not die: what runs next shares the device with it")
    return ending


def _reason_to_end(job: Job, home: Path, elapsed_s: float, since_recorded_s: float | None) -> Ending | None:
    if since_recorded_s is not None:
        return Ending.LINGERED if since_recorded_s > LINGER_S else None
    if cancel_request(job.job_id, home).exists():
        return Ending.CANCELLED
    if elapsed_s > job.timeout_s:
        return Ending.TIMEOUT
    stop = stop_after(job, home)
    return Ending.BUDGET if stop is not None and time.time() > stop else None
