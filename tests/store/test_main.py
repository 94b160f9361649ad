import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from store.__main__ import app
from tests.support.run_folders import GPU_WORKLOAD, write_ladder, write_run


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_sync_says_what_is_new_and_what_was_set_aside(root: Path, database: Path) -> None:
    write_ladder(root)
    (write_run(root, run_id="bad") / "record.json").write_text("{", encoding="utf-8")
    code, out, _ = invoke("sync")
    assert code == 0
    assert "10 new of 10 runs in" in out
    assert f"set aside: {root / 'bad'}: record.json: " in out
    shown = json.loads(invoke("sync", "--json")[1])
    assert (shown["num_new"], shown["num_total"], len(shown["set_aside"])) == (0, 10, 1)
    assert "10 new of 10" in invoke("rebuild")[1]


def test_runs_and_sql_sync_first(root: Path, database: Path) -> None:
    write_ladder(root)
    code, out, errors = invoke("runs", "--json")
    assert (code, errors) == (0, "")
    assert len(json.loads(out)) == 10
    assert "baseline" in invoke("runs")[1]
    write_run(root, run_id="one-more")
    query = "SELECT status, count(*) AS num FROM run GROUP BY ALL ORDER BY ALL"
    rows = {row["status"]: int(row["num"]) for row in csv.DictReader(io.StringIO(invoke("sql", query, "--csv")[1]))}
    assert rows == {"done": 8, "oom": 1, "rejected": 1, "wrong": 1}
    assert "rejected" in invoke("sql", query)[1]


@pytest.mark.parametrize("query", ["DELETE FROM run", "SELECT nothing", "SELEC", "FROM 'missing.parquet'"])
def test_a_query_that_cannot_be_is_one_line(query: str, root: Path, database: Path) -> None:
    write_run(root, run_id="a")
    code, out, errors = invoke("sql", query)
    assert (code, out, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("error: ")
    assert len(json.loads(invoke("runs", "--json")[1])) == 1


@pytest.mark.parametrize("query", ["SELECT nothing FROM run", "SELECT run.nothing FROM run", "FROM runs"])
def test_an_unknown_name_leads_to_the_names_there_are(query: str, root: Path, database: Path) -> None:
    write_run(root, run_id="a")
    said = invoke("sql", query)[2]
    assert all(f'"{hint}"' in said for hint in ("SHOW TABLES", "DESCRIBE run"))
    assert "step_ms" in invoke("sql", "DESCRIBE run")[1]
    assert "DESCRIBE" not in invoke("sql", "SELEC")[2]


def test_an_unwritable_home_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("STEPLENS_HOME", str(tmp_path / "file" / "home"))
    code, _, errors = invoke("sync")
    assert (code, errors.count("\n")) == (1, 1)
    assert "set STEPLENS_HOME to a folder that you can write" in errors


def test_store_imports_no_torch_and_none_of_its_neighbours() -> None:
    code = "import sys, store.__main__; print(*sorted(m for m in sys.modules if m.split('.')[0] in sys.argv[1:]))"
    command = [sys.executable, "-c", code, "torch", "streamlit", "plotly", "runs", "pages"]
    found = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_batches_tells_the_prediction_and_how_to_check_it(root: Path, database: Path) -> None:
    for batch, peak in ((2, 8.0), (4, 14.0)):
        peaks = {"peak_allocated_gib": peak, "peak_reserved_gib": peak, "peak_device_gib": peak + 3.8}
        write_run(root, run_id=f"b{batch}", workload=replace(GPU_WORKLOAD, batch=batch), metrics=peaks)
    code, out, said = invoke("batches", "b4", "--json")
    assert (code, {row["largest_batch"] for row in json.loads(out)}) == (0, {24})
    assert [line.partition("run --like ")[2] for line in said.splitlines()] == ["b4 --batch 24", "b4 --batch 25"]
    assert "unchecked" in invoke("batches", "b4")[1]
    assert "no largest batch" not in said


def test_batches_of_one_batch_says_what_is_missing_and_how_to_get_it(root: Path, database: Path) -> None:
    write_run(root, run_id="b2", workload=replace(GPU_WORKLOAD, batch=2), metrics={"peak_allocated_gib": 8.0})
    code, _, said = invoke("batches", "b2")
    assert code == 0
    assert "it takes two measured batches" in said
    assert "python -m runs run --like b2 --batch 4" in said
    code, out, said = invoke("batches", "none")
    assert (code, out) == (1, "")
    assert "python -m store runs" in said
