"""What pages and the CLI may ask of the queue: submit, cancel, list, and what a job says of itself.

One detached scheduler per home takes the jobs out (runs.scheduler); whoever submits starts it when none is there.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from profiler.record import write_json
from runs import queue_folder
from runs.budget import fits, read_budget
from runs.history import durations
from runs.job import Job, asked_environment, check_model, probe_job, run_folder
from runs.job import home as home_folder
from runs.machine_file import read_machine
from runs.outcome import LOG_FILE, read_events, read_outcome, write_outcome
from runs.processes import JOB_VARIABLE
from runs.queue_folder import State, cancel_request, claim, finish, lock_path, make_folders

__all__ = [
    "HomeError", "JobState", "State", "cancel", "claim", "damaged", "ensure_probe", "ensure_scheduler", "events",
    "finish", "held_sweeps", "is_held", "known_references", "list_jobs", "log_tail", "read_machine",
    "scheduler_is_running", "submit", "waiting_jobs",
]  # fmt: skip

ROOT = Path(__file__).parent.parent
URGENT, SOON, NORMAL = 0, 90, 100  # priorities: the probe; what a sweep's waiting jobs need first; all others
_started: list[subprocess.Popen[bytes]] = []  # kept, so that a scheduler that ended is reaped, not a zombie


class HomeError(Exception):
    """The data folder cannot be written; the message names the remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobState:
    """A job and where it stands."""

    job: Job
    state: State
    status: str | None = None  # a Record's status, once ended
    cause: str = ""
    stage: str = ""  # the last event: what the worker is doing
    detail: str = ""
    elapsed_s: float | None = None
    place: int | None = None  # 1 is next, while queued
    is_held: bool = False  # queued, but its sweep's budget leaves no time for it


def submit(
    jobs: Iterable[Job], *, home: Path | None = None, start_scheduler: bool = True, priority: int = NORMAL
) -> list[Job]:
    """Queue jobs in their order, each once (a job that is there already stays), and see that they will run.

    Raises HomeError, and ValueError for a model that is not there: better now than after an hour in the queue. A new
    attempt was accepted once, so its worker says what has changed since: a scheduler that recovers must not stumble.
    """
    jobs = list(jobs)
    for model, directory in dict.fromkeys((job.workload.model, job.directory) for job in jobs if job.retry_of is None):
        check_model(model, directory)
    at = home_folder(home)
    with _naming_the_remedy(at):
        make_folders(at)
        present = {queue_folder.id_of(path) for state in queue_folder.STATES for path in queue_folder.files(at, state)}
        sequence = queue_folder.next_sequence(at)
        new = [job for job in jobs if job.job_id not in present]
        new = [replace(job, submitted_at=time.time(), **_from_here(job)) for job in new]
        for job in new:
            _remember_plan(job, at)  # all of it first: a sweep half submitted can be resumed
        for number, job in enumerate(new):
            queue_folder.add(job, priority, sequence + number, at)
    if start_scheduler:
        ensure_scheduler(at)
    return new


def cancel(job_id: str, *, home: Path | None = None) -> Literal["cancelled", "asked", "ended", "unknown"]:
    """Cancel a job: one that waits at once; one that runs by asking the scheduler, which needs some seconds."""
    at = home_folder(home)
    with _naming_the_remedy(at):
        if queue_folder.move(job_id, "queued", "running", at):  # claimed, so that nobody starts it
            for job in queue_folder.look_at([path for path in [queue_folder.find(job_id, "running", at)] if path]):
                write_outcome(job, "cancelled", "cancelled before it started", home=at, machine=read_machine(at))
            finish(job_id, home=at)
            return "cancelled"
        if queue_folder.find(job_id, "running", at):
            cancel_request(job_id, at).touch()
            ensure_scheduler(at)  # if it was killed, a new one ends what it left
            return "asked"
    return "ended" if queue_folder.find(job_id, "ended", at) else "unknown"


def list_jobs(*, home: Path | None = None, num_ended: int = 50) -> list[JobState]:
    """What runs, what waits (next first), and what ended last (newest first)."""
    at = home_folder(home)
    waiting = waiting_jobs(home=at)
    held = held_sweeps(waiting, at)
    running = [_running_state(job, at) for job in queue_folder.look_at(queue_folder.files(at, "running"))]
    queued = [
        JobState(job=job, state="queued", place=place, is_held=is_held(job, held))
        for place, job in enumerate(waiting, start=1)
    ]
    newest = sorted(queue_folder.files(at, "ended"), key=lambda path: path.name.split("-")[1:], reverse=True)
    return running + queued + [_ended_state(job, at) for job in queue_folder.look_at(newest[:num_ended])]


def waiting_jobs(*, home: Path | None = None) -> list[Job]:
    """The queued jobs, next first."""
    return queue_folder.look_at(queue_folder.files(home_folder(home), "queued"))


def damaged(*, home: Path | None = None) -> list[str]:
    """One line for each job file that cannot be read: what it was and what brings it back."""
    return queue_folder.damaged(home_folder(home))


def held_sweeps(waiting: Iterable[Job], home: Path) -> set[str]:
    """The sweeps whose next job does not fit into their budget: none of the jobs that it holds for starts."""
    first: dict[str, Job] = {}
    for job in waiting:
        if job.sweep and read_budget(job, home):
            first.setdefault(job.sweep.sweep_id, job)
    known = durations(home) if first else {}
    return {sweep_id for sweep_id, job in first.items() if not fits(job, home, known)}


def is_held(job: Job, held: Collection[str]) -> bool:
    """Whether a job waits for a new budget, given the held sweeps."""
    return job.sweep is not None and not job.beyond_budget and job.sweep.sweep_id in held


def events(job_id: str, *, home: Path | None = None) -> list[dict[str, Any]]:
    """What a job did so far: [{"time", "stage", "detail"}]."""
    return read_events(run_folder(job_id, home))


def log_tail(job_id: str, *, home: Path | None = None, num_lines: int = 100) -> str:
    """The last lines that a job's worker printed."""
    try:
        with (run_folder(job_id, home) / LOG_FILE).open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 65536))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-num_lines:])
    except OSError:
        return ""


def ensure_probe(home: Path | None = None, *, start_scheduler: bool = True) -> bool:
    """Have this machine probed if machine.json is missing or of another boot or torch; whether that is under way."""
    at = home_folder(home)
    if read_machine(at) is not None:
        return False
    pending = [*queue_folder.files(at, "queued"), *queue_folder.files(at, "running")]
    if not any(queue_folder.id_of(path).startswith("probe-") for path in pending):
        submit([probe_job()], home=at, start_scheduler=False, priority=URGENT)
    if start_scheduler:
        ensure_scheduler(at)
    return True


def known_references(home: Path | None = None) -> set[str]:
    """The reference keys that need no reference job any more."""
    return {path.parent.name for path in (home_folder(home) / "references").glob("*/reference.json")}


def ensure_scheduler(home: Path | None = None) -> bool:
    """Start a detached scheduler if none holds the lock; whether one was started. Raises HomeError."""
    at = home_folder(home)
    with _naming_the_remedy(at):
        make_folders(at)
        if scheduler_is_running(at):
            return False
        _started[:] = [process for process in _started if process.poll() is None]
        with (at / "queue" / "scheduler.log").open("ab") as log:
            _started.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "runs.scheduler", "--home", str(at)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                    env=python_environment(), cwd=ROOT,
                )
            )  # fmt: skip
    return True


def scheduler_is_running(home: Path) -> bool:
    """Whether a scheduler holds this home's lock (the kernel frees it when its holder dies)."""
    with lock_path(home).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def python_environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment in which `python -m runs...` finds this code from any working directory; else as base."""
    paths = [str(ROOT), *filter(None, [base.get("PYTHONPATH")])]
    inherited = {name: value for name, value in base.items() if name != JOB_VARIABLE}
    return inherited | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _from_here(job: Job) -> dict[str, Any]:
    """Where the job runs, with which variables: as here where it does not say (the scheduler may have others)."""
    environment = asked_environment() if job.environment is None else job.environment
    return {"directory": job.directory or os.getcwd(), "environment": environment}


def _remember_plan(job: Job, home: Path) -> None:
    """Keep every job of a sweep in home/sweeps, from which --resume knows what is missing, on any machine."""
    if job.sweep is not None:
        folder = home / "sweeps" / job.sweep.sweep_id
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{job.job_id}.json", job.to_dict())


def _running_state(job: Job, home: Path) -> JobState:
    past = events(job.job_id, home=home)
    last = past[-1] if past else {"stage": "starting", "detail": ""}
    elapsed = time.time() - past[0]["time"] if past else 0.0
    return JobState(job=job, state="running", stage=last["stage"], detail=last["detail"], elapsed_s=elapsed)


def _ended_state(job: Job, home: Path) -> JobState:
    past = events(job.job_id, home=home)
    status, cause = read_outcome(job, home) or (None, "")
    elapsed = past[-1]["time"] - past[0]["time"] if past else None
    return JobState(job=job, state="ended", status=status, cause=cause, stage="ended", elapsed_s=elapsed)


def not_writable(home: Path, error: OSError) -> HomeError:
    """The error as one line that names the remedy."""
    why = error.strerror or str(error)
    return HomeError(f"cannot write to {home} ({why}): free it, or choose another with STEPLENS_HOME=/a/folder")


@contextlib.contextmanager
def _naming_the_remedy(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise not_writable(home, error) from error
