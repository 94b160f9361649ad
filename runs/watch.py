"""Watch: follow jobs in the queue until they ended, or their budget ran out, with live progress."""

import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from runs import job_queue, queue_folder
from runs.history import read_record
from runs.job import Job, run_folder
from runs.job_queue import JobState, ensure_scheduler, held_sweeps, is_held, waiting_jobs
from runs.outcome import read_outcome
from runs.tables import STYLES, clock, number

POLL_S = 0.5
MAX_RESTARTS = 5


class SchedulerError(Exception):
    """It was started several times and did not stay; the message names its log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How the watching ended."""

    is_finished: bool  # False: the budget ran out, the rest is still queued
    num_left: int = 0


def watch(jobs: Collection[Job], home: Path, console: Console) -> Outcome:
    """Follow the jobs to their end. Raises SchedulerError. Ctrl-C leaves them running."""
    pending = {job.job_id: job for job in jobs}
    num_restarts, num_all, started = 0, len(pending), time.monotonic()
    with _screen(console) as screen:
        while True:
            # Queued before running: a job that is claimed between the two looks is in the second.
            queued = [job for job in waiting_jobs(home=home) if job.job_id in pending]
            running = queue_folder.look_at(queue_folder.files(home, "running"))
            live = {job.job_id for job in (*queued, *running)}
            for job_id in [job_id for job_id in pending if job_id not in live]:
                screen.say(_ended_line(pending.pop(job_id), home))
            if not pending:
                return Outcome(is_finished=True)
            ours = [job for job in running if job.job_id in pending]
            held = held_sweeps(queued, home)
            if not ours and queued and all(is_held(job, held) for job in queued):
                return Outcome(is_finished=False, num_left=len(queued))
            if ensure_scheduler(home):
                num_restarts += 1
                if num_restarts > MAX_RESTARTS:
                    raise SchedulerError(f"the scheduler does not stay up: read {home / 'queue/scheduler.log'}")
            screen.show(_states(home), f"{num_all - len(pending)} of {num_all} jobs ended", time.monotonic() - started)
            time.sleep(POLL_S)


@dataclass(kw_only=True)
class _Screen:
    """A live region on a terminal; elsewhere a line per event, so that logs stay readable."""

    console: Console
    live: Live | None
    last: str = ""

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False)

    def show(self, states: list[JobState], done: str, elapsed_s: float) -> None:
        running = next((state for state in states if state.state == "running"), None)
        waiting = sum(state.state == "queued" for state in states)
        if self.live:
            self.live.update(_live_view(running, waiting, done, elapsed_s))
        elif running and running.job.job_id != self.last:
            self.last = running.job.job_id
            self.say(f"starts     {running.job.label} ({done}, {clock(elapsed_s)} so far)")


@contextlib.contextmanager
def _screen(console: Console) -> Iterator[_Screen]:
    if not console.is_terminal:
        yield _Screen(console=console, live=None)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield _Screen(console=console, live=live)


def _live_view(running: JobState | None, waiting: int, done: str, elapsed_s: float) -> RenderableType:
    now = "waiting for the scheduler"
    if running:
        stage = f"{running.stage} {running.detail}".strip()
        now = f"{running.job.label}: {stage}, {clock(running.elapsed_s)}"
    summary = f"{done}, {waiting} waiting, {clock(elapsed_s)} so far. Ctrl-C stops watching, not the jobs."
    return Group(Spinner("dots", Text(now)), Text(summary, style="dim"))


def _states(home: Path) -> list[JobState]:
    return job_queue.list_jobs(home=home, num_ended=0)


def _ended_line(job: Job, home: Path) -> str:
    status, cause = read_outcome(job, home) or ("unknown", "its record cannot be read")
    line = f"[{STYLES.get(status, 'red')}]{status:<10}[/] {job.label}"
    record = read_record(run_folder(job.job_id, home)) if job.kind == "measure" else None
    if record and record.metrics.step_ms is not None:
        line += f": {number(record.metrics.step_ms)} ms per step"
    return line + (f" ({cause})" if cause else "")
