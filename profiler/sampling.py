"""Sampling: a whole loop of scheduler steps with classifier-free guidance, from noise to latents.

Nothing in the loop waits for the GPU: the scheduler's tables and its own timesteps stay on the CPU, where it reads
them, and the UNet gets copies that were put on the device before. Latents, guidance and the scheduler's arithmetic are
in fp32 at every precision, so that the UNet's rounding is the only one and a scheduler's noise is the same for all.
"""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.distributed import all_gather

from profiler import schedulers
from profiler.subject import Inputs, ModelError, Subject, casting
from profiler.text import keep_text, refill

Phase = Callable[[str], AbstractContextManager[object]]
Denoise = Callable[[Inputs], Tensor]


class Sampler:
    """The step of mode=sample: one batch of images, returned as fp32 latents.

    `seen`, where given, gets the latents after every scheduler step. Conditional and unconditional halves go through
    the UNet as one batch of twice the size (guidance: arXiv 2207.12598).

    Raises ModelError for a UNet that does not predict noise in the shape of its input, or a scheduler that fails.
    """

    def __init__(
        self, subject: Subject, denoise: Denoise, *, seen: list[Tensor] | None = None, keeps_text: bool = True
    ) -> None:
        workload, config = subject.workload, subject.unet.config
        if config.in_channels != config.out_channels:
            raise ModelError(
                f"mode=sample: this UNet takes {config.in_channels} channels and returns {config.out_channels}, so its "
                "output is no next latent: choose mode=inference"
            )
        self._subject, self._denoise, self._seen = subject, denoise, seen
        self._scheduler = schedulers.make_scheduler(workload)
        self._guided = guides(subject)
        self._splits = self._guided and subject.parallel.splits_guidance  # each of two ranks runs one half
        self._text = keep_text(subject) if keeps_text else ()
        self._draws = "generator" in inspect.signature(self._scheduler.step).parameters
        self._timesteps: list[Tensor] = []  # of the UNet's batch, on the device

    @torch.no_grad()
    def __call__(self, inputs: Inputs, phase: Phase) -> Tensor:
        subject, scheduler = self._subject, self._scheduler
        schedulers.reset(scheduler, subject.workload)
        condition = with_unconditional(inputs.condition) if self._guided else inputs.condition
        if self._splits:
            condition = _half(condition, subject.parallel.world.rank, len(inputs.sample))
        if self._text:
            with casting(subject):
                refill(self._text, condition["encoder_hidden_states"])
        latents: Tensor = inputs.sample.float() * scheduler.init_noise_sigma
        more = {"generator": self._generators(len(latents))} if self._draws else {}
        for timestep, on_device in zip(scheduler.timesteps, self._on_device(len(latents)), strict=True):
            noise = self._predict(scheduler.scale_model_input(latents, timestep), on_device, condition, phase)
            (latents, *_) = scheduler.step(noise, timestep, latents, return_dict=False, **more)
            if self._seen is not None:
                self._seen.append(latents)
        return latents

    def _predict(self, latents: Tensor, timestep: Tensor, condition: dict[str, Any], phase: Phase) -> Tensor:
        """The noise in the latents, with guidance."""
        subject, batch = self._subject, len(latents)
        sample = torch.cat([latents, latents]) if self._guided and not self._splits else latents
        given = Inputs(
            sample=sample.to(subject.dtype, memory_format=subject.memory_format),
            timestep=timestep,
            target=latents,
            condition=condition,
        )
        with phase("forward"):
            noise = self._denoise(given)
        if self._splits:
            noise = _both_halves(noise)
        if self._guided:
            wide = noise.to(torch.promote_types(noise.dtype, torch.float32))
            unconditional, conditional = wide[:batch], wide[batch:]
            noise = unconditional + subject.workload.guidance_scale * (conditional - unconditional)
        return noise.float()

    def _on_device(self, batch: int) -> list[Tensor]:
        """Each timestep for the UNet's whole batch, copied to the device once."""
        size = 2 * batch if self._guided and not self._splits else batch
        if not self._timesteps or len(self._timesteps[0]) != size:
            device = self._subject.workload.device
            self._timesteps = [timestep.repeat(size).to(device) for timestep in self._scheduler.timesteps]
        return self._timesteps

    def _generators(self, batch: int) -> list[torch.Generator]:
        """One per sample, so that a sample's noise does not depend on the batch."""
        workload = self._subject.workload
        return [torch.Generator(workload.device).manual_seed(workload.seed * 1009 + row) for row in range(batch)]


def guides(subject: Subject) -> bool:
    """Whether sampling uses guidance: it needs a condition to drop."""
    is_conditional = bool(getattr(subject.unet.config, "cross_attention_dim", None))
    return subject.workload.guidance_scale != 1 and is_conditional


def with_unconditional(condition: dict[str, Any]) -> dict[str, Any]:
    """The condition for the doubled batch; the unconditional half is all zeros, as SDXL's empty prompt is."""

    def double(name: str, value: object) -> object:
        if isinstance(value, dict):
            return {inner: double(inner, part) for inner, part in value.items()}
        if not isinstance(value, Tensor):
            return value
        return torch.cat([value if name == "time_ids" else torch.zeros_like(value), value])

    return {name: double(name, value) for name, value in condition.items()}


def _half(condition: dict[str, Any], which: int, batch: int) -> dict[str, Any]:
    """The unconditional (0) or conditional (1) half of a doubled condition."""

    def cut(value: object) -> object:
        if isinstance(value, dict):
            return {name: cut(inner) for name, inner in value.items()}
        return value[which * batch : (which + 1) * batch] if isinstance(value, Tensor) else value

    return {name: cut(value) for name, value in condition.items()}


def _both_halves(noise: Tensor) -> Tensor:
    """This rank's noise prediction and the other's, in order of rank."""
    halves = [torch.empty_like(noise, memory_format=torch.contiguous_format) for _ in range(2)]
    all_gather(halves, noise.contiguous())
    return torch.cat(halves)
