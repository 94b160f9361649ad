"""The command line: python -m runs --help."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from profiler.combo import Combo
from profiler.why_not import why_not
from profiler.workload import Workload
from runs import archive, cli_runs, cli_sweep, cli_traces, job_queue, resume, sweep, tables
from runs.budget import Budget
from runs.cli_options import given, parse_duration, takes_combo_and_workload, takes_sweep_options
from runs.cli_support import (
    FAILED_RUNS,
    USAGE,
    Group,
    Json,
    fail,
    follow,
    home_of,
    machine_here,
    out,
    print_result,
    report,
    usage,
)
from runs.history import read_record
from runs.job import Job, check_model, measure_job, retry_job, run_folder, with_references
from runs.job import home as home_folder

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Measure what each optimisation buys a diffusion UNet. Every run is a process of its own, queued under
    STEPLENS_HOME (./data), and its results stay in STEPLENS_HOME/runs/<run_id>/.

    A first look, and the same on a GPU that is lent for ten minutes:

        python -m runs sweep quick --wait

        python -m runs sweep ladder_inference --model sd15 --batch 8 --wait --budget 9m

        python -m runs sweep --resume SWEEP_ID --wait --budget 9m

        python -m runs pack SWEEP_ID -o sd15.tar

    **Exit codes.** 0: all is well (in a sweep, a rejected rung is a finding). 1: some runs failed, ran out of memory or
    time, were cancelled, wrong or ineffective. 2: the command was not understood, names something that is not there,
    or asks for what cannot run here. 3: the budget ran out, the rest is queued for --resume. 4: the data
    folder cannot be written. 130: Ctrl-C.""",
)

Grace = Annotated[str, typer.Option(help="How long after the budget a run under way may still take.")]


@app.callback()
def main(
    ctx: typer.Context,
    home: Annotated[
        Path | None, typer.Option(help="The data folder [default: $STEPLENS_HOME, else ./data].", show_default=False)
    ] = None,
) -> None:
    ctx.obj = home_folder(home)


@app.command("sweep")
@takes_sweep_options
def sweep_command(
    ctx: typer.Context,
    workload: dict[str, Any],
    extras: dict[str, Any],
    families: dict[str, Any],
    name: Annotated[str | None, typer.Argument(help=f"{', '.join(sweep.SWEEPS)}.", show_default=False)] = None,
    wait: Annotated[bool, typer.Option(help="Follow the sweep to its end.")] = False,
    budget: Annotated[str | None, typer.Option(help="Start no run that would end later: 9m, 90s, 1h30m.")] = None,
    grace: Grace = "30s",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    resume_id: Annotated[
        str | None, typer.Option("--resume", help="Go on with this sweep.", metavar="SWEEP_ID")
    ] = None,
    as_json: Json = False,
) -> None:
    """Queue a sweep: a baseline, candidates, and the baseline again.

    Examples:

        python -m runs sweep quick --wait

        python -m runs sweep ladder_train --model sd15 --batch 16 --dry-run

        python -m runs sweep grid --mode train --precision fp32,bf16_amp --attention math,sdpa --device cpu

        python -m runs sweep --resume 20261124-101500-quick-3fa2 --wait --budget 9m

    With --budget the sweep stops in time: no run is started that by its estimate would end later, one that is under
    way past budget and grace is ended and queued again, the exit code is 3, and --resume goes on, on this machine
    or (after pack and unpack) on another, where the baseline is measured again.
    """
    started, home = time.time(), home_of(ctx)
    with usage():
        limit = None
        if budget is not None:
            limit = Budget(deadline=started + parse_duration(budget), grace_s=parse_duration(grace))
        if (name is None) == (resume_id is None):
            raise ValueError(f"name a sweep ({', '.join(sweep.SWEEPS)}), or an earlier one with --resume SWEEP_ID")
        if resume_id is not None:
            if given(workload) or given(families) or any(given(extras).values()):
                raise ValueError("--resume goes on with the sweep as it was planned: leave the other choices out")
            resume.read_plan(resume_id, home)
        elif workload["model"] is not None:  # before a worker starts to find out what this machine is
            check_model(workload["model"])
    machine = machine_here(home, out(as_json))
    if name is not None:
        with usage():
            planned = cli_sweep.plan(name, workload, extras, families, machine, home)
        cli_sweep.start(planned, home, limit, dry_run=dry_run, wait=wait, as_json=as_json)
    elif resume_id is not None:
        cli_sweep.go_on(resume_id, machine, home, limit, dry_run=dry_run, wait=wait, as_json=as_json)


@app.command()
@takes_combo_and_workload
def run(
    ctx: typer.Context,
    combo: dict[str, Any],
    workload: dict[str, Any],
    like: Annotated[
        str | None,
        typer.Option(help="Start from this run's combo and workload; other options change them.", metavar="RUN_ID"),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(help="End the run after so long, with status timeout: 10m [default: 30m, max_autotune 1h]."),
    ] = None,
    wait: Annotated[bool, typer.Option(help="Follow the run to its end.")] = True,
    as_json: Json = False,
) -> None:
    """Measure one combo on one workload.

    Examples:

        python -m runs run --model tiny --device cpu

        python -m runs run --model sd15 --mode train --batch 16 --precision bf16_amp --attention sdpa

        python -m runs run --like RUN_ID --batch 24
    """
    home = home_of(ctx)
    start = _choices_of(like, home) if like else None
    with usage():  # before a worker starts to find out what this machine is
        check_model(((start[1] if start else {}) | given(workload)).get("model", Workload().model))
    machine = machine_here(home, out(as_json))
    with usage():
        choices, work = start or ({}, {"device": sweep.default_device(machine)})
        job = measure_job(Combo(**choices | given(combo)), Workload(**work | given(workload)))
        if timeout is not None:
            job = replace(job, timeout_s=parse_duration(timeout))
    if machine and (reason := why_not(job.combo, job.workload, machine)):
        fail(f"{job.label} cannot run here, so nothing is queued: {reason}", USAGE)
    jobs = with_references([job], job_queue.known_references(home))
    with usage():
        job_queue.submit(jobs, home=home)
    if not wait:
        print_result({"run_id": job.job_id, "state": "queued"}, f"queued as {job.job_id}", as_json)
        return
    follow(jobs, home, out(as_json), again=f"python -m runs show {job.job_id}", cancel=job.job_id)
    record = read_record(run_folder(job.job_id, home))
    report([record] if record else [], as_json, f"Run {job.job_id}")
    raise typer.Exit(0 if record and record.status == "done" else FAILED_RUNS)


app.command("list")(cli_runs.list_command)
app.command()(cli_runs.show)


@app.command()
def cancel(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Jobs or sweeps.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that waits or runs.")] = False,
) -> None:
    """Cancel what waits at once, and what runs within seconds; each leaves a record that says so.

    Examples:

        python -m runs cancel 20261124-101500-quick-3fa2

        python -m runs cancel --all
    """
    home = home_of(ctx)
    states = job_queue.list_jobs(home=home, num_ended=0)
    chosen = [s.job for s in reversed(states) if everything or _names(s.job) & set(names or ())]  # waiting ones first
    with usage():
        if not names and not everything:
            raise ValueError("name a job or a sweep, or --all: see python -m runs list")
        if not chosen and not everything:
            raise ValueError(f"nothing that waits or runs is called {', '.join(names or ())}: see python -m runs list")
    for job in chosen:
        answer = job_queue.cancel(job.job_id, home=home)
        word = {"cancelled": "cancelled", "asked": "is being ended", "ended": "had ended", "unknown": "is gone"}[answer]
        print(f"{job.job_id}: {word}")


@app.command()
def retry(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A sweep, or one run.")],
    status: Annotated[str, typer.Option(help="Which ones of a sweep.")] = ",".join(resume.RETRIED),
    wait: Annotated[bool, typer.Option(help="Follow them to their end.")] = False,
    as_json: Json = False,
) -> None:
    """Run again what failed; the failed records stay.

    Examples:

        python -m runs retry 20261124-101500-quick-3fa2 --wait

        python -m runs retry 20261124-101500-quick-3fa2 --status rejected   (after installing a package)
    """
    home = home_of(ctx)
    with usage():
        record = read_record(run_folder(name, home)) if (home / "runs" / name).is_dir() else None
        if record:
            jobs = [retry_job(resume.job_of(record, home), beyond_budget=True)]
        else:
            plan = resume.read_plan(name, home)
            jobs = resume.retries(plan, resume.read_records(plan, home), status.split(","))
            cli_sweep.limit_time(name, None, home)
    jobs = with_references(jobs, job_queue.known_references(home))
    with usage():
        job_queue.submit(jobs, home=home)
    if wait and jobs:
        follow(jobs, home, out(as_json), again=f"python -m runs list --sweep {name}", cancel=name)
        report(list(resume.read_records(jobs, home).values()), as_json, f"Retried of {name}", code=True)
    num_runs = sum(job.kind == "measure" for job in jobs)
    print_result({"jobs": [job.job_id for job in jobs]}, f"{num_runs} runs queued again", as_json)


@app.command()
def pack(
    ctx: typer.Context,
    sweep_id: Annotated[str, typer.Argument(help="A sweep; an unfinished one too, to go on elsewhere.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The tar file; .tar.gz compresses.")],
    num_traces: Annotated[
        int, typer.Option("--traces", help="Runs to pack with their raw trace and its single operators.")
    ] = 0,
    num_tables: Annotated[
        int | None,
        typer.Option(
            "--tables",
            help="Runs to pack with kernels, memory and views of their traced step; 0: figures only [default: all].",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Pack a sweep's run folders into one archive.

    --traces and --tables choose the baseline first, then the fastest runs.

    Example:

        python -m runs pack 20261124-101500-ladder_train-3fa2 -o train.tar --traces 2
    """
    with usage():
        num_packed, num_missing = archive.pack(
            sweep_id, output, home=home_of(ctx), num_traces=num_traces, num_tables=num_tables
        )
    print(f"{num_packed} runs in {output} ({output.stat().st_size / 2**20:.1f} MiB)")
    if num_missing:
        print(f"{num_missing} runs of the sweep are not done yet: unpack, then sweep --resume {sweep_id}")


@app.command()
def unpack(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="What pack wrote.", exists=True, dir_okay=False)],
    into: Annotated[
        Path | None,
        typer.Option(help="A folder for the run folders alone [default: the data folder].", show_default=False),
    ] = None,
) -> None:
    """Unpack run folders, into the data folder (and go on with the sweep there) or a study folder.

    Example:

        python -m runs unpack train.tar --into runs/reference/sd15-train
    """
    with usage():
        new, old = archive.unpack(file, home=home_of(ctx), study=into)
    print(f"{len(new)} runs unpacked into {into or home_of(ctx) / 'runs'}, {len(old)} were there already")


app.command("import")(cli_traces.import_command)
app.command()(cli_traces.views)
app.command("slice")(cli_traces.slice_command)


@app.command()
def probe(
    ctx: typer.Context,
    again: Annotated[bool, typer.Option("--again", help="Even if machine.json is fresh.")] = False,
    as_json: Json = False,
) -> None:
    """Find out what this machine has (GPU, packages, versions); done by itself before the first run."""
    home = home_of(ctx)
    machine = machine_here(home, out(as_json), again=again)
    if machine is None:
        raise typer.Exit(FAILED_RUNS)
    if as_json:
        print(json.dumps(machine.to_dict(), indent=1))
    else:
        out(False).print(tables.machine_table(machine))


def _choices_of(text: str, home: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The combo and the workload of a run."""
    record = read_record(cli_runs.folder_of(text, home))
    if record is None or record.combo is None or record.workload is None:
        fail(f"{text} does not say what was run (unfinished, damaged or imported): name the choices", USAGE)
    return record.combo.to_dict(), record.workload.to_dict()


def _names(job: Job) -> set[str]:
    return {job.job_id} | ({job.sweep.sweep_id} if job.sweep else set())


if __name__ == "__main__":
    sys.exit(app(prog_name="python -m runs"))
