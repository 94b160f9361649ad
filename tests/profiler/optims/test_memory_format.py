"""Memory format: NHWC weights and images, seen by the convolutions."""

from pathlib import Path

import pytest
import torch

from profiler.combo import Combo
from profiler.optims import memory_format
from profiler.subject import NotApplicable, Subject
from profiler.verify import verify
from tests.support.unets import FACTORIES, inputs_of, subject, trace, workload


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("mode", ["inference", "train", "sample"])
def test_convolutions_get_nhwc_images(kind: str, mode: str, tmp_path: Path) -> None:
    made, evidence = subject(workload(kind, mode=mode), Combo(memory_format="channels_last"))
    found = verify(evidence[1], trace(made, tmp_path), made)
    assert found.confirmed, found.finding
    assert found.facts["num_converted"] == found.facts["num_convolutions"] > 0
    assert found.observed["num_nhwc_inputs"] > 0


def test_contiguous_convolutions_are_left_alone(tmp_path: Path) -> None:
    made, evidence = subject(workload())
    assert verify(evidence[1], trace(made, tmp_path), made).confirmed is None  # contiguous leaves no mark to look for
    assert made.unet.conv_in.weight.is_contiguous()


def test_inputs_follow_the_layout() -> None:
    made, _ = subject(workload(), Combo(memory_format="channels_last"))
    assert inputs_of(made)[0].sample.is_contiguous(memory_format=torch.channels_last)


def test_optimizer_state_has_the_weights_layout() -> None:
    made, _ = subject(workload(mode="train"), Combo(memory_format="channels_last"))
    weight = made.unet.conv_in.weight
    weight.grad = torch.zeros_like(weight)
    assert made.optimizer is not None
    made.optimizer.step()
    assert made.optimizer.state[weight]["exp_avg"].stride() == weight.stride()
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_model_without_convolutions_is_refused() -> None:
    made, _ = subject(workload())
    linear: object = torch.nn.Linear(3, 3)
    with pytest.raises(NotApplicable, match="no 2-D convolution; choose contiguous"):
        memory_format.apply(
            Subject(unet=linear, workload=made.workload, call=made.call),  # type: ignore[arg-type]
            "channels_last",
        )
