"""Processes are told apart for ever, and ended with all that belongs to them."""

import os
import subprocess
import sys
from dataclasses import replace

from runs.processes import JOB_VARIABLE, end_group, end_strays, identify, num_oom_kills, tag


def test_a_process_is_known_by_pid_start_and_boot() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert me.is_alive
    assert not replace(me, start_ticks=me.start_ticks + 1).is_alive, "the same pid, given out again"
    assert not replace(me, boot_id="another boot").is_alive


def test_a_process_that_ended_has_no_identity_even_before_it_is_reaped() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identify(child.pid) is None
    child.wait()


def test_a_group_is_ended_at_once_when_it_listens_and_by_force_when_not() -> None:
    for command, by in ((["sleep", "100"], 15), ([sys.executable, "-c", _DEAF], 9)):
        child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
        if by == 9:
            assert child.stdout is not None
            child.stdout.readline()
        end_group(child.pid, patience_s=0.5)
        assert child.wait(timeout=5) == -by
        if child.stdout:
            child.stdout.close()


def test_strays_of_one_job_are_found_and_no_others() -> None:
    mine, other = (
        subprocess.Popen(["sleep", "100"], start_new_session=True, env=os.environ | {JOB_VARIABLE: tag(job_id)})
        for job_id in ("a-job", "a-job-2")
    )
    try:
        assert end_strays("a-job") == 1
        assert mine.wait(timeout=5) == -9
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_counter_of_memory_kills_can_be_read() -> None:
    assert num_oom_kills() >= 0


_DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(100)"
