"""What the CLI says of a run."""

from dataclasses import replace

from profiler.combo import BASELINE
from profiler.record import Record
from profiler.workload import Workload
from runs.tables import run_row
from tests.runs.fake_worker import machine

ON_CPU = Workload(model="tiny", device="cpu")


def test_a_run_bears_the_name_of_the_device_that_ran_it() -> None:
    host = machine(gpu_name="NVIDIA H200", no_cuda_reason=None)
    record = Record(run_id="r", status="done", combo=BASELINE, workload=ON_CPU, machine=host)
    assert run_row(record)["machine"] == "fake cpu"
    assert run_row(replace(record, workload=replace(ON_CPU, device="cuda")))["machine"] == "NVIDIA H200"
    assert run_row(replace(record, machine=None))["machine"] is None
