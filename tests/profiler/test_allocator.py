"""The allocator's curve and the peak's parts on a GPU, against PyTorch's own counters."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from profiler import memory
from profiler.steps import make_step, no_phase
from profiler.tracing import write_tables
from tests.support.unets import inputs_of, subject, trace, workload


@pytest.mark.gpu
def test_the_curve_agrees_with_the_allocators_own_counters(tmp_path: Path) -> None:
    made, _ = subject(workload("tiny", mode="train", device="cuda"))
    step, (inputs,) = make_step(made), inputs_of(made)
    step(inputs, no_phase)
    peaks = memory.measure_peaks(made, step, inputs, tmp_path / "allocator.parquet")
    table, counters = pq.read_table(tmp_path / "allocator.parquet").to_pydict(), torch.cuda.memory_stats()
    assert max(table["requested_bytes"]) == counters["requested_bytes.all.peak"]
    assert max(table["reserved_bytes"]) == counters["reserved_bytes.all.peak"] == peaks.reserved
    assert all(
        asked + stuck <= reserved
        for asked, stuck, reserved in zip(
            table["requested_bytes"], table["stuck_bytes"], table["reserved_bytes"], strict=True
        )
    )
    assert (tmp_path / "allocator.parquet").stat().st_size < 20_000


@pytest.mark.gpu
def test_the_peak_of_a_traced_step_is_told_whole(tmp_path: Path) -> None:
    made, _ = subject(workload("tiny", mode="train", device="cuda"))
    step, (inputs,) = make_step(made), inputs_of(made)
    step(inputs, no_phase)
    measured = memory.measure_peaks(made, step, inputs).allocated
    found = trace(made, tmp_path)
    events = found.attribution.trace.allocations
    own = events.take((events.device_type == 1) & (found.attribution.steps.at(events.start_ns) == 0))
    assert [point.total for point in found.timeline.points[1:]] == own.total_allocated.tolist()
    assert found.peak_bytes == pytest.approx(measured, rel=0.1)
    write_tables(found, tmp_path)
    rows = pq.read_table(tmp_path / "alive.parquet").to_pandas()
    peak = rows[rows["moment"] == "peak"]
    assert peak["bytes"].sum() == found.peak_bytes
    kept = rows[(rows["moment"] == "forward_end") & (rows["category"] == "activations")]
    assert kept.loc[kept["module"].notna(), "bytes"].sum() > 0.95 * kept["bytes"].sum()
