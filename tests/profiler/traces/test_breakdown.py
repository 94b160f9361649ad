"""The breakdown of a step: parts add up to its wall time, overlap counts once, and idle time has its reason."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.traces.attribute import Attribution, attribute
from profiler.traces.breakdown import breakdown, exposed, step_windows
from profiler.traces.classify import CATEGORIES
from profiler.traces.intervals import Union
from profiler.traces.read import read_trace
from tests.support.traces import RECORDED, Row, attributed, event, kernel, launch, op, step

GEMM, CONV, COPY, NCCL = "nvjet_hsh", "sm90_xmma_fprop_implicit_gemm", "Memcpy DtoD", "ncclDevKernel_AllReduce"


def _parts(found: Attribution) -> dict[str, int]:
    total: Counter[str] = Counter()
    for row in breakdown(found).to_pylist():
        total[row["part"]] += row["duration_ns"]
    return {part: ns for part, ns in total.items() if ns}


def _wall(found: Attribution) -> int:
    start, end = step_windows(found)
    return int((end - start).sum())


def test_computation_comes_first_then_what_it_does_not_hide() -> None:
    found = attributed(
        *(step(0, 100), launch(1, 1), launch(2, 2), launch(3, 3)),
        kernel(GEMM, 10, 40, correlation=1),
        kernel(NCCL, 20, 60, correlation=2, stream=9),
        kernel(COPY, 30, 70, correlation=3, stream=8, kind="gpu_memcpy"),
    )
    parts = _parts(found)
    assert (parts["gemm"], parts["communication"], parts["memcpy"]) == (30, 20, 10)
    assert sum(parts.values()) == 100 == _wall(found)


def test_of_two_kernels_at_once_the_first_counts() -> None:
    rows = (launch(1, 1), launch(2, 2), kernel(GEMM, 10, 40, correlation=1), kernel(CONV, 35, 50, correlation=2))
    parts = _parts(attributed(step(0, 60), *rows))
    assert (parts["gemm"], parts["conv"]) == (30, 10)


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        # The launch begins when the GPU is idle already: the host is late, and the launch itself takes its time.
        ((launch(2, 50, until=58),), {"host": 30, "queue": 10}),
        # It was launched in time: the GPU itself needed the gap.
        ((launch(2, 5),), {"queue": 40}),
        # The host had waited for the GPU, so that nothing was queued.
        ((event("cuda_runtime", "cudaStreamSynchronize", 5, 22), launch(2, 50)), {"sync": 30, "queue": 10}),
        ((event("cuda_runtime", "cudaMalloc", 25, 35), launch(2, 50)), {"allocator": 10, "host": 20, "queue": 10}),
        (
            (event("user_annotation", "enumerate(DataLoader)#_next", 22, 32), launch(2, 50)),
            {"data": 10, "host": 20, "queue": 10},
        ),
    ],
    ids=["host", "queue", "sync", "allocator", "data"],
)
def test_a_gap_has_its_reason(rows: tuple[Row, ...], reasons: dict[str, int]) -> None:
    kernels = (launch(1, 0), kernel(GEMM, 2, 20, correlation=1), kernel(GEMM, 60, 80, correlation=2))
    parts = _parts(attributed(step(0, 80), *kernels, *rows))
    gap = {part.removeprefix("idle: "): ns for part, ns in parts.items() if part.startswith("idle")}
    gap["queue"] = gap.get("queue", 0) - 2  # before the first kernel
    assert {reason: ns for reason, ns in gap.items() if ns} == reasons


def test_a_step_lasts_until_its_last_kernel_and_the_next_begins_then() -> None:
    found = attributed(
        *(step(0, 50), step(50, 100), launch(1, 10), launch(2, 60)),
        *(kernel(GEMM, 20, 70, correlation=1), kernel(GEMM, 70, 130, correlation=2)),
    )
    start, end = step_windows(found)
    assert (start.tolist(), end.tolist()) == ([0, 70], [70, 130])
    assert sum(_parts(found).values()) == 130


def test_on_a_cpu_operators_and_what_lies_outside_of_them_fill_the_step() -> None:
    rows = (op("aten::linear", 10, 50), op("aten::addmm", 20, 40), op("aten::mul", 45, 60, thread=2))
    parts = _parts(attributed(step(0, 100), *rows))
    assert parts == {"gemm": 40, "elementwise": 10, "idle: outside of operators": 50}


KERNELS = st.lists(
    st.tuples(st.integers(0, 90), st.integers(1, 20), st.integers(7, 9), st.sampled_from([GEMM, CONV, NCCL, COPY])),
    max_size=12,
)


@settings(max_examples=50)
@given(KERNELS, st.lists(st.integers(0, 80), max_size=4))
def test_parts_add_up_whatever_overlaps(kernels: list[tuple[int, int, int, str]], waits: list[int]) -> None:
    rows: list[Row] = [step(0, 100), op("aten::mm", 0, 90)]
    rows += [event("cuda_runtime", "cudaDeviceSynchronize", start, start + 9) for start in waits]
    for number, (start, duration, stream, name) in enumerate(kernels, 1):
        rows += [
            launch(number, max(0, start - 3)),
            kernel(name, start, start + duration, correlation=number, stream=stream),
        ]
    found = attributed(*rows)
    parts, busy = _parts(found), Union.of(found.work.start_ns, found.work.end_ns)
    assert sum(parts.values()) == _wall(found)
    assert sum(parts.get(name, 0) for name in CATEGORIES) == (busy.total_ns or 90 * (not kernels))
    assert all(ns > 0 for ns in parts.values())


@pytest.mark.parametrize("file", RECORDED, ids=lambda path: path.parent.name[-13:])
def test_a_recorded_step_adds_up(file: Path) -> None:
    found = attribute(read_trace(file))
    parts = _parts(found)
    assert sum(parts.values()) == _wall(found)
    busy = Union.of(found.traced.start_ns, found.traced.end_ns).total_ns
    assert sum(parts.get(name, 0) for name in CATEGORIES) == exposed(found).duration_ns.sum() == busy
    assert parts.get("other", 0) < 0.03 * busy
