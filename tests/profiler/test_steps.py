"""The three steps: what they compute, and their phases."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from profiler.sampling import guides
from profiler.steps import PHASES, make_step, no_phase, train_step
from profiler.subject import Subject
from tests.support.unets import inputs_of, subject, workload


@pytest.mark.parametrize("mode", PHASES)
def test_a_step_goes_through_its_phases(mode: str) -> None:
    seen: list[str] = []

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        seen.append(name)
        yield

    made, _ = subject(workload(mode=mode))
    make_step(made)(inputs_of(made)[0], phase)
    assert tuple(dict.fromkeys(seen)) == PHASES[mode]
    assert len(seen) == (made.workload.num_inference_steps if mode == "sample" else len(PHASES[mode]))


def test_a_training_step_changes_every_weight_and_leaves_no_gradient() -> None:
    made, _ = subject(workload(mode="train"))
    before = {name: p.detach().clone() for name, p in made.unet.named_parameters()}
    train_step(made, inputs_of(made)[0])
    assert [name for name, p in made.unet.named_parameters() if torch.equal(p, before[name])] == []
    assert all(p.grad is None for p in made.unet.parameters())


def test_training_on_one_batch_lowers_its_loss() -> None:
    made, _ = subject(workload(mode="train"))
    batch = inputs_of(made)[0]
    losses = [float(train_step(made, batch)) for _ in range(8)]
    assert losses[-1] < losses[0]


def test_training_without_an_optimizer_names_the_remedy() -> None:
    made, _ = subject(workload(mode="train"))
    bare = Subject(unet=made.unet, workload=made.workload, call=made.unet)
    with pytest.raises(ValueError, match="apply the family optimizer first"):
        train_step(bare, inputs_of(made)[0])


def test_inference_keeps_no_graph() -> None:
    made, _ = subject(workload())
    assert not make_step(made)(inputs_of(made)[0], no_phase).requires_grad


@pytest.mark.parametrize(
    ("kind", "scale", "guided"),
    [("conditional_unet", 7.5, True), ("conditional_unet", 1.0, False), ("pixel_unet", 7.5, False)],
)
def test_guidance_needs_a_condition_and_a_scale(kind: str, scale: float, guided: bool) -> None:
    made, _ = subject(workload(kind, mode="sample", guidance_scale=scale))
    assert guides(made) is guided
    batches: list[int] = []
    made.unet.register_forward_pre_hook(lambda module, given: batches.append(given[0].shape[0]))
    out = make_step(made)(inputs_of(made)[0], no_phase)
    assert out.shape == inputs_of(made)[0].sample.shape
    assert batches == [4 if guided else 2] * 2


def test_guidance_moves_away_from_the_empty_prompt() -> None:
    """With a scale of 0 only the unconditional half counts, so the text has no say."""
    made, _ = subject(workload(mode="sample", guidance_scale=0.0))
    batch = inputs_of(made)[0]
    text = batch.condition["encoder_hidden_states"].clone()
    first = make_step(made)(batch, no_phase)
    batch.condition["encoder_hidden_states"] = -text
    assert torch.allclose(first, make_step(made)(batch, no_phase), atol=1e-5)
    guided, _ = subject(workload(mode="sample", guidance_scale=7.5))
    assert not torch.allclose(first, make_step(guided)(batch, no_phase), atol=1e-2)
