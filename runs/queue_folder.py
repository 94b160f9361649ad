"""The queue on disk: a job is a file, its state is the folder that it lies in, claiming it is a rename.

home/queue/queued/ -> running/ -> ended/       what cannot be read goes to bad/
<priority>-<sequence>-<job_id>.json            the lowest name is next
"""

import contextlib
import glob
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from profiler.record import write_json
from runs.job import Job
from runs.job import home as home_folder

State = Literal["queued", "running", "ended"]
STATES: tuple[State, ...] = ("queued", "running", "ended")
_FOLDERS = ("runs", "references", *(f"queue/{name}" for name in ("cancel", "bad", "support", "workers", *STATES)))


def make_folders(home: Path) -> None:
    for name in _FOLDERS:
        (home / name).mkdir(parents=True, exist_ok=True)


def lock_path(home: Path) -> Path:
    """Held by the one scheduler of this home, for as long as it lives."""
    return home / "queue" / "scheduler.lock"


def recovered_path(home: Path) -> Path:
    """The identity of the scheduler that has last recorded what its predecessor left in running/."""
    return home / "queue" / "recovered.json"


def cancel_request(job_id: str, home: Path) -> Path:
    """The file that asks the scheduler to end a running job."""
    return home / "queue" / "cancel" / job_id


def add(job: Job, priority: int, sequence: int, home: Path) -> None:
    """Put a job into queued/."""
    write_json(_folder(home, "queued") / f"{priority:03d}-{sequence:012d}-{job.job_id}.json", job.to_dict())


def claim(
    *, home: Path | None = None, admit: Callable[[Job], bool] = lambda job: True, log: Callable[[str], None] = print
) -> Job | None:
    """Move the next admitted job to running/; None when there is none. Each job is claimed exactly once."""
    at = home_folder(home)
    for path in files(at, "queued"):
        job = read_job(path, log=log)
        if job is None or not admit(job):
            continue
        with contextlib.suppress(FileNotFoundError):  # another process was faster, or it was cancelled
            path.rename(_folder(at, "running") / path.name)
            return job
    return None


def finish(job_id: str, *, home: Path | None = None) -> None:
    """Move a running job to ended/; its outcome must be on disk by now."""
    move(job_id, "running", "ended", home_folder(home))


def put_back(job_id: str, *, home: Path | None = None) -> None:
    """Move a running job back to queued/, at its old place."""
    move(job_id, "running", "queued", home_folder(home))


def move(job_id: str, source: State, target: State, home: Path) -> bool:
    """Change a job's state; False when it is not in the source (any more)."""
    path = find(job_id, source, home)
    if path is None:
        return False
    try:
        path.rename(_folder(home, target) / path.name)
    except FileNotFoundError:
        return False
    return True


def find(job_id: str, state: State, home: Path) -> Path | None:
    """The job's file in this state."""
    return next((path for path in files(home, state) if id_of(path) == job_id), None)


def files(home: Path, state: State) -> list[Path]:
    """The job files in a state, in the order of the queue."""
    return sorted(path for path in _folder(home, state).glob("*.json") if not path.name.startswith("."))


def id_of(path: Path) -> str:
    """The job_id in <priority>-<sequence>-<job_id>.json."""
    return path.stem.split("-", 2)[-1]


def next_sequence(home: Path) -> int:
    """Centiseconds since 1970, or one more than what waits: a later submit never overtakes."""
    parts = [path.name.split("-")[1:2] for path in files(home, "queued")]
    return max([int(time.time() * 100), *(int(part[0]) + 1 for part in parts if part and part[0].isdigit())])


def read_job(path: Path, *, log: Callable[[str], None] = print) -> Job | None:
    """The job in a file; one that cannot be read is moved to bad/ with a line in the log, and never blocks."""
    try:
        return Job.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        with contextlib.suppress(FileNotFoundError):
            path.rename(path.parents[1] / "bad" / path.name)
            log(f"{path.name} is no job ({error}): moved to queue/bad, submit it again (python -m runs list says how)")
        return None


def damaged(home: Path) -> list[str]:
    """One line for each job file that cannot be read, where it lies and what brings the job back."""
    bad = [path for path in sorted((home / "queue" / "bad").glob("*.json")) if not path.name.startswith(".")]
    waiting = [path for path in files(home, "queued") if not look_at([path]) and path.exists()]
    return [_remedy(path, home) for path in bad + waiting]


def _remedy(path: Path, home: Path) -> str:
    """A sweep keeps a copy of each of its jobs; any other job must be asked for again."""
    copies = (home / "sweeps").glob(f"*/{glob.escape(id_of(path))}.json")
    sweeps = [copy.parent.name for copy in copies if look_at([copy])]
    again = f"python -m runs sweep --resume {sweeps[0]}" if sweeps else "start the run again"
    return (
        f"the job file {path} is damaged and does not run: its job comes back with `{again}`, "
        "and this line goes when you delete the file"
    )


def look_at(paths: Iterable[Path]) -> list[Job]:
    """The readable jobs; looking changes nothing, so what is damaged stays for the scheduler to move."""
    jobs = []
    for path in paths:
        with contextlib.suppress(OSError, ValueError, TypeError):
            jobs.append(Job.from_dict(json.loads(path.read_text(encoding="utf-8"))))
    return jobs


def _folder(home: Path, state: State) -> Path:
    return home / "queue" / state
