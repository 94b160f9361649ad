"""Outcome: how a job ended; writes the Record of a worker that could not."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from profiler.machine import Machine
from profiler.record import RECORD_FILE, Record, Status, write_json
from runs.job import Job, run_folder

OUTCOME_FILE = "outcome.json"  # of references and probes, which are no runs and have no record
EVENTS_FILE = "events.jsonl"
LOG_FILE = "log.txt"
INTERRUPTED = "the machine or scheduler stopped while it ran"


def add_event(folder: Path, stage: str, detail: str = "") -> None:
    """Append one line to the run's events; a single write, so that lines never mix."""
    line = json.dumps({"time": time.time(), "stage": stage, "detail": detail})
    with (folder / EVENTS_FILE).open("a", encoding="utf-8") as events:
        events.write(line + "\n")


def read_events(folder: Path) -> list[dict[str, Any]]:
    """All whole lines of the run's events; a line under way is left out."""
    try:
        lines = (folder / EVENTS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    events = []
    for line in lines:
        try:
            event = json.loads(line)
            events.append({"time": float(event["time"]), "stage": event["stage"], "detail": event["detail"]})
        except (ValueError, KeyError, TypeError):
            continue
    return events


def has_outcome(job: Job, home: Path) -> bool:
    return _path(job, home).exists()


def read_outcome(job: Job, home: Path) -> tuple[str, str] | None:
    """(status, cause) of an ended job; None when it left nothing that can be read."""
    try:
        values = json.loads(_path(job, home).read_text(encoding="utf-8"))
        return str(values["status"]), str(values.get("cause", ""))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_outcome(
    job: Job, status: Status, cause: str, *, home: Path, machine: Machine | None = None, traceback: str = ""
) -> None:
    """Record how a job ended, unless it did so itself: what a worker wrote is never replaced."""
    if has_outcome(job, home):
        return
    folder = run_folder(job.job_id, home)
    folder.mkdir(parents=True, exist_ok=True)
    started = next((event["time"] for event in read_events(folder)), time.time())
    add_event(folder, "ended", f"{status}: {cause}" if cause else status)
    if job.kind != "measure":
        write_json(folder / OUTCOME_FILE, {"status": status, "cause": cause, "ended_at": time.time()})
        return
    _drop_torn_tables(folder)
    ended = time.time()
    Record(
        run_id=job.job_id,
        status=status,
        combo=job.combo,
        workload=job.workload,
        machine=machine,
        started_at=_iso(started),
        ended_at=_iso(ended),
        duration_s=ended - started,
        cause=cause,
        traceback=traceback,
        sweep=job.sweep,
    ).write(folder)


def _drop_torn_tables(folder: Path) -> None:
    """Remove Parquet files without their last bytes: no reader can open them, and one would spoil the folder."""
    for path in folder.glob("*.parquet"):
        if path.read_bytes()[-4:] != b"PAR1":
            path.unlink()


def _path(job: Job, home: Path) -> Path:
    return run_folder(job.job_id, home) / (RECORD_FILE if job.kind == "measure" else OUTCOME_FILE)


def _iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()
