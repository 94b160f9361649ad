"""Budget: until when a sweep may start jobs; what does not fit stays queued for a later --resume."""

import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from profiler.record import write_json
from runs.estimate import Durations, estimate_job
from runs.job import Job


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """A sweep's time limit; it lies in a file, so that it holds even when the command that set it is killed."""

    deadline: float  # unix seconds: no job starts that would by its estimate end later
    grace_s: float = 30.0  # a job under way is stopped, and queued again, this long after the deadline


def set_budget(sweep_id: str, budget: Budget | None, home: Path) -> None:
    """Give a sweep a budget, or with None no limit any more."""
    if budget is None:
        with contextlib.suppress(FileNotFoundError):
            _path(sweep_id, home).unlink()
        return
    _path(sweep_id, home).parent.mkdir(parents=True, exist_ok=True)
    write_json(_path(sweep_id, home), asdict(budget))


def read_budget(job: Job, home: Path) -> Budget | None:
    """The budget that holds for the job, if any; one that cannot be read has run out, until --resume sets another."""
    if job.sweep is None or job.beyond_budget:
        return None
    try:
        values = json.loads(_path(job.sweep.sweep_id, home).read_text(encoding="utf-8"))
        return Budget(deadline=float(values["deadline"]), grace_s=float(values["grace_s"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        return Budget(deadline=0.0)


def fits(job: Job, home: Path, durations: Durations | None) -> bool:
    """Whether the job, started now, would by its estimate end within its sweep's budget."""
    budget = read_budget(job, home)
    return budget is None or time.time() + estimate_job(job, durations).likely_s <= budget.deadline


def stop_after(job: Job, home: Path) -> float | None:
    """When a job under way is to be stopped and queued again; None without a budget."""
    budget = read_budget(job, home)
    return None if budget is None else budget.deadline + budget.grace_s


def _path(sweep_id: str, home: Path) -> Path:
    return home / "queue" / "budgets" / f"{sweep_id}.json"
