"""The commands about traces: import foreign ones, and make slices and views of those that are kept."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from runs import imports, slices, trace_views
from runs.cli_options import parse_duration
from runs.cli_runs import folder_of
from runs.cli_support import FAILED_RUNS, Json, fail, home_of, usage


def import_command(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Traces of torch.profiler: .json or .json.gz.")],
    max_gb: Annotated[float, typer.Option(help="The most text of one file, unpacked.")] = imports.LIMITS.max_gb,
    memory_gib: Annotated[float, typer.Option(help="The most memory for one.")] = imports.LIMITS.memory_gib,
    timeout: Annotated[str, typer.Option(help="The longest that one may take.")] = f"{imports.LIMITS.timeout_s:g}s",
    as_json: Json = False,
) -> None:
    """Import traces that torch.profiler wrote elsewhere: each becomes a run with status imported.

    Each is read by a process of its own with the limits below; what cannot be read leaves nothing behind and one line
    here. The same file again is the same run.

    Examples:

        python -m runs import trace.json.gz

        python -m runs import log/*.pt.trace.json.gz --max-gb 5 --memory-gib 16
    """
    with usage():
        limits = imports.Limits(max_gb=max_gb, memory_gib=memory_gib, timeout_s=parse_duration(timeout))
    done, refused = [], []
    for path in files:
        try:
            found = imports.import_file(path, home=home_of(ctx), limits=limits)
        except imports.TraceError as error:
            refused.append({"file": str(path), "reason": str(error)})
            print(f"error: {error}", file=sys.stderr)
            continue
        done.append(found)
        if not as_json:
            print(f"{found.file_name}: {'imported as' if found.is_new else 'is already'} {found.run_id}")
    if as_json:
        print(json.dumps({"imported": [asdict(one) for one in done], "refused": refused}, indent=1))
    raise typer.Exit(FAILED_RUNS if refused else 0)


def slice_command(
    ctx: typer.Context,
    run_id: Annotated[str, typer.Argument(help="A run, or the beginning or end of its name.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file: .json.gz.")],
    step: Annotated[int, typer.Option(help="Which step of the trace; 0 is the first.")] = 0,
    module: Annotated[str | None, typer.Option(help="Only this module's calls, and those in it.")] = None,
) -> None:
    """Cut one step, or one module in it, out of a run's trace, as a small trace for Perfetto or TensorBoard.

    Example:

        python -m runs slice RUN_ID --step 0 --module down_blocks.0.attentions.0 -o slice.pt.trace.json.gz
    """
    folder = folder_of(run_id, home_of(ctx))
    if not output.absolute().parent.is_dir():
        fail(f"there is no folder {output.absolute().parent}", 2)
    if not output.name.endswith(".json.gz"):
        fail(f"a slice is packed: name it {output.stem}.json.gz", 2)
    with usage():
        num_events = slices.write_slice(folder, output, step=step, module=module)
    print(f"{num_events} events in {output} ({output.stat().st_size / 2**20:.2f} MiB): drop it on ui.perfetto.dev")


def views(
    ctx: typer.Context,
    run_ids: Annotated[list[str], typer.Argument(help="Runs, or the beginnings or ends of their names.")],
    again: Annotated[bool, typer.Option("--again", help="Also for runs that keep theirs.")] = False,
) -> None:
    """Make what the Run page shows of a trace, for runs recorded before run folders kept it.

    Example:

        python -m runs views RUN_ID
    """
    for text in run_ids:
        with usage():
            folder = folder_of(text, home_of(ctx))
            if trace_views.has_own_views(folder) and not again:
                print(f"{folder.name} keeps its views since it was recorded: --again makes newer ones beside it")
                continue
            print(trace_views.make_views(folder, home=home_of(ctx)))
