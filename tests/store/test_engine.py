"""One DuckDB serves a process: files come and go, threads share them, and what breaks it breaks the one query."""

import threading
from pathlib import Path

import duckdb
import pytest

from store import db, engine
from store.db import StoreError


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return _made(tmp_path / "one.duckdb", 1)


def _made(file: Path, number: int) -> Path:
    with db.writing(file) as connection:
        connection.execute("CREATE TABLE t AS SELECT ? AS number", [number])
    return file


def _numbers(connection: engine.Connection) -> list[int]:
    return [number for (number,) in connection.sql("SELECT number FROM t ORDER BY ALL").fetchall()]


def test_two_files_are_read_at_once_each_by_the_names_of_its_own_tables(one: Path, tmp_path: Path) -> None:
    two = _made(tmp_path / "two's.duckdb", 2)
    with db.reading(one) as first, db.reading(two) as second, db.reading(one) as third:
        assert [_numbers(connection) for connection in (first, second, third)] == [[1], [2], [1]]


def test_what_is_registered_is_seen_by_its_own_connection_alone() -> None:
    with db.scratch() as first, db.scratch() as second:
        first.register("rows", db.table_schema("meta").empty_table())
        assert first.sql("FROM rows").fetchall() == []
        with pytest.raises(duckdb.CatalogException):
            second.sql("FROM rows")


def test_a_writer_waits_until_other_threads_have_read(one: Path) -> None:
    def write() -> None:
        with db.writing(one) as connection:
            connection.execute("INSERT INTO t VALUES (2)")

    with db.reading(one) as connection:
        writer = threading.Thread(target=write)
        writer.start()
        writer.join(timeout=0.3)
        assert writer.is_alive()
        assert _numbers(connection) == [1]
    writer.join(timeout=10)
    with db.reading(one) as connection:
        assert _numbers(connection) == [1, 2]
    assert not one.with_name("one.duckdb.wal").exists()


def test_a_reader_waits_until_another_thread_has_written(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "WAIT_S", 0.1)
    with db.writing(one), pytest.raises(StoreError, match="another thread of this process"), db.reading(one):
        pass
    with db.reading(one) as connection:
        assert _numbers(connection) == [1]


def test_reading_cannot_write(one: Path) -> None:
    with db.reading(one) as connection, pytest.raises(duckdb.InvalidInputException, match="read-only"):
        connection.execute("DELETE FROM t")


def test_a_file_that_broke_disturbs_no_other(one: Path) -> None:
    two = one.with_name("two.duckdb")
    with db.reading(one) as reader:
        with pytest.raises(StoreError, match="damaged"), db.writing(two) as connection:  # noqa: PT012
            connection.execute(
                "CREATE TABLE t AS SELECT 2 AS number; SET GLOBAL debug_checkpoint_abort='before_header'"
            )
            connection.execute("CHECKPOINT")
        assert _numbers(reader) == [1]
        reader.execute("RESET GLOBAL debug_checkpoint_abort")
    with db.reading(two) as connection:
        assert _numbers(connection) == [2], "it was committed"


def test_a_duckdb_that_gave_up_is_replaced_and_others_come_to_their_end(
    one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.reading(one) as reader:
        (broken,) = engine._running
        with pytest.raises(duckdb.InternalException), db.scratch():
            raise duckdb.InternalException("what DuckDB raises at an error of its own")
        with db.scratch() as connection:
            assert connection.sql("SELECT 1").fetchall() == [(1,)]
        assert engine._running != [broken]
        assert _numbers(reader) == [1]
        monkeypatch.setattr(db, "WAIT_S", 0.1)
        with pytest.raises(StoreError, match="another thread of this process"), db.reading(one):
            pass  # nobody joins the one that gave up
    with db.reading(one) as connection:
        assert _numbers(connection) == [1]
