"""Job: one combo to measure on one workload; and where everything lies under home."""

import os
import re
import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from profiler.combo import BASELINE, Combo, name_run
from profiler.machine import VARIABLE_PREFIXES
from profiler.record import SweepPlace
from profiler.workload import ZOO, Workload
from runs.factory import check_factory

Kind = Literal["measure", "reference", "probe"]
KINDS: tuple[str, ...] = ("measure", "reference", "probe")
TIMEOUT_S = 1800.0
AUTOTUNE_TIMEOUT_S = 3600.0  # max_autotune searched SD1.5's kernels for more than 6 minutes on an H200


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One worker process to come: measure a combo, make a numerical reference, or probe the machine."""

    job_id: str  # a measure job's run folder has this name
    kind: Kind = "measure"
    combo: Combo = BASELINE
    workload: Workload = field(default_factory=lambda: Workload(device="cpu"))
    sweep: SweepPlace | None = None
    timeout_s: float = TIMEOUT_S
    submitted_at: float = 0.0  # unix seconds
    retry_of: str | None = None
    beyond_budget: bool = False  # asked for by itself: the budget of its sweep neither holds nor stops it
    directory: str | None = None  # where the worker runs: relative model folders and factories start there
    environment: dict[str, str] | None = None  # what asked_environment found where the job was submitted

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Job":
        """A Job from its JSON form. Raises ValueError when it is none."""
        if not isinstance(values, Mapping):
            raise ValueError(f"not a job: {type(values).__name__} instead of an object")
        known = {f.name for f in fields(cls)}
        missing = sorted({"job_id", "kind", "combo", "workload"} - set(values))
        if missing:
            raise ValueError(f"not a job: {', '.join(missing)} missing")
        if values["kind"] not in KINDS:
            raise ValueError(f"unknown kind {values['kind']!r}: choose one of {', '.join(KINDS)}")
        if not re.fullmatch(r"[\w.-]+", str(values["job_id"])) or set(values["job_id"]) <= {"."}:
            raise ValueError(f"job_id {values['job_id']!r} cannot name a folder")
        kept = {name: value for name, value in values.items() if name in known}
        kept["combo"] = Combo.from_dict(values["combo"])
        kept["workload"] = Workload.from_dict(values["workload"])
        kept["sweep"] = SweepPlace(**values["sweep"]) if values.get("sweep") else None
        return cls(**kept)

    def is_of(self, sweep_id: str) -> bool:
        """Whether the job belongs to the sweep."""
        return self.sweep is not None and self.sweep.sweep_id == sweep_id

    @property
    def label(self) -> str:
        """E.g. 'bf16 · sdpa, sd15 inference b2 512 px cuda'."""
        if self.kind == "probe":
            return "probe of this machine"
        return f"{'reference' if self.kind == 'reference' else self.run_label}, {self.workload.label}"

    @property
    def run_label(self) -> str:
        """E.g. 'bf16 · ddp x2'."""
        return name_run(self.combo, self.workload)


def asked_environment() -> dict[str, str]:
    """The variables of this process that change what a worker finds (PYTHONPATH) or measures."""
    return {name: value for name, value in os.environ.items() if _changes_results(name)}


def worker_environment(job: Job) -> dict[str, str]:
    """This process's environment, but of what changes results only that where the job was submitted."""
    if job.environment is None:
        return dict(os.environ)
    kept = {name: value for name, value in os.environ.items() if not _changes_results(name)}
    return kept | job.environment


def _changes_results(name: str) -> bool:
    return name == "PYTHONPATH" or name.startswith(VARIABLE_PREFIXES)


def measure_job(combo: Combo, workload: Workload, sweep: SweepPlace | None = None) -> Job:
    """A new job that measures the combo on the workload."""
    if combo.parallelism == "none" and sweep is not None:
        workload = replace(workload, world_size=1)  # of a sweep's runs, those without parallelism are of one process
    timeout_s = AUTOTUNE_TIMEOUT_S if combo.compilation == "max_autotune" else TIMEOUT_S
    return Job(job_id=new_job_id(combo, workload), combo=combo, workload=workload, sweep=sweep, timeout_s=timeout_s)


def reference_job(workload: Workload, sweep: SweepPlace | None = None) -> Job:
    """A new job that makes the workload's numerical reference, with which candidates are compared."""
    workload = replace(workload, world_size=1)  # plain eager, whatever is compared with it
    job_id = f"reference-{workload.reference_key}-{secrets.token_hex(3)}"
    return Job(job_id=job_id, kind="reference", workload=workload, sweep=sweep)


def with_references(jobs: Iterable[Job], known_references: Collection[str]) -> list[Job]:
    """The jobs, and before the first of each workload its reference where there is none yet."""
    known, found = set(known_references), list[Job]()
    for job in jobs:
        if job.workload.reference_key not in known:
            known.add(job.workload.reference_key)
            found.append(replace(reference_job(job.workload, job.sweep), beyond_budget=job.beyond_budget))
        found.append(job)
    return found


def probe_job() -> Job:
    """A new job that finds out what this machine has."""
    return Job(job_id=f"probe-{secrets.token_hex(4)}", kind="probe", timeout_s=300.0)


def retry_job(job: Job, *, beyond_budget: bool = False) -> Job:
    """The same job once more, under a new id that names the attempt before."""
    job_id = new_job_id(job.combo, job.workload) if job.kind == "measure" else f"{job.job_id}-again"
    return replace(job, job_id=job_id, retry_of=job.job_id, submitted_at=0.0, beyond_budget=beyond_budget)


def new_job_id(combo: Combo, workload: Workload) -> str:
    """E.g. '20261124-074046-sd15-train-1f3a9c02-b7e4d1': sorts by time and says what it is."""
    model = re.sub(r"[^A-Za-z0-9]+", "-", workload.model_label).strip("-")[:24] or "model"
    when = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return f"{when}-{model}-{workload.mode}-{combo.key}-{secrets.token_hex(3)}"


def home(chosen: Path | None = None) -> Path:
    """The folder of all data: the chosen one, else $STEPLENS_HOME, else ./data."""
    return Path(chosen or os.environ.get("STEPLENS_HOME") or "data").expanduser().absolute()


def run_folder(job_id: str, at: Path | None = None) -> Path:
    """Where a job leaves what it finds: a run in runs/, references and probes (no runs) in the queue."""
    is_run = not job_id.startswith(("reference-", "probe-"))
    return home(at) / ("runs" if is_run else "queue/support") / job_id


def check_model(model: str, directory: str | None = None) -> None:
    """Raise ValueError when the model is neither of the zoo, nor a UNet's folder, nor a module:factory that is there.

    directory is where the worker will run (None: here). What only importing or loading can tell is left to the worker.
    """
    at = Path(directory or ".").absolute()
    folder = at / Path(model).expanduser()
    if model in ZOO:
        return
    if folder.is_dir():
        if not any((folder / name / "config.json").is_file() for name in ("", "unet")):
            raise ValueError(f"{model} is no diffusers model: it has neither config.json nor unet/config.json")
    elif ":" in model:
        check_factory(model, at)
    else:
        raise ValueError(
            f"unknown model {model!r}: choose {', '.join(ZOO)}, an existing local diffusers folder, or module:factory"
        )
