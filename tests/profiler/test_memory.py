"""Memory: what is held between two steps, by hand count."""

import pytest
import torch

from profiler import memory
from profiler.combo import Combo
from profiler.steps import make_step, train_step
from profiler.subject import Subject
from tests.support.unets import inputs_of, subject, workload


def _trained(combo: Combo | None = None) -> Subject:
    made, _ = subject(workload(mode="train"), combo)
    train_step(made, inputs_of(made)[0])
    return made


def _num_parameters(made: Subject) -> int:
    return sum(parameter.numel() for parameter in made.unet.parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_foreach", "adamw_fused"])
def test_adamw_holds_two_moments_and_a_step_for_each_parameter(optimizer: str) -> None:
    made = _trained(Combo.from_dict({"optimizer": optimizer}))
    held = memory.held(made, [])
    num_tensors = len(list(made.unet.parameters()))
    assert sum(held.parameters.values()) == 4 * _num_parameters(made)
    assert sum(held.optimizer_state.values()) == 2 * 4 * _num_parameters(made) + 4 * num_tensors


def test_16_bit_weights_hold_half() -> None:
    made = _trained(Combo(precision="bf16"))
    assert sum(memory.held(made, []).parameters.values()) == 2 * _num_parameters(made)


def test_inputs_are_counted_with_their_condition() -> None:
    made, _ = subject(workload())
    inputs = inputs_of(made, draws=2)
    sample, text, steps = 2 * 4 * 8 * 8 * 4, 2 * 77 * 32 * 4, 2 * 8
    assert sum(memory.held(made, inputs).other.values()) == 2 * (2 * sample + text + steps)


def test_a_storage_that_two_tensors_share_counts_once() -> None:
    made, _ = subject(workload())
    before = sum(memory.held(made, []).parameters.values())
    made.unet.register_buffer("again", made.unet.conv_in.weight.detach()[:1])
    assert sum(memory.held(made, []).parameters.values()) == before


def test_gradients_are_found_only_while_they_are_there() -> None:
    made, _ = subject(workload(mode="train"))
    inputs = inputs_of(made)[0]
    made.call(inputs.sample, inputs.timestep, **inputs.condition, return_dict=False)[0].mean().backward()
    assert sum(memory.gradient_storages(made).values()) == 4 * _num_parameters(made)
    train_step(made, inputs)
    assert memory.gradient_storages(made) == {}


def test_a_cpu_has_no_allocator_counters() -> None:
    made, _ = subject(workload())
    assert memory.measure_peaks(made, make_step(made), inputs_of(made)[0]) == memory.Peaks()


def test_the_host_peak_is_at_least_what_lives_now() -> None:
    ballast = torch.ones(2**20)
    assert memory.host_peak_bytes() > ballast.nbytes
