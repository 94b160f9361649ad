"""Curves: what changes from step to step, recorded in passes that nobody times; curves.parquet.

Training: every precision's loss over the first steps from the same weights, on the same few batches in the same order
(three batches can be learnt by heart, so the loss falls), and of fp16_amp the loss scale and what makes it move.
Sampling: the error of the latents after each scheduler step.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from profiler.clock import Clock
from profiler.measure import Agree, alone
from profiler.numerics import Fidelity, Reference, latents_errors
from profiler.steps import Step
from profiler.subject import Inputs, Subject
from profiler.traces.tables import write_table

BUDGET = 3.0  # times the workload's min_seconds: the longest that the training curve may take
FP16_SMALLEST = 2.0**-24  # below it, fp16 has only zero
_SCHEMA = pa.schema({"name": pa.string(), "x": pa.float64(), "y": pa.float64()})


@dataclass(slots=True)
class Curves:
    """Points by the name of their curve; x counts from 1."""

    points: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, name: str, x: float, y: float) -> None:
        self.points.setdefault(name, []).append((x, y))

    def write(self, file: Path) -> None:
        """Write all points, one that is NaN or infinite as null: a gap in its curve; no file where there are none."""
        rows = [
            {"name": name, "x": x, "y": y if math.isfinite(y) else None}
            for name, points in self.points.items()
            for x, y in points
        ]
        if rows:
            write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), file)


class TrainingWatch:
    """Looks at training steps from outside: their loss, the scaler, and in fp16 the gradients before the update."""

    def __init__(self, subject: Subject, curves: Curves) -> None:
        self._subject, self._curves = subject, curves
        self._num_steps, self._num_skipped = 0, 0
        self._watches_gradients = torch.float16 in (subject.autocast, subject.dtype)
        self._scale = subject.scaler.get_scale() if subject.scaler else 1.0

    def phase(self, name: str) -> AbstractContextManager[object]:
        return self._phase(name)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        if name == "optimizer" and self._watches_gradients:
            self._note_gradients()
        yield

    def note(self, loss: Tensor) -> None:
        """Keep a step that has ended; waits for it."""
        self._num_steps += 1
        self._curves.add("loss", self._num_steps, float(loss))
        if self._subject.scaler is None:
            return
        scale = self._subject.scaler.get_scale()
        self._num_skipped += scale < self._scale  # the scaler halves when it has skipped a step, and never else
        self._curves.add("loss_scale", self._num_steps, self._scale)  # that this step was taken with
        self._curves.add("skipped_steps", self._num_steps, self._num_skipped)
        self._scale = scale

    def _note_gradients(self) -> None:
        """Of all elements of all gradients: how many overflowed, and the shares that fp16 loses with and without
        scaling."""
        whole = self._subject.parallel.whole  # every rank asks, in the same order, for what the ranks share out
        gradients = [(name, p.grad) for name, p in self._subject.unet.named_parameters() if p.grad is not None]
        # one whole gradient at a time: all at once may not fit where shards do
        counts = torch.stack([_counts(whole(*gradient), self._scale) for gradient in gradients]).sum(0).tolist()
        total, at = sum(gradient.numel() for _, gradient in gradients), self._num_steps + 1
        names = ("nonfinite_gradients", "underflow_share", "underflow_share_scaled")
        for name, count in zip(names, counts, strict=True):
            if name == "underflow_share_scaled" and self._subject.scaler is None:
                continue
            self._curves.add(name, at, count if name == "nonfinite_gradients" else count / total)


def _counts(gradient: Tensor, scale: float) -> Tensor:
    size = gradient.detach().float().abs()
    return torch.stack(
        [(~size.isfinite()).sum(), (size < FP16_SMALLEST * scale).sum(), (size < FP16_SMALLEST).sum()]
    ).double()


def record_training(
    subject: Subject,
    watch: TrainingWatch,
    step: Step,
    inputs: Sequence[Inputs],
    clock: Clock,
    *,
    first: int,
    now: Callable[[], float] = time.monotonic,
    agree: Agree = alone,
) -> list[float]:
    """Go on training until curve_steps or the time budget is reached, from step number `first`; each step's ms."""
    workload, started, times = subject.workload, now(), list[float]()
    while agree(first + len(times) < workload.curve_steps and now() - started < BUDGET * workload.min_seconds):
        start = clock.mark()
        loss = step(inputs[(first + len(times) + 1) % len(inputs)], watch.phase)
        end = clock.mark()
        clock.synchronize()
        watch.note(loss)
        times.append(clock.between_ms(start, end))
    return times


def training_note(curves: Curves) -> tuple[str, ...]:
    """Whether the loss scale moved at all: a scale that stood still has protected nobody yet."""
    scales = curves.points.get("loss_scale")
    if not scales:
        return ()
    skipped = int(curves.points["skipped_steps"][-1][1])
    if skipped:
        return (f"loss scaling: {skipped} of the first {len(scales)} steps overflowed and were skipped",)
    return (f"loss scaling: no gradient overflowed in the first {len(scales)} steps at a scale of {scales[0][1]:g}",)


def divergence(curves: Curves) -> str:
    """The first step of training whose loss is not finite, in words; empty where all are."""
    lost = [int(x) for x, y in curves.points.get("loss", []) if not math.isfinite(y)]
    return f"training diverges: the loss is not finite in step {lost[0]}" if lost else ""


def note_sampling(curves: Curves, found: Fidelity, reference: Reference | None, precision: str) -> None:
    """The latents' error after each step, beside plain eager's at this precision and in fp32 (the noise floor)."""
    if reference is None or found.latents is None or reference.fidelity.latents is None:
        return
    eager = reference.facts["eager"]
    lines = {
        "latents_error": latents_errors(found, reference.fidelity),
        "latents_error_eager": eager.get(precision, {}).get("latents_error"),
        "latents_error_fp32": eager.get("fp32", {}).get("latents_error"),
    }
    for name, errors in lines.items():
        for index, error in enumerate(errors or (), start=1):
            if error is not None:
                curves.add(name, index, error)
