"""Conditions: every embedding that can be fed is fed what diffusers' forward takes, every other is rejected."""

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel

from profiler.combo import Combo
from profiler.optims import apply_all
from profiler.steps import forward, train_step
from profiler.subject import ModelError, Subject, UNet, make_inputs
from tests.support.unets import SMALL, inputs_of, workload

PIXELS: dict[str, Any] = {
    **SMALL,
    "sample_size": 8,
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
}
TEXT: dict[str, Any] = {**PIXELS, "mid_block_type": "UNetMidBlock2DCrossAttn", "cross_attention_dim": 32}


def made(unet: UNet) -> Subject:
    work = workload(mode="train", resolution=64 if unet.config.in_channels == 4 else 8)
    return apply_all(Subject(unet=unet, workload=work, call=unet), Combo())[0]


@pytest.mark.parametrize(
    "unet",
    [
        lambda: UNet2DModel(**PIXELS, num_class_embeds=10),
        lambda: UNet2DModel(**PIXELS, class_embed_type="identity"),
        lambda: UNet2DConditionModel(**TEXT, num_class_embeds=10),
        lambda: UNet2DConditionModel(**TEXT, class_embed_type="timestep"),
        lambda: UNet2DConditionModel(**TEXT, class_embed_type="identity"),
        lambda: UNet2DConditionModel(**TEXT, class_embed_type="projection", projection_class_embeddings_input_dim=24),
        lambda: UNet2DConditionModel(
            **TEXT, class_embed_type="simple_projection", projection_class_embeddings_input_dim=24
        ),
        lambda: UNet2DConditionModel(**TEXT, addition_embed_type="text", addition_embed_type_num_heads=4),
        lambda: UNet2DConditionModel(**TEXT, encoder_hid_dim=48),
        lambda: UNet2DConditionModel(**TEXT | {"cross_attention_dim": (32, 32)}),
    ],
)
def test_a_training_step_runs_with_what_the_model_is_fed(unet: Any) -> None:
    subject = made(unet())
    assert bool(train_step(subject, inputs_of(subject)[0]).isfinite())


def test_class_labels_are_classes_and_the_same_in_every_batch() -> None:
    unet = UNet2DModel(**PIXELS, num_class_embeds=10)
    few, many = (make_inputs(unet, workload(resolution=8), batch=n).condition["class_labels"] for n in (2, 40))
    assert few.tolist() == many[:2].tolist()
    assert set(many.tolist()) == set(range(10))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"addition_embed_type": "image_hint"}, "addition_embed_type=image_hint needs inputs"),
        ({"addition_embed_type": "text_image"}, "it feeds None, text, text_time"),
        ({"encoder_hid_dim_type": "image_proj"}, "encoder_hid_dim_type=image_proj needs inputs"),
        ({"cross_attention_dim": (32, 16)}, "texts of several widths: give one width"),
    ],
)
def test_what_cannot_be_fed_is_rejected_with_the_reason(config: dict[str, Any], message: str) -> None:
    unet = UNet2DConditionModel(**TEXT)
    unet.register_to_config(**config)
    with pytest.raises(ModelError, match=message):
        make_inputs(unet, workload(), batch=1)


def test_timestep_classes_of_pixels_are_rejected() -> None:
    """diffusers adds them in float32 to whatever dtype the model has."""
    with pytest.raises(ModelError, match="UNet2DModel with class_embed_type=timestep"):
        make_inputs(UNet2DModel(**PIXELS, class_embed_type="timestep"), workload(resolution=8), batch=1)


def test_labels_reach_the_embedding() -> None:
    subject = made(UNet2DModel(**PIXELS, num_class_embeds=10))
    inputs = inputs_of(subject)[0]
    torch.nn.functional.mse_loss(forward(subject, inputs), inputs.target).backward()
    labels = inputs.condition["class_labels"].tolist()
    touched = subject.unet.class_embedding.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == sorted(labels)
