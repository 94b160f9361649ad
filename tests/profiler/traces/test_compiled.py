"""Compiled code: which module each of a graph's calls belongs to, by what Inductor told and the order of the calls."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from profiler.traces.alignment import Call
from profiler.traces.attribute import Attribution, attribute
from profiler.traces.health import health
from profiler.traces.read import read_trace
from profiler.traces.slice import write_slice
from profiler.traces.words import COMPILED
from tests.support.traces import Row, attributed, event, kernel, launch, module, op, phase, step

MODULES = ["a.conv", "a.norm", "b.conv", "b.norm"]
CALLS: list[Call] = [("triton_0", [0, 1]), ("convolution", [0]), ("triton_1", [1]), ("mm", [2]), ("mm", [3])]


def _said(calls: Sequence[Call], *, is_whole: bool = True) -> dict[str, Any]:
    graphs = {"f1": {"is_whole": is_whole, "calls": calls}}
    return {COMPILED: {"modules": MODULES, "graphs": graphs}}


def _graph(start: int, end: int, thread: int = 1) -> Row:
    return event("user_annotation", "## Call CompiledFxGraph f1 ##", start, end, thread=thread)


def _modules(found: Attribution) -> list[str | None]:
    """The module of each kernel, by start."""
    return [found.modules.paths[code] if code >= 0 else None for code in found.work.module.tolist()]


def test_compiled_kernels_belong_to_the_modules_that_inductor_told() -> None:
    found = attributed(
        step(0, 100),
        op("CompiledFunction", 1, 60),
        _graph(2, 50),
        op("triton_0", 5, 8, external=1),
        op("aten::convolution", 10, 20, external=2),
        op("aten::cudnn_convolution", 11, 19, external=3),
        op("triton_1", 21, 25, external=4),
        launch(1, 6),
        launch(2, 12),
        launch(3, 22),
        launch(4, 55),
        kernel("triton_0", 30, 40, correlation=1, external=1),
        kernel("cudnn", 40, 50, correlation=2, external=3),
        kernel("triton_1", 50, 60, correlation=3, external=4),
        kernel("copy", 60, 90, correlation=4),
        **_said(CALLS[:3]),
    )
    assert _modules(found) == ["a", "a.conv", "a.norm", None]
    assert found.work.compiled.tolist() == [1, 1, 1, -1]
    assert found.modules.source == "provenance"
    (finding,) = (one for one in health(found).findings if "Inductor" in one.what)
    assert (finding.level, finding.count, finding.share) == ("note", 3, 0.5)


def test_a_replayed_graph_is_resolved_by_the_order_of_its_kernels() -> None:
    found = attributed(
        step(0, 100),
        _graph(2, 50),
        launch(1, 10, name="cudaGraphLaunch"),
        kernel("triton_0", 20, 30, correlation=1),
        kernel("cudnn", 30, 40, correlation=1),
        kernel("triton_1", 40, 50, correlation=1),
        kernel("gemm", 50, 60, correlation=1),
        kernel("Memset (Unknown)", 60, 62, correlation=1, kind="gpu_memset"),
        kernel("gemm", 62, 70, correlation=1),
        kernel("Memset (Unknown)", 70, 72, correlation=1, kind="gpu_memset"),
        **_said(CALLS),
    )
    assert _modules(found) == ["a", "a.conv", "a.norm", "b.conv", "b.norm", "b.norm", None]


def test_blocks_that_share_code_are_told_apart_by_the_call_around_it() -> None:
    """Forward by the range of the call, backward by the forward operator."""
    found = attributed(
        step(0, 200),
        phase("forward", 1, 90),
        module("up.0", 2, 40),
        op("CompiledFunction", 3, 39, sequence=7),
        _graph(4, 38),
        op("triton_1", 5, 9, external=1),
        module("up.1", 41, 80),
        op("CompiledFunction", 42, 79, sequence=8),
        _graph(43, 78),
        op("triton_1", 44, 48, external=2),
        phase("backward", 91, 190),
        op("CompiledFunctionBackward", 100, 150, sequence=8, forward_thread=1, thread=2),
        _graph(101, 149, thread=2),
        op("triton_1", 102, 110, external=3, thread=2),
        launch(1, 6),
        launch(2, 45),
        launch(3, 103, thread=2),
        kernel("triton_1", 10, 20, correlation=1, external=1),
        kernel("triton_1", 50, 60, correlation=2, external=2),
        kernel("triton_1", 120, 130, correlation=3, external=3),
        **_said([("triton_1", [1])], is_whole=False),
    )
    assert _modules(found) == ["up.0.a.norm", "up.1.a.norm", "up.1.a.norm"]


def test_a_slice_of_a_module_keeps_its_modules(tmp_path: Path) -> None:
    ran = ["triton_1", "mm", "triton_1", "mm"]
    calls: list[Call] = [("triton_1", [1]), ("mm", [0]), ("triton_1", [3]), ("mm", [2])]
    ops = [op(name, 5 * n, 5 * n + 2) for n, name in enumerate(ran, start=1)]
    rows = [step(0, 100), _graph(2, 50), *ops]
    source, target = tmp_path / "a.json", tmp_path / "b.json.gz"
    source.write_text(json.dumps({"schemaVersion": 1, **_said(calls), "traceEvents": rows}))
    assert write_slice(source, target, step=0, module="b") == 4
    found = attribute(read_trace(target))
    assert _modules(found) == ["b.norm", "b.conv"]


def test_a_part_of_a_model_without_a_call_around_it_stays_unattributed() -> None:
    found = attributed(
        step(0, 100),
        _graph(2, 50),
        op("triton_1", 5, 9, external=1),
        launch(1, 6),
        kernel("triton_1", 10, 20, correlation=1, external=1),
        **_said([("triton_1", [1])], is_whole=False),
    )
    assert _modules(found) == [None]
    assert found.work.compiled.tolist() == [0]
    assert any("compiled code without a module" in one.what for one in health(found).findings)


@pytest.mark.parametrize(
    "said",
    [
        None,
        [1],
        {"modules": "x"},
        {"modules": [], "graphs": {"f1": {"is_whole": True, "calls": [["triton_1", [5]]]}}},
        {"modules": [], "graphs": {"f1": {"is_whole": True, "calls": [["triton_1"]]}}},
    ],
)
def test_a_strange_record_is_none(said: Any) -> None:
    found = attributed(step(0, 100), _graph(2, 50), op("triton_1", 5, 9), **{COMPILED: said})
    assert found.work.module.tolist() == [-1] * len(found.work)


def test_a_range_that_names_no_graph_is_none() -> None:
    unnamed = event("user_annotation", "## Call CompiledFxGraph ", 2, 50)
    found = attributed(step(0, 100), unnamed, op("triton_1", 5, 9), **_said(CALLS))
    assert found.work.module.tolist() == [-1] * len(found.work)
