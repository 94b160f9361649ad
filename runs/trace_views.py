"""Trace views: for a run that was recorded before run folders kept them, made from the trace that it kept.

They go to home/views/<run_id>/: a run folder is never changed.
"""

import os
import tempfile
from pathlib import Path

from profiler.record import Record
from runs.job import home as default_home
from runs.trace_worker import LIMITS, Limits, TraceError, run_worker, trace_of

__all__ = ["TraceError", "make_views"]

FOLDER = "views"


def make_views(folder: Path, *, home: Path | None = None, limits: Limits = LIMITS) -> Path:
    """Make the views of a run folder's trace; the folder that they are in. Raises TraceError with the remedy."""
    record = Record.read(folder)
    trace = trace_of(record, folder)
    target = (home or default_home()).absolute() / FOLDER / record.run_id
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as place:
        answer = run_worker("views", trace.absolute(), Path(place), [], limits, trace.name)
        if not answer["num_steps"]:
            raise TraceError(f"{trace.name} holds no step: there is nothing to show of it")
        if not target.exists():  # another page may have made them meanwhile
            os.replace(Path(place) / FOLDER, target)
    return target
