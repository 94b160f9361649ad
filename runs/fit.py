"""Fit: what a smaller run of the same sweep has shown not to fit into memory is not tried again."""

from dataclasses import replace
from pathlib import Path

from profiler.workload import Workload
from runs import resume
from runs.job import Job


def why_too_large(job: Job, home: Path) -> str | None:
    """The run of the same combo, at a batch and resolution no larger, that ended out of memory; None if there is none.

    A sweep of one size never meets the rule: its runs differ in their combos.
    """
    if job.sweep is None:
        return None
    plan = resume.read_plan(job.sweep.sweep_id, home)
    smaller = [one for one in plan if one.combo == job.combo and _is_smaller(one.workload, job.workload)]
    for run_id, record in resume.read_records(smaller, home).items():
        if record.status == "oom":
            return f"{record.workload_label} did not fit (run {run_id}), so {job.workload.label} was not tried"
    return None


def _is_smaller(one: Workload, other: Workload) -> bool:
    same = replace(one, batch=other.batch, resolution=other.resolution) == other
    return same and one != other and one.batch <= other.batch and one.resolution <= other.resolution
