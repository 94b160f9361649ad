"""Imports: foreign traces become run folders with status "imported", whole or not at all.

    home/imports/<token>/   where one is made; it moves to home/runs/<run_id> by rename when its record is written

A run's name holds the digest of its file: the same file again is the same run.
"""

import contextlib
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from profiler.record import RECORD_FILE
from runs.job import home as home_folder
from runs.job_queue import not_writable
from runs.trace_worker import LIMITS, Limits, TraceError, run_worker

__all__ = ["LIMITS", "Imported", "Limits", "TraceError", "import_file", "import_stream"]

_ABANDONED_S = 86400.0  # a folder in home/imports older than this has no process any more
_DIGITS = 12  # of the digest in a run's name


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """A file that is a run now."""

    file_name: str
    run_id: str
    is_new: bool  # else it had been imported before


def import_file(path: Path, *, home: Path | None = None, limits: Limits = LIMITS) -> Imported:
    """Import one file. Raises TraceError with the remedy, and HomeError where the data folder cannot be written."""
    _check_file(path, limits)
    at = home_folder(home)
    run_id = _run_id(path)
    if (at / "runs" / run_id / RECORD_FILE).exists():
        return Imported(file_name=path.name, run_id=run_id, is_new=False)
    with _staging(at) as staging:
        folder = staging / run_id
        folder.mkdir()
        run_worker("import", path.absolute(), folder, ["--run-id", run_id], limits, path.name)
        is_new = _put(folder, at / "runs" / run_id)
    return Imported(file_name=path.name, run_id=run_id, is_new=is_new)


def import_stream(name: str, stream: BinaryIO, *, home: Path | None = None, limits: Limits = LIMITS) -> Imported:
    """Import what a browser has sent under a name, which is a word of others: no path is made of it as it is."""
    at = home_folder(home)
    with _staging(at) as staging:
        path = staging / _safe(name)
        with path.open("wb") as file:
            shutil.copyfileobj(stream, file, 2**22)
        return import_file(path, home=at, limits=limits)


def _safe(name: str) -> str:
    """A word of others as a file's name: no folders, nothing hidden, short enough for every disk."""
    kept = "".join(letter for letter in name if letter.isprintable() and letter not in "/\\")
    return kept[-60:].lstrip(".") or "trace.json"


def _check_file(path: Path, limits: Limits) -> None:
    """What needs no worker to see."""
    try:
        if not path.is_file():
            what = "is a folder: name the trace in it" if path.is_dir() else "is not there, or no plain file"
            raise TraceError(f"{path} {what}")
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror}") from error
    if not size:
        raise TraceError(f"{path.name} is empty: the profiler may still have been writing it, export it again")
    if size > limits.max_bytes:
        raise TraceError(
            f"{path.name} has {size / 1e9:.1f} GB, the limit is {limits.max_gb:g} GB: "
            "profile fewer steps, or without with_stack, or raise it with --max-gb"
        )


def _run_id(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = path.name
    for ending in (".gz", ".json", ".trace", ".pt"):
        name = name.removesuffix(ending)
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
    words = "-".join(word for word in kept.split("-") if word)
    return f"imported-{words[:40].strip('-') or 'trace'}-{digest[:_DIGITS]}"


@contextlib.contextmanager
def _staging(home: Path) -> Iterator[Path]:
    """A folder beside the runs that goes with all that is in it, however the import ends."""
    parent = home / "imports"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        (home / "runs").mkdir(exist_ok=True)
        _sweep_out(parent, lambda folder: time.time() - folder.stat().st_mtime > _ABANDONED_S)
        folder = Path(tempfile.mkdtemp(dir=parent))
    except OSError as error:
        raise not_writable(home, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep_out(parent: Path, is_abandoned: Callable[[Path], bool]) -> None:
    """Remove what killed imports have left."""
    for folder in parent.iterdir():
        with contextlib.suppress(OSError):
            if is_abandoned(folder):
                shutil.rmtree(folder)


def _put(folder: Path, target: Path) -> bool:
    """Move a whole run folder into place; False where another import of the same file was faster."""
    try:
        folder.rename(target)
    except OSError:
        if not (target / RECORD_FILE).exists():
            raise
        return False
    return True
