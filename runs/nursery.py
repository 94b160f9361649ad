"""Nursery: launches jobs through a zygote (runs/zygote.py), from which their workers are forked."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from runs.job import Job, worker_environment
from runs.launchers import Worker, is_parallel, open_log, start, torchrun, variables
from runs.processes import JOB_VARIABLE

ZYGOTE = (sys.executable, "-P", "-m", "runs.zygote")


class Forked:
    """A worker that the zygote forks, to be asked like a subprocess.Popen."""

    def __init__(self, zygote: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.zygote, self.channel = zygote, channel
        self.pid = zygote.pid  # while it imports, and where it forks nobody, the zygote is at work on the job
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code; the zygote's own where it ended before it could tell another."""
        while self.returncode is None:
            try:
                told = self.channel.recv(32)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                told = b""
            if not told:
                self.returncode = self.zygote.poll()
                break
            if self.pid == self.zygote.pid:
                self.pid = int(told)
            else:
                self.returncode = int(told)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, as soon as there is one. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if timeout is not None and deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a forked worker", timeout)
            time.sleep(0.02)
        return code

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and its zygote can fork another."""
        return self.returncode is not None and self.zygote.poll() is None


class Nursery:
    """A launcher that keeps one zygote; a fresh one when a fresh process would find anything else.

    That is another directory, environment or set of packages. A zygote ends when nobody holds the other end of its
    socket, so at the latest with this process. What torchrun starts it starts as ever.
    """

    def __init__(self) -> None:
        self._worker: Forked | None = None
        self._found: object = None

    def __call__(self, job: Job, job_file: Path, home: Path) -> Worker:
        """A worker for the job. Raises OSError when it cannot start (the job's directory is gone)."""
        if is_parallel(job):
            return torchrun(job, job_file, home)
        shared = variables(job, home)
        own = {name: shared.pop(name) for name in (JOB_VARIABLE, "TMPDIR")}
        request = {"arguments": [str(job_file), "--home", str(home)], "variables": own}
        packages = {path: os.stat(path).st_mtime_ns for path in sys.path if os.path.isdir(path)}
        found = (job.directory, worker_environment(job), shared, packages)
        directory = os.open(job.directory or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            last = self._worker
            if last and last.is_over and found == self._found:
                worker = Forked(last.zygote, last.channel)
            else:
                self.close()
                worker = _of_fresh_zygote(job, home)
            with open_log(job, home) as log:
                socket.send_fds(worker.channel, [json.dumps(request).encode()], [log.fileno(), directory])
        finally:
            os.close(directory)
        self._worker, self._found = worker, found
        return worker

    def close(self) -> None:
        """End the zygote; a worker that still runs goes on."""
        if self._worker:
            self._worker.channel.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._worker.zygote.wait(5.0)
            self._worker = None


def _of_fresh_zygote(job: Job, home: Path) -> Forked:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with theirs:
        number = theirs.fileno()
        return Forked(start((*ZYGOTE, str(number)), job, home, passed=(number,)), ours)
