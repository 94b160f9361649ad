"""The ledger adds up to a step's wall time, and what a run folder keeps of the analyses is whole and small."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from profiler.traces import views
from profiler.traces.breakdown import breakdown
from profiler.traces.ledger import knows_modules, ledger, median_step, pieces_of, walls
from profiler.traces.views import write_views
from tests.support.traces import (
    CHANNELS_LAST,
    RECORDED,
    TRAIN,
    attributed,
    kernel,
    launch,
    module,
    op,
    phase,
    recorded,
    step,
)

TABLES = {
    *("steps", "ledger", "kernel_kinds", "operators", "roofline", "critical_path", "attention", "collectives"),
    "forwards",
}


@pytest.mark.parametrize("file", RECORDED, ids=lambda path: path.parent.name[-13:])
def test_the_rows_sum_to_the_wall_time_and_to_the_breakdown(file: Path) -> None:
    found = recorded(file)
    wall_ns = walls(found)
    number = median_step(wall_ns)
    rows, parts = ledger(found, number).to_pylist(), Counter[str]()
    assert sum(row["duration_ns"] for row in rows) == wall_ns[number]
    for row in rows:
        parts[row["part"]] += row["duration_ns"]
    expected = {r["part"]: r["duration_ns"] for r in breakdown(found).to_pylist() if r["step"] == number}
    assert parts == {part: ns for part, ns in expected.items() if ns}


def test_a_row_knows_its_module_block_and_phase() -> None:
    found = attributed(
        *(step(0, 100), phase("forward", 0, 50), module("down_blocks.1.attentions.0", 0, 40)),
        *(op("aten::mm", 5, 10, external=1), launch(1, 6), launch(2, 45)),
        *(kernel("gemm", 20, 60, correlation=1, external=1), kernel("gemm", 60, 70, correlation=2)),
    )
    rows = {(row["part"], row["module"]): row for row in ledger(found, 0).to_pylist()}
    placed = rows["gemm", "down_blocks.1.attentions.0"]
    assert (placed["block"], placed["phase"], placed["duration_ns"], placed["num_pieces"]) == (
        "down.1",
        "forward",
        40,
        1,
    )
    assert (rows["gemm", None]["block"], rows["gemm", None]["duration_ns"]) == (None, 10)
    assert rows["idle: queue", None]["num_pieces"] == 0
    assert sum(row["duration_ns"] for row in rows.values()) == 100
    assert knows_modules(found, pieces_of(found, 0))


def test_the_median_step_is_the_shorter_of_two() -> None:
    assert median_step(walls(attributed(step(0, 50), step(50, 80), op("aten::mm", 0, 5)))) == 1


def test_a_run_folder_keeps_tables_and_a_summary_in_few_bytes(tmp_path: Path) -> None:
    write_views(recorded(TRAIN), tmp_path)
    kept = {path.stem: path for path in (tmp_path / "views").iterdir()}
    assert set(kept) == TABLES | {"summary"}
    assert sum(path.stat().st_size for path in kept.values()) < 120_000
    summary = json.loads(kept["summary"].read_text())
    assert summary["wall_ns"] == sum(pq.read_table(kept["ledger"])["duration_ns"].to_pylist())
    assert summary["wall_ns"] == sum(pq.read_table(kept["critical_path"])["duration_ns"].to_pylist())
    assert (summary["device_name"], summary["peaks"]["gbs"]) == ("NVIDIA H200", 4800.0)
    assert not summary["knows_modules"]


def test_a_table_that_is_cut_says_what_was_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_ROWS", 10)
    write_views(recorded(CHANNELS_LAST), tmp_path)
    cut = json.loads((tmp_path / "views" / "summary.json").read_text())["cut"]["kernel_kinds"]
    kept = sum(pq.read_table(tmp_path / "views" / "kernel_kinds.parquet")["total_ns"].to_pylist())
    assert cut["num_rows"] > 10
    assert kept + cut["left_out_ns"] == int(recorded(CHANNELS_LAST).traced.duration_ns.sum())


def test_a_trace_without_operators_still_has_views(tmp_path: Path) -> None:
    write_views(attributed(step(0, 10)), tmp_path)
    assert pq.read_table(tmp_path / "views" / "ledger.parquet").to_pylist()[0]["part"].startswith("idle")
