"""The one DuckDB of a process, in memory; a database file is attached to it for moments.

Starting a DuckDB takes 17 ms of CPU, attaching a file to one that runs 1 ms, a cursor next to nothing. After an error
of DuckDB's own, which may have broken it for good, the next caller starts another.
"""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TypeAlias

import duckdb

Connection: TypeAlias = duckdb.DuckDBPyConnection

_BROKEN = (duckdb.FatalException, duckdb.InternalException)  # after these DuckDB may answer no more


class BusyError(Exception):
    """The file is held by another process, or in the other mode by another thread of this one."""


@dataclass(kw_only=True, slots=True)
class _Attached:
    """A file that threads of this process are using."""

    engine: Connection
    name: str
    read_only: bool
    num_users: int = 1


_lock = threading.Lock()  # held to look up, attach and detach; never while a query runs
_running: list[Connection] = []  # none or one
_files: dict[Path, _Attached] = {}
_numbers = count(1)  # of a name for each time that a file is attached


def start() -> Connection:
    """A DuckDB of the caller's own, in memory: nothing is fetched from the network or spilled beside the data."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "temp_directory": str(Path(tempfile.gettempdir()) / f"steplens-duckdb-{os.getuid()}"),
    }
    return duckdb.connect(":memory:", config=config)


@contextmanager
def scratch() -> Iterator[Connection]:
    """A connection of one's own for queries over tables that are registered with it, and over files."""
    with _lock:
        engine = _engine()
    with _connection(engine) as connection:
        yield connection


def attach(file: Path, *, read_only: bool) -> None:
    """Take the file; whoever does calls using() next, which lets go of it. Raises BusyError, or what DuckDB says."""
    with _lock:
        engine, taken = _engine(), _files.get(file)
        if taken is None:
            name = f"steplens_{next(_numbers)}"
            _attach(engine, file, name, read_only=read_only)
            _files[file] = _Attached(engine=engine, name=name, read_only=read_only)
        elif taken.engine is engine and taken.read_only and read_only:
            taken.num_users += 1
        else:
            raise BusyError("another thread of this process uses it")


@contextmanager
def using(file: Path) -> Iterator[Connection]:
    """A connection to the file that attach() took, whose tables need no prefix; of one thread."""
    attached = _files[file]
    try:
        with _connection(attached.engine) as connection:
            connection.execute(f"USE {attached.name}")
            yield connection
    finally:
        _let_go(file, attached)


def _engine() -> Connection:
    if not _running:
        _running.append(start())
    return _running[0]


@contextmanager
def _connection(engine: Connection) -> Iterator[Connection]:
    try:
        with engine.cursor() as connection:
            yield connection
    except _BROKEN:
        with _lock:
            _give_up(engine)
        raise


def _attach(engine: Connection, file: Path, name: str, *, read_only: bool) -> None:
    path = str(file).replace("'", "''")
    try:
        engine.execute(f"ATTACH '{path}' AS {name}{' (READ_ONLY)' if read_only else ''}")
    except duckdb.Error as error:
        if isinstance(error, _BROKEN):
            _give_up(engine)
        if "Could not set lock" in str(error) or "already attached" in str(error):
            raise BusyError(str(error)) from error
        raise


def _let_go(file: Path, attached: _Attached) -> None:
    with _lock:
        attached.num_users -= 1
        if attached.num_users:
            return
        del _files[file]
        if attached.engine not in _running:
            return
        try:
            attached.engine.execute(f"DETACH {attached.name}")
        except duckdb.Error:
            _give_up(attached.engine)
            raise


def _give_up(engine: Connection) -> None:
    """Start another for the next caller. To close this one would end the queries of others; it goes with the last."""
    if engine in _running:
        _running.remove(engine)
