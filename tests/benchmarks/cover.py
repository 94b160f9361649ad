"""Does every pair of choices run? The covering array of training or inference, many runs at once on all GPUs.

Run by hand: python tests/benchmarks/cover.py MODEL MODE [--at-once N] [--minutes M] [--home FOLDER].
`python -m runs sweep covering` asks the same with one run after the other, whose times count; here they do not, since
runs share GPUs and cores, and only the statuses do: done, or rejected with a reason. A line for each run goes to stdout
and to FOLDER/rows.jsonl; pairs that a finished run there holds are left out, so that short leases of a machine add up.
CUDA_VISIBLE_DEVICES says which GPUs to use.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from profiler.combo import Combo
from profiler.environment import probe
from profiler.record import Record
from profiler.workload import Workload
from runs.job import Job, measure_job, reference_job, run_folder
from runs.launchers import is_parallel, local, torchrun
from runs.processes import end_group, end_strays
from runs.studies import covering_array

RUN_S = 900.0  # a whole-graph compilation beside an 8-bit optimizer took more than eight minutes among 22 others
SLOWEST = ("default", "reduce_overhead", "regional", "eager")


@dataclass(frozen=True, kw_only=True)
class Running:
    """One run under way on one GPU."""

    job: Job
    process: subprocess.Popen[bytes]
    gpu: str
    started: float


def slowest_first(combo: Combo) -> tuple[int, bool]:
    """What compiles, the longest first; torchao's 8-bit optimizer compiles for each shape of parameter, too."""
    return SLOWEST.index(combo.compilation), combo.optimizer != "adamw_8bit"


def start(job: Job, gpu: str, home: Path, cores: int) -> Running:
    """A worker, or torchrun's, that sees one GPU and has its share of the cores."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": gpu, "OMP_NUM_THREADS": str(cores)}
    os.environ |= {"TORCHINDUCTOR_COMPILE_THREADS": str(cores), "STEPLENS_HOME": str(home)}
    run_folder(job.job_id, home).mkdir(parents=True, exist_ok=True)
    file = home / f"{job.job_id}.json"
    file.write_text(json.dumps(job.to_dict()), encoding="utf-8")
    launch = torchrun if is_parallel(job) else local
    return Running(job=job, process=launch(job, file, home), gpu=gpu, started=time.monotonic())


def row(run: Running, home: Path) -> dict[str, object]:
    """What became of a run; one that left no record was ended here, or died."""
    seconds = round(time.monotonic() - run.started)
    base = {"combo": run.job.run_label, "choices": run.job.combo.to_dict(), "seconds": seconds}
    try:
        record = Record.read(run_folder(run.job.job_id, home))
    except (OSError, ValueError) as error:
        return base | {"status": "no record", "cause": str(error)}
    errors = {"output": record.metrics.output_error_ratio, "gradients": record.metrics.gradient_error_ratio}
    return base | {"status": record.status, "cause": record.cause, "error_ratios": errors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("mode", choices=("train", "inference"))
    parser.add_argument("--at-once", type=int, default=6, help="runs on each GPU (SD1.5's training wants 20 GiB each)")
    parser.add_argument("--minutes", type=float, default=10.0, help="start no run after these")
    parser.add_argument("--home", type=Path, default=Path("data/cover"))
    parser.add_argument("--resolution", type=int, default=256)
    chosen = parser.parse_args()
    home: Path = chosen.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    rows, machine = home / "rows.jsonl", probe()
    work = Workload(
        model=chosen.model, mode=chosen.mode, batch=2, resolution=chosen.resolution,
        device="cuda" if machine.has_cuda else "cpu", min_samples=3, min_seconds=0.2, curve_steps=5,
    )  # fmt: skip
    lines = rows.read_text(encoding="utf-8").splitlines() if rows.exists() else []
    done = [Combo.from_dict(one["choices"]) for one in map(json.loads, lines) if one["status"] == "done"]
    waiting = sorted((combo for combo, _ in covering_array(work, machine, done=done)), key=slowest_first)
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(max(1, machine.num_gpus))))).split(",")
    cores = max(1, machine.num_cpus // (len(gpus) * chosen.at_once))
    print(f"{len(done)} runs done, {len(waiting)} to run, {chosen.at_once} at once on each of {len(gpus)}", flush=True)
    end = time.monotonic() + 60 * chosen.minutes
    reference = reference_job(work)
    if not (home / "references" / work.reference_key / "reference.json").exists():
        start(reference, gpus[0], home, machine.num_cpus).process.wait(RUN_S)
    running: list[Running] = []
    while running or (waiting and time.monotonic() < end):
        for run in list(running):
            if run.process.poll() is None:
                if time.monotonic() - run.started < RUN_S:
                    continue
                end_group(run.process.pid)
            end_strays(run.job.job_id)
            running.remove(run)
            found = row(run, home)
            with rows.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            print(found["status"], found["combo"], f"{found['seconds']} s", found["cause"], flush=True)
        load = {gpu: sum(run.gpu == gpu for run in running) for gpu in gpus}
        freest = min(gpus, key=load.__getitem__)
        if waiting and load[freest] < chosen.at_once and time.monotonic() < end:
            running.append(start(measure_job(waiting.pop(0), work), freest, home, cores))
        else:
            time.sleep(0.5)
    print(f"{len(waiting)} left")


if __name__ == "__main__":
    main()
