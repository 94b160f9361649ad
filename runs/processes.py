"""Processes: who they are, how a job's are ended, and whether the host ran out of memory."""

import contextlib
import hashlib
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

JOB_VARIABLE = "STEPLENS_JOB"  # in the environment of every process of a job: its tag
_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A process for ever: a pid alone is given out again, after a reboot even with the same start time."""

    pid: int
    start_ticks: int
    boot_id: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def is_alive(self) -> bool:
        return identify(self.pid) == self


def identify(pid: int) -> Identity | None:
    """The identity of a live process; None when there is none, or only its unread exit code (zombie)."""
    try:
        # The name, in brackets, may hold anything: fields are counted behind its last bracket.
        state, *after = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else Identity(pid=pid, start_ticks=int(after[18]), boot_id=boot_id())


def boot_id() -> str:
    """Changes at every start of the machine."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def end_group(pid: int, *, patience_s: float = 5.0) -> None:
    """SIGTERM to the process group that pid leads, then, for what is left, SIGKILL."""
    _signal_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and _group_lives(pid):
        time.sleep(0.05)
    _signal_group(pid, signal.SIGKILL)


def tag(job_id: str) -> str:
    """16 letters for every job, so that one tag can be written over another (runs/zygote.py)."""
    return hashlib.sha256(job_id.encode()).hexdigest()[:16]


def end_strays(job_id: str) -> int:
    """SIGKILL every process that still carries the job's tag, wherever it hid; their number."""
    strays = _tagged(job_id)
    for pid in strays:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return len(strays)


def num_oom_kills() -> int:
    """How often the kernel killed for memory in this control group (v2, v1, or the whole machine)."""
    counters = [*_cgroup_files(), _PROC / "vmstat"]
    for path in counters:
        with contextlib.suppress(OSError):
            for line in path.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def _cgroup_files() -> list[Path]:
    try:
        lines = (_PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            found += [_CGROUP / path.lstrip("/") / "memory.events", _CGROUP / "memory.events"]
        elif "memory" in controllers.split(","):
            version1 = _CGROUP / "memory"
            found += [version1 / path.lstrip("/") / "memory.oom_control", version1 / "memory.oom_control"]
    return found


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _group_lives(pgid: int) -> bool:
    """Whether the group has a member that is no zombie (a leader's zombie stays until it is read)."""
    for path in _PROC.iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                state, _, group = (path / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(group) == pgid and state not in "ZX":
                    return True
    return False


def _tagged(job_id: str) -> list[int]:
    wanted = f"{JOB_VARIABLE}={tag(job_id)}".encode()
    found = []
    for path in _PROC.iterdir():
        if path.name.isdigit() and int(path.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
    return found
