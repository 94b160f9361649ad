"""What the CLI says of a run."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from profiler.combo import BASELINE
from profiler.record import Record
from profiler.workload import Workload
from runs.tables import run_row, runs_table, why_none
from tests.runs.fake_worker import machine

ON_CPU = Workload(model="tiny", device="cpu")


def test_a_run_bears_the_name_of_the_device_that_ran_it() -> None:
    host = machine(gpu_name="NVIDIA H200", no_cuda_reason=None)
    record = Record(run_id="r", status="done", combo=BASELINE, workload=ON_CPU, machine=host)
    assert run_row(record)["machine"] == "fake cpu"
    assert run_row(replace(record, workload=replace(ON_CPU, device="cuda")))["machine"] == "NVIDIA H200"
    assert run_row(replace(record, machine=None))["machine"] is None


@pytest.mark.parametrize("width", [80, 120, 160])
def test_a_runs_name_is_never_broken(width: int) -> None:
    name = "20261124-091708-sd15-inference-016d2cc7-a0c804"
    record = Record(run_id=name, status="failed", combo=BASELINE, workload=ON_CPU, cause="[no] memory " * 9)
    console = Console(file=io.StringIO(), width=width)
    console.print(runs_table([record], "Runs", width))
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert name in printed
    assert "[no]" in printed
    assert all(word in printed for word in (*ON_CPU.label.split(), BASELINE.label))


def test_an_empty_list_says_how_many_runs_there_are_and_what_they_lack() -> None:
    done = Record(run_id="r", status="done", combo=BASELINE, workload=ON_CPU)
    known = [done, replace(done, status="rejected"), done]
    assert why_none(known, None, "oom") == "none of the 3 runs has status oom: there are 2 done, 1 rejected"
    assert why_none(known, "s", "oom").startswith("none of the 3 runs is of sweep s and has status oom: ")
    assert why_none([], None, "oom") == "no run yet: python -m runs sweep quick"
