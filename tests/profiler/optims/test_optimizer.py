"""Optimizer: the three launches of AdamW give the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from profiler.combo import Combo, choices
from profiler.optims import optimizer
from profiler.steps import train_step
from profiler.verify import verify
from tests.support.unets import FACTORIES, inputs_of, subject, trace, workload


def _trained(kind: str, choice: Any, steps: int = 3) -> list[torch.Tensor]:
    made, _ = subject(workload(kind, mode="train"), Combo(optimizer=choice))
    for _ in range(steps):
        train_step(made, inputs_of(made)[0])
    return [parameter.detach() for parameter in made.unet.parameters()]


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("choice", choices("optimizer")[1:])
def test_every_launch_gives_the_same_weights(kind: str, choice: str) -> None:
    """AdamW moves a weight by about the learning rate, whatever its gradient: a difference is a share of that."""
    before, plain, found = (_trained(kind, *args) for args in (("adamw", 0), ("adamw", 3), (choice, 3)))
    moved = sum(float((p - b).square().sum()) for p, b in zip(plain, before, strict=True))
    apart = sum(float((p - f).square().sum()) for p, f in zip(plain, found, strict=True))
    assert apart <= (1e-2) ** 2 * moved


@pytest.mark.parametrize("choice", choices("optimizer"))
def test_the_trace_bears_the_choice_out(choice: Any, tmp_path: Path) -> None:
    made, evidence = subject(workload(mode="train"), Combo(optimizer=choice))
    found = verify(evidence[4], trace(made, tmp_path), made)
    assert found.confirmed, found.finding
    assert found.facts["num_tensors"] == len(list(made.unet.parameters()))


@pytest.mark.parametrize("mode", ["inference", "sample"])
def test_no_optimizer_without_a_backward(mode: str) -> None:
    made, _ = optimizer.apply(subject(workload(mode=mode))[0], "adamw")
    assert made.optimizer is None


def test_frozen_weights_are_left_out() -> None:
    made, _ = subject(workload(mode="train"))
    made.unet.conv_in.requires_grad_(False)
    _, evidence = optimizer.apply(made, "adamw_fused")
    assert evidence.facts["num_tensors"] == len(list(made.unet.parameters())) - 2
