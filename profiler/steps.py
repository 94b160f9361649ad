"""Steps: the three things that a run repeats (one denoising forward, a training step, a sampling loop)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from profiler.replay import Replay
from profiler.subject import Inputs, Subject

Phase = Callable[[str], AbstractContextManager[object]]  # "forward", "backward", "optimizer"
Step = Callable[[Inputs, Phase], Tensor]
Denoise = Callable[[Inputs], Tensor]  # one forward of the UNet

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


def make_step(subject: Subject) -> Step:
    """The step of the subject's mode; it returns the output (inference), the latents (sample) or the loss (train).

    One that is recorded as a CUDA graph overwrites what it returned before, and opens no phases in training.
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
    step = sample_step if mode == "sample" else inference_step
    return lambda inputs, phase: step(subject, inputs, phase, denoise)


def forward(subject: Subject, inputs: Inputs) -> Tensor:
    """One call of the UNet under the subject's autocast: (batch, out_channels, height, width)."""
    if subject.uses_graphs:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
    with torch.autocast(
        subject.workload.device,
        dtype=subject.autocast,
        enabled=subject.autocast is not None,
        cache_enabled=not subject.records_steps,  # a graph must not refer to a cast that was made outside of it
    ):
        (out,) = subject.call(inputs.sample, inputs.timestep, **inputs.condition, return_dict=False)
    output: Tensor = out
    return output


def inference_step(subject: Subject, inputs: Inputs, phase: Phase, denoise: Denoise) -> Tensor:
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


def sample_step(subject: Subject, inputs: Inputs, phase: Phase, denoise: Denoise) -> Tensor:
    """DDIM (arXiv 2010.02502) over num_inference_steps with classifier-free guidance (arXiv 2207.12598).

    Conditional and unconditional halves go through the UNet as one batch of twice the size.
    """
    workload = subject.workload
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    scheduler.set_timesteps(workload.num_inference_steps, device=inputs.sample.device)
    guided = guides(subject)
    latents = inputs.sample
    batch = latents.shape[0]
    condition = _with_unconditional(inputs.condition) if guided else inputs.condition
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            doubled = torch.cat([latents, latents]) if guided else latents
            step_inputs = Inputs(
                sample=doubled.contiguous(memory_format=subject.memory_format),
                timestep=timestep.expand(doubled.shape[0]).contiguous(),
                target=inputs.target,
                condition=condition,
            )
            with phase("forward"):
                noise = denoise(step_inputs)
            if guided:
                unconditional, conditional = noise[:batch], noise[batch:]
                noise = unconditional + workload.guidance_scale * (conditional - unconditional)
            latents = scheduler.step(noise, timestep, latents, return_dict=False)[0].to(subject.dtype)
    return latents


def guides(subject: Subject) -> bool:
    """Whether sampling uses guidance: it needs a condition to drop."""
    is_conditional = bool(getattr(subject.unet.config, "cross_attention_dim", None))
    return subject.workload.guidance_scale != 1 and is_conditional


def _with_unconditional(condition: dict[str, object]) -> dict[str, object]:
    """The condition for the doubled batch; the unconditional half is all zeros, as SDXL's empty prompt is."""

    def double(name: str, value: object) -> object:
        if isinstance(value, dict):
            return {inner: double(inner, part) for inner, part in value.items()}
        if not isinstance(value, Tensor):
            return value
        return torch.cat([value if name == "time_ids" else torch.zeros_like(value), value])

    return {name: double(name, value) for name, value in condition.items()}
