"""Memory: peaks of one step without a profiler, and what the weights, gradients and optimizer hold.

On CUDA the allocator counts. On a CPU PyTorch has no such counter: there the peak comes from the memory timeline of
the traced pass (profiler/traces/timeline.py), and reserved and device memory are unknown.
"""

import gc
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from profiler import allocator
from profiler.steps import Step
from profiler.subject import Inputs, Subject, tensors_of
from profiler.traces.modules import ROOT

GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Storages that outlive a step: address -> bytes, by category."""

    parameters: dict[int, int]
    optimizer_state: dict[int, int]
    other: dict[int, int]  # inputs
    owners: dict[int, str] = field(default_factory=dict)  # of parameters and optimizer state: address -> module path


@dataclass(frozen=True, kw_only=True, slots=True)
class Peaks:
    """Bytes of one step; None where the device has no such counter."""

    allocated: int | None = None
    reserved: int | None = None
    device: int | None = None
    activations: int | None = None
    gradients: int | None = None


@dataclass(slots=True)
class _Watch:
    """Allocated bytes at phase boundaries, and the gradients at the end of backward."""

    subject: Subject
    before: int = 0
    after_forward: int = 0
    gradients: dict[int, int] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        if name == "forward":
            self.before = torch.cuda.memory_allocated()
        yield
        if name == "forward":
            self.after_forward = torch.cuda.memory_allocated()
        if name == "backward":
            self.gradients = gradient_storages(self.subject)


def held(subject: Subject, inputs: Iterable[Inputs]) -> Held:
    """What is alive between two steps, by storage address."""
    optimizer = subject.optimizer.state.values() if subject.optimizer else ()
    tensors = [value for state in optimizer for value in state.values() if isinstance(value, torch.Tensor)]
    return Held(
        parameters=_storages([*subject.unet.parameters(), *subject.unet.buffers()]),
        optimizer_state=_storages(tensors),
        other=_storages(tensor for batch in inputs for tensor in tensors_of(batch)),
        owners=_owners(subject),
    )


def gradient_owners(subject: Subject) -> dict[int, str]:
    """Address of each gradient's storage -> path of the module whose parameter it is of."""
    return {
        address: path
        for path, parameter in _with_paths(subject)
        if parameter.grad is not None
        for address in _storages([parameter.grad])
    }


def _owners(subject: Subject) -> dict[int, str]:
    """Address -> module path, of parameters, buffers and the optimizer's states."""
    found = {address: path for path, tensor in _with_paths(subject) for address in _storages([tensor])}
    states = subject.optimizer.state if subject.optimizer else {}
    for path, parameter in _with_paths(subject):
        tensors = [value for value in states.get(parameter, {}).values() if isinstance(value, torch.Tensor)]
        found |= dict.fromkeys(_storages(tensors), path)
    return found


def _with_paths(subject: Subject) -> Iterator[tuple[str, torch.Tensor]]:
    """All parameters and buffers with the path of their module; the model itself is "(root)", as in traces."""
    for name, tensor in (*subject.unet.named_parameters(), *subject.unet.named_buffers()):
        yield name.rpartition(".")[0] or ROOT, tensor


def gradient_storages(subject: Subject) -> dict[int, int]:
    return _storages(p.grad for p in subject.unet.parameters() if p.grad is not None)


def measure_peaks(subject: Subject, step: Step, inputs: Inputs, curve: Path | None = None) -> Peaks:
    """One step under the CUDA allocator's counters; empty on a CPU. Its curve goes to the file `curve`."""
    if subject.workload.device != "cuda":
        return Peaks()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    watch = _Watch(subject)
    with allocator.recorded(curve):
        step(inputs, watch.phase)
        torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    allocated = torch.cuda.max_memory_allocated()
    activations: int | None = allocated - watch.before
    if subject.workload.mode == "train":  # the phases of a recorded step are not seen
        activations = None if subject.records_steps else watch.after_forward - watch.before
    return Peaks(
        allocated=allocated,
        reserved=torch.cuda.max_memory_reserved(),
        device=total - free,
        activations=activations,
        gradients=sum(watch.gradients.values()) or None,
    )


@contextmanager
def recorded_peaks(subject: Subject) -> Iterator[list[Peaks]]:
    """Peaks of the calls inside, for CUDA graphs: a replay allocates nothing, so only the calls that warm up and record
    the graph show what a step needs. The list gets one entry at the end (none without graphs)."""
    found: list[Peaks] = []
    if not subject.uses_graphs:
        yield found
        return
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    yield found
    allocated = torch.cuda.max_memory_allocated()
    is_training = subject.workload.mode == "train"
    found.append(Peaks(allocated=allocated, activations=None if is_training else allocated - before))


def host_peak_bytes() -> int:
    """Peak resident memory of this process (ru_maxrss is in KiB on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _storages(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    storages = (inner.untyped_storage() for tensor in tensors for inner in _plain(tensor))
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _plain(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensors that hold the bytes: quantized ones of torchao are wrappers round several, shards round their own."""
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    parts = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
    for part in parts:
        if isinstance(part, torch.Tensor):  # a shard names its mesh, too (torch 2.13)
            yield from _plain(part)
