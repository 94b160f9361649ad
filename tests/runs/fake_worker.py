"""A real worker process without torch: what it does is named by the workload's model, fake:<what>."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from profiler.machine import Machine
from profiler.record import Metrics, Record
from runs.job import Job, run_folder
from runs.machine_file import OPTIONAL_PACKAGES, write_machine
from runs.outcome import add_event, write_outcome
from runs.processes import boot_id


def version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def machine(**changes: object) -> Machine:
    packages = {name: found for name in OPTIONAL_PACKAGES if (found := version(name))}
    facts = {
        "cpu_name": "fake cpu", "num_cpus": 2, "memory_gib": 4.0, "python": "3", "torch": metadata.version("torch"),
        "boot_id": boot_id(), "no_cuda_reason": "this is a test", "packages": packages, "has_cxx_compiler": True,
    }  # fmt: skip
    return Machine.from_dict(facts | changes)


def measure(job: Job, home: Path, what: str) -> None:
    folder = run_folder(job.job_id, home)
    with (home / "ran.txt").open("a") as ran:
        ran.write(job.job_id + "\n")
    add_event(folder, "time", "")
    print("hello from", job.job_id, flush=True)
    if what.startswith("sleep"):
        time.sleep(float(what.removeprefix("sleep")))
    if what == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        add_event(folder, "trace", "deaf")
        time.sleep(100)
    if what == "stray":  # leaves its group, so only the tag in its environment finds it
        child = subprocess.Popen(["sleep", "100"], start_new_session=True)
        (home / "stray.txt").write_text(str(child.pid))
    if what == "die":
        (folder / "ops.parquet").write_bytes(b"PAR1 cut short")
        (folder / "kernels.parquet").write_bytes(b"PAR1 whole PAR1")
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "raise":
        raise RuntimeError("the fake broke")
    if what == "flaky" and not (home / "mended").exists():
        raise RuntimeError("not mended yet")
    if what == "tell":
        print(json.dumps(dict(os.environ)))
    if what == "rejected":
        write_outcome(job, "rejected", "no such factory", home=home, machine=machine())
        return
    Record(
        run_id=job.job_id,
        status="oom" if what == "oom" else "done",
        cause="needs more" if what == "oom" else "",
        combo=job.combo,
        workload=job.workload,
        machine=machine(),
        started_at="2026-01-01T00:00:00+00:00",
        duration_s=0.1,
        sweep=job.sweep,
        metrics=Metrics(step_ms=10.0, samples_per_s=100.0),
    ).write(folder)
    if what == "linger":
        time.sleep(100)


def main() -> None:
    job = Job.from_dict(json.loads(Path(sys.argv[1]).read_text()))
    home = Path(sys.argv[3])
    what = job.workload.model.partition(":")[2]
    if job.kind == "measure":
        measure(job, home, what)
    elif job.kind == "probe":
        write_machine(machine(), home)
        write_outcome(job, "done", "", home=home)
    elif what == "noreference":
        write_outcome(job, "failed", "no reference today", home=home)
    else:
        time.sleep(0.5 if what == "slowreference" else 0)
        folder = home / "references" / job.workload.reference_key
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "reference.json").write_text("{}")
        write_outcome(job, "done", "", home=home)


if __name__ == "__main__":
    main()
