"""Real schedulers and workers in tmp_path; the workers are fake_worker.py, which needs no torch."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from profiler.combo import Combo
from profiler.record import Record, SweepPlace
from profiler.workload import Workload
from runs import job_queue
from runs.job import Job, measure_job, run_folder

HERE = Path(__file__).parent
StartScheduler = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setenv("STEPLENS_HOME", str(folder))
    job_queue.make_folders(folder)
    return folder


@pytest.fixture(autouse=True)
def fake_models(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module fake that may have any factory, so that fake:WHAT, which tells a fake worker what to do, is queued."""
    folder = tmp_path_factory.getbasetemp() / "models"
    folder.mkdir(exist_ok=True)
    (folder / "fake.py").write_text("def __getattr__(name): raise AttributeError(name)\n", encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    paths = (str(job_queue.ROOT), str(folder), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))  # of a command line's process


@pytest.fixture
def start_scheduler(home: Path) -> Iterator[StartScheduler]:
    """Start a detached scheduler with fake workers; those left are ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(idle_s: float = 60.0, *, wait: bool = True) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(HERE / "fake_scheduler.py"), str(home), str(idle_s)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(job_queue.ROOT), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        started.append(process)
        if wait:
            wait_until(lambda: job_queue.scheduler_is_running(home))
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=20)


def fake_job(what: str = "ok", *, sweep: SweepPlace | None = None, combo: Combo | None = None) -> Job:
    return measure_job(combo or Combo(), Workload(model=f"fake:{what}", device="cpu"), sweep)


def submit(home: Path, *jobs: Job) -> None:
    job_queue.submit(jobs, home=home, start_scheduler=False)


def record_of(job: Job, home: Path, timeout_s: float = 15.0) -> Record:
    """The job's record, as soon as the scheduler has closed the job."""
    wait_until(lambda: job.job_id in ended(home), timeout_s)
    return Record.read(run_folder(job.job_id, home))


def ended(home: Path) -> list[str]:
    return [state.job.job_id for state in job_queue.list_jobs(home=home) if state.state == "ended"]


def running(home: Path) -> list[str]:
    return [state.job.job_id for state in job_queue.list_jobs(home=home) if state.state == "running"]


def ran(home: Path) -> list[str]:
    """Every time that a worker measured, by job_id."""
    path = home / "ran.txt"
    return path.read_text().split() if path.exists() else []


def wait_until(holds: Callable[[], bool], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def end_detached(home: Path) -> None:
    """End the scheduler of this test's home, found by its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"runs.scheduler" in arguments and str(home).encode() in arguments:
            os.kill(int(path.parent.name), signal.SIGTERM)
    wait_until(lambda: not job_queue.scheduler_is_running(home))
