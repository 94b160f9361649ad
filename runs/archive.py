"""Archive: a sweep's run folders in one tar file, and out of it again."""

import gzip
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from profiler.record import RECORD_FILE, TRACE_SUFFIX, Record
from runs.job import run_folder
from runs.outcome import EVENTS_FILE, LOG_FILE
from runs.resume import latest, read_plan, read_records
from runs.trace_views import FOLDER as VIEWS

OPERATORS_FILE = "ops.parquet"
_FIGURES = ("telemetry.parquet", "curves.parquet")  # all other tables are of one step: traced, or the allocator's
_TOPS = ("runs", "sweeps")
_STAYS = (LOG_FILE, EVENTS_FILE)  # they name this machine's folders


def pack(
    sweep_id: str, archive: Path, *, home: Path, num_traces: int = 0, num_tables: int | None = None
) -> tuple[int, int]:
    """Write the sweep's plan and complete run folders as a tar file (.gz compresses); (runs packed, runs missing).

    Logs and events stay here. Of num_traces runs the raw trace goes in, with the operators one by one that serve to cut
    it; of num_tables runs (None: all) what else is kept of the traced step: kernels, memory, views. The baseline comes
    first, then the fastest. All figures of all runs go in.
    Raises ValueError for an unknown sweep, or one without any finished run.
    """
    plan = read_plan(sweep_id, home)
    records = read_records(plan, home)
    if not records:
        raise ValueError(f"sweep {sweep_id} has no finished run yet: see python -m runs list --sweep {sweep_id}")
    order = _most_useful_first(records.values())
    traced, tabled = set(order[:num_traces]), set(order[:num_tables])
    temporary = archive.with_name(f".{archive.name}.tmp")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(temporary, "w:gz" if archive.suffix in (".gz", ".tgz") else "w") as tar:
        for path in sorted((home / "sweeps" / sweep_id).glob("[!.]*.json")):
            tar.add(path, f"sweeps/{sweep_id}/{path.name}", filter=_anonymous)
        for run_id in sorted(records):
            _add_run(tar, run_folder(run_id, home), trace=run_id in traced, tables=run_id in tabled)
    temporary.replace(archive)
    return len(records), sum(1 for job in latest(plan) if job.job_id not in records)


def unpack(archive: Path, *, home: Path | None = None, study: Path | None = None) -> tuple[list[str], list[str]]:
    """Extract run folders (and plans) into a home, or the run folders alone into a study; (new, already there).

    Each run appears whole, by rename; one that is there is never replaced. Raises ValueError for an archive that
    holds anything but runs and plans: absolute paths, .., links, devices.
    """
    target = study or home
    if target is None:
        raise ValueError("choose a home or a study folder to unpack into")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".unpack-") as temporary:
        try:
            with tarfile.open(archive) as tar:
                _extract(tar, Path(temporary))
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{archive} is no archive that pack wrote ({error})") from error
        runs = sorted((Path(temporary) / "runs").glob("*"))
        for folder in runs:
            Record.read(folder)  # raises when damaged, before anything is put in place
        put = [_put(folder, (study or target / "runs") / folder.name) for folder in runs]
        if study is None:
            for path in (Path(temporary) / "sweeps").glob("*/*.json"):
                _put(path, target / path.relative_to(temporary))
    names = [folder.name for folder in runs]
    return (
        [name for name, is_new in zip(names, put, strict=True) if is_new],
        [name for name, is_new in zip(names, put, strict=True) if not is_new],
    )


def _add_run(tar: tarfile.TarFile, folder: Path, *, trace: bool, tables: bool) -> None:
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink() or path.name.startswith(".") or path.name in _STAYS:
            continue
        place = path.relative_to(folder)
        if place.name == OPERATORS_FILE or place.name.endswith(TRACE_SUFFIX):
            is_wanted = trace
        elif place.parts[0] == VIEWS or (place.suffix == ".parquet" and place.name not in _FIGURES):
            is_wanted = tables
        else:
            is_wanted = True
        if is_wanted:
            tar.add(path, f"runs/{folder.name}/{place.as_posix()}", filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the user's names and numbers."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def _most_useful_first(records: Iterable[Record]) -> list[str]:
    def order(record: Record) -> tuple[bool, float]:
        is_baseline = record.sweep is not None and record.sweep.role == "baseline"
        return (not is_baseline, record.metrics.step_ms or float("inf"))

    return [record.run_id for record in sorted(records, key=order)]


def _extract(tar: tarfile.TarFile, target: Path) -> None:
    for member in tar:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts or not name.parts or name.parts[0] not in _TOPS:
            raise ValueError(f"unsafe path {member.name!r} in the archive: nothing was unpacked")
        if member.isdir():
            continue
        source = tar.extractfile(member) if member.isreg() else None
        if source is None or len(name.parts) < 3:
            raise ValueError(f"{member.name!r} in the archive is no file of a run: nothing was unpacked")
        path = target.joinpath(*name.parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with source, path.open("wb") as copy:
            shutil.copyfileobj(source, copy)


def _put(source: Path, target: Path) -> bool:
    """Move into place unless it is there; a folder without a record is a run cut short, and gives way."""
    if target.is_file() or (target / RECORD_FILE).exists():
        return False
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    return True
