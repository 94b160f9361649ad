"""History: the records of a home's run folders and of all others, and how long runs of each kind took."""

import os
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from profiler.record import RECORD_FILE, Record
from runs.estimate import Like, like

RECORDED = Path(__file__).parent / "reference"
DEEPEST = 3  # runs/reference/<study>/<run_id>, and one level to spare


def roots(home: Path) -> list[Path]:
    """Where run folders lie: this home's, the recorded studies, then $STEPLENS_ROOTS; the first that holds a run wins.

    The same as store.folders.default_roots, which runs may not import.
    """
    more = os.environ.get("STEPLENS_ROOTS", "").split(os.pathsep)
    return [home / "runs", RECORDED, *(Path(root).expanduser().absolute() for root in more if root)]


def all_folders(home: Path) -> dict[str, Path]:
    """run_id -> folder, of the complete run folders under all roots, those with a damaged record included."""
    found: dict[str, Path] = {}
    for root in roots(home):
        for depth in range(1, DEEPEST + 1):
            for path in sorted(root.glob("/".join(["*"] * depth + [RECORD_FILE]))):
                found.setdefault(path.parent.name, path.parent)
    return found


def all_records(home: Path) -> Iterator[tuple[Path, Record]]:
    """Every readable record under all roots, with its folder."""
    for folder in all_folders(home).values():
        record = read_record(folder)
        if record is not None:
            yield folder, record


def records(home: Path) -> Iterator[Record]:
    """Every readable record in home/runs, oldest first; unfinished and damaged folders are left out."""
    folders = sorted(path.parent for path in (home / "runs").glob(f"*/{RECORD_FILE}"))
    for folder in folders:
        record = read_record(folder)
        if record is not None:
            yield record


def read_record(folder: Path) -> Record | None:
    """The folder's record; None while it has none, or none that can be read."""
    try:
        return _read(folder, (folder / RECORD_FILE).stat().st_mtime_ns)
    except (OSError, ValueError):
        return None


def durations(home: Path) -> dict[Like, tuple[float, ...]]:
    """The seconds that each run of this home took that measured to its end, for runs.estimate."""
    seconds = defaultdict(list)
    for record in records(home):
        combo, workload = record.combo, record.workload
        if combo and workload and record.status in ("done", "ineffective", "wrong") and record.duration_s:
            seconds[like(combo, workload)].append(record.duration_s)
    return {kind: tuple(values) for kind, values in seconds.items()}


@lru_cache(maxsize=4096)  # a record never changes once it is there
def _read(folder: Path, _changed_ns: int) -> Record:
    return Record.read(folder)
