"""What the commands share: exit codes, one-line errors, consoles, waiting."""

import contextlib
import json
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from profiler.machine import Machine
from profiler.record import Record
from runs import job_queue, queue_folder, tables
from runs.job import Job
from runs.machine_file import machine_path, read_machine
from runs.outcome import read_outcome
from runs.processes import Identity
from runs.watch import Outcome, SchedulerError, watch

FAILED_RUNS, USAGE, BUDGET_RAN_OUT, NOT_WRITABLE, INTERRUPTED = 1, 2, 3, 4, 130
ACCEPTED = ("done", "rejected", "imported")
PROBE_S = 300.0

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout; progress goes to stderr.")]


class Group(TyperGroup):
    """Turns what the user can mend into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except job_queue.HomeError as error:
            fail(str(error), NOT_WRITABLE)
        except SchedulerError as error:
            fail(str(error), FAILED_RUNS)


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """A ValueError inside is the user's: its message is the line that they see."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        fail(str(error), USAGE)


def fail(message: str, code: int) -> NoReturn:
    """Say one line on stderr and end with the code."""
    print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(code)


def out(to_stderr: bool) -> Console:
    """The console of now (tests and pipes replace the streams); wide where no terminal says how wide."""
    stream = sys.stderr if to_stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 160)


def home_of(ctx: typer.Context) -> Path:
    home: Path = ctx.obj
    return home


def machine_here(home: Path, console: Console, *, again: bool = False) -> Machine | None:
    """What this machine is, probed now if that is not known; None, with a line why, when it cannot be."""
    if again:
        machine_path(home).unlink(missing_ok=True)
    machine = read_machine(home)
    if machine is not None:
        return machine
    console.print("probing this machine (some seconds) ...")
    job_queue.ensure_probe(home)
    deadline = time.monotonic() + PROBE_S
    probe: Job | None = None
    while time.monotonic() < deadline:
        machine = read_machine(home)
        if machine is not None:
            return machine
        probe = _live_probe(home) or probe
        if probe and (outcome := read_outcome(probe, home)) and read_machine(home) is None:
            console.print(f"the probe {outcome[0]}: {outcome[1]}", markup=False)
            return None
        job_queue.ensure_scheduler(home)
        time.sleep(0.2)
    console.print("the probe waits behind other jobs: going on without it")
    return None


def end_left_jobs(home: Path) -> None:
    """If a killed scheduler left jobs in running/, have a new one record them before we count what is missing."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        left = queue_folder.files(home, "running")
        if not left or _has_recovered(home):
            return
        job_queue.ensure_scheduler(home)
        time.sleep(0.5)


def _has_recovered(home: Path) -> bool:
    """Whether a scheduler lives that is past its recovery: what is in running/ now is its own."""
    try:
        values = json.loads(queue_folder.recovered_path(home).read_text(encoding="utf-8"))
        return Identity(**values).is_alive and job_queue.scheduler_is_running(home)
    except (OSError, ValueError, TypeError):
        return False


def follow(jobs: Collection[Job], home: Path, console: Console, *, again: str, cancel: str) -> Outcome:
    """Watch to the end; Ctrl-C says what goes on without us."""
    try:
        return watch(jobs, home, console)
    except KeyboardInterrupt:
        console.print(
            f"\nnot watching any more; the jobs go on in the background.\n"
            f"  watch again:   {again}\n  cancel them:   python -m runs cancel {cancel}",
            highlight=False,
        )
        raise typer.Exit(INTERRUPTED) from None


def report(
    records: Sequence[Record], as_json: bool, title: str, *, more: dict[str, Any] | None = None, code: bool = False
) -> None:
    """Print the runs; with code, end with 1 if any of them failed."""
    if as_json:
        print(json.dumps((more or {}) | {"runs": [tables.run_row(record) for record in records]}, indent=1))
    else:
        console = out(False)
        console.print(tables.runs_table(records, title, console.width))
    if code:
        raise typer.Exit(0 if all(record.status in ACCEPTED for record in records) else FAILED_RUNS)


def print_result(values: dict[str, Any], text: str, as_json: bool) -> None:
    """The end of a command that has no table to show."""
    if as_json:
        print(json.dumps(values, indent=1))
    elif text:
        print(text)


def _live_probe(home: Path) -> Job | None:
    paths = [*queue_folder.files(home, "queued"), *queue_folder.files(home, "running")]
    return next((job for job in queue_folder.look_at(paths) if job.kind == "probe"), None)
