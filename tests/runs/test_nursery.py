"""Workers forked from a zygote: like fresh ones in all that a run can see, and ended and outlived like them."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from profiler.combo import Combo
from profiler.record import Record
from profiler.workload import Workload
from runs import job_queue
from runs.job import Job, measure_job, probe_job, run_folder
from runs.launchers import Worker, local
from runs.machine_file import read_machine, write_machine
from runs.nursery import Forked, Nursery
from runs.outcome import INTERRUPTED
from runs.processes import JOB_VARIABLE, _tagged, end_group, end_strays, identify, tag
from tests.runs.conftest import end_detached, record_of, wait_until
from tests.runs.fake_worker import machine

# A user's own factory: no UNet, but what a worker can see of itself, the last thing before the run is rejected.
FACTORY = """
import hashlib, json, os, random, re, signal, subprocess, sys, tempfile, time
import numpy, torch

def look():
    layer = torch.nn.Conv2d(8, 8, 3)
    loss = layer(torch.randn(2, 8, 16, 16)).square().mean()
    loss.backward()
    numbers = torch.cat([layer.weight.grad.flatten(), torch.randn(9), loss.detach()[None]]).numpy().tobytes()
    scratch = tempfile.gettempdir()
    child = subprocess.run(["cat", "/proc/self/environ"], capture_output=True, check=True).stdout.decode()
    see = {
        "cwd": os.getcwd(), "program": sys.argv[0], "num_arguments": len(sys.argv), "path": sys.path,
        "main": sys.modules["__main__"].__spec__.name, "umask": os.umask(0o22), "seed": torch.initial_seed(),
        "leads": os.getpid() == os.getsid(0) == os.getpgrp(), "numbers": hashlib.sha256(numbers).hexdigest(),
        "files": {n: os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)},
        "num_files": len(os.listdir("/proc/self/fd")),
        "signals": {str(s): str(signal.getsignal(s)) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)},
        "masked": [str(s) for s in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "environment": dict(os.environ), "of_children": sorted(child.strip(chr(0)).split(chr(0))),
        "imported": sorted(name for name in sys.modules if name.startswith(("torch", "diffusers", "profiler."))),
    }
    text = json.dumps(see).replace(scratch, "SCRATCH")
    # as ru_maxrss, which for a process that was started by a larger one is at first that one's
    peak = int(re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1])
    rest = {"scratch": scratch, "peak": peak, "parent": os.getppid()}
    rest |= {"drawn": random.random(), "drawn by numpy": numpy.random.random()}
    print("a factory speaks")
    with open("seen.json", "w") as file:
        file.write(json.dumps({"see": json.loads(text)} | rest))

def wait():
    open("waits", "w").write(str(os.getpid()))
    time.sleep(100)

def fall():
    os.write(2, b"Traceback (most recent call last)")
    os._exit(7)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for the whole file, as for a scheduler: a zygote serves one home."""
    folder = tmp_path_factory.mktemp("nursery") / "data"
    job_queue.make_folders(folder)
    return folder


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """One zygote for most of this file."""
    with closing(Nursery()) as kept:
        yield kept


@pytest.fixture
def directory(home: Path) -> Path:
    """Where all jobs of this file start: a zygote serves one directory, too."""
    folder = home.parent / "of-the-user"
    folder.mkdir(exist_ok=True)
    (folder / "odd.py").write_text(FACTORY)
    for left in ("seen.json", "waits"):
        (folder / left).unlink(missing_ok=True)
    return folder


def job_of(factory: str, directory: Path) -> Job:
    job = measure_job(Combo(), Workload(model=f"odd:{factory}", device="cpu"))
    return Job.from_dict(job.to_dict() | {"directory": str(directory)})


def start(launch: Any, job: Job, home: Path) -> Worker:
    run_folder(job.job_id, home).mkdir(parents=True)
    file = home / f"{job.job_id}.json"
    file.write_text(json.dumps(job.to_dict()))
    worker: Worker = launch(job, file, home)
    return worker


def seen(launch: Any, home: Path, directory: Path) -> tuple[dict[str, Any], Job, Worker]:
    job = job_of("look", directory)
    worker = start(launch, job, home)
    assert worker.wait(60) == 0, job_queue.log_tail(job.job_id, home=home)
    assert "returned NoneType" in Record.read(run_folder(job.job_id, home)).cause
    found: dict[str, Any] = json.loads((directory / "seen.json").read_text())
    assert found["see"]["environment"].pop(JOB_VARIABLE) == tag(job.job_id)
    found["see"]["of_children"].remove(f"{JOB_VARIABLE}={tag(job.job_id)}")
    files = found["see"]["files"]
    assert files.pop("1") == files.pop("2") == str(run_folder(job.job_id, home) / "log.txt")
    assert "a factory speaks" in job_queue.log_tail(job.job_id, home=home)
    return found, job, worker


@pytest.mark.slow
def test_a_forked_worker_sees_what_a_fresh_one_does(nursery: Nursery, home: Path, directory: Path) -> None:
    fresh, _, _ = seen(local, home, directory)
    (first, _, one), (second, _, other) = (seen(nursery, home, directory) for _ in range(2))
    assert isinstance(one, Forked)
    assert isinstance(other, Forked)
    assert fresh["parent"] == os.getpid()
    assert first["parent"] == second["parent"] == one.zygote.pid == other.zygote.pid, (
        "both were forked from one process"
    )
    for name in ("scratch", "drawn", "drawn by numpy"):
        assert len({fresh[name], first[name], second[name]}) == 3
    for forked in (first, second):
        more = set(forked["see"].pop("imported")) - set(fresh["see"]["imported"])
        assert more <= {"profiler.preload"}
        assert forked["see"] == {name: value for name, value in fresh["see"].items() if name != "imported"}
        assert forked["peak"] == pytest.approx(fresh["peak"], rel=0.03)


@pytest.mark.slow
def test_how_a_forked_worker_ends_is_told_and_the_next_one_starts(
    nursery: Nursery, home: Path, directory: Path
) -> None:
    job = job_of("wait", directory)
    worker = start(nursery, job, home)
    wait_until(lambda: (directory / "waits").exists(), 60)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.1)
    assert worker.pid == int((directory / "waits").read_text())
    assert _tagged(job.job_id) == [worker.pid], "by the tag that /proc shows, of this job and no earlier one"
    os.killpg(worker.pid, signal.SIGKILL)
    assert worker.wait(10) == -9
    assert start(nursery, job_of("fall", directory), home).wait(20) == 7


@pytest.mark.slow
def test_a_zygote_that_dies_takes_its_job_with_it_and_is_replaced(
    nursery: Nursery, home: Path, directory: Path
) -> None:
    job = job_of("wait", directory)
    worker = start(nursery, job, home)
    wait_until(lambda: (directory / "waits").exists() and worker.poll() is None and worker.pid != _zygote(worker), 60)
    os.kill(_zygote(worker), signal.SIGKILL)
    assert worker.wait(10) == -9
    assert end_strays(job.job_id) == 1, "as the scheduler does after every job"
    gone = job_of("wait", directory)
    gone = Job.from_dict(gone.to_dict() | {"directory": str(directory / "gone")})
    with pytest.raises(FileNotFoundError):
        start(nursery, gone, home)
    another = start(nursery, job_of("wait", directory), home)
    assert _zygote(another) != _zygote(worker)
    assert another.pid == _zygote(another), "while it imports, it is what there is to end"
    end_group(another.pid)
    assert another.wait(10) == -15


@pytest.mark.slow
def test_another_environment_is_another_zygote_which_forks_nobody_where_that_is_not_sound(
    home: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Nursery()) as nursery:
        before = start(nursery, job_of("fall", directory), home)
        assert before.wait(60) == 7
        assert isinstance(before, Forked)
        assert before.is_over, "it could fork another"
        monkeypatch.setenv("TORCH_CACHING_PRECOMPILE", "1")
        found, _, worker = seen(nursery, home, directory)
        assert worker.pid == _zygote(worker) != _zygote(before)
    assert found["parent"] == os.getpid()
    assert found["see"]["environment"]["TORCH_CACHING_PRECOMPILE"] == "1"


@pytest.mark.slow
def test_a_zygote_ends_with_its_scheduler_and_the_next_one_ends_its_worker(home: Path, directory: Path) -> None:
    write_machine(machine(), home)
    job = job_of("wait", directory)
    job_queue.submit([job], home=home, start_scheduler=False)
    command = ["python", "-P", "-m", "runs.scheduler", "--home", str(home)]
    scheduler = subprocess.Popen(command, env=job_queue.python_environment())
    wait_until((home / "queue/workers" / f"{job.job_id}.json").exists)
    scheduler.send_signal(signal.SIGSTOP)  # while the zygote imports: nobody reads what it will tell
    wait_until(lambda: (directory / "waits").exists(), 60)
    worker = identify(int((directory / "waits").read_text()))
    assert worker is not None
    zygote = identify(_parent(worker.pid))
    assert zygote is not None
    assert _parent(zygote.pid) == scheduler.pid
    scheduler.kill()
    scheduler.wait()
    wait_until(lambda: not zygote.is_alive)
    assert "Traceback" not in job_queue.log_tail(job.job_id, home=home)
    assert worker.is_alive, "it could still finish its run"
    job_queue.ensure_scheduler(home)
    try:
        record = record_of(job, home)
    finally:
        end_detached(home)
        job_queue._started.pop().wait(20)
    assert (record.status, record.cause) == ("failed", INTERRUPTED)
    wait_until(lambda: not worker.is_alive)


@pytest.mark.gpu
def test_forked_workers_find_the_gpu_one_after_the_other(home: Path, directory: Path) -> None:
    with closing(Nursery()) as nursery:
        for _ in range(2):
            (home / "machine.json").unlink(missing_ok=True)
            worker = start(nursery, Job.from_dict(probe_job().to_dict() | {"directory": str(directory)}), home)
            assert worker.wait(120) == 0
            assert worker.pid != _zygote(worker), "importing what is in profiler.preload opens no GPU"
            found = read_machine(home)
            assert found is not None
            assert found.has_cuda


def _zygote(worker: Worker) -> int:
    assert isinstance(worker, Forked)
    return worker.zygote.pid


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
