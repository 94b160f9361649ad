"""Death: what a worker that left no record died of, in one sentence."""

import signal

from profiler.record import Status
from runs.job import Job
from runs.supervise import Ending


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
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "its log is empty")
    return "failed", f"the worker ended with exit code {returncode} in stage {stage}: {last}", traceback


def _last_traceback(log: str) -> str:
    start = log.rfind("Traceback (most recent call last)")
    return log[start:] if start >= 0 else ""


def _signal_text(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({signal.strsignal(number)})"
    except ValueError:
        return f"signal {number}"
