"""Which linear layers compute in 8 bits, and why the others do not: one rule for torchao, its yardstick and its check.

A layer must be worth the conversion of its input, which reads and writes every row once, and its shape must suit the
8-bit kernels: _scaled_mm takes sizes that are multiples of 16, cuBLAS' _int_mm more than 16 rows.
"""

from collections import Counter
from dataclasses import dataclass, field

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from profiler.subject import ModelError, UNet, make_inputs
from profiler.workload import Workload

MULTIPLE = 16  # of both sizes of a weight: _scaled_mm's own rule
MIN_FEATURES = 64  # below, the product is smaller than the conversion
MIN_ROWS = 17  # a sample: torch._int_mm on CUDA refuses 16 and fewer
_EMBEDDINGS = ("time_embedding", "add_embedding", "class_embedding", "time_proj", "add_time_proj", "encoder_hid_proj")
_OF_THE_TEXT = ("to_k", "to_v", "to_kv", "add_k_proj", "add_v_proj")


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The linear layers of a UNet, sorted; shares are of the FLOP of one forward, None where its shapes are unknown."""

    chosen: dict[str, nn.Linear]
    skipped: Counter[str] = field(default_factory=Counter)  # why -> how many
    share_of_linear_flop: float | None = None
    share_of_flop: float | None = None


def choose(unet: UNet, workload: Workload) -> Choice:
    """Sort the linear layers into those that compute in 8 bits and those that do not."""
    linears = {name: module for name, module in unet.named_modules() if isinstance(module, nn.Linear)}
    text = _text_projections(unet)
    rows, total = _rows(unet, workload)
    chosen, skipped = {}, Counter[str]()
    for name, linear in linears.items():
        reason = _why_not(name, linear, name in text, _rows_of(name, rows), workload)
        if reason:
            skipped[reason] += 1
        else:
            chosen[name] = linear
    flop = {name: 2 * (_rows_of(name, rows) or 0) * linear.weight.numel() for name, linear in linears.items()}
    done, linear_total = sum(flop[name] for name in chosen), sum(flop.values())
    return Choice(
        chosen=chosen,
        skipped=skipped,
        share_of_linear_flop=done / linear_total if linear_total else None,
        share_of_flop=done / total if total else None,
    )


def _why_not(name: str, linear: nn.Linear, is_text: bool, rows: int | None, workload: Workload) -> str | None:
    if name.partition(".")[0] in _EMBEDDINGS or name.endswith("time_emb_proj"):
        return "embedding, one row a sample"
    if is_text:
        return "keys and values of the text, 77 rows a sample"
    sizes = linear.in_features, linear.out_features
    if any(size % MULTIPLE for size in sizes):
        return f"a size is no multiple of {MULTIPLE}"
    if min(sizes) < MIN_FEATURES:
        return f"fewer than {MIN_FEATURES} features"
    if rows is not None and rows < MIN_ROWS:
        return f"fewer than {MIN_ROWS} rows a sample"
    if rows is not None and workload.mode == "train" and rows % MULTIPLE:
        return f"rows a sample are no multiple of {MULTIPLE}, which the gradient sums over"
    return None


def _text_projections(unet: UNet) -> set[str]:
    return {
        f"{name}.{child}"
        for name, layer in unet.named_modules()
        if isinstance(layer, Attention) and layer.is_cross_attention
        for child in _OF_THE_TEXT
    }


def _rows(unet: UNet, workload: Workload) -> tuple[dict[str, int], int]:
    """Rows that each linear layer multiplies in a forward of one sample, and the forward's FLOP.

    Of a plain twin on meta tensors, since other families have changed the UNet by now. Nothing is known, ({}, 0), of a
    UNet whose configuration names no size where the workload names none either.
    """
    rows: Counter[str] = Counter()
    cls = UNet2DConditionModel if isinstance(unet, UNet2DConditionModel) else UNet2DModel
    with torch.device("meta"):
        twin = cls.from_config(unet.config)
    try:
        inputs = make_inputs(twin, workload, batch=1, device="meta")
    except ModelError:
        return {}, 0

    def count(name: str) -> None:
        def hook(linear: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            rows[name] += given[0].numel() // given[0].shape[-1]

        twin.get_submodule(name).register_forward_pre_hook(hook)

    for name, module in list(twin.named_modules()):
        if isinstance(module, nn.Linear):
            count(name)
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        twin(inputs.sample, inputs.timestep, **inputs.condition, return_dict=False)
    return dict(rows), int(counter.get_total_flops())


def _rows_of(name: str, rows: dict[str, int]) -> int | None:
    """The rows of a layer; one that joins others (fusion's to_qkv) has those of the layers it stands for."""
    parent, _, own = name.rpartition(".")
    joined = {"to_qkv": "to_q", "to_kv": "to_k"}.get(own, own)
    return rows.get(f"{parent}.{joined}" if parent else joined)
