"""The only place that opens DuckDB, and the file of the index only for moments.

While one process holds the file for writing no other can even read it, and DuckDB has no waiting of its own. So
every open is short and retried with jitter; a write first takes a lock file, which orders the writers. Never open
the database file by other means (hash, copy): closing that handle drops DuckDB's own lock, and writes are lost.
DuckDB itself (store.engine) stays up: to start it takes ten times as long as to attach a file.
"""

import fcntl
import hashlib
import math
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import duckdb
import pandas as pd
import pyarrow as pa

from store import engine
from store.engine import BusyError

Connection: TypeAlias = engine.Connection

HERE = Path(__file__).parent
SCHEMA = (HERE / "schema.sql").read_text(encoding="utf-8")
REPLACE = (HERE / "replace.sql").read_text(encoding="utf-8")
SCHEMA_DIGEST = hashlib.sha256(SCHEMA.encode()).hexdigest()[:16]
WAIT_S = 30.0  # for other processes; a sync holds the file for well under a second

_OF_THE_FILE = (duckdb.IOException, duckdb.FatalException, duckdb.InternalException, duckdb.SerializationException)
_NAMES = '(the names: python -m store sql "SHOW TABLES", and "DESCRIBE run" for a table\'s columns)'
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.2
# Arrow's type -> pandas' type that is the same with and without nulls, and in an empty frame (None: its usual one is).
_PANDAS_TYPES = {
    pa.string(): pd.StringDtype(na_value=math.nan),
    pa.int64(): pd.Int64Dtype(),
    pa.int32(): pd.Int64Dtype(),
    pa.bool_(): pd.BooleanDtype(),
    pa.float64(): None,
    pa.timestamp("us"): None,
}


class StoreError(Exception):
    """What the user can mend, in one line that names the remedy."""


class DamagedIndexError(StoreError):
    """The file is no index that this DuckDB can read; a sync replaces it."""


def home() -> Path:
    """The data folder: $STEPLENS_HOME, or ./data."""
    return Path(os.environ.get("STEPLENS_HOME") or "data").expanduser().absolute()


def default_database() -> Path:
    return home() / "steplens.duckdb"


def chosen(database: Path | None) -> Path:
    """The given index, else that of the data folder."""
    return (database or default_database()).absolute()


@contextmanager
def reading(database: Path) -> Iterator[Connection]:
    """A read-only connection, once no writer holds the file. Raises StoreError."""
    if not database.exists():
        raise StoreError(f"no index at {database}: make it with python -m store sync")
    with _explained(database), _connect(database, read_only=True) as connection:
        yield connection


@contextmanager
def writing(database: Path) -> Iterator[Connection]:
    """A connection for writing, once nobody else holds the file; call it under write_lock. Raises StoreError."""
    with _explained(database), _connect(database, read_only=False) as connection:
        yield connection


@contextmanager
def scratch() -> Iterator[Connection]:
    """A connection to nothing but what is registered with it, for queries over files."""
    with engine.scratch() as connection:
        yield connection


@contextmanager
def write_lock(database: Path) -> Iterator[None]:
    """Hold the only right to write this index; the system frees it when the process dies."""
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{database}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise _unwritable(database, error.strerror) from error
    try:
        for _ in _pauses():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                continue
        else:
            raise StoreError(f"another process has been writing {database} for {WAIT_S:.0f} s: wait for it, or end it")
        yield
    finally:
        os.close(lock)


def query(
    connection: Connection, name: str, tables: dict[str, pa.Table] | None = None, **parameters: Any
) -> pd.DataFrame:
    """The result of store/sql/<name>.sql, its column types the same whether or not there are rows.

    tables are registered by name first, here and in arrow(); they stay with the connection.
    """
    return arrow(connection, name, tables, **parameters).to_pandas(types_mapper=_PANDAS_TYPES.__getitem__)


def of_runs(tables: Mapping[str, pa.Table], columns: Mapping[str, pa.DataType]) -> pa.Table:
    """The rows of several runs in one table, their run_id in a last column; tables has a table of columns by run_id."""
    named = [
        table.append_column("run_id", pa.array([run_id] * table.num_rows, pa.string()))
        for run_id, table in tables.items()
    ]
    return pa.concat_tables([pa.schema({**columns, "run_id": pa.string()}).empty_table(), *named])


def rows(connection: Connection, name: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """The result of store/sql/<name>.sql as tuples."""
    found: list[tuple[Any, ...]] = connection.sql(_text(name), params=parameters).fetchall()
    return found


def arrow(
    connection: Connection, name: str, tables: Mapping[str, pa.Table] | None = None, **parameters: Any
) -> pa.Table:
    """The result of store/sql/<name>.sql in Arrow."""
    for table, rows in (tables or {}).items():
        connection.register(table, rows)
    return connection.sql(_text(name), params=parameters).to_arrow_table()


def ask(connection: Connection, sql: str) -> pd.DataFrame | None:
    """The result of a user's own query; None where it has none. Raises StoreError with what DuckDB says of it."""
    try:
        relation = connection.sql(sql)
        return None if relation is None else relation.df()
    except duckdb.Error as error:
        said = str(error).splitlines()[0]
        is_name = isinstance(error, duckdb.BinderException | duckdb.CatalogException)
        raise StoreError(f"{said} {_NAMES}" if is_name else said) from error


def table_schema(table: str) -> pa.Schema:
    """The Arrow schema of a table of schema.sql."""
    return _table_schemas()[table]


@cache
def _table_schemas() -> dict[str, pa.Schema]:
    with engine.start() as connection:
        connection.execute(SCHEMA)
        tables = [name for (name,) in connection.sql("SHOW TABLES").fetchall()]
        return {name: connection.table(name).limit(0).to_arrow_table().schema for name in tables}


@cache
def _text(name: str) -> str:
    return (HERE / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@contextmanager
def _connect(database: Path, *, read_only: bool) -> Iterator[Connection]:
    busy = None
    for _ in _pauses():
        try:
            engine.attach(database, read_only=read_only)
            break
        except BusyError as error:
            busy = error
    else:
        raise StoreError(f"{database} is held by another program: close it ({busy})")
    with engine.using(database) as connection:
        yield connection


def _pauses() -> Iterator[None]:
    """Yield at once, then after ever longer jittered pauses, until WAIT_S have passed."""
    end, pause = time.monotonic() + WAIT_S, _FIRST_PAUSE_S
    while True:
        yield
        if time.monotonic() > end:
            return
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, _LONGEST_PAUSE_S)


@contextmanager
def _explained(database: Path) -> Iterator[None]:
    """Turn what DuckDB says of the file itself into a StoreError; errors of a query pass."""
    try:
        yield
    except duckdb.Error as error:
        # A wrong checksum is a plain Error; the named ones are what a broken block or header gives.
        if type(error) is not duckdb.Error and not isinstance(error, _OF_THE_FILE):
            raise
        text = str(error).splitlines()[0]
        if "Permission denied" in text or "Read-only file system" in text:
            raise _unwritable(database, text) from error
        if "No space left" in text:
            raise StoreError(
                f"no space left for {database}: free some, or set STEPLENS_HOME to another disk"
            ) from error
        raise DamagedIndexError(f"{database} is damaged ({text}): rebuild it with python -m store rebuild") from error


def _unwritable(database: Path, reason: str | None) -> StoreError:
    return StoreError(f"cannot write {database} ({reason}): set STEPLENS_HOME to a folder that you can write")
