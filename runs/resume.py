"""Resume and retry: which jobs of a sweep are still to be done, told from its plan and its records."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from profiler.machine import Machine
from profiler.record import Record
from runs import queue_folder
from runs.history import read_record
from runs.job import Job, measure_job, retry_job, run_folder, with_references
from runs.outcome import INTERRUPTED, has_outcome

RETRIED = ("failed", "oom", "timeout", "cancelled")


@dataclass(frozen=True, kw_only=True, slots=True)
class Remainder:
    """What a resumed sweep still has to submit."""

    first: tuple[Job, ...] = ()  # before what waits in the queue: references and baselines for this machine
    then: tuple[Job, ...] = ()

    @property
    def jobs(self) -> tuple[Job, ...]:
        return self.first + self.then


def read_plan(sweep_id: str, home: Path) -> list[Job]:
    """Every job that was ever submitted for the sweep, in its order. Raises ValueError for an unknown sweep."""
    jobs = []
    for path in (home / "sweeps" / sweep_id).glob("*.json"):
        if not path.name.startswith("."):
            jobs.append(Job.from_dict(json.loads(path.read_text(encoding="utf-8"))))
    if not jobs:
        known = sorted((path.name for path in (home / "sweeps").glob("*")), reverse=True)
        raise ValueError(
            f"no sweep {sweep_id!r} in {home}: there {'is ' + ', '.join(known[:5]) if known else 'is none'}"
        )
    return sorted(jobs, key=lambda job: (_position(job), job.kind == "measure", job.submitted_at))


def read_records(jobs: Iterable[Job], home: Path) -> dict[str, Record]:
    """job_id -> record, of the jobs that have one."""
    found = {job.job_id: read_record(run_folder(job.job_id, home)) for job in jobs if job.kind == "measure"}
    return {job_id: record for job_id, record in found.items() if record}


def latest(plan: Iterable[Job]) -> list[Job]:
    """The measure jobs, each only in its last attempt."""
    jobs = list(plan)
    replaced = {job.retry_of for job in jobs}
    return [job for job in jobs if job.kind == "measure" and job.job_id not in replaced]


def remainder(
    plan: list[Job],
    records: Mapping[str, Record],
    waiting: Collection[str],
    machine: Machine | None,
    known_references: Collection[str],
    used: Collection[str] = (),
) -> Remainder:
    """What to submit so that the sweep gets finished here. `waiting` holds the ids that are queued or running, `used`
    those that were here before and cannot be submitted again.

    Runs that the end of a machine interrupted are tried again; other failures are findings, for retry. Where the
    baseline was measured on another GPU or boot, it is measured here too: ratios pair runs of one machine.
    """
    current = latest(plan)
    missing = [job for job in current if _is_missing(job, records, waiting)]
    then = [_again(job, was_here=job.job_id in records or job.job_id in used) for job in missing]
    to_do = [job for job in current if job.job_id in waiting and job.job_id not in records] + then
    to_come = {job.workload.reference_key for job in plan if job.kind == "reference" and job.job_id in waiting}
    first = [job for job in with_references(to_do, to_come.union(known_references)) if job.kind == "reference"]
    first += _baselines_for_here(to_do, current, records, machine)
    return Remainder(first=tuple(first), then=tuple(then))


def used_ids(plan: Iterable[Job], home: Path) -> set[str]:
    """The jobs that ended here, though their record may be gone or damaged."""
    ended = {queue_folder.id_of(path) for path in queue_folder.files(home, "ended")}
    return {job.job_id for job in plan if job.job_id in ended or has_outcome(job, home)}


def _again(job: Job, *, was_here: bool) -> Job:
    """The job itself if it never ran, else another attempt; from here, with directory and variables of this time."""
    return replace(retry_job(job) if was_here else job, directory=None, environment=None)


def retries(plan: Iterable[Job], records: Mapping[str, Record], statuses: Collection[str] = RETRIED) -> list[Job]:
    """Another attempt of each run that ended so."""
    return [retry_job(job) for job in latest(plan) if (record := records.get(job.job_id)) and record.status in statuses]


def job_of(record: Record, home: Path) -> Job:
    """The job that a record came from: as its sweep's plan has it, else made anew.

    Raises ValueError for an imported trace, which no job made.
    """
    if record.sweep and (home / "sweeps" / record.sweep.sweep_id / f"{record.run_id}.json").exists():
        return next(job for job in read_plan(record.sweep.sweep_id, home) if job.job_id == record.run_id)
    if record.combo is None or record.workload is None:
        raise ValueError(f"{record.run_id} is an imported trace, which nothing here measured: import it again")
    return replace(measure_job(record.combo, record.workload, record.sweep), job_id=record.run_id)


def _is_missing(job: Job, records: Mapping[str, Record], waiting: Collection[str]) -> bool:
    record = records.get(job.job_id)
    if record is None:
        return job.job_id not in waiting
    return record.status == "failed" and record.cause == INTERRUPTED


def _baselines_for_here(
    to_do: list[Job], current: list[Job], records: Mapping[str, Record], machine: Machine | None
) -> list[Job]:
    """One baseline for each workload that has runs to do, but neither a baseline from here nor one to do."""
    if machine is None:
        return []
    found = []
    for workload in dict.fromkeys(job.workload for job in to_do):
        baselines = [j for j in current if j.workload == workload and j.sweep and j.sweep.role == "baseline"]
        to_come = any(job.workload == workload and job.sweep and job.sweep.role == "baseline" for job in to_do)
        measured = [records[job.job_id] for job in baselines if job.job_id in records]
        if baselines and not to_come and not any(_is_from(machine, record) for record in measured):
            found.append(replace(_again(baselines[0], was_here=True), retry_of=None))
    return found


def _is_from(machine: Machine, record: Record) -> bool:
    there = record.machine
    return there is not None and (there.gpu_uuid, there.boot_id) == (machine.gpu_uuid, machine.boot_id)


def _position(job: Job) -> int:
    return job.sweep.position if job.sweep else 0
