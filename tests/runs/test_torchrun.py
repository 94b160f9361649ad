"""Several real workers under torchrun: what is left when one of them dies."""

import json
import os
import signal
from pathlib import Path

import pytest

from profiler.combo import Combo
from profiler.record import RANK_FAILURE
from profiler.workload import Workload
from runs import job_queue
from runs.death import explain_death, failure_of_rank
from runs.job import measure_job
from runs.processes import _tagged
from runs.supervise import Ending
from tests.runs.conftest import end_detached, record_of, wait_until

WORK = Workload(  # timed at once, and for long
    model="tests.support.unets:conditional_unet",
    mode="train",
    device="cpu",
    world_size=2,
    min_samples=2000,
    min_seconds=0.0,
    curve_steps=0,
)
DIED = """[rank0]:Traceback (most recent call last)
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_23:59:14
  rank      : 1 (local_rank: 1)
  exitcode  : {} (pid: 21001)
"""


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_job_with_its_name(home: Path) -> None:
    job = measure_job(Combo(parallelism="ddp"), WORK)
    job_queue.submit([job], home=home)
    try:
        wait_until(lambda: any(e["stage"] == "time" for e in job_queue.events(job.job_id, home=home)), 90)
        os.kill(_process_of_rank(1, job.job_id), signal.SIGKILL)
        record = record_of(job, home, timeout_s=40)
    finally:
        end_detached(home)
    assert record.status == "failed"
    assert record.cause.startswith("rank 1 was killed by SIGKILL (Killed) in stage time"), record.cause
    assert _tagged(job.job_id) == [], "no process of the job is left"


def _process_of_rank(rank: int, job_id: str) -> int:
    wanted = f"RANK={rank}".encode()
    environments = {pid: Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in _tagged(job_id)}
    return next(pid for pid, environment in environments.items() if wanted in environment)


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-9, "rank 1 was killed by SIGKILL (Killed) in stage time, so the others were ended"),
        (3, "rank 1 ended with exit code 3 in stage time, so the others were ended"),
    ],
)
def test_torchrun_tells_which_rank_died_first(code: int, cause: str) -> None:
    job = measure_job(Combo(parallelism="ddp"), WORK)
    assert explain_death(job, 1, Ending.ITSELF, "time", DIED.format(code), False)[:2] == ("failed", cause)


def test_a_rank_killed_for_memory_is_oom() -> None:
    job = measure_job(Combo(parallelism="ddp"), WORK)
    status, cause, _ = explain_death(job, 1, Ending.ITSELF, "time", DIED.format(-9), True)
    assert (status, "main memory ran out" in cause) == ("oom", True)


def test_a_ranks_own_account_of_its_failure_is_read(tmp_path: Path) -> None:
    assert failure_of_rank(tmp_path) is None
    note = {"status": "oom", "cause": "CUDA out of memory", "traceback": "Traceback ..."}
    (tmp_path / RANK_FAILURE.format(1)).write_text(json.dumps(note), encoding="utf-8")
    assert failure_of_rank(tmp_path) == ("oom", "rank 1: CUDA out of memory", "Traceback ...")
