"""Clock: marks on the device's time line, so that the same timing loop serves CUDA, a CPU and a test."""

import time
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Marks points in the order of the device's work; reading them may need a synchronise first.

    What a mark is, is the clock's own affair.
    """

    def mark(self) -> Any:
        """A point on the device's time line, taken without waiting for the device."""

    def between_ms(self, start: Any, end: Any) -> float:
        """Milliseconds from one mark to a later one; both must have been reached."""

    def synchronize(self) -> None:
        """Wait until the device has done all it was given."""


class CudaClock:
    """CUDA events on the current stream: idle gaps of the GPU count, waiting of the CPU does not."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def between_ms(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return float(start.elapsed_time(end))

    def synchronize(self) -> None:
        torch.cuda.synchronize()


class CpuClock:
    """perf_counter: on a CPU an operator has finished when it returns."""

    def mark(self) -> float:
        return time.perf_counter()

    def between_ms(self, start: float, end: float) -> float:
        return (end - start) * 1e3

    def synchronize(self) -> None:
        return None


def clock_for(device: str) -> Clock:
    return CudaClock() if device == "cuda" else CpuClock()
