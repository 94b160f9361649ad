"""Replay: a function of one batch, recorded as a CUDA graph at its first call and replayed from then on.

PyTorch's whole-network capture: the batch is copied into buffers of fixed address, a few calls on a side stream let
libraries and the optimizer set themselves up, then one call is recorded, its tensors in a memory pool of its own.
Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture.
"""

import copy
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from profiler.subject import Inputs, tensors_of

WARM_UP_CALLS = 3  # the first makes the optimizer's state, cuDNN and cuBLAS choose their kernels, the compiler compiles

Result = TypeVar("Result")


class Replay(Generic[Result]):
    """Calls `run`, on the GPU alone.

    What it returns is overwritten by the next call. Batches keep the first one's shapes: another one is a ValueError.
    With an optimizer, `run` is a training step: what the warm-up changed is put back before anything is recorded.
    """

    def __init__(self, run: Callable[[Inputs], Result], optimizer: torch.optim.Optimizer | None = None) -> None:
        self._run = run
        self._optimizer = optimizer
        self._graph: torch.cuda.CUDAGraph | None = None
        self._buffers: Inputs
        self._result: Result

    def __call__(self, inputs: Inputs) -> Result:
        if self._graph is None:
            self._graph = self._record(inputs)
        for buffer, given in zip(tensors_of(self._buffers), tensors_of(inputs), strict=True):
            if buffer.shape != given.shape:
                raise ValueError(f"the graph was recorded for {tuple(buffer.shape)}, not {tuple(given.shape)}")
            buffer.copy_(given)
        self._graph.replay()
        return self._result

    def _record(self, inputs: Inputs) -> torch.cuda.CUDAGraph:
        self._buffers = copy.deepcopy(inputs)
        before = _Training(self._optimizer) if self._optimizer else None
        stream = _side_stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), warnings.catch_warnings():
            # A capturable optimizer warns of steps that nobody records.
            warnings.filterwarnings("ignore", message="This instance was constructed with capturable=True")
            for _ in range(WARM_UP_CALLS):
                self._run(self._buffers)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()
        if before:
            before.restore()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._result = self._run(self._buffers)
        return graph


@cache
def _side_stream() -> torch.cuda.Stream:
    """The stream that warms up and records, one for the whole process: autograd and cuBLAS keep things per stream."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


class _Training:
    """Parameters and optimizer state at one moment, kept on the CPU: two copies might not fit the GPU."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._parameters = [
            p.detach().to("cpu", copy=True) for group in optimizer.param_groups for p in group["params"]
        ]
        self._state = {
            (parameter, name): value.to("cpu", copy=True)
            for parameter, state in optimizer.state.items()
            for name, value in _tensors(state).items()
        }

    @torch.no_grad()
    def restore(self) -> None:
        """Put both back in place, since addresses are recorded; state that did not exist is zero, as AdamW's begins."""
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        for parameter, kept in zip(parameters, self._parameters, strict=True):
            parameter.copy_(kept)
        for parameter, state in self._optimizer.state.items():
            for name, value in _tensors(state).items():
                if (parameter, name) in self._state:
                    value.copy_(self._state[parameter, name])
                else:
                    value.zero_()


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
