"""What the store reads of a run folder's views, and that it says nothing where there are none."""

import inspect
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from profiler.traces.views import write_views
from store import views
from store.db import StoreError
from store.ingest import sync
from tests.support.run_folders import CPU_WORKLOAD, write_run
from tests.support.trace_views import in_unet, on_cpu, recorded, write_traced_run
from tests.support.traces import EAGER, TRAIN, attributed, kernel, step

COLUMNS = {
    "step_parts": ["step", "part", "step_ms", "share"],
    "phase_parts": ["phase", "part", "step_ms", "share"],
    "modules": ["path", "parent", "label", "module", "self_ms", "total_ms", "num_pieces"],
    "blocks": ["block", "category", "step_ms", "share"],
    "kernel_kinds": [
        *("name", "category", "op", "step_ms", "share", "num_calls", "mean_us", "min_us", "max_us", "grid", "block"),
        *("registers", "shared_kib", "occupancy_percent", "tensor_cores"),
    ],
    "operators": [
        *("name", "shapes", "types", "num_calls", "device_self_ms", "device_total_ms", "host_self_ms", "host_total_ms"),
    ],
    "roofline": [
        *("name", "shapes", "dtype", "num_calls", "step_ms", "flop", "num_bytes", "flop_per_byte", "tflops", "gbs"),
        *("bound", "roof_share", "lost_ms", "tensor_cores"),
    ],
    "tensor_cores": ["category", "tensor_cores", "step_ms", "share"],
    "critical_path": ["kind", "category", "name", "step_ms", "share", "num_segments"],
    "attention": [
        *("resolution", "kind", "query_tokens", "key_tokens", "num_heads", "head_dim", "phase", "num_calls", "step_ms"),
        "share",
    ],
    "forwards": ["step", "forward", "busy_ms"],
    "collectives": ["collective", "kernel", "dtype", "num_ranks", "message_mib", "num_calls", "step_ms", "bus_gbs"],
}
MORE = {"summary", "waterfall", "part_matrix", "place_of", "parts_and_roofline"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index over runs that differ in their trace."""
    home = tmp_path_factory.mktemp("views")
    root = home / "runs"
    write_traced_run(root, "unet", in_unet())
    write_traced_run(root, "slower", in_unet(scale=3))
    write_traced_run(root, "no-modules", in_unet(modules=False))
    write_traced_run(root, "train", recorded(TRAIN))
    write_traced_run(root, "eager", recorded(EAGER))
    write_traced_run(root, "cpu", on_cpu(), workload=CPU_WORKLOAD)
    write_traced_run(
        root, "two-steps", attributed(step(0, 50), step(50, 90), kernel("gemm", 10, 30), kernel("gemm", 60, 80))
    )
    write_run(root, run_id="old")
    future = write_traced_run(root, "future", in_unet())
    summary = json.loads((future / "views" / "summary.json").read_text())
    (future / "views" / "summary.json").write_text(json.dumps(summary | {"version": 99}))
    sync([root], home / "index.duckdb")
    return home / "index.duckdb"


def test_every_function_is_in_the_tests_below() -> None:
    functions = inspect.getmembers(views, inspect.isfunction)
    public = {name for name, value in functions if value.__module__ == views.__name__ and not name.startswith("_")}
    assert public == set(COLUMNS) | MORE


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_and_their_types_are_the_same_with_and_without_rows(name: str, index: Path) -> None:
    query = getattr(views, name)
    full, empty, cpu = (query(run_id, database=index) for run_id in ("unet", "old", "cpu"))
    assert list(full.columns) == COLUMNS[name]
    assert len(full) > 0 or name == "collectives"
    assert len(empty) == 0
    assert empty.dtypes.to_dict() == full.dtypes.to_dict() == cpu.dtypes.to_dict()


@pytest.mark.parametrize("name", views.SCHEMAS)
def test_the_columns_that_are_read_are_those_that_are_written(name: str, tmp_path: Path) -> None:
    write_views(recorded(TRAIN), tmp_path)
    written = pq.read_schema(tmp_path / "views" / f"{name}.parquet").names
    assert set(views.SCHEMAS[name]) <= set(written)


@pytest.mark.parametrize("run_id", ["unet", "train", "eager", "cpu"])
def test_parts_modules_and_critical_path_add_up_to_the_wall_time(run_id: str, index: Path) -> None:
    summary = views.summary(run_id, database=index)
    assert summary is not None
    wall_ms = pytest.approx(summary["wall_ns"] / 1e6)
    assert views.phase_parts(run_id, database=index)["step_ms"].sum() == wall_ms
    assert views.step_parts(run_id, database=index)["share"].sum() == pytest.approx(1)
    tree = views.modules(run_id, database=index)
    assert tree["total_ms"].iloc[0] == wall_ms
    assert tree["self_ms"].sum() == wall_ms
    if run_id != "cpu":
        assert views.critical_path(run_id, database=index)["step_ms"].sum() == wall_ms


def test_modules_are_a_tree_by_qualified_name(index: Path) -> None:
    tree = views.modules("unet", database=index).set_index("path")
    assert tree.loc["step|model|down_blocks", "total_ms"] == pytest.approx(0.03)
    inner = tree.loc["step|model|down_blocks|0|attentions.0"]
    assert (inner["label"], inner["module"]) == ("attentions.0", "down_blocks.0.attentions.0")
    assert tree.loc["step|model|down_blocks|0", "label"] == "down_blocks.0"
    assert tree.loc["step|optimizer, no module", "total_ms"] == pytest.approx(0.007)
    assert set(tree["parent"]) - {""} <= set(tree.index)


def test_the_tree_of_one_phase_holds_that_phase_alone(index: Path) -> None:
    phases = views.phase_parts("train", database=index).groupby("phase")["step_ms"].sum()
    for phase, step_ms in phases.items():
        assert views.modules("train", phase, database=index)["total_ms"].iloc[0] == pytest.approx(step_ms)


def test_forwards_of_a_step_are_its_denoising_steps(index: Path) -> None:
    rows = views.forwards("unet", database=index)
    assert rows["busy_ms"].sum() == pytest.approx(0.052)


def test_blocks_stand_in_the_order_of_the_network(index: Path) -> None:
    assert views.blocks("unet", database=index)["block"].drop_duplicates().tolist()[:2] == ["down.0", "mid"]


def test_times_are_per_step(index: Path) -> None:
    (row,) = views.kernel_kinds("two-steps", database=index).to_dict("records")
    assert (row["num_calls"], row["step_ms"]) == (1, pytest.approx(20e-6))


@pytest.mark.parametrize("cut", ["class", "phase", "place"])
@pytest.mark.parametrize(("before", "after"), [("unet", "slower"), ("eager", "train"), ("slower", "cpu")])
def test_a_waterfall_adds_up_to_the_difference_exactly(cut: str, before: str, after: str, index: Path) -> None:
    rows = views.waterfall(before, after, cut, database=index)
    walls = [views.summary(run_id, database=index) for run_id in (before, after)]
    assert walls[0] is not None
    assert walls[1] is not None
    assert rows["change_ns"].sum() == walls[1]["wall_ns"] - walls[0]["wall_ns"]
    assert rows["name"].is_unique


def test_a_waterfall_by_place_names_modules_and_phases(index: Path) -> None:
    names = set(views.waterfall("unet", "slower", "place", database=index)["name"])
    assert {"down_blocks.0, forward", "mid_block, forward", "no module, optimizer", "idle: host"} <= names


def test_every_column_of_the_matrix_sums_to_its_runs_wall_time(index: Path) -> None:
    rows = views.part_matrix(["unet", "old", "train"], database=index)
    sums = rows.groupby("run_id")["duration_ns"].sum().to_dict()
    walls = {run_id: (views.summary(run_id, database=index) or {}).get("wall_ns") for run_id in ("unet", "train")}
    assert sums == walls


def test_a_run_without_views_has_no_summary_and_neither_has_one_of_a_newer_version(index: Path) -> None:
    assert views.summary("old", database=index) is None
    assert views.summary("future", database=index) is None
    assert views.phase_parts("future", database=index).empty


def test_views_that_were_made_later_lie_in_the_home(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPLENS_HOME", str(tmp_path))
    write_views(in_unet(), tmp_path)
    (tmp_path / "views").rename(tmp_path / "made")
    (tmp_path / "views").mkdir()
    (tmp_path / "made").rename(tmp_path / "views" / "old")
    assert views.phase_parts("old", database=index)["step_ms"].sum() == pytest.approx(0.2)
    (tmp_path / "views" / "old").rename(tmp_path / "views" / "slower")
    assert views.phase_parts("slower", database=index)["step_ms"].sum() == pytest.approx(0.2), "not its folder's 0.6"


def test_a_damaged_summary_is_named(tmp_path: Path) -> None:
    folder = write_traced_run(tmp_path / "runs", "bad", in_unet())
    (folder / "views" / "summary.json").write_text("{")
    sync([tmp_path / "runs"], tmp_path / "index.duckdb")
    with pytest.raises(StoreError, match="copy the run folder again"):
        views.summary("bad", database=tmp_path / "index.duckdb")
