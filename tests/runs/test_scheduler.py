"""The scheduler with real processes: one per home, and every job gets its record whatever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from profiler.combo import Combo
from profiler.record import Record, SweepPlace
from runs import job_queue
from runs.budget import Budget, set_budget
from runs.job import Job, reference_job, run_folder
from runs.machine_file import read_machine, write_machine
from runs.outcome import INTERRUPTED, read_outcome
from runs.processes import identify
from tests.runs.conftest import (
    StartScheduler,
    end_detached,
    ended,
    fake_job,
    ran,
    record_of,
    running,
    submit,
    wait_until,
)
from tests.runs.fake_worker import machine

PLACE = SweepPlace(sweep_id="a-sweep", name="grid", position=0, num_jobs=2)


def test_jobs_run_in_order_and_the_machine_is_probed_before(home: Path, start_scheduler: StartScheduler) -> None:
    jobs = [fake_job() for _ in range(3)]
    submit(home, *jobs)
    start_scheduler()
    assert [record_of(job, home).status for job in jobs] == ["done"] * 3
    assert ran(home) == [job.job_id for job in jobs]
    assert read_machine(home) is not None
    assert "hello from" in job_queue.log_tail(jobs[0].job_id, home=home)
    assert [event["stage"] for event in job_queue.events(jobs[0].job_id, home=home)] == ["starting", "time"]


def test_a_job_has_the_variables_of_its_submission_not_those_of_the_scheduler(
    home: Path, tmp_path: Path, start_scheduler: StartScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    start_scheduler()
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = fake_job("tell")
    submit(home, job)
    assert record_of(job, home).status == "done"
    found = json.loads(next(line for line in job_queue.log_tail(job.job_id, home=home).splitlines() if line[0] == "{"))
    assert "OMP_NUM_THREADS" not in found
    assert (found["CUDA_VISIBLE_DEVICES"], found["PYTHONPATH"]) == ("1", f"{job_queue.ROOT}{os.pathsep}{tmp_path}")


def test_of_two_schedulers_one_serves(home: Path, start_scheduler: StartScheduler) -> None:
    jobs = [fake_job() for _ in range(4)]
    submit(home, *jobs)
    processes = [start_scheduler(idle_s=2.0, wait=False) for _ in range(2)]
    says = [process.communicate(timeout=30)[0].splitlines()[-1] for process in processes]
    assert sorted(says) == ["not elected", "served"]
    assert ran(home) == [job.job_id for job in jobs]


def test_it_ends_when_idle_and_a_job_submitted_at_that_moment_is_not_lost(
    home: Path, start_scheduler: StartScheduler
) -> None:
    start_scheduler(idle_s=0.0, wait=False)
    jobs = []
    for _ in range(8):  # submit as submit() does: start somebody only if nobody holds the lock
        jobs.append(fake_job())
        submit(home, jobs[-1])
        if not job_queue.scheduler_is_running(home):
            start_scheduler(idle_s=0.0, wait=False)
        time.sleep(0.11)
    for job in jobs:
        record_of(job, home)
    assert sorted(ran(home)) == sorted(job.job_id for job in jobs)
    wait_until(lambda: not job_queue.scheduler_is_running(home))


@pytest.mark.parametrize(
    ("what", "status", "cause"),
    [
        ("die", "failed", "killed by SIGKILL (Killed) in stage time"),
        ("segfault", "failed", "SIGSEGV"),
        ("raise", "failed", "exit code 1 in stage time: RuntimeError: the fake broke"),
        ("oom", "oom", "needs more"),
    ],
)
def test_a_worker_that_dies_leaves_a_record_and_the_rest_goes_on(
    home: Path, start_scheduler: StartScheduler, what: str, status: str, cause: str
) -> None:
    bad, good = fake_job(what, sweep=PLACE), fake_job(sweep=PLACE)
    submit(home, bad, good)
    start_scheduler()
    record = record_of(bad, home)
    assert record.status == status
    assert cause in record.cause
    assert record.sweep == PLACE
    assert record_of(good, home).status == "done"
    if what == "raise":
        assert record.traceback.startswith("Traceback")
    if what == "die":
        assert record.machine == read_machine(home)
        names = {path.name for path in run_folder(bad.job_id, home).glob("*.parquet")}
        assert names == {"kernels.parquet"}, "a table cut short is dropped, a whole one stays"


def test_sigkill_while_the_kernel_kills_for_memory_is_oom(home: Path, start_scheduler: StartScheduler) -> None:
    (home / "short-of-memory").touch()
    job = fake_job("die")
    submit(home, job)
    start_scheduler()
    record = record_of(job, home)
    assert (record.status, "main memory" in record.cause) == ("oom", True)


def test_a_job_past_its_time_is_ended_with_all_of_its_processes(home: Path, start_scheduler: StartScheduler) -> None:
    job = replace(fake_job("sleep100"), timeout_s=0.5)
    submit(home, job)
    start_scheduler()
    record = record_of(job, home)
    assert record.status == "timeout"
    assert record.cause == "did not finish within 0.5 s, it was ended in stage time"


def test_cancel_ends_a_running_job_even_one_that_ignores_sigterm(home: Path, start_scheduler: StartScheduler) -> None:
    job = fake_job("stubborn")
    submit(home, job)
    start_scheduler()
    wait_until(lambda: any(event["stage"] == "trace" for event in job_queue.events(job.job_id, home=home)))
    assert job_queue.cancel(job.job_id, home=home) == "asked"
    record = record_of(job, home)
    assert (record.status, record.cause) == ("cancelled", "cancelled in stage trace")
    assert not list((home / "queue/cancel").iterdir())


def test_a_process_that_left_the_group_is_found_by_its_tag(home: Path, start_scheduler: StartScheduler) -> None:
    job = fake_job("stray")
    submit(home, job)
    start_scheduler()
    assert record_of(job, home).status == "done"
    stray = int((home / "stray.txt").read_text())
    wait_until(lambda: identify(stray) is None)


def test_a_scheduler_killed_with_its_worker_alive_is_recovered_from(
    home: Path, start_scheduler: StartScheduler
) -> None:
    lost, rest = fake_job("sleep100"), fake_job()
    submit(home, lost, rest)
    killed = start_scheduler()
    wait_until(lambda: ran(home) == [lost.job_id])
    worker = _worker_pid(lost, home)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert identify(worker) is not None, "the worker outlived its scheduler"
    assert running(home) == [lost.job_id]
    start_scheduler()
    record = record_of(lost, home)
    assert (record.status, record.cause) == ("failed", INTERRUPTED)
    assert identify(worker) is None
    assert record_of(rest, home).status == "done"
    assert ran(home) == [lost.job_id, rest.job_id]


def test_a_record_written_just_before_the_scheduler_was_killed_is_kept(
    home: Path, start_scheduler: StartScheduler
) -> None:
    job = fake_job("linger")
    submit(home, job)
    killed = start_scheduler()
    wait_until(lambda: (run_folder(job.job_id, home) / "record.json").exists())
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    start_scheduler()
    assert record_of(job, home).status == "done"


def test_sigterm_to_the_scheduler_leaves_no_worker_and_a_record(home: Path, start_scheduler: StartScheduler) -> None:
    job = fake_job("sleep100")
    submit(home, job)
    scheduler = start_scheduler()
    wait_until(lambda: ran(home) == [job.job_id])
    worker = _worker_pid(job, home)
    scheduler.terminate()
    scheduler.wait(timeout=15)
    assert identify(worker) is None
    record = record_of(job, home)
    assert (record.status, record.cause) == ("failed", INTERRUPTED)


def test_an_interrupted_reference_is_made_again_once(home: Path, start_scheduler: StartScheduler) -> None:
    reference = reference_job(fake_job().workload)
    submit(home, reference)
    job_queue.claim(home=home)  # as if its scheduler had been killed
    start_scheduler()
    wait_until(lambda: reference.workload.reference_key in job_queue.known_references(home))
    wait_until(lambda: f"{reference.job_id}-again" in ended(home))
    assert read_outcome(reference, home) == ("failed", INTERRUPTED)


def test_a_reference_whose_cancellation_was_asked_for_is_not_made_again(
    home: Path, start_scheduler: StartScheduler
) -> None:
    reference = reference_job(fake_job().workload)
    submit(home, reference)
    job_queue.claim(home=home)  # as if its scheduler had been killed
    (home / "queue/cancel" / reference.job_id).touch()
    start_scheduler(idle_s=0.5).wait(timeout=20)
    assert read_outcome(reference, home) == ("cancelled", "cancelled while it ran")
    assert ended(home) == [reference.job_id]


def test_a_failing_reference_does_not_block_its_candidates(home: Path, start_scheduler: StartScheduler) -> None:
    job = fake_job("noreference")
    reference = reference_job(job.workload)
    submit(home, reference, job)
    start_scheduler()
    assert record_of(job, home).status == "done"
    assert read_outcome(reference, home) == ("failed", "no reference today")


def test_what_cannot_work_here_is_recorded_without_a_worker(home: Path, start_scheduler: StartScheduler) -> None:
    job = fake_job(combo=Combo(attention="xformers"), sweep=PLACE)
    submit(home, job)
    start_scheduler()
    record = record_of(job, home)
    assert record.status == "rejected"
    assert "needs CUDA" in record.cause
    assert record.machine == read_machine(home)
    assert ran(home) == []


def test_a_job_whose_working_directory_is_gone_fails_with_its_reason(
    home: Path, start_scheduler: StartScheduler
) -> None:
    job, good = replace(fake_job(), directory=str(home / "gone")), fake_job()
    submit(home, job, good)
    start_scheduler()
    assert "could not start" in record_of(job, home).cause
    assert record_of(good, home).status == "done"


def test_a_corrupt_file_left_in_running_does_not_stop_recovery(home: Path, start_scheduler: StartScheduler) -> None:
    (home / "queue/running/100-000000000000-broken.json").write_text("{")
    job = fake_job()
    submit(home, job)
    start_scheduler()
    assert record_of(job, home).status == "done"
    assert [path.name for path in (home / "queue/bad").iterdir()] == ["100-000000000000-broken.json"]


def test_a_sweep_without_time_left_starts_nothing_and_others_go_on(home: Path, start_scheduler: StartScheduler) -> None:
    set_budget(PLACE.sweep_id, Budget(deadline=time.time() + 1), home)
    held, free = fake_job(sweep=PLACE), fake_job()
    submit(home, held, free)
    process = start_scheduler(idle_s=0.5)
    assert record_of(free, home).status == "done"
    first = job_queue.list_jobs(home=home)[0]
    assert (first.job.job_id, first.is_held) == (held.job_id, True)
    process.wait(timeout=15)  # held jobs are no reason to stay
    set_budget(PLACE.sweep_id, None, home)
    start_scheduler()
    assert record_of(held, home).status == "done"


def test_a_run_past_budget_and_grace_is_stopped_and_queued_again(home: Path, start_scheduler: StartScheduler) -> None:
    job = fake_job("sleep100", sweep=PLACE)
    submit(home, job)
    start_scheduler()
    wait_until(lambda: ran(home) == [job.job_id])
    set_budget(PLACE.sweep_id, Budget(deadline=time.time(), grace_s=0.2), home)
    wait_until(lambda: [waiting.job_id for waiting in job_queue.waiting_jobs(home=home)] == [job.job_id])
    assert not run_folder(job.job_id, home).exists()


def test_submit_starts_a_detached_scheduler_that_outlives_its_caller(home: Path) -> None:
    """The true command, on a job that needs no worker: cancelled before it starts."""
    job = fake_job()
    (home / "queue/cancel" / job.job_id).touch()
    code = (
        "import sys, json; from pathlib import Path; from runs import job_queue; from runs.job import Job\n"
        "job_queue.submit([Job.from_dict(json.loads(sys.stdin.read()))])"
    )
    write_machine(machine(), home)
    env = dict(os.environ)
    subprocess.run([sys.executable, "-c", code], input=json.dumps(job.to_dict()), text=True, check=True, env=env)
    assert record_of(job, home).status == "cancelled"
    assert "cancelled before it started" in (home / "queue/scheduler.log").read_text()
    assert job_queue.scheduler_is_running(home)
    end_detached(home)


def _worker_pid(job: Job, home: Path) -> int:
    pid = json.loads((home / "queue/workers" / f"{job.job_id}.json").read_text())["pid"]
    assert isinstance(pid, int)
    return pid


def test_records_are_whole_or_absent_for_a_reader_meanwhile(home: Path, start_scheduler: StartScheduler) -> None:
    jobs = [fake_job("die") for _ in range(3)]
    submit(home, *jobs)
    start_scheduler()
    seen = 0
    while seen < 3:
        folders = [path.parent for path in (home / "runs").glob("*/record.json")]
        seen = len([Record.read(folder) for folder in folders])  # raises on half a file
