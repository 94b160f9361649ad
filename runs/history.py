"""History: the records of a home's run folders, and how long runs of each kind took."""

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from statistics import median

from profiler.record import RECORD_FILE, Record


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


def durations(home: Path) -> dict[tuple[str, str, str, str], float]:
    """(model, mode, compilation, device) -> median seconds of the runs that measured to their end."""
    seconds = defaultdict(list)
    for record in records(home):
        if record.status in ("done", "ineffective", "wrong") and record.duration_s:
            workload = record.workload
            key = (workload.model, workload.mode, record.combo.compilation, workload.device)
            seconds[key].append(record.duration_s)
    return {key: median(values) for key, values in seconds.items()}


@lru_cache(maxsize=4096)  # a record never changes once it is there
def _read(folder: Path, _changed_ns: int) -> Record:
    return Record.read(folder)
