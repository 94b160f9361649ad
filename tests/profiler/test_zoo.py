"""The zoo: published sizes, own folders and factories, and what is answered when there is none."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from profiler.subject import ModelError
from profiler.workload import ZOO
from profiler.zoo import build, from_config, read_config
from tests.support.unets import conditional_unet, pixel_unet, workload


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ddpm-cifar10", 35_746_307),
        ("sd15", 859_520_964),
        ("sd2", 865_910_724),
        ("sdxl", 2_567_463_684),
        ("sd15-w0.5", 219_789_284),
        ("sd15-w0.8", 553_235_204),
        ("sd15-w1.5", 1_919_195_044),
        ("sd15-d1", 579_384_964),
        ("sd15-d3", 1_139_656_964),
    ],
)
def test_a_zoo_model_has_its_published_size(name: str, parameters: int) -> None:
    with torch.device("meta"):
        unet = from_config(read_config(name))
    assert sum(p.numel() for p in unet.parameters()) == parameters
    assert ZOO[name].million_parameters == pytest.approx(parameters / 1e6, abs=0.06)


@pytest.mark.parametrize("name", [name for name, model in ZOO.items() if model.variant_of])
def test_a_variant_differs_in_one_thing_and_fits_norms_and_kernels(name: str) -> None:
    config, published = read_config(name), read_config(ZOO[name].variant_of)
    changed = {key for key in config if config[key] != published[key]}
    assert changed == {"layers_per_block"} or changed - {"attention_head_dim"} == {"block_out_channels"}
    assert all(channels % 32 == 0 for channels in config["block_out_channels"])
    assert all(channels / config["attention_head_dim"] % 8 == 0 for channels in config["block_out_channels"])
    assert "not a published model" in ZOO[name].help


def test_every_zoo_model_has_a_configuration() -> None:
    assert all(read_config(name)["_class_name"].startswith("UNet2D") for name in ZOO)


def test_the_seed_draws_the_weights() -> None:
    first, again, other = (build(workload("tiny", seed=seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv_in.weight"], other["conv_in.weight"])


def test_a_saved_folder_loads_back_with_its_weights(tmp_path: Path) -> None:
    unet = conditional_unet()
    unet.save_pretrained(tmp_path)
    _assert_same_weights(build(workload(str(tmp_path))), unet)


def test_a_pipeline_folder_gives_its_unet(tmp_path: Path) -> None:
    unet = pixel_unet()
    unet.save_pretrained(tmp_path / "unet")
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    _assert_same_weights(build(workload(str(tmp_path))), unet)


def test_a_half_precision_folder_is_built_in_fp32(tmp_path: Path) -> None:
    torch.nn.Module.to(pixel_unet(), torch.float16).save_pretrained(tmp_path)
    assert {p.dtype for p in build(workload(str(tmp_path))).parameters()} == {torch.float32}


def _assert_same_weights(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    weights = expected.state_dict()
    assert {n: t.shape for n, t in found.state_dict().items()} == {n: t.shape for n, t in weights.items()}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.state_dict().items())


@pytest.mark.parametrize("kind", ["conditional_unet", "pixel_unet"])
def test_a_factory_gives_its_own_unet(kind: str) -> None:
    assert type(build(workload(kind))).__name__.startswith("UNet2D")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("sd99", "unknown model 'sd99': choose tiny, .*local diffusers folder, or module:factory"),
        ("/no/such/folder", "unknown model"),
        ("no_such_module:unet", "cannot be imported .*give module:factory"),
        ("tests.support.unets:no_such_name", "cannot be imported"),
        (":unet", "cannot be imported"),
        ("tests.support.unets:", "cannot be imported"),
        (".unets:pixel_unet", "cannot be imported"),
        ("tests.support.unets:SMALL", "is no function"),
        ("tests.support.unets:not_a_unet", "returned object: it must return a UNet2DModel or UNet2DConditionModel"),
    ],
)
def test_a_model_that_is_none_is_answered_with_the_remedy(model: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build(workload(model))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "neither config.json nor unet/config.json"),
        ("{", "is not JSON .*save the model again"),
        ({"_class_name": "AutoencoderKL"}, "holds 'AutoencoderKL', not a UNet"),
        ({"model_type": "bert"}, "holds None, not a UNet"),
        ([], "not a UNet"),
        ({"_class_name": "UNet2DModel", "block_out_channels": [32, 64]}, "cannot be loaded by diffusers"),
    ],
)
def test_a_folder_without_a_unet_is_answered_with_the_remedy(tmp_path: Path, config: Any, message: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(ModelError, match=message):
        build(workload(str(tmp_path)))


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    pixel_unet().save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="cannot be loaded by diffusers"):
        build(workload(str(tmp_path)))


def test_a_configuration_of_another_class_is_refused() -> None:
    with pytest.raises(ModelError, match="'VQModel' is not a diffusers UNet"):
        from_config({"_class_name": "VQModel"})
