"""Dropout: no difference in the error check, on everywhere else."""

from pathlib import Path

import torch
from diffusers import UNet2DModel

from profiler import dropout, numerics
from profiler.combo import Combo
from profiler.steps import forward, make_step, no_phase
from profiler.subject import Subject
from tests.profiler.test_session import make_reference, run
from tests.support.unets import errors, inputs_of, pixel_unet, subject, workload

WORK = workload("dropout_unet", mode="train")


def test_the_error_check_compares_without_masks() -> None:
    found = errors(WORK, Combo(attention="sdpa"))
    assert max(found.output_error, found.gradient_error or 1.0) < 1e-4


def test_timed_steps_draw_masks() -> None:
    """Two steps on equal weights and inputs differ by their masks alone."""
    losses = []
    for seed in (1, 2):
        made, _ = subject(WORK)
        torch.manual_seed(seed)
        losses.append(float(make_step(made)(inputs_of(made)[0], no_phase)))
    assert losses[0] != losses[1]


def test_a_compiler_makes_one_graph_with_masks_and_one_without() -> None:
    """Dynamo guards on the layers' mode: were it not so, compiled steps would be timed without dropout."""
    plain = {"sample_size": 8, "dropout": 0.3, "norm_num_groups": 4, "layers_per_block": 1, "mid_block_type": None}
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (16,)}
    unet, work = UNet2DModel(**plain, **blocks).train(), workload("pixel_unet", mode="train", resolution=8)
    made = Subject(unet=unet, workload=work, call=torch.compile(unet, backend="aot_eager", dynamic=False))
    (inputs,) = inputs_of(made)
    first, timed, again = (
        numerics.run_once(made, inputs, 2)[0],
        [forward(made, inputs).detach() for _ in range(2)],
        numerics.run_once(made, inputs, 2)[0],
    )
    assert torch.equal(first, again)
    assert not torch.equal(*timed)


def test_layers_are_given_back_as_they_were() -> None:
    unet = subject(WORK)[0].unet
    frozen = dropout.layers(unet)[0].eval()
    with dropout.switched_off(unet):
        assert not any(layer.training for layer in dropout.layers(unet))
    assert [layer.training for layer in dropout.layers(unet)].count(False) == 1
    assert not frozen.training
    assert not dropout.layers(pixel_unet())


def test_a_training_run_with_dropout_and_classes_is_done(tmp_path: Path) -> None:
    make_reference(tmp_path, WORK)
    record = run(tmp_path, WORK)
    assert (record.status, record.cause) == ("done", "")
    assert dropout.NOTE in record.notes
