"""python -m store: index run folders, and ask the index."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from store import db, fits, frames, ingest
from store.db import StoreError
from store.ingest import SyncResult

app = typer.Typer(
    help="Index run folders in DuckDB, and ask the index. The folders are the truth: deleting the index loses nothing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]

_WIDE = 240  # columns of a table that goes into a pipe or a file
_SHOWN = (
    *("run_id", "status", "workload_label", "combo_label", "machine_label"),
    *("step_ms", "samples_per_s", "peak_allocated_gib", "started_at"),
)
_OF_BATCHES = ("batch", "status", "peak_gib", "predicted_gib", "error", "basis", "largest_batch", "verdict", "run_id")


@app.command()
def sync(as_json: AsJson = False) -> None:
    """Index new run folders; forget those that are gone."""
    with _errors():
        _tell(ingest.sync(), as_json)


@app.command()
def rebuild(as_json: AsJson = False) -> None:
    """Make the index anew from the run folders."""
    with _errors():
        _tell(ingest.sync(rebuild=True), as_json)


@app.command()
def runs(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """List all runs, the newest first; --json and --csv give every column."""
    with _errors():
        _synced()
        frame = frames.runs()
    _show(frame if as_json or as_csv else frame[list(_SHOWN)], as_json, as_csv)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="E.g. \"SELECT run_id, step_ms FROM run WHERE status = 'done'\".")],
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Ask the index in SQL, read-only. Tables: run, sample, evidence, kernel, set_aside (store/schema.sql)."""
    with _errors():
        _synced()
        with db.reading(db.default_database()) as connection:
            frame = db.ask(connection, query)
    if frame is not None:
        _show(frame, as_json, as_csv)


@app.command()
def batches(
    run_id: Annotated[str, typer.Argument(help="A run; others of its combo count whatever their batch.")],
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """The largest batch that fits, predicted from two measured ones, and what runs say of it; or how to check it."""
    with _errors():
        _synced()
        frame = frames.largest_batch((run_id,))
        if frame.empty:
            raise StoreError(f"nothing was measured as {run_id}: see python -m store runs")
    _show(frame if as_json or as_csv else frame[list(_OF_BATCHES)], as_json, as_csv)
    if why := fits.why_unknown(frame):
        print(f"no largest batch is predicted: {why}", file=sys.stderr)
    if second := fits.to_measure(frame):
        print(f"to measure the second: python -m runs run --like {run_id} --batch {second}", file=sys.stderr)
    for batch in fits.to_try(frame):
        print(f"to check it: python -m runs run --like {run_id} --batch {batch}", file=sys.stderr)


@contextmanager
def _errors() -> Iterator[None]:
    """What the user can mend is one line and exit code 1."""
    try:
        yield
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def _synced() -> None:
    """Sync, and say on the error stream what is missing from the answer that follows."""
    result = ingest.sync()
    if result.rebuilt:
        print(f"the index was made anew: {result.rebuilt}", file=sys.stderr)
    for folder, reason in result.set_aside:
        print(f"set aside: {folder}: {reason}", file=sys.stderr)


def _tell(result: SyncResult, as_json: bool) -> None:
    if as_json:
        names = ("num_new", "num_total", "generation", "rebuilt")
        set_aside = [{"folder": folder, "reason": reason} for folder, reason in result.set_aside]
        print(json.dumps({name: getattr(result, name) for name in names} | {"set_aside": set_aside}, indent=1))
        return
    if result.rebuilt:
        print(f"the index was made anew: {result.rebuilt}")
    print(f"{result.num_new} new of {result.num_total} runs in {db.default_database()}")
    for folder, reason in result.set_aside:
        print(f"set aside: {folder}: {reason}")


def _show(frame: pd.DataFrame, as_json: bool, as_csv: bool) -> None:
    if as_json:
        print(frame.to_json(orient="records", date_format="iso", indent=1))
    elif as_csv:
        print(frame.to_csv(index=False), end="")
    else:
        table = Table()
        for column in frame.columns:
            table.add_column(str(column), overflow="fold")
        for row in frame.itertuples(index=False):
            table.add_row(*map(_cell, row))
        Console(width=None if sys.stdout.isatty() else _WIDE).print(table)


def _cell(value: Any) -> Text:
    """As it is: kernel names hold brackets, which are no markup."""
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return Text("")
    return Text(f"{value:.4g}" if isinstance(value, float) else str(value))


if __name__ == "__main__":
    app(prog_name="python -m store")
