"""Replay on a CPU: what the warm-up of a recording changed is put back (tests/profiler/test_gpu.py records)."""

import torch

from profiler.combo import Combo
from profiler.replay import _Training
from profiler.steps import train_step
from tests.support.unets import inputs_of, subject, workload


def _state(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    moments = [value.clone() for state in optimizer.state.values() for value in state.values()]
    return [p.detach().clone() for group in optimizer.param_groups for p in group["params"]] + moments


def test_weights_and_optimizer_state_are_put_back_in_place() -> None:
    made, _ = subject(workload(mode="train"), Combo(optimizer="adamw_fused"))
    assert made.optimizer is not None
    inputs = inputs_of(made)[0]
    train_step(made, inputs)
    before, kept = _state(made.optimizer), _Training(made.optimizer)
    addresses = [p.data_ptr() for p in made.unet.parameters()]
    train_step(made, inputs)
    assert any(not torch.equal(*pair) for pair in zip(before, _state(made.optimizer), strict=True))
    kept.restore()
    assert all(torch.equal(*pair) for pair in zip(before, _state(made.optimizer), strict=True))
    assert [p.data_ptr() for p in made.unet.parameters()] == addresses


def test_state_that_did_not_exist_becomes_zero() -> None:
    made, _ = subject(workload(mode="train"), Combo(optimizer="adamw_fused"))
    assert made.optimizer is not None
    kept = _Training(made.optimizer)
    losses = []
    for _ in range(2):
        losses.append(float(train_step(made, inputs_of(made)[0])))
        kept.restore()
    assert losses[0] == losses[1]
    moments = [value for state in made.optimizer.state.values() for value in state.values()]
    assert moments
    assert not any(bool(value.any()) for value in moments)
