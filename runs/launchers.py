"""Launchers: how a job becomes a worker process, or several."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from runs.job import Job, run_folder, worker_environment
from runs.job_queue import python_environment
from runs.outcome import LOG_FILE
from runs.processes import JOB_VARIABLE, tag


class Worker(Protocol):
    """What is asked of a process at work on a job, as subprocess.Popen has it: its group is pid's."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


Launch = Callable[[Job, Path, Path], Worker]  # (job, its file, home) -> the worker
WORKER = (sys.executable, "-P", "-m", "runs.worker")
TORCHRUN = (sys.executable, "-P", "-m", "torch.distributed.run")


def local(job: Job, job_file: Path, home: Path, *, command: Sequence[str] = WORKER) -> subprocess.Popen[bytes]:
    """A worker on this machine. Raises OSError when it cannot start (the job's directory is gone)."""
    return start([*command, str(job_file), "--home", str(home)], job, home)


def start(command: Sequence[str], job: Job, home: Path, *, passed: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """A process for the job: leader of its own process group, tagged, its output in the run's log.txt.

    It inherits the open files `passed`. Raises OSError when it cannot start.
    """
    with open_log(job, home) as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            cwd=job.directory, env=python_environment(worker_environment(job)) | variables(job, home), pass_fds=passed,
        )  # fmt: skip


def is_parallel(job: Job) -> bool:
    """Whether torchrun starts it: where the step is shared out, though to one process only."""
    return job.kind == "measure" and job.combo.parallelism != "none"


def open_log(job: Job, home: Path) -> BinaryIO:
    """The run's log.txt, to append to."""
    return (run_folder(job.job_id, home) / LOG_FILE).open("ab")


def torchrun(job: Job, job_file: Path, home: Path) -> subprocess.Popen[bytes]:
    """world_size workers under PyTorch's own launcher, which ends all when one dies; each line of the log is tagged.

    Its workers are sessions of their own, so that ending the group does not reach them: torchrun passes SIGTERM on,
    and runs.supervise ends whatever still carries the job's tag.
    """
    elastic = ("--standalone", "--nproc-per-node", str(job.workload.world_size), "--tee", "3", "--role", "rank")
    return local(job, job_file, home, command=(*TORCHRUN, *elastic, "-m", "runs.worker"))


def scratch_folder(job_id: str) -> Path:
    """The job's TMPDIR, removed after it: compilers' caches of a killed worker would stay for ever.

    Short, because a socket's path may have 107 characters only.
    """
    return Path(tempfile.gettempdir()) / f"steplens-{tag(job_id)[:10]}"


def variables(job: Job, home: Path) -> dict[str, str]:
    """What the worker's environment has beside the scheduler's; its TMPDIR is made."""
    scratch = scratch_folder(job.job_id)
    scratch.mkdir(mode=0o700, exist_ok=True)
    found = {JOB_VARIABLE: tag(job.job_id), "STEPLENS_HOME": str(home), "TMPDIR": str(scratch)}
    if job.workload.world_size > 1:  # the ranks share the cores; torchrun by itself would give each one
        found["PYTHONSAFEPATH"] = "1"
        cores = len(os.sched_getaffinity(0)) // job.workload.world_size
        found["OMP_NUM_THREADS"] = worker_environment(job).get("OMP_NUM_THREADS", str(max(1, cores)))
    return found
