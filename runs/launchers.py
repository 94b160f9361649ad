"""Launchers: how a job becomes a worker process."""

import hashlib
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


def scratch_folder(job_id: str) -> Path:
    """The job's TMPDIR, removed after it: compilers' caches of a killed worker would stay for ever.

    Short, because a socket's path may have 107 characters only.
    """
    return Path(tempfile.gettempdir()) / f"steplens-{hashlib.sha256(job_id.encode()).hexdigest()[:10]}"


def _variables(job: Job, home: Path) -> dict[str, str]:
    scratch = scratch_folder(job.job_id)
    scratch.mkdir(mode=0o700, exist_ok=True)
    return {JOB_VARIABLE: job.job_id, "STEPLENS_HOME": str(home), "TMPDIR": str(scratch)}
