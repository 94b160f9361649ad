"""Launchers: how a job becomes a worker process, or several."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from runs.job import Job, run_folder
from runs.job_queue import python_environment
from runs.outcome import LOG_FILE
from runs.processes import JOB_VARIABLE

Launch = Callable[[Job, Path, Path], subprocess.Popen[bytes]]  # (job, its file, home) -> the worker
WORKER = (sys.executable, "-P", "-m", "runs.worker")
TORCHRUN = (sys.executable, "-P", "-m", "torch.distributed.run")


def local(job: Job, job_file: Path, home: Path, *, command: Sequence[str] = WORKER) -> subprocess.Popen[bytes]:
    """A worker on this machine: leader of its own process group, tagged, its output in the run's log.txt.

    Raises OSError when it cannot start (the job's directory is gone).
    """
    with (run_folder(job.job_id, home) / LOG_FILE).open("ab") as log:
        return subprocess.Popen(
            [*command, str(job_file), "--home", str(home)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            cwd=job.directory, env=python_environment() | _variables(job, home),
        )  # fmt: skip


def launch(job: Job, job_file: Path, home: Path) -> subprocess.Popen[bytes]:
    """The launcher that fits: torchrun where the step is shared out, though to one process only."""
    is_parallel = job.kind == "measure" and job.combo.parallelism != "none"
    return (torchrun if is_parallel else local)(job, job_file, home)


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
    return Path(tempfile.gettempdir()) / f"steplens-{hashlib.sha256(job_id.encode()).hexdigest()[:10]}"


def _variables(job: Job, home: Path) -> dict[str, str]:
    scratch = scratch_folder(job.job_id)
    scratch.mkdir(mode=0o700, exist_ok=True)
    variables = {JOB_VARIABLE: job.job_id, "STEPLENS_HOME": str(home), "TMPDIR": str(scratch)}
    if job.workload.world_size > 1:  # the ranks share the cores; torchrun by itself would give each one
        variables["PYTHONSAFEPATH"] = "1"
        cores = len(os.sched_getaffinity(0)) // job.workload.world_size
        variables["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max(1, cores)))
    return variables
