"""Worker: one job in one process. The only file here that loads torch, through the profiler.

    python -m runs.worker JOB_FILE --home HOME

A measure job leaves the run folder that profiler.session writes; a reference job home/references/<key>/; a probe
job home/machine.json. Whatever is printed lands in the job's log.txt, progress in its events.jsonl.
"""

import argparse
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import profiler.preload  # noqa: F401, before all that loads torch
from profiler import ranks
from profiler.environment import probe
from profiler.numerics import make_reference
from profiler.session import profile
from runs.fit import why_too_large
from runs.job import Job, run_folder
from runs.machine_file import write_machine
from runs.outcome import add_event, write_outcome

Progress = Callable[[str, str], None]


def work(job: Job, home: Path) -> None:
    """Do the job; what can go wrong in a run is in its record, anything else is raised."""
    folder = run_folder(job.job_id, home)
    folder.mkdir(parents=True, exist_ok=True)
    progress = partial(add_event, folder)
    if job.kind == "measure":
        if reason := why_too_large(job, home):
            write_outcome(job, "rejected", reason, home=home, machine=probe())
            return
        references = home / "references"
        record = profile(
            job.combo, job.workload, folder,
            run_id=job.job_id, references=references, sweep=job.sweep, progress=progress,
        )  # fmt: skip
        ranks.end(record.status, folder)
    else:
        _support(job, home, progress)


def _support(job: Job, home: Path, progress: Progress) -> None:
    """A reference or a probe: no run, so how it ended is told by an outcome, not a record."""
    try:
        if job.kind == "probe":
            write_machine(probe(), home)
        else:
            folder = home / "references" / job.workload.reference_key
            folder.mkdir(parents=True, exist_ok=True)
            make_reference(job.workload, folder, progress)
    except Exception as error:  # the scheduler goes on; the log keeps the traceback
        traceback.print_exc()
        status = "oom" if "OutOfMemory" in type(error).__name__ else "failed"
        write_outcome(job, "oom" if status == "oom" else "failed", f"{type(error).__name__}: {error}", home=home)
    else:
        write_outcome(job, "done", "", home=home)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m runs.worker", description=__doc__)
    parser.add_argument("job_file", type=Path)
    parser.add_argument("--home", type=Path, required=True)
    arguments = parser.parse_args()
    gc.freeze()  # our own code stays, as what it is built on (profiler/preload.py)
    job = Job.from_dict(json.loads(arguments.job_file.read_text(encoding="utf-8")))
    work(job, arguments.home)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is written; tidying torch up would take half a second


if __name__ == "__main__":
    main()
