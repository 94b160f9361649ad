"""A slice is a small trace of its own: our reader, JSON and torch-tb-profiler open it, and it holds what it says."""

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from profiler.traces.attribute import Attribution, attribute
from profiler.traces.health import health
from profiler.traces.read import read_trace
from profiler.traces.slice import write_slice
from profiler.traces.tables import kernel_table
from tests.support.traces import RECORDED, SDPA, Row, event, kernel, launch, module, op, phase, step

_PROGRAM = """
import sys
from torch_tb_profiler.profiler.data import RunProfileData
run = RunProfileData.parse("worker", None, sys.argv[1], sys.argv[2])
run.process()
print(int(run.kernel_stat["count"].sum()))
"""


def events_of(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    return found


def kernels_of(found: Attribution) -> pa.Table:
    return kernel_table(found).select(["start_ns", "duration_ns", "name", "category", "op", "phase", "module"])


@pytest.fixture
def two_steps(tmp_path: Path) -> Path:
    """Two steps of two modules; in each a kernel per module and one of the optimizer."""
    rows: list[Row] = [{"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "python"}}]
    for number in range(2):
        at, base = 10_000 * number, 10 * number
        rows += [
            step(at, at + 9000),
            phase("forward", at, at + 4000),
            module("", at + 10, at + 3900),
            module("down", at + 20, at + 1000),
            module("down.0", at + 30, at + 900),
            op("aten::conv", at + 40, at + 800, external=base + 1),
            launch(base + 1, at + 50, external=base + 1),
            kernel("conv", at + 5000, at + 5500, correlation=base + 1, external=base + 1),
            module("up", at + 1100, at + 2000),
            op("aten::mm", at + 1200, at + 1800, external=base + 2),
            launch(base + 2, at + 1300, external=base + 2),
            kernel("gemm", at + 5500, at + 5900, correlation=base + 2, external=base + 2),
            op("aten::add_", at + 6000, at + 6900, external=base + 3),
            launch(base + 3, at + 6100, external=base + 3),
            kernel("adam", at + 9500, at + 9900, correlation=base + 3, external=base + 3),  # after the host's step
            {"ph": "s", "id": base + 1, "cat": "ac2g", "name": "ac2g", "pid": 1, "tid": 1, "ts": (at + 50) / 1000},
            {"ph": "f", "id": base + 1, "cat": "ac2g", "name": "ac2g", "pid": 1, "tid": 7, "ts": (at + 5000) / 1000},
            {"ph": "s", "id": base + 9, "cat": "fwdbwd", "name": "half", "pid": 1, "tid": 1, "ts": (at + 60) / 1000},
            event("python_function", "train.py: main", 0, 30_000),
        ]
    file = tmp_path / "two.json"
    file.write_text(json.dumps({"schemaVersion": 1, "traceEvents": rows}))
    return file


def test_a_step_has_its_own_kernels_wherever_they_end(two_steps: Path, tmp_path: Path) -> None:
    output = tmp_path / "slice.json.gz"
    num_events = write_slice(two_steps, output, step=1)
    events = events_of(output)
    assert num_events == len(events)
    assert [row["name"] for row in events if row.get("cat") == "kernel"] == ["conv", "gemm", "adam"]
    assert {row["args"]["correlation"] for row in events if row.get("cat") == "kernel"} == {11, 12, 13}
    assert "train.py: main" not in {row["name"] for row in events}  # it would show the whole recording
    assert [row["ph"] for row in events if row.get("cat") == "ac2g"] == ["s", "f"]
    assert "half" not in {row["name"] for row in events}  # an arrow without its other end


def test_a_module_has_all_in_it_and_the_ranges_around_it(two_steps: Path, tmp_path: Path) -> None:
    output = tmp_path / "slice.json.gz"
    write_slice(two_steps, output, step=0, module="down")
    names = [row["name"].removeprefix("steplens.") for row in events_of(output) if row["ph"] == "X"]
    assert Counter(names) == Counter(
        ["step", "phase.forward", "module.", "module.down", "module.down.0", "aten::conv", "cudaLaunchKernel", "conv"]
    )
    found = attribute(read_trace(output))
    assert kernel_table(found).column("module").to_pylist() == ["down.0"]
    (finding,) = (one for one in health(found).findings if one.what.startswith("cut to one module"))
    assert (finding.level, finding.example) == ("warning", "down"), "else what was cut away reads as idle time"


@pytest.mark.parametrize("trace", RECORDED, ids=lambda path: path.parent.name[:20] + path.name[:20])
def test_a_slice_of_a_recorded_step_reads_as_the_step_did(trace: Path, tmp_path: Path) -> None:
    output = tmp_path / "slice.pt.trace.json.gz"
    write_slice(trace, output, step=0)
    whole, part = attribute(read_trace(trace)), attribute(read_trace(output))
    of_step = kernels_of(whole).filter(pa.compute.equal(kernel_table(whole).column("step"), 0))
    assert kernels_of(part).to_pylist() == of_step.to_pylist()
    assert len(part.trace.ops) == (whole.op_step == 0).sum()
    assert part.trace.device_name == whole.trace.device_name
    events = events_of(output)
    assert {row["ph"] for row in events} <= {"X", "i", "M", "s", "f", "C"}
    assert all({"name", "pid", "tid", "ts", "dur"} <= row.keys() for row in events if row["ph"] == "X")  # for Perfetto
    ends = Counter((row["cat"], row["id"], row["ph"]) for row in events if row["ph"] in "sf")
    assert {(*key[:2], "f") for key in ends} == {key for key in ends if key[2] == "f"}


def test_torch_tb_profiler_opens_a_slice(tmp_path: Path) -> None:
    output = tmp_path / "slice.pt.trace.json.gz"
    write_slice(SDPA, output, step=0)
    command = [sys.executable, "-c", _PROGRAM, str(output), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    num_kernels = sum(row.get("cat") == "kernel" for row in events_of(output))
    assert int(ran.stdout.splitlines()[-1]) == num_kernels > 1000


def test_a_slice_of_a_damaged_trace_is_whole(two_steps: Path, tmp_path: Path) -> None:
    text = two_steps.read_bytes().replace(b'"aten::mm"', b'"aten::\x01mm\xff", "args": {"n": NaN}')
    damaged, output = tmp_path / "damaged.json", tmp_path / "slice.json.gz"
    damaged.write_bytes(text[:-300])
    write_slice(damaged, output, step=0)
    assert [row["name"] for row in events_of(output) if row.get("cat") == "kernel"] == ["conv", "gemm", "adam"]


def test_what_is_not_there_is_refused_with_what_is(two_steps: Path, tmp_path: Path) -> None:
    output = tmp_path / "slice.json.gz"
    with pytest.raises(ValueError, match="no step 2: the trace has 2, the first is 0"):
        write_slice(two_steps, output, step=2)
    with pytest.raises(ValueError, match=r"no module middle: the trace has .*down"):
        write_slice(two_steps, output, step=0, module="middle")
    with pytest.raises(ValueError, match="no module names: Steplens did not mark modules yet"):
        write_slice(SDPA, output, step=0, module="down")
    assert not output.exists()
