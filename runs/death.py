"""Death: what a worker that left no record died of, in one sentence."""

import json
import re
import signal
from pathlib import Path

from profiler.record import RANK_FAILURE, Status
from runs.job import Job
from runs.supervise import Ending

# torchrun's account of the first rank that died.
_RANK_DIED = re.compile(r"Root Cause.*?rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", re.DOTALL)


def explain_death(
    job: Job, returncode: int | None, ending: Ending, stage: str, log: str, has_oom_kill: bool
) -> tuple[Status, str, str]:
    """(status, cause, traceback) from the exit code, why it was ended, its last stage and its log."""
    if ending is Ending.CANCELLED:
        return "cancelled", f"cancelled in stage {stage}", ""
    if ending is Ending.TIMEOUT:
        return "timeout", f"did not finish within {job.timeout_s:g} s, it was ended in stage {stage}", ""
    if returncode == -signal.SIGKILL and has_oom_kill:
        return "oom", f"this machine's main memory ran out in stage {stage}: the kernel killed it (SIGKILL)", ""
    traceback = _last_traceback(log)
    if returncode is not None and returncode < 0:
        return "failed", f"the worker was killed by {_signal_text(-returncode)} in stage {stage}", traceback
    if died := _RANK_DIED.search(log):
        rank, code = died[1], int(died[2])
        how = f"was killed by {_signal_text(-code)}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL and has_oom_kill:
            return "oom", f"main memory ran out in stage {stage}: the kernel killed rank {rank} (SIGKILL)", ""
        return "failed", f"rank {rank} {how} in stage {stage}, so the others were ended", traceback
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "its log is empty")
    return "failed", f"the worker ended with exit code {returncode} in stage {stage}: {last}", traceback


def failure_of_rank(folder: Path) -> tuple[Status, str, str] | None:
    """What a rank, not the first, has left as its own account of its failure."""
    for path in sorted(folder.glob(RANK_FAILURE.format("*"))):
        note = json.loads(path.read_text(encoding="utf-8"))
        rank = path.name.partition(".")[0].replace("-", " ")
        return note["status"], f"{rank}: {note['cause']}", note["traceback"]
    return None


def _last_traceback(log: str) -> str:
    start = log.rfind("Traceback (most recent call last)")
    return log[start:] if start >= 0 else ""


def _signal_text(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"
