"""The true worker, scheduler and profiler: the tiny model on a CPU, from submit to a complete run folder."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from profiler.combo import Combo
from profiler.workload import Workload
from runs import job_queue
from runs.job import measure_job, reference_job, run_folder
from runs.machine_file import read_machine
from tests.runs.conftest import end_detached, record_of

TINY = Workload(model="tiny", mode="train", batch=1, resolution=64, device="cpu", min_samples=3, min_seconds=0.1)


@pytest.mark.slow
def test_a_submitted_job_becomes_a_run_folder(home: Path) -> None:
    (home / "machine.json").unlink(missing_ok=True)
    good = measure_job(Combo(attention="sdpa", optimizer="adamw_fused"), TINY)
    unknown = measure_job(Combo(), replace(TINY, model="os:getcwd"))
    job_queue.submit([reference_job(TINY), good, unknown], home=home)
    try:
        record = record_of(good, home, timeout_s=120)
        refused = record_of(unknown, home, timeout_s=60)
    finally:
        end_detached(home)
    log = job_queue.log_tail(good.job_id, home=home)
    assert record.status == "done", f"{record.cause}\n{log}"
    assert record.metrics.step_ms is not None
    assert record.metrics.output_error is not None, "it found the reference that was made before it"
    assert record.machine == read_machine(home), "the probe and the run see the same machine"
    stages = [event["stage"] for event in job_queue.events(good.job_id, home=home)]
    assert stages[:2] == ["starting", "build"]
    assert (run_folder(good.job_id, home) / "kernels.parquet").exists()
    assert refused.status == "rejected"
    assert "os:getcwd returned str" in refused.cause


def test_the_worker_alone_is_the_only_one_to_load_torch() -> None:
    code = "import json, sys, runs.scheduler, runs.launchers, runs.__main__; print(json.dumps('torch' in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(job_queue.ROOT)},
    )  # fmt: skip
    assert json.loads(done.stdout) is False
