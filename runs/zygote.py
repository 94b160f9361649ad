"""Zygote: a process that has done nothing but the imports of profiler.preload, and forks a worker for each job.

    python -m runs.zygote SOCKET     its number among the open files; runs.launchers holds the other end

A worker starts like `python -m runs.worker` but for these imports, four seconds of CPU: a session, log, directory and
temporary folder of its own, all memory resident. It imports our own code itself. Where more has happened than imports
(a second thread, an open GPU), nobody is forked: the zygote is the worker of one job. It ends with its scheduler.
"""

import array
import contextlib
import ctypes
import itertools
import json
import mmap
import os
import runpy
import select
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

import profiler.preload  # noqa: F401

_SELF = Path("/proc/self")
_JOB_VARIABLE, _NOBODY = "STEPLENS_JOB", "0" * 16  # runs.processes
_GPUS = ("/dev/nvidia", "/dev/dxg")
_POPULATE_READ, _POPULATE_WRITE = 22, 23  # madvise(2) since Linux 5.14

Page = tuple[int, int, int]  # address, bytes, how to have it


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    while True:
        request = _next(channel)
        if request is None:
            os._exit(0)  # the scheduler is gone, or wants another; tidying torch up would take half a second
        # The worker has the job's tag from birth, so that no moment is left in which nobody would find it.
        if not _carry(request["variables"][_JOB_VARIABLE]) or not _is_pristine():
            break
        pages = list(_resident())
        if not (pid := os.fork()):
            os.setsid()
            _own(pages)
            break
        _carry(_NOBODY)
        _attend(channel, pid)
    channel.close()
    _work(request)


def _next(channel: socket.socket) -> dict[str, Any] | None:
    """The next request, its log and directory taken; None when nobody holds the other end any more."""
    try:
        message, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 2)
    except ConnectionResetError:  # gone before it read what it had been told
        return None
    if not message:
        return None
    log, directory = descriptors
    for output in (1, 2):
        os.dup2(log, output)
    os.fchdir(directory)
    os.close(log)
    os.close(directory)
    request: dict[str, Any] = json.loads(message)
    return request


def _carry(tag: str) -> bool:
    """Write the tag over the one that /proc/PID/environ shows: os.environ is a copy. False where that cannot be."""
    start = int((_SELF / "stat").read_text().rpartition(")")[2].split()[47])
    before = f"\0{_JOB_VARIABLE}=".encode()
    at = (b"\0" + (_SELF / "environ").read_bytes()).find(before)
    if not start or at < 0:
        return False
    ctypes.memmove(start + at + len(before) - 1, tag.encode(), len(tag))
    return True


def _is_pristine() -> bool:
    """Whether a forked process is as good as a fresh one: only imports have happened, the kernel has what we use."""
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)  # at the first fork OpenBLAS, which comes with numpy, ends the threads that it keeps ready
    try:
        mmap.mmap(-1, mmap.PAGESIZE).madvise(_POPULATE_READ)
        (_SELF / "pagemap").open("rb").close()
        os.close(os.pidfd_open(os.getpid()))
        opened = [os.readlink(path) for path in (_SELF / "fd").iterdir() if path.is_symlink()]
    except OSError:
        return False
    # Dynamo's own cache of whole programs is set up at import, in the TMPDIR of that time: not cold for the next job.
    is_cold = "TORCH_CACHING_PRECOMPILE" not in os.environ
    return is_cold and len(list((_SELF / "task").iterdir())) == 1 and not any(p.startswith(_GPUS) for p in opened)


def _resident() -> Iterator[Page]:
    """What is in memory here. A fork leaves pages of files out, and has others copied at the first write to them."""
    with (_SELF / "pagemap").open("rb") as pagemap:
        for line in (_SELF / "maps").read_text().splitlines():
            span, rights, _, _, _, *name = line.split()
            if not rights.startswith("r") or not rights.endswith("p") or (name and name[0].startswith("[v")):
                continue
            start, end = (int(bound, 16) for bound in span.split("-"))
            pagemap.seek(start // mmap.PAGESIZE * 8)
            entries = array.array("Q", pagemap.read((end - start) // mmap.PAGESIZE * 8))
            advice = _POPULATE_WRITE if "w" in rights else _POPULATE_READ
            for is_present, run in itertools.groupby(entries, lambda entry: entry >> 63):
                length = sum(1 for _ in run) * mmap.PAGESIZE
                if is_present:
                    yield start, length, advice
                start += length


def _own(pages: list[Page]) -> None:
    """Have them at once: later they would count in the first steps' times, and be missing in the peak of memory."""
    libc = ctypes.CDLL(None)
    for address, length, advice in pages:
        libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), advice)


def _attend(channel: socket.socket, pid: int) -> None:
    """Tell the worker's pid and how it ended, as Popen would, unless the scheduler is gone before.

    The worker stays a zombie until the next request, so that its pid is nobody else's while it may be signalled.
    """
    end = os.pidfd_open(pid)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        channel.send(str(pid).encode())
        ready, _, _ = select.select([channel.fileno(), end], [], [])
        if end in ready:
            found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert found is not None
            code = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            channel.send(str(code).encode())
            select.select([channel], [], [])
            os.waitpid(pid, 0)
    os.close(end)


def _work(request: dict[str, Any]) -> None:
    """What is left to do of `python -m runs.worker` after the imports of the preload."""
    scratch = os.environ["TMPDIR"]
    for name, value in os.environ.items():  # torch has put folders inside it there
        os.environ[name] = value.replace(scratch, request["variables"]["TMPDIR"])
    os.environ |= request["variables"]
    tempfile.tempdir = None
    numpy.random.seed()  # from the system, as at its import
    sys.argv[1:] = request["arguments"]
    runpy.run_module("runs.worker", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
