"""Foreign traces: one recorded trace in every shape that other writers and older versions give it reads the same."""

import copy
import gzip
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.traces.attribute import Attribution, attribute
from profiler.traces.columns import Trace
from profiler.traces.health import health
from profiler.traces.read import read_trace
from tests.support.traces import SDPA, Row, attributed, event, kernel, launch, op, read_text, recorded, step


@cache
def _file() -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(gzip.decompress(SDPA.read_bytes()))
    return whole


def _operators(found: Attribution) -> list[tuple[str, str | None]]:
    """Kernel and operator of each piece of work, in order of start."""
    trace, work = found.trace, found.work
    return [
        (trace.names[name], trace.names[trace.ops.name[row]] if row >= 0 else None)
        for name, row in zip(work.name.tolist(), work.op.tolist(), strict=True)
    ]


def _without_ids(events: list[Row]) -> None:
    for one in events:
        one.get("args", {}).pop("External id", None)


def _old_spellings(events: list[Row]) -> None:
    old = {"cpu_op": "Operator", "kernel": "Kernel", "gpu_memset": "Memset", "cuda_runtime": "Runtime"}
    for one in events:
        one["cat"] = old.get(one.get("cat", ""), one.get("cat", ""))


def _as_rocm(events: list[Row]) -> None:
    """AMD: launches are hip calls, kernels carry no occupancy, all in category cuda_runtime."""
    for one in events:
        if one.get("cat") == "kernel":
            one["args"] = {k: one["args"][k] for k in ("External id", "device", "stream", "correlation")} | {
                "kind": "x"
            }
        elif one.get("cat") in ("cuda_runtime", "cuda_driver"):
            one["cat"] = "cuda_runtime"
            one["name"] = one["name"].replace("cuLaunchKernelEx", "hipModuleLaunchKernel").replace("cuda", "hip")


def _since_1970(events: list[Row]) -> None:
    for one in events:
        one["ts"] += 1_786_000_000_000_000


def _reversed(events: list[Row]) -> None:
    events.reverse()


def _on_one_process(events: list[Row]) -> None:
    for one in events:
        if one.get("ph") == "X":
            one["pid"] = 0


def _ids_as_text(events: list[Row]) -> None:
    for one in events:
        if "External id" in one.get("args", {}):
            one["args"]["External id"] = str(one["args"]["External id"])


def _huge_ids(events: list[Row]) -> None:
    for one in events:
        if "correlation" in one.get("args", {}):
            one["args"]["correlation"] += 2**63


@pytest.mark.parametrize(
    "change",
    [_without_ids, _old_spellings, _as_rocm, _since_1970, _reversed, _on_one_process, _ids_as_text, _huge_ids],
    ids=lambda change: change.__name__.strip("_"),
)
def test_another_writers_trace_has_the_same_operators(change: Callable[[list[Row]], None]) -> None:
    changed = copy.deepcopy(_file())
    change(changed["traceEvents"])
    found = attribute(read_text(json.dumps(changed)))
    assert _operators(found) == _operators(recorded(SDPA))
    if change is not _since_1970:  # a double that holds microseconds since 1970 has lost the nanoseconds
        assert (found.work.duration_ns == recorded(SDPA).work.duration_ns).all()
        assert (np.diff(found.work.start_ns) == np.diff(recorded(SDPA).work.start_ns)).all()


@pytest.mark.parametrize("indent", [None, 0, 1, 4])
def test_the_layout_of_the_text_does_not_matter(indent: int | None) -> None:
    assert _same(read_text(json.dumps(_file(), indent=indent)))
    assert _same(read_text(json.dumps({k: _file()[k] for k in sorted(_file(), key=lambda key: key != "traceEvents")})))


def _same(trace: Trace) -> bool:
    plain = recorded(SDPA).trace
    return trace.metadata == plain.metadata and bool((trace.device.start_ns == plain.device.start_ns).all())


def test_without_steps_and_ranges_the_whole_trace_is_one_step() -> None:
    events = [one for one in _file()["traceEvents"] if one.get("cat") not in ("user_annotation", "gpu_user_annotation")]
    found = attribute(read_text(json.dumps(_file() | {"traceEvents": events})))
    assert (found.num_steps, len(found.traced)) == (1, len(recorded(SDPA).work))
    assert {found.phases.names[code] for code in found.work.phase} == {"forward"}
    assert "steps" in health(found).why_empty


def test_a_trace_of_the_gpu_alone_is_read() -> None:
    events = [one for one in _file()["traceEvents"] if one.get("cat") in ("kernel", "gpu_memset")]
    found = attribute(read_text(json.dumps(_file() | {"traceEvents": events})))
    assert len(found.traced) == len(recorded(SDPA).work)
    assert {row for _, row in _operators(found)} == {None}
    assert not health(found).is_whole


def test_host_rows_that_carry_a_stream_are_no_gpu_work() -> None:
    """Inductor's rows of Triton launches have a `stream` and a `grid` in words; a peer counted them as kernels."""
    triton = op("triton_poi_fused_add_0", 5, 9, stream=0, grid="grid(64,)", kernel_backend="triton", external=4)
    found = attributed(
        step(0, 50), triton, launch(1, 6, name="cuLaunchKernel"), kernel("triton_poi_fused_add_0", 20, 30)
    )
    assert len(found.work) == 1
    assert len(found.trace.ops) == 1


def test_ranges_projected_on_the_gpu_are_no_gpu_work() -> None:
    found = attributed(step(0, 50), kernel("k", 10, 20), event("gpu_user_annotation", "ProfilerStep#1", 9, 40))
    assert (len(found.work), found.num_steps) == (1, 1)


def test_streams_that_wait_are_kept_apart_from_work() -> None:
    wait = event("cuda_sync", "Stream Wait Event", 5, 9, wait_on_stream=20, wait_on_cuda_event_record_corr_id=3)
    trace = attributed(kernel("k", 10, 20), wait).trace
    assert (len(trace.device), trace.syncs.wait_stream.tolist(), trace.syncs.wait_correlation.tolist()) == (
        1,
        [20],
        [3],
    )


def test_a_gzip_without_the_ending_and_of_several_members_is_read(tmp_path: Path) -> None:
    text = json.dumps(_file()).encode()
    file = tmp_path / "trace"
    file.write_bytes(gzip.compress(text[:1_000_000]) + gzip.compress(text[1_000_000:]))
    assert _same(read_trace(file))
