"""The index has a place for all that a record holds."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from profiler.combo import FAMILIES
from profiler.record import Evidence, Metrics
from store import db

SQL = sorted((Path(db.__file__).parent / "sql").glob("*.sql"))
OF_A_RUN = {
    *("run_id", "root", "folder", "status", "cause", "contaminated", "started_at", "duration_s"),
    *("sweep_id", "sweep_name", "sweep_position", "sweep_role", "num_jobs", "combo_label", "combo_key"),
    *("model", "model_label", "mode", "batch", "resolution", "device", "world_size", "workload_label"),
    *("num_inference_steps", "guidance_scale", "dataset_size", "seed"),
    *("machine_label", "gpu_name", "gpu_uuid", "boot_id", "torch", "cuda"),
    *("launch_verdict", "attention_observed", "trace_file", "of_whole_trace", "schema_version"),
}
FOR_THE_STORE = {"ended_at", "device_key", "workload_key", "eager_key", "gpu_memory_gib", "record_mtime_ns"}


def test_run_has_a_column_for_every_family_and_metric_and_no_others() -> None:
    metrics = {metric.name for metric in fields(Metrics)}
    assert set(db.table_schema("run").names) == OF_A_RUN | FOR_THE_STORE | set(FAMILIES) | metrics


def test_families_and_metrics_stand_in_their_fields_order() -> None:
    columns = db.table_schema("run").names
    for names in (FAMILIES, tuple(metric.name for metric in fields(Metrics))):
        first = columns.index(names[0])
        assert tuple(columns[first : first + len(names)]) == names


def test_metrics_columns_have_their_fields_types() -> None:
    types = {column.name: str(column.type) for column in db.table_schema("run")}
    for metric in fields(Metrics):
        assert types[metric.name] == ("int64" if "int" in str(metric.type) else "double"), metric.name


def test_evidence_has_a_column_for_every_field() -> None:
    assert db.table_schema("evidence").names[1:3] == ["family", "choice"]
    assert set(db.table_schema("evidence").names) == {"run_id"} | {field.name for field in fields(Evidence)}


@pytest.mark.parametrize("path", SQL, ids=lambda path: path.stem)
def test_a_query_says_what_one_row_is_and_is_used(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("-- One row"), "the first comment says what one row is"
    assert ";" not in re.sub("--.*", "", text), "one query per file"
    code = "".join(module.read_text(encoding="utf-8") for module in Path(db.__file__).parent.glob("*.py"))
    assert f'"{path.stem}"' in code


def test_no_python_writes_sql() -> None:
    for module in Path(db.__file__).parent.glob("*.py"):
        assert not re.search(r"f\"[^\"]*(SELECT|INSERT|DELETE|UPDATE) ", module.read_text(encoding="utf-8")), module
