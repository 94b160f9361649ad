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
    with phase("forward"):
        loss = torch.nn.functional.mse_loss(forward(subject, inputs).float(), inputs.target.float())
    with phase("backward"):
        scale(subject, loss).backward()  # type: ignore[no-untyped-call]
    with phase("optimizer"):
        if subject.optimizer is None:
            raise ValueError("a training step needs an optimizer: apply the family optimizer first")
        if subject.scaler is None:
            subject.optimizer.step()
        else:
            subject.scaler.step(subject.optimizer)
            subject.scaler.update()
        subject.optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def scale(subject: Subject, loss: Tensor) -> Tensor:
    return loss if subject.scaler is None else subject.scaler.scale(loss)
