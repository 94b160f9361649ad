"""torch-tb-profiler's own parser as an oracle: it agrees where it is right; where it is not, a test shows why."""

import gzip
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.traces.attribute import Attribution, attribute
from profiler.traces.breakdown import breakdown
from profiler.traces.classify import CATEGORIES
from profiler.traces.intervals import Union
from profiler.traces.operators import operator_table
from profiler.traces.read import read_trace
from profiler.traces.windows import named
from tests.support.traces import CHANNELS_LAST, EAGER, SDPA, event, kernel, launch, op, step

# In a process of its own: the plugin was written for older packages and warns of their deprecations. One for all
# traces, each a line that is answered by a line: to import it takes a second.
_PROGRAM = """
import json, sys
from torch_tb_profiler.profiler.data import RunProfileData
from torch_tb_profiler.profiler.event_parser import ProfileRole
for line in sys.stdin:
    run = RunProfileData.parse("worker", None, *json.loads(line))
    run.process()
    kernels, costs, operators = run.kernel_stat, run.avg_costs.costs, run.op_list_groupby_name
    print("found", json.dumps({
        "share": run.gpu_metrics_parser.gpu_utilization[0],
        "num_kernels": int(kernels["count"].sum()),
        "kernels_us": float(kernels["sum"].sum()),
        "operators": {op.name: [op.calls, op.self_device_duration, op.device_duration] for op in operators},
        "costs": {role.name: costs[role] for role in ProfileRole},
    }), flush=True)
"""

Oracle = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="module")
def oracle_of() -> Iterator[Oracle]:
    """What the plugin says of a trace."""
    command = [sys.executable, "-c", _PROGRAM]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as plugin,
    ):
        assert plugin.stdin is not None
        assert plugin.stdout is not None
        asked, answers = plugin.stdin, plugin.stdout

        @cache
        def oracle(trace: Path) -> dict[str, Any]:
            print(json.dumps([str(trace), folder]), file=asked, flush=True)
            answer = next((line for line in answers if line.startswith("found ")), None)
            assert answer is not None, f"the plugin's process ended with {plugin.wait(5)}"
            found: dict[str, Any] = json.loads(answer.removeprefix("found "))
            return found

        yield oracle


def _parts_us(found: Attribution) -> Counter[str]:
    parts: Counter[str] = Counter()
    for row in breakdown(found).to_pylist():
        parts[row["part"]] += row["duration_ns"] / 1e3
    return parts


@pytest.mark.parametrize("trace", [SDPA, CHANNELS_LAST, EAGER], ids=["sdpa", "channels_last", "math"])
def test_tensorboards_plugin_finds_the_same_busy_gpu(trace: Path, oracle_of: Oracle) -> None:
    oracle = oracle_of(trace)
    found = attribute(read_trace(trace))
    kernels = found.work.take(found.work.category != CATEGORIES.index("memcpy"))  # as the plugin counts
    is_step = named(found.trace, found.trace.ranges, "ProfilerStep#")
    (duration,) = found.trace.ranges.duration_ns[is_step].tolist()
    assert len(kernels) == oracle["num_kernels"]
    assert kernels.duration_ns.sum() / 1e3 == pytest.approx(oracle["kernels_us"], abs=0.1)
    busy = Union.of(kernels.start_ns, kernels.end_ns).total_ns
    assert busy / duration == pytest.approx(oracle["share"], rel=0.01)
    parts, costs = _parts_us(found), oracle["costs"]
    assert parts["memcpy"] == pytest.approx(costs["Memcpy"] + costs["Memset"], abs=1)
    assert sum(parts[name] for name in CATEGORIES) - parts["memcpy"] == pytest.approx(costs["Kernel"], rel=1e-3)


@pytest.mark.parametrize("trace", [SDPA, EAGER], ids=["sdpa", "math"])
def test_operators_agree_but_for_launches_that_the_plugin_does_not_know(
    trace: Path, tmp_path: Path, oracle_of: Oracle
) -> None:
    """Its last release (0.4.3) reads launches under their old category "Runtime" only, so that no operator of a trace
    of today has any device time. With the old spelling put in, all agree but for what the driver launched."""
    assert not any(self_us for _, self_us, _ in oracle_of(trace)["operators"].values())
    old = tmp_path / "old.pt.trace.json"
    old.write_bytes(gzip.decompress(trace.read_bytes()).replace(b'"cat": "cuda_runtime"', b'"cat": "Runtime"'))
    theirs, found = oracle_of(old)["operators"], attribute(read_trace(old))
    by_driver = _launched_by_driver(found)
    assert sum(by_driver.values()) > (0.1 * found.traced.duration_ns.sum() if trace is SDPA else 0)
    for ours in operator_table(found).to_pylist():
        calls, self_us, _ = theirs[ours["name"]]
        merged = 2 if ours["name"] == "aten::upsample_nearest2d" else 1  # it calls itself, and counts once there
        assert calls * merged == ours["num_calls"]
        expected_us = (ours["device_self_ns"] - by_driver[ours["name"]]) / 1e3
        assert self_us == pytest.approx(expected_us, abs=1), ours["name"]


def _launched_by_driver(found: Attribution) -> Counter[str]:
    """Device time by operator of kernels from cuLaunchKernel and cuLaunchKernelEx: cuBLASLt's and Triton's."""
    trace, work = found.trace, found.traced
    is_driver = np.array([name.startswith("cuLaunchKernel") for name in trace.names])
    chosen = work.take(is_driver[trace.launches.name[work.launch]])
    time: Counter[str] = Counter()
    for row, ns in zip(chosen.op.tolist(), chosen.duration_ns.tolist(), strict=True):
        time[trace.names[trace.ops.name[row]]] += ns
    return time


def test_streams_side_by_side_count_once_here_and_twice_in_the_plugins_kernel_table(
    tmp_path: Path, oracle_of: Oracle
) -> None:
    rows = [
        step(0, 100_000, "ProfilerStep#1"),
        op("aten::mm", 1_000, 20_000, external=1),
        *(launch(1, 2_000), launch(2, 3_000), event("cuda_runtime", "cudaDeviceSynchronize", 30_000, 90_000)),
        kernel("gemm_a", 10_000, 50_000, correlation=1, external=1, stream=7),
        kernel("gemm_b", 20_000, 60_000, correlation=2, external=1, stream=8),
    ]
    file = tmp_path / "a.pt.trace.json"
    properties = [{"id": 0, "name": "NVIDIA H200", "computeMajor": 9, "computeMinor": 0, "numSms": 132}]
    file.write_text(json.dumps({"schemaVersion": 1, "deviceProperties": properties, "traceEvents": rows}))
    oracle = oracle_of(file)
    parts = _parts_us(attribute(read_trace(file)))
    assert oracle["kernels_us"] == 80  # a sum; the GPU was busy for 50
    assert parts["gemm"] == 50
    assert oracle["share"] == pytest.approx(0.5)
