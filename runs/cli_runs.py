"""The commands that look at runs: list them, and show one; and which run a few letters mean."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from profiler.record import CONTAMINATED, RECORD_FILE
from runs import job_queue, tables
from runs.cli_support import USAGE, Json, fail, home_of, out, usage
from runs.history import all_folders, all_records, read_record
from runs.job import run_folder


def list_command(
    ctx: typer.Context,
    sweep_id: Annotated[str | None, typer.Option("--sweep", help="Only runs of this sweep.")] = None,
    status: Annotated[str | None, typer.Option(help="Only runs that ended so: done, failed, oom, ...")] = None,
    last: Annotated[int, typer.Option(min=1, help="At most so many runs, the newest.")] = 30,
    everything: Annotated[bool, typer.Option("--all", help="All runs, however many.")] = False,
    as_json: Json = False,
) -> None:
    """List runs (of this home, the recorded studies and $STEPLENS_ROOTS), and what is in the queue.

    Examples:

        python -m runs list --last 10

        python -m runs list --all

        python -m runs list --status failed --json
    """
    home = home_of(ctx)
    known = sorted(all_records(home), key=lambda one: (one[1].started_at, one[1].sweep.position if one[1].sweep else 0))
    chosen = [
        (folder, record)
        for folder, record in known
        if (sweep_id is None or (record.sweep is not None and record.sweep.sweep_id == sweep_id))
        and status in (None, record.status)
    ]
    found = chosen if everything else chosen[-last:]
    states = [] if status else job_queue.list_jobs(home=home, num_ended=0)
    states = [s for s in states if sweep_id is None or s.job.is_of(sweep_id)]
    for line in (damaged := job_queue.damaged(home=home)):
        print(f"warning: {line}", file=sys.stderr)
    if as_json:
        rows = [tables.run_row(record) | {"folder": str(folder)} for folder, record in found]
        print(json.dumps({"runs": rows, "queue": [tables.state_row(s) for s in states], "damaged": damaged}, indent=1))
        return
    console = out(False)
    if states:
        console.print(tables.jobs_table(states))
    if not found:
        console.print(tables.why_none([record for _, record in known], sweep_id, status), markup=False, soft_wrap=True)
        return
    places = list(dict.fromkeys(str(folder.parent) for folder, _ in found))
    title = f"Runs in {', '.join(places)}"
    console.print(tables.runs_table([record for _, record in found], title, console.width))
    if len(found) < len(chosen):
        console.print(f"the newest {len(found)} of {len(chosen)} runs: --last N shows more, --all all of them")


def show(
    ctx: typer.Context,
    run_id: Annotated[str, typer.Argument(help="A run, or the beginning or end of its name.")],
    as_json: Json = False,
) -> None:
    """Show everything that one run found; or, while it runs, what it does and printed."""
    home = home_of(ctx)
    folder = folder_of(run_id, home)
    found = folder.name
    record = read_record(folder)
    if record is None and (folder / RECORD_FILE).is_file():
        fail(f"{folder / RECORD_FILE} cannot be read: it is damaged or cut short; run it again", USAGE)
    if as_json:
        values = record.to_dict() if record else {"run_id": found, "events": job_queue.events(found, home=home)}
        print(json.dumps(values, indent=1))
        return
    console = out(False)
    if record is None:
        for event in job_queue.events(found, home=home):
            console.print(time.strftime("%H:%M:%S", time.localtime(event["time"])), event["stage"], event["detail"])
        console.print(job_queue.log_tail(found, home=home), markup=False, highlight=False)
        return
    console.print(tables.runs_table([record], f"{record.run_id} on {record.device_name or '?'}", console.width))
    if record.imported:
        console.print(tables.imported_table(record.imported))
    console.print(tables.metrics_table(record.metrics))
    if record.evidence:
        console.print(tables.evidence_table(record))
    if record.contaminated:
        console.print(f"warning: {CONTAMINATED}")
    for note in record.notes:
        console.print(f"note: {note}", markup=False)
    if record.traceback:
        console.print(record.traceback, markup=False, highlight=False)
    console.print(f"folder: {folder}", markup=False, soft_wrap=True)


def folder_of(text: str, home: Path) -> Path:
    """The folder of the one run of that name, beginning or end; ends the command where there is none or several."""
    with usage():
        found = _find_run(text, home)
    return all_folders(home).get(found, run_folder(found, home))


def _find_run(text: str, home: Path) -> str:
    names = {path.name for path in (home / "runs").glob("*") if path.is_dir()} | all_folders(home).keys()
    names |= {state.job.job_id for state in job_queue.list_jobs(home=home)}
    found = sorted(name for name in names if name == text) or sorted(
        name for name in names if name.startswith(text) or name.endswith(text)
    )
    if len(found) != 1:
        several = (
            f"is one of {', '.join(found[:5])}: give more of it" if found else "is no run: see python -m runs list"
        )
        raise ValueError(f"{text!r} {several}")
    return found[0]
