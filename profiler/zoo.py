"""The UNets: built by diffusers' own classes, from a local folder, or by the user's own factory.

The configurations in profiler/configs/ are the published ones (google/ddpm-cifar10-32,
stable-diffusion-v1-5, stable-diffusion-2-base and stable-diffusion-xl-base-1.0, each `unet/config.json`); the
variants of sd15 are its own with other channels or layers. Weights are random: time, memory and numerical error
are real, image quality is not.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import nn

from profiler.subject import ModelError, UNet
from profiler.workload import ZOO, Workload

CONFIGS = Path(__file__).parent / "configs"
_CLASSES = {"UNet2DModel": UNet2DModel, "UNet2DConditionModel": UNet2DConditionModel}


def build(workload: Workload) -> UNet:
    """The workload's UNet in fp32 on its device, weights drawn from its seed (a folder brings its own).

    Raises ModelError, naming the remedy, for an unknown model, a folder that is no diffusers UNet,
    or a factory that cannot be imported or returns something else.
    """
    name = workload.model
    if name in ZOO:
        return _build_random(read_config(name), workload)
    if Path(name).expanduser().is_dir():
        return _load_folder(Path(name).expanduser(), workload)
    if ":" in name:
        return _call_factory(name, workload)
    raise ModelError(
        f"unknown model {name!r}: choose {', '.join(ZOO)}, an existing local diffusers folder, or module:factory"
    )


def read_config(name: str) -> dict[str, Any]:
    """A zoo model's configuration, as diffusers' class takes it: the published one, or a variant made from it."""
    model = ZOO[name]
    path = CONFIGS / f"{model.variant_of or name}.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if model.layers_per_block is not None:
        config["layers_per_block"] = model.layers_per_block
    if model.width != 1:
        _widen(config, model.width)
    return config


def _widen(config: dict[str, Any], width: float) -> None:
    """Scale the channels, and the number of heads with them where that stays whole, so that head dims stay.

    The widths in ZOO keep channels divisible by the 32 groups of the norms, and head dims by the 8 that kernels want.
    """
    config["block_out_channels"] = [round(width * channels) for channels in config["block_out_channels"]]
    heads = width * config["attention_head_dim"]  # diffusers' name for the number of heads in SD1.5's configuration
    if heads.is_integer():
        config["attention_head_dim"] = int(heads)


def from_config(config: dict[str, Any]) -> UNet:
    """A UNet with new weights, on the current default device.

    Raises ModelError when the configuration is not of one of the two UNet classes.
    """
    cls = _CLASSES.get(config.get("_class_name", ""))
    if cls is None:
        raise ModelError(f"{config.get('_class_name')!r} is not a diffusers UNet: {' or '.join(_CLASSES)} is needed")
    unet: UNet = cls.from_config(config)
    return unet


def _build_random(config: dict[str, Any], workload: Workload) -> UNet:
    torch.manual_seed(workload.seed)
    with torch.device(workload.device):  # drawn on the device: minutes faster for SDXL than on the CPU
        return from_config(config)


def _load_folder(folder: Path, workload: Workload) -> UNet:
    """A UNet folder, or a pipeline folder with a unet/ inside."""
    if (folder / "unet" / "config.json").is_file():
        folder = folder / "unet"
    if (folder / "transformer").is_dir() and not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: its denoiser is a transformer: Steplens measures UNets")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no diffusers model: it has neither config.json nor unet/config.json")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{folder / 'config.json'} is not JSON ({error}): save the model again") from error
    name = config.get("_class_name") if isinstance(config, dict) else None
    cls = _CLASSES.get(name or "")
    if cls is None:
        raise ModelError(f"{folder} holds {name!r}, not a UNet: Steplens measures {' and '.join(_CLASSES)}")
    try:
        unet: UNet = cls.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be loaded by diffusers: {error}") from error
    prepared: UNet = unet.to(workload.device)
    return prepared


def _call_factory(name: str, workload: Workload) -> UNet:
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path:  # python -m puts the working directory there; a worker's parent may not
        sys.path.insert(0, "")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # the last two: no such module name
        raise ModelError(f"{name} cannot be imported ({error}): give module:factory as in `import module`") from error
    if not callable(factory):
        raise ModelError(f"{name} is no function: give a module:factory that returns a UNet")
    torch.manual_seed(workload.seed)
    with torch.device(workload.device):
        unet: Any = factory()
    if not any(isinstance(unet, cls) for cls in _CLASSES.values()):
        raise ModelError(f"{name} returned {type(unet).__name__}: it must return a {' or '.join(_CLASSES)}")
    # diffusers' own to() warns of modules that it keeps in fp32, here none
    prepared: UNet = nn.Module.to(unet, workload.device, torch.float32)
    return prepared
