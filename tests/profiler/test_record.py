"""Records: a round trip through JSON, written whole, refused when damaged."""

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from profiler.combo import Combo
from profiler.record import (
    RECORD_FILE,
    SCHEMA_VERSION,
    Evidence,
    Metrics,
    Record,
    SweepPlace,
    write_json,
)
from profiler.workload import Workload
from tests.support.run_folders import FIXTURE_GPU

RECORD = Record(
    run_id="one",
    status="ineffective",
    combo=Combo(attention="sdpa"),
    workload=Workload(model="tiny", mode="train"),
    machine=FIXTURE_GPU,
    cause="the trace shows no flash",
    sweep=SweepPlace(sweep_id="s", name="grid", position=1, num_jobs=4, role="baseline"),
    metrics=Metrics(step_ms=1.5, num_samples=3),
    samples={"step_ms": (1.0, 1.5, 2.0)},
    evidence=(Evidence(family="attention", choice="sdpa", facts={"num_layers": 3}, confirmed=False, finding="none"),),
    attention_observed={"math": 32},
    launch_verdict="gpu-bound",
    reference={"dtype": "float64"},
    notes=("random weights",),
    variables={"OMP_NUM_THREADS": "1"},
)


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    RECORD.write(tmp_path)
    assert Record.read(tmp_path) == RECORD


def test_a_minimal_record_can_be_read() -> None:
    minimal = Record(run_id="r", status="cancelled", combo=Combo(), workload=Workload())
    assert Record.from_dict(json.loads(json.dumps(minimal.to_dict()))) == minimal


def test_an_older_record_is_graded_by_the_share_that_it_holds() -> None:
    for share, verdict in ((0.95, "gpu-bound"), (0.88, "partly launch-bound"), (0.55, "launch-bound")):
        values = RECORD.to_dict() | {"launch_verdict": "launch-bound", "metrics": {"gpu_busy_share": share}}
        assert Record.from_dict(values).launch_verdict == verdict
        assert Record.from_dict(values | {"launch_verdict": None}).launch_verdict is None, "as of a pipeline's stage"


def test_every_metric_explains_itself() -> None:
    assert all(field.metadata["help"].endswith(".") and field.default is None for field in fields(Metrics))


def test_a_record_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, dict[str, Any]]] = []
    rename = os.replace

    def watched(source: Path, target: Path) -> None:
        seen.append((target.exists(), json.loads(source.read_text())))
        rename(source, target)

    monkeypatch.setattr(os, "replace", watched)
    RECORD.write(tmp_path)
    assert seen == [(False, json.loads(json.dumps(RECORD.to_dict())))]
    assert [path.name for path in tmp_path.iterdir()] == [RECORD_FILE]


def test_a_number_that_json_lacks_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    write_json(tmp_path / "facts.json", {"step_ms": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "facts.json", {"step_ms": float("nan")})
    assert json.loads((tmp_path / "facts.json").read_text()) == {"step_ms": 1.0}


def test_a_newer_schema_is_refused_with_the_remedy(tmp_path: Path) -> None:
    replace(RECORD, schema_version=SCHEMA_VERSION + 1).write(tmp_path)
    with pytest.raises(ValueError, match=rf"schema {SCHEMA_VERSION + 1}: this Steplens reads up to.*update it"):
        Record.read(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        "",
        '{"schema_version": 1, "run_id": ',
        "[]",
        "null",
        '{"schema_version": 1, "run_id": "x"}',
        '{"schema_version": 1, "run_id": "x", "status": "fine", "combo": {}, "workload": {}}',
        '{"schema_version": 1, "run_id": "x", "status": "done", "combo": {"attention": "x"}, "workload": {}}',
        '{"schema_version": 1, "run_id": "x", "status": "done", "combo": {}, "workload": {}, "machine": "mine"}',
        '{"schema_version": 1, "run_id": "x", "status": "done", "combo": {}, "workload": {}, "metrics": {"fun": 1}}',
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, damage: str) -> None:
    (tmp_path / RECORD_FILE).write_text(damage)
    with pytest.raises(ValueError, match=RECORD_FILE):
        Record.read(tmp_path)
