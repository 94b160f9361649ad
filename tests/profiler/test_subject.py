"""Inputs: the same sample in every batch, in the shapes that each UNet takes."""

from dataclasses import fields

import pytest
import torch

from profiler.subject import (
    Inputs,
    ModelError,
    UNet,
    cast_inputs,
    make_inputs,
    pixels_per_latent,
    resolve_resolution,
    zoo_note,
)
from profiler.zoo import build, from_config, read_config
from tests.support.unets import conditional_unet, pixel_unet, workload


@pytest.fixture(scope="module")
def sdxl() -> UNet:
    with torch.device("meta"):
        return from_config(read_config("sdxl"))


def _rows(inputs: Inputs, index: int) -> list[torch.Tensor]:
    condition = inputs.condition.get("added_cond_kwargs", inputs.condition)
    tensors = [inputs.sample, inputs.timestep, inputs.target, *condition.values()]
    return [tensor[index] for tensor in tensors]


def test_sample_i_is_the_same_in_every_batch(sdxl: UNet) -> None:
    for unet, work in ((conditional_unet(), workload()), (sdxl, workload("sdxl", resolution=64))):
        small, large = (make_inputs(unet, work, batch=batch) for batch in (2, 5))
        for index in range(2):
            pairs = zip(_rows(small, index), _rows(large, index), strict=True)
            assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


def test_samples_draws_and_seeds_differ() -> None:
    unet = pixel_unet()
    first = make_inputs(unet, workload("pixel_unet"), batch=2)
    drawn = make_inputs(unet, workload("pixel_unet"), batch=2, draw=1)
    seeded = make_inputs(unet, workload("pixel_unet", seed=1), batch=2)
    samples = [*first.sample, *drawn.sample, *seeded.sample, *first.target]
    assert len({float(sample.sum()) for sample in samples}) == len(samples)


def test_timesteps_lie_in_the_schedule() -> None:
    steps = make_inputs(pixel_unet(), workload("pixel_unet"), batch=64).timestep
    assert steps.dtype is torch.int64
    assert 0 <= int(steps.min()) <= int(steps.max()) < 1000
    assert len(set(steps.tolist())) == 64


def test_a_conditional_model_gets_77_tokens_of_text() -> None:
    inputs = make_inputs(conditional_unet(), workload(), batch=2)
    assert inputs.sample.shape == (2, 4, 8, 8)
    assert inputs.condition["encoder_hidden_states"].shape == (2, 77, 32)


def test_an_unconditional_model_gets_no_condition() -> None:
    inputs = make_inputs(pixel_unet(), workload("pixel_unet"), batch=3)
    assert inputs.sample.shape == inputs.target.shape == (3, 3, 16, 16)
    assert inputs.condition == {}


def test_sdxl_gets_pooled_text_and_its_six_sizes(sdxl: UNet) -> None:
    added = make_inputs(sdxl, workload("sdxl"), batch=2, device="cpu").condition["added_cond_kwargs"]
    assert added["text_embeds"].shape == (2, 1280)
    assert added["time_ids"].tolist() == [[1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0]] * 2


def test_resolution_0_is_the_models_own() -> None:
    assert resolve_resolution(conditional_unet(), workload()) == 64
    assert resolve_resolution(pixel_unet(), workload("pixel_unet")) == 16
    assert resolve_resolution(pixel_unet(), workload("pixel_unet", resolution=32)) == 32


def test_a_latent_pixel_stands_for_eight() -> None:
    assert (pixels_per_latent(conditional_unet()), pixels_per_latent(pixel_unet())) == (8, 1)


def test_a_model_without_a_size_of_its_own_asks_for_a_resolution() -> None:
    unet = pixel_unet()
    unet.register_to_config(sample_size=None)
    assert make_inputs(unet, workload("pixel_unet", resolution=8), batch=1).sample.shape == (1, 3, 8, 8)
    with pytest.raises(ModelError, match="no sample_size: give the workload a resolution"):
        make_inputs(unet, workload("pixel_unet"), batch=1)


@pytest.mark.parametrize(
    ("kind", "resolution", "remedy"),
    [("conditional_unet", 72, 16), ("conditional_unet", 66, 16), ("conditional_unet", 4, 16), ("pixel_unet", 15, 2)],
)
def test_a_resolution_that_does_not_fit_names_one_that_does(kind: str, resolution: int, remedy: int) -> None:
    work = workload(kind, resolution=resolution)
    with pytest.raises(ModelError, match=f"resolution {resolution} does not fit.*a multiple of {remedy} px"):
        make_inputs(build(work), work, batch=1)


def test_a_cast_changes_dtype_and_layout_and_no_value() -> None:
    plain = make_inputs(conditional_unet(), workload(), batch=2)
    cast = cast_inputs(plain, torch.bfloat16, torch.channels_last)
    assert cast.sample.dtype is cast.condition["encoder_hidden_states"].dtype is torch.bfloat16
    assert cast.sample.is_contiguous(memory_format=torch.channels_last)
    assert cast.timestep.dtype is torch.int64
    assert torch.equal(cast.sample, plain.sample.bfloat16())
    assert len(fields(cast)) == 4


def test_only_random_weights_are_noted() -> None:
    assert "random weights" in zoo_note(workload("tiny"))[0]
    assert zoo_note(workload("pixel_unet")) == ()
