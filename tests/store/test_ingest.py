import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from profiler.combo import Combo
from profiler.record import SCHEMA_VERSION
from store import db, folders, frames
from store.db import StoreError
from store.ingest import sync
from tests.support.run_folders import write_ladder, write_run

TABLES = ("run", "sample", "evidence", "kernel", "set_aside")


def contents(database: Path) -> dict[str, pd.DataFrame]:
    with db.reading(database) as connection:
        return {table: db.ask(connection, f"FROM {table} ORDER BY ALL") for table in TABLES}


def assert_same(left: dict[str, pd.DataFrame], right: dict[str, pd.DataFrame]) -> None:
    for table in TABLES:
        pd.testing.assert_frame_equal(left[table], right[table])


def touch(path: Path) -> None:
    """A later modification time, whatever the clock's grain."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))


def test_runs_come_in_once(root: Path, database: Path) -> None:
    write_ladder(root)
    first = sync()
    before = contents(database)
    second = sync()
    assert (first.num_new, first.num_total, second.num_new, second.num_total) == (10, 10, 0, 10)
    assert first.generation == second.generation
    assert_same(before, contents(database))


def test_the_index_holds_what_the_record_says(root: Path, database: Path) -> None:
    (_, second, *_) = write_ladder(root)
    sync()
    run, record = frames.runs().set_index("run_id").loc[second], frames.record(second)
    assert run["sweep_position"] == 1
    assert run["attention"] == record["combo"]["attention"] == "sdpa"
    for name, value in record["metrics"].items():
        assert pd.isna(run[name]) if value is None else run[name] == value, name
    assert run["attention_observed"] == "flash 30, efficient 2"
    assert str(run["started_at"]) == "2026-11-01 00:01:00"


def test_only_folders_with_a_record_count(root: Path, database: Path) -> None:
    folder = write_run(root, run_id="running")
    (folder / "record.json").rename(folder / "later")
    assert sync().num_total == 0
    (folder / "later").rename(folder / "record.json")
    assert sync().num_new == 1


def test_generation_grows_with_every_change_and_over_a_rebuild(root: Path, database: Path) -> None:
    generations = [sync().generation]
    folder = write_run(root, run_id="a")
    generations += [sync().generation]
    shutil.rmtree(folder)
    generations += [sync().generation]
    database.unlink()
    generations += [sync().generation]
    assert generations == sorted(set(generations))


def test_deleting_the_index_loses_nothing(root: Path, database: Path) -> None:
    write_ladder(root)
    sync()
    before = contents(database)
    database.unlink()
    assert sync().num_new == 10
    assert_same(before, contents(database))
    assert sync(rebuild=True).num_new == 10
    assert_same(before, contents(database))


def test_a_folder_that_is_gone_leaves_the_index(root: Path, database: Path) -> None:
    kept, gone = write_run(root, run_id="kept"), write_run(root, run_id="gone")
    sync()
    shutil.rmtree(gone)
    result = sync()
    assert (result.num_new, result.num_total) == (0, 1)
    left = contents(database)
    assert left["run"]["folder"].tolist() == [str(kept)]
    assert set(left["kernel"]["run_id"]) == set(left["sample"]["run_id"]) == {"kept"}


def test_a_record_that_changed_is_read_again(root: Path, database: Path) -> None:
    folder = write_run(root, run_id="a", step_ms=[10.0] * 5)
    sync()
    shutil.rmtree(folder)
    write_run(root, run_id="a", step_ms=[20.0] * 6)
    touch(folder / "record.json")
    assert sync().num_new == 1
    assert frames.runs()["step_ms"].tolist() == [20.0]
    assert len(frames.samples(["a"])) == 6


def corrupt_json(folder: Path) -> None:
    (folder / "record.json").write_text('{"run_id": "half a', encoding="utf-8")


def no_object(folder: Path) -> None:
    (folder / "record.json").write_text("[1]", encoding="utf-8")


def edit(**changes: Any) -> Any:
    def apply(folder: Path) -> None:
        path = folder / "record.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return apply


def cut(name: str) -> Any:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return apply


def scramble_kernels(folder: Path) -> None:
    path = folder / "kernels.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(len(content) - 200) + content[-196:])


def other_columns(folder: Path) -> None:
    shutil.copy(folder / "memory.parquet", folder / "kernels.parquet")


BAD = {
    "corrupt json": (corrupt_json, "record.json: "),
    "no object": (no_object, ""),
    "newer schema": (edit(schema_version=SCHEMA_VERSION + 1), "update it"),
    "unknown status": (edit(status="splendid"), "unknown status 'splendid'"),
    "text for a number": (edit(metrics={"step_ms": "fast"}), "record.json: "),
    "too large a number": (edit(metrics={"num_samples": 2**70}), "record.json: "),
    "no date": (edit(started_at="yesterday"), "yesterday"),
    "cut kernels": (cut("kernels.parquet"), "kernels.parquet is cut short"),
    "cut memory": (cut("memory.parquet"), "memory.parquet is cut short"),
    "scrambled kernels": (scramble_kernels, ""),
    "other columns": (other_columns, ""),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_set_aside_with_its_reason_until_it_changes(case: str, root: Path, database: Path) -> None:
    spoil, reason = BAD[case]
    good = [write_run(root, run_id=f"good-{index}") for index in range(5)]
    bad = write_run(root, run_id="bad")
    spoil(bad)
    result = sync()
    assert (result.num_new, result.num_total) == (5, 5)
    ((folder, why),) = result.set_aside
    assert folder == str(bad)
    assert reason in why
    assert why
    assert "\n" not in why
    assert str(bad) not in why
    assert len(frames.kernels(good[0].name)) == 6
    again = sync()
    assert again.set_aside == result.set_aside
    assert again.generation == result.generation
    shutil.rmtree(bad)
    write_run(root, run_id="bad")
    touch(bad / "record.json")
    mended = sync()
    assert (mended.num_new, mended.num_total, mended.set_aside) == (1, 6, [])


def test_a_bad_folder_that_is_gone_is_forgotten(root: Path, database: Path) -> None:
    bad = write_run(root, run_id="bad")
    corrupt_json(bad)
    sync()
    shutil.rmtree(bad)
    assert sync().set_aside == []


def test_a_foreign_nan_is_unknown(root: Path, database: Path) -> None:
    folder = write_run(root, run_id="a")
    edit(metrics={"step_ms": float("nan"), "loss": float("inf")})(folder)
    sync()
    assert frames.runs()[["step_ms", "loss"]].isna().all(axis=None)
    assert contents(database)["run"]["step_ms"].isna().all()


def test_several_roots_and_studies_below_them(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "data" / "runs", run_id="mine")
    write_ladder(folders.RECORDED_ROOT / "study-a", sweep_id="a")
    write_run(tmp_path / "more", run_id="shared")
    monkeypatch.setenv("STEPLENS_ROOTS", os.pathsep.join([str(tmp_path / "more"), str(tmp_path / "missing")]))
    result = sync()
    assert result.num_total == 12
    assert result.set_aside == [(str(tmp_path / "missing"), "no such folder: see STEPLENS_ROOTS")]
    assert set(frames.runs()["root"]) == {str(path) for path in folders.default_roots()[:3]}
    assert frames.sweeps().set_index("sweep_id")["is_recorded"].to_dict() == {"a": True, "single_runs": False}
    monkeypatch.delenv("STEPLENS_ROOTS")
    assert (sync().num_total, sync().set_aside) == (11, [])


def test_of_two_folders_with_one_run_the_first_root_wins(tmp_path: Path, database: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = write_run(one, run_id="a"), write_run(two, run_id="a", combo=Combo(attention="sdpa"))
    result = sync([one, two])
    assert (result.num_new, result.num_total) == (1, 1)
    assert result.set_aside == [(str(second), f"run a is indexed from {first}")]
    assert sync([one, two]).generation == result.generation
    assert sync([two, one]).set_aside == [(str(first), f"run a is indexed from {second}")]
    assert frames.runs()["attention"].tolist() == ["sdpa"]
    shutil.rmtree(second)
    assert sync([two, one]).set_aside == []
    assert frames.runs()["folder"].tolist() == [str(first)]


def test_a_first_root_that_comes_later_takes_over(tmp_path: Path, database: Path) -> None:
    second = write_run(tmp_path / "two", run_id="a")
    roots = [tmp_path / "one", tmp_path / "two"]
    sync(roots)
    first = write_run(tmp_path / "one", run_id="a")
    result = sync(roots)
    assert (result.num_total, result.set_aside) == (1, [(str(second), f"run a is indexed from {first}")])
    assert len(frames.samples(["a"])) == 20


def test_an_index_of_another_schema_is_made_anew(root: Path, database: Path) -> None:
    write_ladder(root)
    sync()
    with db.writing(database) as connection:
        connection.execute("UPDATE meta SET schema_digest = 'another'")
    result = sync()
    assert (result.num_new, result.num_total) == (10, 10)
    assert "another version" in result.rebuilt
    assert sync().rebuilt == ""


@pytest.mark.parametrize("damage", ["text", "cut", "scrambled", "foreign", "empty"])
def test_a_damaged_index_is_kept_aside_and_made_anew(damage: str, root: Path, database: Path) -> None:
    write_ladder(root)
    sync()
    content = database.read_bytes()
    if damage == "foreign":
        database.unlink()
        with db.writing(database) as connection:
            connection.execute("CREATE TABLE other AS SELECT 1 AS number")
    else:
        scrambled = content[:16384] + os.urandom(len(content) - 16384)
        cut, text = content[: len(content) // 2], b"no database\n" * 999
        database.write_bytes({"text": text, "cut": cut, "scrambled": scrambled, "empty": b""}[damage])
    result = sync()
    assert (result.num_new, result.num_total) == (10, 10)
    (kept,) = database.parent.glob("steplens.duckdb.damaged-*")
    assert str(kept) in result.rebuilt
    assert len(frames.runs()) == 10
    assert sync().rebuilt == ""


def test_a_home_that_cannot_be_written_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("STEPLENS_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(StoreError, match=r"^cannot write .*: set STEPLENS_HOME to a folder that you can write$"):
        sync()


def test_nothing_is_left_beside_the_index(root: Path, database: Path) -> None:
    write_ladder(root)
    sync()
    sync(rebuild=True)
    left = {path.name for path in database.parent.iterdir()}
    assert left == {"runs", "steplens.duckdb", "steplens.duckdb.lock"}
