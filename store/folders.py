"""Run folders on disk: where they are, whether they are whole, and what is in them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import duckdb
import pyarrow as pa

from profiler.record import RECORD_FILE, Record
from store import db
from store.rows import Rows, rows_of, tables_of

KERNEL_FILE = "kernels.parquet"
RECORDED_ROOT = Path(__file__).absolute().parents[1] / "runs" / "reference"

_PARQUET_MAGIC = b"PAR1"
_DEEPEST = 3  # runs/reference/<study>/<run_id>, and one level to spare


class BadFolderError(Exception):
    """Why a folder cannot be indexed, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A complete run folder: one with a record.json, which is written last and never changed."""

    folder: str
    root: str
    record_mtime_ns: int


def own_root() -> Path:
    """Where the runs measured under this home lie."""
    return db.home() / "runs"


def default_roots() -> list[Path]:
    """This home's runs, the recorded study, then $STEPLENS_ROOTS; the first root that holds a run wins."""
    more = os.environ.get("STEPLENS_ROOTS", "").split(os.pathsep)
    return [own_root(), RECORDED_ROOT, *(Path(root).expanduser().absolute() for root in more if root)]


def of_run(run_id: str, database: Path) -> Path:
    """The folder of an indexed run. Raises StoreError for a run that is not."""
    state = database.stat() if database.exists() else None
    found = _folders(database, state and (state.st_ino, state.st_mtime_ns, state.st_size)).get(run_id)
    if found is None:
        raise db.StoreError(f"no run {run_id} in the index: see python -m store runs")
    return found


@lru_cache(maxsize=4)  # of one state of the index: a page asks for dozens of folders, and to ask DuckDB takes 5 ms
def _folders(database: Path, state: object) -> dict[str, Path]:
    with db.reading(database) as connection:
        return {run_id: Path(folder) for run_id, folder in db.rows(connection, "folders")}


def scan(roots: Iterable[Path]) -> dict[str, Found]:
    """All complete run folders by path, in the order of the roots."""
    found: dict[str, Found] = {}
    for root in roots:
        for folder, mtime_ns in sorted(_complete(str(root), _DEEPEST)):
            found.setdefault(folder, Found(folder=folder, root=str(root), record_mtime_ns=mtime_ns))
    return found


def read(found: Found) -> Rows:
    """The rows of a folder, its kernels aside. Raises BadFolderError."""
    try:
        _check_parquet(found.folder)
        record = Record.read(Path(found.folder))
        return rows_of(record, root=found.root, folder=found.folder, record_mtime_ns=found.record_mtime_ns)
    except Exception as error:  # whatever a foreign file provokes concerns this folder alone
        raise BadFolderError(_reason(error, found.folder)) from error


def misfits(runs: Mapping[str, Rows]) -> dict[str, str]:
    """Folder -> reason, for those with a value that its column cannot hold. Quick when there are none."""
    try:
        tables_of(list(runs.values()))
        return {}
    except Exception as error:
        if len(runs) == 1:
            return {folder: f"record.json: {_reason(error, folder)}" for folder in runs}
    return {folder: why for one in runs.items() for folder, why in misfits(dict([one])).items()}


def read_kernels(folders: Sequence[str]) -> tuple[pa.Table, dict[str, str]]:
    """The kernels of many folders, added up, with the file name of each; and why some could not be read."""
    files = [file for folder in folders if os.path.exists(file := os.path.join(folder, KERNEL_FILE))]
    with db.scratch() as connection:
        tables, reasons = _read_files(connection, files)
    none = db.table_schema("kernel").empty_table().rename_columns({"run_id": "filename"})
    return pa.concat_tables([none, *tables]), {os.path.dirname(file): why for file, why in reasons.items()}


def _read_files(connection: db.Connection, files: list[str]) -> tuple[list[pa.Table], dict[str, str]]:
    """All files in one query; when it fails, halve them until the bad ones stand alone."""
    if not files:
        return [], {}
    try:
        return [db.arrow(connection, "kernels_of_files", files=files)], {}
    except duckdb.Error as error:
        if len(files) == 1:
            return [], {files[0]: _reason(error, os.path.dirname(files[0]))}
    middle = len(files) // 2
    (left, bad_left), (right, bad_right) = (_read_files(connection, part) for part in (files[:middle], files[middle:]))
    return left + right, bad_left | bad_right


def _complete(folder: str, depth: int) -> Iterator[tuple[str, int]]:
    """Folders with a record.json at or below this one, and its modification time."""
    try:
        yield folder, os.stat(os.path.join(folder, RECORD_FILE)).st_mtime_ns
        return
    except OSError:
        if depth == 0:
            return
    try:
        with os.scandir(folder) as entries:
            inner = [entry.path for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return  # not there, not any more, or not ours to read
    for path in inner:
        yield from _complete(path, depth - 1)


def _check_parquet(folder: str) -> None:
    """A Parquet file that was cut short has lost the magic word at its end."""
    with os.scandir(folder) as entries:
        paths = [entry.path for entry in entries if entry.name.endswith(".parquet")]
    for path in paths:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_PARQUET_MAGIC)))
            if size < 12 or file.read() != _PARQUET_MAGIC:
                raise BadFolderError(f"{os.path.basename(path)} is cut short: copy the folder again")


def _reason(error: Exception, folder: str) -> str:
    """One line, without the folder, which stands beside it."""
    first_line = (str(error).splitlines() or [""])[0].replace(folder + os.sep, "")
    return first_line if isinstance(error, (ValueError, BadFolderError)) else f"{type(error).__name__}: {first_line}"
