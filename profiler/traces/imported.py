"""Imported: a foreign kineto trace becomes a run folder. Only what the file says is recorded; the rest is None.

Times come from the traced steps themselves, so the profiler's own slowdown is in them, which a note says.
"""

import contextlib
import gzip
import hashlib
import shutil
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from profiler.record import TRACE_SUFFIX, Imported, Metrics, Record
from profiler.traces.attribute import Attribution, attribute
from profiler.traces.columns import Trace
from profiler.traces.health import Finding, Health, health
from profiler.traces.read import read_trace
from profiler.traces.source import GZIP_MAGIC, TooLargeError
from profiler.traces.step_times import busy_ms, recompute_ms
from profiler.traces.tables import kernel_table, op_table, write_table
from profiler.traces.views import write_views

_VERSIONS = ("schemaVersion", "cuda_runtime_version", "cuda_driver_version", "cupti_version", "hip_runtime_version")
# What is often given instead of a trace, by its first bytes, and what to do then.
_OTHERS = (
    (b"\x80", "a pickle, which is code and is never opened here: give the JSON of export_chrome_trace"),
    (b"PK", "a zip archive: unpack it and give the trace in it"),
    (b"SQLite", "a database, as Nsight Systems writes them: give the JSON of export_chrome_trace"),
    (b"PAR1", "a Parquet table: give the JSON of export_chrome_trace"),
)


def import_trace(source: Path, folder: Path, *, run_id: str, name: str, max_bytes: int) -> Record:
    """Write the run folder of a trace: its tables, the trace itself, log.txt, and last record.json.

    `name` is the file's own, under which it is shown. Raises ValueError with the remedy for what is no trace, and
    TooLargeError (a ValueError) beyond max_bytes of unpacked text.
    """
    started = time.time()
    check_first_bytes(source, name)
    found = attribute(_read(source, max_bytes))
    _check_content(found.trace, name)
    card = health(found)
    write_table(kernel_table(found), folder / "kernels.parquet")
    write_table(op_table(found), folder / "ops.parquet")
    write_views(found, folder)
    trace_file = f"{stem(name)}{TRACE_SUFFIX}"
    _keep_trace(source, folder / trace_file)
    ended = time.time()
    record = Record(
        run_id=run_id,
        status="imported",
        combo=None,
        workload=None,
        imported=_facts(found, source, name, card),
        started_at=_iso(started),
        ended_at=_iso(ended),
        duration_s=ended - started,
        metrics=_metrics(found),
        samples={"step_ms": tuple(_step_ms(found))} if _has_steps(found) else {},
        notes=tuple(_notes(found, card)),
        trace_file=trace_file,
    )
    (folder / "log.txt").write_text("\n".join(_log(record)) + "\n", encoding="utf-8")
    record.write(folder)
    return record


def _read(source: Path, max_bytes: int) -> Trace:
    try:
        return read_trace(source, max_bytes=max_bytes)
    except TooLargeError as error:
        raise TooLargeError(f"{error}: profile fewer steps, or without with_stack, or raise the limit") from error
    except ValueError as error:
        raise ValueError(f"{error}; give the JSON of torch.profiler's export_chrome_trace") from error


def check_first_bytes(source: Path, name: str) -> None:
    """Raise ValueError for what cannot be a trace by its first bytes, whatever its name says."""
    with source.open("rb") as file:
        first = file.read(16)
    if first.startswith(GZIP_MAGIC):
        with contextlib.suppress(OSError, EOFError), gzip.open(source) as unpacked:  # the reader mends what it can
            first = unpacked.read(16)
    if not first.strip():
        raise ValueError(f"{name} is empty: the profiler may still have been writing it, export it again")
    for magic, what in _OTHERS:
        if first.startswith(magic):
            raise ValueError(f"{name} is {what}")


def stem(name: str) -> str:
    """A file's name without what says that it is a trace, as a name for files."""
    for ending in (".gz", ".json", ".trace", ".pt"):
        name = name.removesuffix(ending)
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in name)
    return kept.strip(".-")[:80] or "trace"


def plain(text: str, most: int = 120) -> str:
    """A word of others as a label: letters, digits, blanks and -_.+=@, only, so that no screen takes it for markup."""
    kept = "".join(letter if letter.isalnum() or letter in " -_.+=@,()" else "_" for letter in text)
    return kept[-most:]


def _check_content(trace: Trace, name: str) -> None:
    if len(trace.ops) or len(trace.device):
        return
    what = f"has {trace.num_events} events, but no operator and no kernel" if trace.num_events else "has no events"
    raise ValueError(f"{name} {what}: it is no trace of torch.profiler; give the file of export_chrome_trace")


def _keep_trace(source: Path, target: Path) -> None:
    """The file as it is where it is packed; else packed quickly, since it may be large."""
    with source.open("rb") as file:
        if file.read(2) == GZIP_MAGIC:
            shutil.copyfile(source, target)
            return
        file.seek(0)
        with gzip.open(target, "wb", compresslevel=3) as packed:
            shutil.copyfileobj(file, packed, 2**22)


def _facts(found: Attribution, source: Path, name: str, card: Health) -> Imported:
    metadata = found.trace.metadata
    ranks = metadata.get("distributedInfo")
    ranks = ranks if isinstance(ranks, dict) else {}
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Imported(
        file_name=plain(name),
        sha256=digest,
        num_bytes=source.stat().st_size,
        num_events=found.trace.num_events,
        num_steps=found.num_steps if _has_steps(found) else 0,
        device_name=plain(str(found.trace.device_name)) if found.trace.device_name else None,
        rank=_whole(ranks.get("rank")),
        world_size=_whole(ranks.get("world_size")),
        versions={key: plain(str(metadata[key]), 40) for key in _VERSIONS if key in metadata},
        why_empty=dict(card.why_empty),
    )


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _has_steps(found: Attribution) -> bool:
    """Whether the trace marks its steps; else the whole of it stands as one, which is no step of anything."""
    return bool(len(found.steps) and (found.steps.name >= 0).all())


def _step_ms(found: Attribution) -> list[float]:
    durations: list[float] = ((found.steps.end_ns - found.steps.start_ns) / 1e6).tolist()
    return durations


def _metrics(found: Attribution) -> Metrics:
    if not _has_steps(found):
        return Metrics()
    steps = _step_ms(found)
    low, high, p95 = np.percentile(steps, (25, 75, 95)).tolist()
    return Metrics(
        step_ms=statistics.median(steps),
        step_iqr_ms=high - low if len(steps) > 1 else None,
        step_p95_ms=p95 if len(steps) > 1 else None,
        num_samples=len(steps),
        gpu_busy_ms=busy_ms(found) if found.on_gpu else None,
        num_kernels=len(found.traced) / found.num_steps,
        recompute_ms=recompute_ms(found),
    )


def _notes(found: Attribution, card: Health) -> list[str]:
    """What the reader of the numbers must know: how they came about, then the health card's findings."""
    notes = []
    if _has_steps(found):
        count = found.num_steps
        whose = "the only traced step" if count == 1 else f"the median of {count} traced steps"
        notes.append(f"step_ms is {whose}, with the profiler's own slowdown")
    elif "steps" in card.why_empty:
        notes.append(card.why_empty["steps"])
    return notes + [_sentence(finding) for finding in card.findings]


def _sentence(finding: Finding) -> str:
    share = f", {finding.share:.1%}" if finding.share is not None else ""
    example = f", e.g. {finding.example}" if finding.example else ""
    return f"{finding.what}: {finding.count}{share}{example}"


def _log(record: Record) -> list[str]:
    facts = record.imported
    assert facts is not None
    return [
        f"imported {facts.file_name}, {facts.num_bytes} bytes, sha256 {facts.sha256}",
        f"{facts.num_events} events, {facts.label}, {record.duration_s:.1f} s",
        *record.notes,
        *(f"no {view}: {why}" for view, why in facts.why_empty.items()),
    ]


def _iso(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()
