"""What two real processes find out about every parallel strategy.

    torchrun --nproc-per-node=2 -m tests.support.two_ranks FOLDER cuda
    python -m tests.support.two_ranks FOLDER cpu

On a CPU they are forked from one that has imported all: half the imports, and no torchrun, which starts the workers of
tests/runs/test_torchrun.py. The first rank writes FOLDER/found.json: for each rank and case the errors against one
process, and what verify says.
"""

import gc
import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import profiler.preload  # noqa: F401 # isort: skip: before all that loads torch

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor
from torch.distributed import GradBucket
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from profiler import numerics, ranks, scaling
from profiler.combo import Combo
from profiler.measure import Timing
from profiler.optims import apply_all
from profiler.subject import Subject
from profiler.verify import verify
from profiler.workload import Workload
from profiler.zoo import build
from tests.support.unets import SHALLOW, collect, fidelity, of, subject, trace, workload

Found = list[dict[str, Any]]  # by rank
ROOT = Path(__file__).parents[2]

CASES: dict[str, tuple[Combo, Workload]] = {
    f"{parallelism} {kind.rpartition(':')[2]} {mode}": (
        Combo(parallelism=parallelism, attention=attention, checkpointing=checkpointing),  # type: ignore[arg-type]
        workload(kind, mode=mode, batch=4, world_size=2),
    )
    for parallelism, kind, mode, attention, checkpointing in (
        ("ddp", "pixel_unet", "train", "sdpa", "full"),
        ("fsdp2", SHALLOW, "train", "sdpa", "full"),
        ("tensor", SHALLOW, "train", "math", "none"),
        ("tensor", "pixel_unet", "train", "sdpa", "full"),
        ("pipeline", "conditional_unet", "train", "sdpa", "full"),
        ("pipeline", "pixel_unet", "inference", "math", "none"),
        ("cfg", SHALLOW, "sample", "sdpa", "none"),
    )
}


def launch(folder: Path, device: str) -> Found:
    """Run this file on two processes; what each of them found."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if device == "cuda" else []
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *torchrun, "-m", "tests.support.two_ranks", str(folder), device],
        capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: Found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return found


@cache
def single(work: Workload) -> tuple[numerics.Fidelity, dict[str, int]]:
    """What one process finds, and the sizes of its parameters."""
    return fidelity(work), {name: parameter.numel() for name, parameter in build(work).named_parameters()}


def look(name: str, folder: Path) -> dict[str, Any]:
    """Errors of one case, its evidence on this rank, and this rank's figures."""
    combo, work = CASES[name]
    made, evidence = subject(work, combo)
    found = collect(made)
    plain, sizes = single(replace(work, world_size=1))
    traced = trace(made, folder)
    timing = Timing(step_ms=(traced.step_ms,), phase_ms={}, host_enqueue_ms=())
    return {
        "errors": asdict(numerics.compare(found, plain, sizes)),
        "loss": (found.loss, plain.loss),
        "parameters": sorted(found.gradients) == sorted(plain.gradients),
        "evidence": {e.family: (e.confirmed, e.finding) for e in (verify(one, traced, made) for one in evidence)},
        "figures": asdict(scaling.rank_row(made.parallel.world, traced, timing, None)),
        "observed": verify(of("parallelism", evidence), traced, made).observed,
    }


def unaveraged(folder: Path) -> dict[str, Any]:
    """DDP whose hook leaves each rank's own gradient: what the error check must find."""
    combo, work = CASES["ddp pixel_unet train"]
    made, _ = subject(work, combo)
    assert isinstance(made.call, DistributedDataParallel)

    def own(state: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        future: torch.futures.Future[Tensor] = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    made.call.register_comm_hook(None, own)
    errors = numerics.compare(collect(made), *single(replace(work, world_size=1)))
    return {"gradient_error": errors.gradient_error}


def half_sharded(folder: Path) -> dict[str, Any]:
    """FSDP2 on every second ResNet block alone."""
    combo, work = CASES["fsdp2 shallow_conditional_unet train"]
    _, evidence = subject(work, combo)
    unet = build(work).train()
    made, _ = apply_all(Subject(unet=unet, workload=work, call=unet), Combo())
    for block in [module for module in unet.modules() if isinstance(module, ResnetBlock2D)][::2]:
        fully_shard(block)
    found = verify(of("parallelism", evidence), trace(made, folder), made)
    return {"confirmed": found.confirmed, "finding": found.finding}


def main() -> None:
    folder, device = Path(sys.argv[1]), sys.argv[2]
    if device == "cuda":
        rank(folder, device)
        return
    gc.freeze()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start_processes(forked, (folder, port), nprocs=2, start_method="fork")  # type: ignore[no-untyped-call]


def forked(number: int, folder: Path, port: int) -> None:
    """A rank under the variables that torchrun sets."""
    os.environ |= {"TORCHELASTIC_RUN_ID": "forked", "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    rank(folder, "cpu")


def rank(folder: Path, device: str) -> None:
    """What this process finds; the first one writes what all found."""
    for name, (combo, work) in CASES.items():
        CASES[name] = combo, replace(work, device=device)  # type: ignore[arg-type]
    ranks.take_device(next(iter(CASES.values()))[1])
    own = folder / f"rank{ranks.own_rank()}"
    own.mkdir(exist_ok=True)
    found: dict[str, Any] = {name: look(name, own) for name in CASES}
    found |= {"unaveraged": unaveraged(own), "half sharded": half_sharded(own)}
    world = ranks.join(next(iter(CASES.values()))[1])
    everything = world.gather(found)
    if world.is_first:
        (folder / "found.json").write_text(json.dumps(everything), encoding="utf-8")
    ranks.leave()


if __name__ == "__main__":
    main()
