"""What `python -m runs sweep` does: plan, start, resume, wait."""

from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from profiler.machine import Machine
from profiler.workload import Workload
from runs import job_queue, resume, sweep, tables
from runs.budget import Budget, set_budget
from runs.cli_options import given
from runs.cli_support import BUDGET_RAN_OUT, USAGE, end_left_jobs, fail, follow, out, print_result, report, usage
from runs.estimate import estimate_job
from runs.history import durations


def plan(
    name: str,
    workload: dict[str, Any],
    extras: dict[str, Any],
    families: dict[str, Any],
    machine: Machine | None,
    home: Path,
) -> sweep.Sweep:
    kind = sweep.kind_of(name)
    lists = {family: chosen.split(",") for family, chosen in given(families).items()}
    chosen = given(workload)
    if lists and not kind.takes:
        takers = ", ".join(other.name for other in sweep.SWEEPS.values() if other.takes)
        raise ValueError(f"{name} takes no choices of {', '.join(lists)}, it has its own; these do: {takers}")
    if kind.has_own_workload and set(chosen) - {"device"}:
        raise ValueError(f"{name} has its own workloads, only --device can be chosen")
    return sweep.expand(
        name,
        Workload(**sweep.defaults(name, machine) | chosen),
        machine,
        options=sweep.Options(**given(extras), families=lists),
        known_references=job_queue.known_references(home),
        durations=durations(home),
    )


def start(planned: sweep.Sweep, home: Path, limit: Budget | None, *, dry_run: bool, wait: bool, as_json: bool) -> None:
    """Tell the plan and queue it; where no run of it can work here, say why and end with exit code 2."""
    console = out(as_json)
    console.print(tables.plan_table(planned))
    if not planned.num_runs:
        print_result(tables.sweep_row(planned) | {"state": "impossible"}, "", as_json)
        why = planned.shared_reason or "each for its own reason, in the table above"
        fail(f"none of these {len(planned.rejected)} runs can run here, so nothing is queued: {why}", USAGE)
    rejected = f" ({len(planned.rejected)} more are rejected here)" if planned.rejected else ""
    roughly = " by a rough guess" if planned.estimate.is_rough else ""
    name = "a dry run: nothing is queued" if dry_run else f"as {planned.sweep_id}"
    console.print(f"{planned.num_runs} runs{rejected}, {planned.estimate.words}{roughly}, {name}")
    if not dry_run:
        limit_time(planned.sweep_id, limit, home)
        with usage():
            job_queue.submit(planned.jobs, home=home)
    if dry_run or not wait:
        state = "planned" if dry_run else "queued"
        hint = "" if dry_run else f"follow it: python -m runs sweep --resume {planned.sweep_id} --wait"
        print_result(tables.sweep_row(planned) | {"state": state}, hint, as_json)
        return
    _wait(planned.sweep_id, home, console, as_json)


def go_on(
    sweep_id: str,
    machine: Machine | None,
    home: Path,
    limit: Budget | None,
    *,
    dry_run: bool,
    wait: bool,
    as_json: bool,
) -> None:
    console = out(as_json)
    end_left_jobs(home)
    plan = resume.read_plan(sweep_id, home)
    live = {state.job.job_id for state in job_queue.list_jobs(home=home, num_ended=0)}
    records, used = resume.read_records(plan, home), resume.used_ids(plan, home)
    rest = resume.remainder(plan, records, live, machine, job_queue.known_references(home), used)
    num_waiting = sum(job.job_id in live for job in plan)
    console.print(f"{sweep_id}: {num_waiting} jobs wait, {len(rest.jobs)} are added")
    for job in rest.jobs:
        console.print(f"  added: {job.label}", markup=False)
    if not dry_run:
        limit_time(sweep_id, limit, home)
        with usage():
            job_queue.submit(rest.first, home=home, priority=job_queue.SOON, start_scheduler=False)
            job_queue.submit(rest.then, home=home)
    if dry_run or not wait:
        print_result({"sweep_id": sweep_id, "added": [job.job_id for job in rest.jobs]}, "", as_json)
        return
    _wait(sweep_id, home, console, as_json)


def _wait(sweep_id: str, home: Path, console: Console, as_json: bool) -> None:
    again = f"python -m runs sweep --resume {sweep_id} --wait"
    live = [state.job for state in job_queue.list_jobs(home=home, num_ended=0)]
    jobs = [job for job in live if job.is_of(sweep_id)]
    outcome = follow(jobs, home, console, again=again, cancel=sweep_id)
    plan = resume.read_plan(sweep_id, home)
    found = resume.read_records(resume.latest(plan), home)
    state = "finished" if outcome.is_finished else "unfinished"
    more = {"sweep_id": sweep_id, "state": state, "resume": None if outcome.is_finished else again}
    ordered = [found[job.job_id] for job in plan if job.job_id in found]
    if not outcome.is_finished:
        set_budget(sweep_id, Budget(deadline=0.0), home)  # closed: nothing starts behind our back
        report(ordered, as_json, f"Sweep {sweep_id}, so far", more=more)
        following = next((job for job in job_queue.waiting_jobs(home=home) if job.is_of(sweep_id)), None)
        needs = f"; the next needs {estimate_job(following, durations(home)).words}" if following else ""
        out(True).print(f"unfinished: {outcome.num_left} jobs are left, the budget ran out{needs}. Go on with: {again}")
        raise typer.Exit(BUDGET_RAN_OUT)
    report(ordered, as_json, f"Sweep {sweep_id}", more=more, code=True)


def limit_time(sweep_id: str, limit: Budget | None, home: Path) -> None:
    """Before the jobs are there: none may slip through."""
    try:
        set_budget(sweep_id, limit, home)
    except OSError as error:
        raise job_queue.not_writable(home, error) from error
