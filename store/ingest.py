"""sync(): brings the index up to what the run folders say. Safe to call at any time, from any process.

The folders are the truth: a run leaves the index when its folder leaves the disk, and an index that is damaged or of
another schema is made anew. All that one sync finds goes in by one transaction.
"""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from store import db, folders
from store.db import DamagedIndexError
from store.plan import Change, Known, is_current, plan
from store.rows import table_of, tables_of


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncResult:
    """What a sync found. generation changes with the index and with nothing else: a key for caches."""

    num_new: int
    num_total: int
    set_aside: list[tuple[str, str]]  # folder, and the reason why it is not indexed
    generation: int
    rebuilt: str = ""  # why the index was made anew, in words; else empty


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """What the index holds, if it is of use; else rebuilt says why not (empty: there was none)."""

    is_usable: bool = False
    known: dict[str, Known] = field(default_factory=dict)
    generation: int = 0
    rebuilt: str = ""
    keep_as: Path | None = None  # where a damaged file goes


def sync(roots: Sequence[Path] | None = None, database: Path | None = None, *, rebuild: bool = False) -> SyncResult:
    """Index the complete run folders under roots (default_roots() unless given) and forget those that are gone.

    A folder that cannot be read is set aside with the reason and tried again once its record.json changes.
    Raises StoreError when the index cannot be written.
    """
    database = db.chosen(database)
    roots = folders.default_roots() if roots is None else [Path(root).absolute() for root in roots]
    if not rebuild:
        state = _state(database)
        if state.is_usable and is_current(state.known, folders.scan(roots)):
            return _unchanged(state, roots)
    with db.write_lock(database):
        state = _State(rebuilt="as asked") if rebuild else _state(database)
        try:
            return _update(database, state, roots)
        except DamagedIndexError as error:
            return _update(database, _damaged(database, error), roots)


def _update(database: Path, state: _State, roots: Sequence[Path]) -> SyncResult:
    """The part of sync that only one process does at a time."""
    found = folders.scan(roots)
    if state.is_usable and is_current(state.known, found):
        return _unchanged(state, roots)  # another process did the work while this one waited
    change = plan(state.known, found)
    generation = max(time.time_ns(), state.generation + 1)
    _write(database, state, change, generation)
    return SyncResult(
        num_new=len(change.new),
        num_total=change.num_total,
        set_aside=_set_aside(change.set_aside, roots),
        generation=generation,
        rebuilt=state.rebuilt,
    )


def _state(database: Path) -> _State:
    if not database.exists():
        return _State()
    try:
        with db.reading(database) as connection:
            digest, generation = db.rows(connection, "meta")[0]
            if digest != db.SCHEMA_DIGEST:
                return _State(rebuilt="it was made by another version of Steplens", generation=generation)
            known = [Known(*row) for row in db.rows(connection, "known_folders")]
    except (DamagedIndexError, duckdb.ProgrammingError, IndexError) as error:
        return _damaged(database, error)
    return _State(is_usable=True, known={entry.folder: entry for entry in known}, generation=generation)


def _damaged(database: Path, error: Exception) -> _State:
    kept = database.with_name(f"{database.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    return _State(rebuilt=f"the old one could not be read and is kept as {kept} ({error})", keep_as=kept)


def _write(database: Path, state: _State, change: Change, generation: int) -> None:
    """Apply the change; a new index is made beside the old one and takes its place when it is whole."""
    if state.is_usable:
        with db.writing(database) as connection:
            _apply(connection, change, generation)
        return
    fresh, log = (database.with_name(database.name + ending) for ending in (".new", ".wal"))
    fresh.unlink(missing_ok=True)
    fresh.with_name(fresh.name + ".wal").unlink(missing_ok=True)
    with db.writing(fresh) as connection:
        connection.execute(db.SCHEMA)
        _apply(connection, change, generation)
    if state.keep_as and database.exists():
        os.replace(database, state.keep_as)
    log.unlink(missing_ok=True)  # the old file's log must not be replayed on the new one
    os.replace(fresh, database)


def _apply(connection: db.Connection, change: Change, generation: int) -> None:
    new = tables_of(change.new)
    tables = {
        "gone": pa.table({"run_id": pa.array(change.gone, pa.string())}),
        "new_run": new.run,
        "new_sample": new.sample,
        "new_evidence": new.evidence,
        "new_kernel": change.kernels,
        "new_set_aside": table_of("set_aside", [asdict(entry) for entry in change.set_aside]),
        "new_meta": table_of("meta", [{"schema_digest": db.SCHEMA_DIGEST, "generation": generation}]),
    }
    for name, rows in tables.items():
        connection.register(name, rows)
    connection.execute(db.REPLACE)


def _unchanged(state: _State, roots: Iterable[Path]) -> SyncResult:
    return SyncResult(
        num_new=0,
        num_total=sum(entry.reason is None for entry in state.known.values()),
        set_aside=_set_aside(state.known.values(), roots),
        generation=state.generation,
    )


def _set_aside(entries: Iterable[Known], roots: Iterable[Path]) -> list[tuple[str, str]]:
    """Also names the roots that are not there; the two of every fresh machine may be missing."""
    expected = [root for root in roots if root not in folders.default_roots()[:2]]
    missing = [(str(root), "no such folder: see STEPLENS_ROOTS") for root in expected if not root.is_dir()]
    return missing + sorted((entry.folder, entry.reason) for entry in entries if entry.reason is not None)
