"""Ranks: the processes of one run, what they agree on, and how one that fails tells the others.

torchrun starts them (runs/launchers.py), one GPU each with NCCL, or on a CPU with gloo. All run the same passes; the
first alone judges and writes the record. What must be decided alike (is it warm, was it timed for long enough) the
first one decides. Such talk goes over a gloo group of its own, so that nothing of it is on the GPU or in a trace.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from profiler.record import RANK_FAILURE, RECORD_FILE, write_json
from profiler.workload import Workload

COLLECTIVE_TIMEOUT_S = 300.0  # a rank that waits longer for another ends the run; $STEPLENS_COLLECTIVE_TIMEOUT_S
PATIENCE_S = 3.0  # for another rank's own account of why it is gone
# How a rank's error says that it is about another rank.
_OF_ANOTHER = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "gloo/transport", "NCCL")

_STARTED = "TORCHELASTIC_RUN_ID"  # torchrun sets it for each process

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class World:
    """One rank's view of the processes of its run; alone, nothing is sent."""

    rank: int = 0
    size: int = 1
    control: Any = None  # gloo group

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def agree(self, holds: bool) -> bool:
        """The first rank's answer, on every rank."""
        if self.size == 1:
            return holds
        answer = torch.tensor([holds])
        dist.broadcast(answer, src=0, group=self.control)
        return bool(answer.item())

    def gather(self, value: Value) -> list[Value]:
        """Every rank's value, in order of rank, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def align(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier(group=self.control)


ALONE = World()


class Pipeline(Protocol):
    """A UNet cut into stages; see profiler/optims/pipeline_parallel.py."""

    num_microbatches: int

    def forward(self, sample: Tensor, timestep: Tensor, condition: dict[str, Any], *, is_training: bool) -> Tensor: ...

    def backward(self, target: Tensor, size: int | None) -> Tensor: ...


def _as_it_is(name: str, gradient: Tensor) -> Tensor:
    return gradient


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """How the ranks share a step."""

    world: World = ALONE
    splits_batch: bool = False  # rank r has samples r, r + size, ... of the batch
    splits_guidance: bool = False  # the first rank is unconditional, the second conditional
    pipeline: Pipeline | None = None
    whole: Callable[[str, Tensor], Tensor] = field(default=_as_it_is)  # a parameter's gradient, of all its shards


def take_device(workload: Workload) -> None:
    """Make this rank's GPU the current one, before anything starts CUDA on another."""
    rank = _from_torchrun("LOCAL_RANK", 0)
    if workload.device == "cuda" and rank < torch.cuda.device_count():
        torch.cuda.set_device(rank)


def join(workload: Workload) -> World:
    """This process's place among the ranks of its run; starts the process group at the first call.

    Raises RuntimeError when world_size processes were not started.
    """
    size = dist.get_world_size() if dist.is_initialized() else _from_torchrun("WORLD_SIZE", 1)
    if size != workload.world_size:
        raise RuntimeError(
            f"world_size={workload.world_size}, but {size} processes were started: submit the run by python -m runs or "
            "the Launch page, which start torchrun"
        )
    if dist.is_initialized():
        return _world()
    timeout = timedelta(seconds=float(os.environ.get("STEPLENS_COLLECTIVE_TIMEOUT_S", COLLECTIVE_TIMEOUT_S)))
    store = {} if _STARTED in os.environ else {"store": torch._C._distributed_c10d.HashStore()}
    more: dict[str, Any] = store | {"rank": own_rank(), "world_size": size, "timeout": timeout}
    if workload.device == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
        dist.init_process_group("nccl", device_id=device, **more)
    else:
        dist.init_process_group("gloo", **more)
    return _world()


def leave() -> None:
    """End the process group in good order, after all ranks are done."""
    _control.clear()
    if dist.is_initialized():
        dist.destroy_process_group()


def end(status: str, folder: Path) -> None:
    """Leave the group after a run; where it failed on this rank, end the process at once with exit code 1.

    torchrun then ends the others, who may wait for this one for ever; a rank that is not the first gives the first one
    some seconds to record what it ran into itself.
    """
    if not dist.is_initialized() or status not in ("oom", "failed"):
        leave()
        return
    deadline = time.monotonic() + 2 * PATIENCE_S
    while own_rank() and not (folder / RECORD_FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)  # leaving the group in order would wait for ranks that are gone


_control: list[Any] = []  # one group for talk, made once per process


def _world() -> World:
    if not _control:
        _control.append(dist.new_group(backend="gloo"))
    return World(rank=dist.get_rank(), size=dist.get_world_size(), control=_control[0])


def own_rank() -> int:
    """This process's rank, also before it has joined."""
    return _from_torchrun("RANK", 0)


def _from_torchrun(name: str, otherwise: int) -> int:
    """A number that torchrun sets; other launchers (Slurm's, MPI's) use the same names for something else."""
    return int(os.environ[name]) if _STARTED in os.environ else otherwise


def is_of_another(error: BaseException) -> bool:
    """Whether the error is that another rank is gone or silent."""
    return isinstance(error, dist.DistError) or any(words in str(error) for words in _OF_ANOTHER)


def tell_failure(folder: Path, status: str, cause: str, trail: str) -> None:
    """Leave a note of what this rank, not the first, died of."""
    write_json(folder / RANK_FAILURE.format(own_rank()), {"status": status, "cause": cause, "traceback": trail})


def failure_of_another(folder: Path) -> dict[str, str] | None:
    """What another rank says that it died of, waited for a few seconds; None when none says anything."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for path in sorted(folder.glob(RANK_FAILURE.format("*"))):
            note: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
            return note
        time.sleep(0.1)
    return None
