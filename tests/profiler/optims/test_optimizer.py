"""Optimizer: the three launches of AdamW give the same weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from profiler import memory
from profiler.combo import Combo, choices
from profiler.optims import optimizer
from profiler.record import Evidence
from profiler.steps import train_step
from profiler.subject import Subject
from profiler.verify import verify
from tests.support.unets import FACTORIES, inputs_of, of, subject, trace, workload

OF_TORCH = [choice for choice in choices("optimizer") if choice != "adamw_8bit"]


def _trained(kind: str, choice: Any, steps: int = 3) -> list[torch.Tensor]:
    made, _ = subject(workload(kind, mode="train"), Combo(optimizer=choice))
    for _ in range(steps):
        train_step(made, inputs_of(made)[0])
    return [parameter.detach() for parameter in made.unet.parameters()]


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("choice", OF_TORCH[1:])
def test_every_launch_gives_the_same_weights(kind: str, choice: str) -> None:
    """AdamW moves a weight by about the learning rate, whatever its gradient: a difference is a share of that."""
    before, plain, found = (_trained(kind, *args) for args in (("adamw", 0), ("adamw", 3), (choice, 3)))
    moved = sum(float((p - b).square().sum()) for p, b in zip(plain, before, strict=True))
    apart = sum(float((p - f).square().sum()) for p, f in zip(plain, found, strict=True))
    assert apart <= (1e-2) ** 2 * moved


@pytest.mark.parametrize("choice", OF_TORCH)
def test_the_trace_bears_the_choice_out(choice: Any, tmp_path: Path) -> None:
    made, evidence = subject(workload(mode="train"), Combo(optimizer=choice))
    found = verify(of("optimizer", evidence), trace(made, tmp_path), made)
    assert found.confirmed, found.finding
    assert found.facts["num_tensors"] == len(list(made.unet.parameters()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:torch._functorch.*")  # torchao's states and AOTAutograd's cache
def test_8_bit_moments_move_the_weights_nearly_as_fp32_ones_do(tmp_path: Path) -> None:
    """Two tensors only, one of each format: torchao compiles its update for every shape."""

    def train(choice: Any) -> tuple[Subject, Evidence, list[torch.Tensor]]:
        plain, _ = subject(workload(mode="train"))
        large, small = plain.unet.mid_block.resnets[0].conv1.weight, plain.unet.conv_in.weight
        for parameter in plain.unet.parameters():
            parameter.requires_grad_(parameter is large or parameter is small)
        before = [large.detach().clone(), small.detach().clone()]
        made, promised = optimizer.apply(plain, choice)
        for _ in range(3):
            train_step(made, inputs_of(made)[0])
        return made, promised, [large.detach() - before[0], small.detach() - before[1]]

    _, _, plain = train("adamw_fused")
    made, promised, found = train("adamw_8bit")
    assert promised.facts == {"num_tensors": 2, "num_8bit_tensors": 1}
    verdict = verify(promised, trace(made, tmp_path), made)
    assert verdict.confirmed, verdict.finding
    for one, other in zip(plain, found, strict=True):
        assert (one - other).norm() <= 0.15 * one.norm()
    elements = found[0].numel()  # codes of one byte, twice; and a scale in four per block of 256, twice
    kept = sum(memory.held(made, ()).optimizer_state.values())
    assert 2 * elements * (1 + 4 / 256) < kept < 2.2 * elements + 8 * found[1].numel() + 8192


def test_an_optimizer_of_half_the_parameters_is_found(tmp_path: Path) -> None:
    made, evidence = subject(workload(mode="train"), Combo(optimizer="adamw_fused"))
    half = torch.optim.AdamW(list(made.unet.parameters())[::2], fused=True)
    found = verify(
        of("optimizer", evidence), trace(replace(made, optimizer=half), tmp_path), replace(made, optimizer=half)
    )
    assert found.confirmed is False
    assert "promised tensors have a state" in found.finding


@pytest.mark.parametrize("mode", ["inference", "sample"])
def test_no_optimizer_without_a_backward(mode: str) -> None:
    made, _ = optimizer.apply(subject(workload(mode=mode))[0], "adamw")
    assert made.optimizer is None


def test_frozen_weights_are_left_out() -> None:
    made, _ = subject(workload(mode="train"))
    made.unet.conv_in.requires_grad_(False)
    _, evidence = optimizer.apply(made, "adamw_fused")
    assert evidence.facts["num_tensors"] == len(list(made.unet.parameters())) - 2


@pytest.mark.parametrize(
    ("choice", "eps", "is_finite"),
    [
        *[(choice, None, True) for choice in OF_TORCH],
        ("adamw", 1e-8, False),
        ("adamw_foreach", 1e-8, False),  # a fused update reckons in fp32 and only stores fp16
    ],
)
def test_weights_in_fp16_stay_finite(choice: Any, eps: float | None, is_finite: bool) -> None:
    """Gradients of zero, and ones whose squares are zero in fp16."""
    made, _ = subject(workload(mode="train"))
    half = replace(made, unet=made.unet.half(), dtype=torch.float16)
    applied, evidence = optimizer.apply(half, choice)
    assert "eps is 0.0001" in str(evidence.facts["note"])
    assert applied.optimizer is not None
    for group in applied.optimizer.param_groups:
        group["eps"] = group["eps"] if eps is None else eps
    before = [parameter.detach().float().clone() for parameter in half.unet.parameters()]
    for _ in range(2):
        for index, parameter in enumerate(half.unet.parameters()):
            parameter.grad = torch.full_like(parameter, 1e-5 * (index % 2))
        applied.optimizer.step()
    moved = [
        (after.detach().float() - was).abs().max() for after, was in zip(half.unet.parameters(), before, strict=True)
    ]
    assert bool(torch.stack(moved).isfinite().all() and max(moved) < 0.01) is is_finite
