"""FLOPs: published figures, a hand count, and independence from what a combo changes."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from profiler.flops import forward_flop_per_sample, step_flop
from profiler.subject import Subject
from profiler.zoo import build, from_config, read_config
from tests.support.unets import conditional_unet, subject, workload


@pytest.mark.parametrize(
    ("name", "gflop"), [("ddpm-cifar10", 12.4437), ("sd15", 803.273), ("sd2", 804.257), ("sdxl", 6761.24)]
)
def test_one_forward_of_a_zoo_model_costs_what_is_published(name: str, gflop: float) -> None:
    with torch.device("meta"):
        unet = from_config(read_config(name))
    assert forward_flop_per_sample(unet, workload(name)) / 1e9 == pytest.approx(gflop, rel=1e-3)


class OneBlock(torch.nn.Module):
    """A convolution 3 -> 5 of 3x3 and a linear layer over its pixels, called as a UNet is."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.convolution = torch.nn.Conv2d(3, 5, 3, padding=1)
        self.linear = torch.nn.Linear(5, 7)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        return (self.linear(self.convolution(sample).flatten(2).transpose(1, 2)),)


def test_the_count_agrees_with_one_made_by_hand() -> None:
    block: Any = OneBlock(build(workload("pixel_unet")).config)
    pixels = 16 * 16
    by_hand = 2 * pixels * (3 * 5 * 3 * 3) + 2 * pixels * 5 * 7
    assert forward_flop_per_sample(block, workload("pixel_unet")) == by_hand


def test_both_attention_products_count() -> None:
    unet = conditional_unet()
    whole = forward_flop_per_sample(unet, workload(resolution=64))
    for block in unet.modules():
        if hasattr(block, "attn1"):
            block.attn1.forward = lambda hidden_states, **_: hidden_states
    without = forward_flop_per_sample(unet, workload(resolution=64))

    def self_attention(tokens: int, width: int) -> int:
        projections, products = 4 * 2 * tokens * width**2, 2 * 2 * tokens**2 * width
        return projections + products

    assert whole - without == 3 * self_attention(64, 32) + self_attention(16, 64)  # the upper level, and the middle


def test_the_attention_processor_does_not_change_the_count() -> None:
    plain, fused = conditional_unet(), conditional_unet()
    fused.set_attn_processor(AttnProcessor2_0())
    assert forward_flop_per_sample(plain, workload()) == forward_flop_per_sample(fused, workload())


def test_counting_leaves_the_model_as_it_was() -> None:
    unet = conditional_unet()
    fused = AttnProcessor2_0()
    unet.set_attn_processor(fused)
    forward_flop_per_sample(unet, workload())
    assert {p.device.type for p in unet.parameters()} == {"cpu"}
    assert set(unet.attn_processors.values()) == {fused}


@pytest.mark.parametrize(
    ("mode", "changes", "forwards"),
    [
        ("inference", {}, 1),
        ("train", {}, 3),
        ("sample", {"num_inference_steps": 4}, 8),
        ("sample", {"num_inference_steps": 4, "guidance_scale": 1.0}, 4),
    ],
)
def test_a_step_costs_its_forwards_of_the_whole_batch(mode: str, changes: dict[str, Any], forwards: int) -> None:
    made, _ = subject(workload(mode=mode, batch=3, **changes))
    assert step_flop(1000, made) == 1000 * forwards * 3


def test_an_unconditional_model_is_not_guided() -> None:
    unet = build(workload("pixel_unet"))
    made = Subject(unet=unet, workload=workload("pixel_unet", mode="sample", batch=1), call=unet)
    assert step_flop(10, made) == 10 * 2
