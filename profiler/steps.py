"""Steps: the three things that a run repeats (one denoising forward, a training step, a sampling loop)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from profiler.replay import Replay
from profiler.sampling import Denoise, Phase, Sampler
from profiler.subject import Inputs, Subject, casting

Step = Callable[[Inputs, Phase], Tensor]

PHASES = {"train": ("forward", "backward", "optimizer"), "inference": ("forward",), "sample": ("forward",)}


def no_phase(name: str) -> AbstractContextManager[object]:
    return nullcontext()


@dataclass(slots=True)
class CountedStep:
    """A step that counts its calls: GradScaler skips steps in silence, and only the difference shows it."""

    step: Step
    count: int = 0

    def __call__(self, inputs: Inputs, phase: Phase) -> Tensor:
        self.count += 1
        return self.step(inputs, phase)


def make_step(subject: Subject, *, seen: list[Tensor] | None = None, keeps_text: bool = True) -> Step:
    """The step of the subject's mode; it returns the output (inference), the latents (sample) or the loss (train).

    One that is recorded as a CUDA graph overwrites what it returned before, and opens no phases in training. `seen`
    and `keeps_text` are the Sampler's.
    """
    mode = subject.workload.mode
    if mode == "train":
        if subject.records_steps:
            replayed = Replay(partial(train_step, subject), subject.optimizer)
            return lambda inputs, phase: replayed(inputs)
        return lambda inputs, phase: train_step(subject, inputs, phase)
    denoise: Denoise = partial(forward, subject)
    if subject.records_steps:
        denoise = Replay(denoise)
    if mode == "sample":
        return Sampler(subject, denoise, seen=seen, keeps_text=keeps_text)
    return lambda inputs, phase: inference_step(inputs, phase, denoise)


def forward(subject: Subject, inputs: Inputs) -> Tensor:
    """One call of the UNet under the subject's autocast: (batch, out_channels, height, width)."""
    if subject.uses_graphs:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
    with casting(subject):
        (out,) = subject.call(inputs.sample, inputs.timestep, **inputs.condition, return_dict=False)
    output: Tensor = out
    return output


def inference_step(inputs: Inputs, phase: Phase, denoise: Denoise) -> Tensor:
    with torch.no_grad(), phase("forward"):
        return denoise(inputs)


def train_step(subject: Subject, inputs: Inputs, phase: Phase = no_phase) -> Tensor:
    """Forward and mean squared error against the target noise, backward, AdamW: Stable Diffusion's training step."""
    _, loss = forward_and_backward(subject, inputs, phase)
    with phase("optimizer"):
        if subject.optimizer is None:
            raise ValueError("a training step needs an optimizer: apply the family optimizer first")
        if subject.scaler is None:
            subject.optimizer.step()
        else:
            subject.scaler.step(subject.optimizer)
            subject.scaler.update()
        subject.optimizer.zero_grad(set_to_none=True)
    return loss


def forward_and_backward(
    subject: Subject, inputs: Inputs, phase: Phase = no_phase, size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Output and loss of this rank, gradients left in place.

    The loss counts the first `size` samples of the whole batch (None: all), of which this rank may have some or none.
    """
    if pipeline := subject.parallel.pipeline:
        with phase("forward"), casting(subject):
            output = pipeline.forward(inputs.sample, inputs.timestep, inputs.condition, is_training=True)
        with phase("backward"):
            return output, pipeline.backward(inputs.target, size)
    with phase("forward"):
        output = forward(subject, inputs)
        loss = _loss(subject, output, inputs.target, size)
    with phase("backward"):
        scale(subject, loss).backward()  # type: ignore[no-untyped-call]
    return output.detach(), loss.detach()


def _loss(subject: Subject, output: Tensor, target: Tensor, size: int | None) -> Tensor:
    """Mean squared error, so weighted that the mean over the ranks is that of the whole batch."""
    wide = torch.float64 if output.dtype is torch.float64 else torch.float32
    if size is None:
        return torch.nn.functional.mse_loss(output.to(wide), target.to(wide))
    number = num_own(subject, size)
    if number == 0:
        return output.sum() * 0.0  # every rank takes part in the backward
    loss = torch.nn.functional.mse_loss(output[:number].to(wide), target[:number].to(wide))
    world = subject.parallel.world
    return loss * (number * world.size / size) if subject.parallel.splits_batch else loss


def num_own(subject: Subject, size: int) -> int:
    """How many of the whole batch's first `size` samples are this rank's; they are its own first ones."""
    world = subject.parallel.world
    return len(range(world.rank, size, world.size)) if subject.parallel.splits_batch else size


def scale(subject: Subject, loss: Tensor) -> Tensor:
    return loss if subject.scaler is None else subject.scaler.scale(loss)
