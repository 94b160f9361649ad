"""The scheduler: one detached process per home, elected by a lock, that runs the queue's jobs one after another.

    python -m runs.scheduler --home HOME

It writes the record of every worker that ended without one, and ends itself when nothing has come for some seconds.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiler.record import Status, write_json
from profiler.why_not import why_not
from runs import launchers, queue_folder
from runs.death import explain_death, failure_of_rank
from runs.job import Job, retry_job, run_folder
from runs.job_queue import SOON, ensure_probe, held_sweeps, is_held, known_references, log_tail, submit, waiting_jobs
from runs.machine_file import read_machine
from runs.nursery import Nursery
from runs.outcome import INTERRUPTED, add_event, has_outcome, read_events, read_outcome, write_outcome
from runs.processes import Identity, end_group, end_strays, identify, num_oom_kills
from runs.supervise import Ending, supervise

IDLE_S = 10.0
POLL_S = 0.2
ELECTION_S = 1.0  # a look at the lock (is a scheduler there?) holds it for a moment: try longer than that


def serve(
    home: Path,
    launch: launchers.Launch,
    *,
    idle_s: float = IDLE_S,
    poll_s: float = POLL_S,
    count_oom_kills: Callable[[], int] = num_oom_kills,
) -> bool:
    """Run the queue until it was idle for idle_s; False at once when another process serves this home.

    Raises OSError when home cannot be written.
    """
    queue_folder.make_folders(home)
    scheduler = Scheduler(home=home, launch=launch, idle_s=idle_s, poll_s=poll_s, count_oom_kills=count_oom_kills)
    has_served = False
    while True:
        with _elected(home) as is_elected:
            if not is_elected:
                return has_served
            scheduler.run_until_idle()
            has_served = True
        # A submit that still saw the lock held started nobody, but had put its job down before: look once more.
        if not scheduler.has_work():
            return True


@dataclass(kw_only=True)
class Scheduler:
    """What the elected process does."""

    home: Path
    launch: launchers.Launch
    idle_s: float = IDLE_S
    poll_s: float = POLL_S
    count_oom_kills: Callable[[], int] = num_oom_kills
    has_probed: bool = field(default=False, init=False)

    def run_until_idle(self) -> None:
        self.recover()
        if (own := identify(os.getpid())) is not None:
            write_json(queue_folder.recovered_path(self.home), own.to_dict())
        idle_since = time.monotonic()
        while True:
            job = self._next()
            if job is not None:
                self._run(job)
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since >= self.idle_s:
                return
            else:
                time.sleep(self.poll_s)

    def has_work(self) -> bool:
        """Whether any waiting job may start."""
        waiting = waiting_jobs(home=self.home)
        held = held_sweeps(waiting, self.home)
        return any(not is_held(job, held) for job in waiting)

    def recover(self) -> None:
        """End and record what a killed scheduler, or machine, left in running/."""
        for path in queue_folder.files(self.home, "running"):
            job = queue_folder.read_job(path, log=_log)
            if job is None:
                continue
            self._end_left_worker(job)
            asked = queue_folder.cancel_request(job.job_id, self.home).exists()
            is_first = job.kind == "reference" and job.retry_of is None
            if is_first and not asked and not has_outcome(job, self.home):
                again = retry_job(job, beyond_budget=job.beyond_budget)
                submit([again], home=self.home, start_scheduler=False, priority=SOON)
            status: Status = "cancelled" if asked else "failed"
            write_outcome(job, status, "cancelled while it ran" if asked else INTERRUPTED, home=self.home)
            _log(f"{job.job_id}: found in running/, recorded as {status}")
            self._close(job)

    def _next(self) -> Job | None:
        waiting = waiting_jobs(home=self.home)
        held = held_sweeps(waiting, self.home)
        if waiting and not self.has_probed:
            self.has_probed = True  # once: a machine that cannot be probed still runs its jobs
            ensure_probe(self.home, start_scheduler=False)

        def admit(job: Job) -> bool:
            return not is_held(job, held)

        return queue_folder.claim(home=self.home, admit=admit, log=_log)

    def _run(self, job: Job) -> None:
        folder = run_folder(job.job_id, self.home)
        folder.mkdir(parents=True, exist_ok=True)
        if self._needs_no_worker(job):
            self._close(job)
            return
        _log(f"{job.job_id}: starts ({job.label})")
        add_event(folder, "starting", "a process for it")
        job_file = queue_folder.find(job.job_id, "running", self.home)
        if job_file is None:
            return  # cancelled at this very moment
        oom_kills = self.count_oom_kills()
        try:
            process = self.launch(job, job_file, self.home)
        except OSError as error:
            write_outcome(job, "failed", f"the worker could not start: {error}", home=self.home)
            self._close(job)
            return
        ending = self._watch(job, process)
        if ending.is_to_be_continued and not has_outcome(job, self.home):
            _log(f"{job.job_id}: stopped, its sweep's budget ran out; it is queued again")
            shutil.rmtree(folder, ignore_errors=True)
            self._forget(job)
            queue_folder.put_back(job.job_id, home=self.home)
            return
        if not has_outcome(job, self.home):
            self._record_death(job, process.returncode, ending, self.count_oom_kills() > oom_kills)
        self._close(job)

    def _needs_no_worker(self, job: Job) -> bool:
        """Settle what can be settled without torch: rejected combos, references that are there already."""
        machine = read_machine(self.home)
        if has_outcome(job, self.home):
            return True
        if queue_folder.cancel_request(job.job_id, self.home).exists():
            write_outcome(job, "cancelled", "cancelled before it started", home=self.home, machine=machine)
        elif job.kind == "reference" and job.workload.reference_key in known_references(self.home):
            write_outcome(job, "done", "", home=self.home)
        elif job.kind != "probe" and machine and (reason := why_not(job.combo, job.workload, machine)):
            write_outcome(job, "rejected", reason, home=self.home, machine=machine)
        else:
            return False
        return True

    def _watch(self, job: Job, process: launchers.Worker) -> Ending:
        try:
            identity = identify(process.pid)
            if identity:
                write_json(self._worker_file(job), identity.to_dict())
            return supervise(job, process, self.home, self.poll_s, _log)
        except BaseException:  # SIGTERM, or a disk that is full: leave no worker behind
            end_group(process.pid)
            end_strays(job.job_id)
            with contextlib.suppress(OSError):
                write_outcome(job, "failed", INTERRUPTED, home=self.home, machine=read_machine(self.home))
                self._close(job)
            raise

    def _record_death(self, job: Job, returncode: int | None, ending: Ending, has_oom_kill: bool) -> None:
        events = read_events(run_folder(job.job_id, self.home))
        stage = events[-1]["stage"] if events else "starting"
        log = log_tail(job.job_id, home=self.home)
        status, cause, traceback = explain_death(job, returncode, ending, stage, log, has_oom_kill)
        if status == "failed" and (told := failure_of_rank(run_folder(job.job_id, self.home))):
            status, cause, traceback = told
        machine = read_machine(self.home)
        write_outcome(job, status, cause, home=self.home, machine=machine, traceback=traceback)

    def _end_left_worker(self, job: Job) -> None:
        with contextlib.suppress(OSError, ValueError, TypeError):
            values: dict[str, Any] = json.loads(self._worker_file(job).read_text(encoding="utf-8"))
            if Identity(**values).is_alive:
                _log(f"{job.job_id}: its worker still runs without a scheduler, it is ended")
                end_group(values["pid"])
        end_strays(job.job_id)

    def _close(self, job: Job) -> None:
        status, cause = read_outcome(job, self.home) or ("unknown", "")
        _log(f"{job.job_id}: {status}{': ' + cause if cause else ''}")
        queue_folder.finish(job.job_id, home=self.home)
        self._forget(job)

    def _forget(self, job: Job) -> None:
        self._worker_file(job).unlink(missing_ok=True)
        queue_folder.cancel_request(job.job_id, self.home).unlink(missing_ok=True)
        shutil.rmtree(launchers.scratch_folder(job.job_id), ignore_errors=True)

    def _worker_file(self, job: Job) -> Path:
        return self.home / "queue" / "workers" / f"{job.job_id}.json"


@contextlib.contextmanager
def _elected(home: Path) -> Iterator[bool]:
    """Hold the lock if nobody else does. The kernel frees it however this process ends."""
    with queue_folder.lock_path(home).open("a") as lock:
        deadline = time.monotonic() + ELECTION_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    yield False
                    return
                time.sleep(0.05)
            else:
                yield True
                return


def _log(line: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m runs.scheduler", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        with contextlib.closing(Nursery()) as nursery:
            serve(parser.parse_args().home, nursery)
    except OSError as error:
        _log(f"the scheduler ends, it cannot write ({error}): free the disk or choose another STEPLENS_HOME")
        sys.exit(4)


if __name__ == "__main__":
    main()
