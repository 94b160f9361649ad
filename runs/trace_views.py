"""Trace views: for a run that was recorded before run folders kept them, made from the trace that it kept.

They go to home/views/<run_id>/: a run folder is never changed. What lies there is shown rather than the folder's own.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from profiler.record import Record
from runs.job import home as default_home
from runs.trace_worker import LIMITS, Limits, TraceError, run_worker, trace_of

__all__ = ["TraceError", "has_own_views", "make_views"]

FOLDER = "views"


def has_own_views(folder: Path) -> bool:
    """Whether the run folder keeps the views that were made when it was recorded."""
    return (folder / FOLDER / "summary.json").is_file()


def make_views(folder: Path, *, home: Path | None = None, limits: Limits = LIMITS) -> Path:
    """Make the views of a run folder's trace, in place of those made before; the folder that they are in.

    Raises TraceError with the remedy.
    """
    record = Record.read(folder)
    trace = trace_of(record, folder)
    target = (home or default_home()).absolute() / FOLDER / record.run_id
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as place:
        answer = run_worker("views", trace.absolute(), Path(place), [], limits, trace.name)
        if not answer["num_steps"]:
            raise TraceError(f"{trace.name} holds no step: there is nothing to show of it")
        with contextlib.suppress(FileNotFoundError):
            os.replace(target, Path(place) / "before")
        try:
            os.replace(Path(place) / FOLDER, target)
        except OSError:  # another page has made them meanwhile
            if not target.is_dir():
                raise
    return target
