"""Joined projections: one linear layer where an attention layer had two or three, under the separate names for others.

A parameter is joined, its memory is not doubled: the separate projections go. Everybody who asks by name (state dicts,
the gradient check) still meets to_q, to_k and to_v.
"""

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from profiler.subject import NotApplicable

PARTS = {"to_qkv": ("to_q", "to_k", "to_v"), "to_kv": ("to_k", "to_v")}


def is_joined(layer: Attention) -> bool:
    return _joined_name(layer) is not None


def why_not_joined(layer: Attention) -> str | None:
    """Why this layer's projections cannot become one; None if they can."""
    if layer.fused_projections or is_joined(layer):
        return "its projections are fused already"
    found = [getattr(layer, part, None) for part in PARTS[_name_for(layer)]]
    parts = [part for part in found if type(part) is nn.Linear]
    if len(parts) < len(found):
        return "a projection is no plain linear layer"
    first, *others = parts
    for part in others:
        if part.in_features != first.in_features or (part.bias is None) != (first.bias is None):
            return "its projections differ in input or bias"
        if part.weight.dtype != first.weight.dtype or part.weight.requires_grad != first.weight.requires_grad:
            return "its projections differ in dtype, or some are frozen"
    return None


def join(layer: Attention) -> str:
    """Put the joined projection in the place of the separate ones; returns its name. Raises NotApplicable."""
    if reason := why_not_joined(layer):
        raise NotApplicable(f"fusion=qkv: {reason} in an attention layer: choose fusion=none")
    name = _name_for(layer)
    parts = [layer.get_submodule(part) for part in PARTS[name]]
    first = parts[0]
    joined = nn.Linear(first.in_features, sum(part.out_features for part in parts), bias=False, device="meta")
    for parameter in ("weight", "bias"):
        if getattr(first, parameter) is not None:
            separate = [getattr(part, parameter) for part in parts]
            whole = torch.cat([one.detach() for one in separate])
            setattr(joined, parameter, nn.Parameter(whole, requires_grad=separate[0].requires_grad))
    joined.train(layer.training)
    for part in PARTS[name]:
        delattr(layer, part)
    setattr(layer, name, joined)
    layer.register_state_dict_post_hook(_write_separate)
    layer.register_load_state_dict_pre_hook(_read_separate)
    return name


def project(layer: Attention, hidden_states: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, (batch, tokens, features), from the projections that the layer has."""
    name = _joined_name(layer)
    if name is None:
        return layer.to_q(hidden_states), layer.to_k(context), layer.to_v(context)
    if name == "to_kv":
        key, value = layer.to_kv(context).split(_sizes(layer, name), dim=-1)
        return layer.to_q(hidden_states), key, value
    if context is not hidden_states:
        raise ValueError("a self-attention layer whose projections are joined was given another context")
    query, key, value = layer.to_qkv(hidden_states).split(_sizes(layer, name), dim=-1)
    return query, key, value


def named_gradients(unet: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every gradient under the name that the parameter has in the plain model."""
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, Attention) and is_joined(layer)}
    for name, parameter in unet.named_parameters():
        if parameter.grad is None:
            continue
        owner, _, kind = name.rpartition(".")
        above, _, joined = owner.rpartition(".")
        if joined in PARTS and above in layers:
            pieces = torch.split(parameter.grad, _sizes(layers[above], joined))
            yield from ((f"{above}.{part}.{kind}", piece) for part, piece in zip(PARTS[joined], pieces, strict=True))
        else:
            yield name, parameter.grad


def _name_for(layer: Attention) -> str:
    return "to_kv" if layer.is_cross_attention else "to_qkv"


def _joined_name(layer: Attention) -> str | None:
    """None also where diffusers' own fuse_qkv_projections was called, which keeps to_q, to_k and to_v."""
    name = _name_for(layer)
    return name if hasattr(layer, name) and not hasattr(layer, PARTS[name][-1]) else None


def joined_shape(layer: Attention) -> tuple[int, int] | None:
    """The joined projection's rows and columns; None where the layer has none."""
    name = _joined_name(layer)
    columns = layer.cross_attention_dim if name == "to_kv" else layer.query_dim
    return None if name is None else (sum(_sizes(layer, name)), columns)


def _sizes(layer: Attention, name: str) -> list[int]:
    """Rows of each part of a joined projection."""
    return [layer.inner_dim if part == "to_q" else layer.inner_kv_dim for part in PARTS[name]]


def _write_separate(layer: Attention, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """State dicts hold views under the separate names, as the plain model's do."""
    name = _name_for(layer)
    for kind in ("weight", "bias"):
        whole = state.pop(f"{prefix}{name}.{kind}", None)
        if whole is not None:
            pieces = whole.split(_sizes(layer, name))
            state |= {f"{prefix}{part}.{kind}": piece for part, piece in zip(PARTS[name], pieces, strict=True)}


def _read_separate(layer: Attention, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    name = _name_for(layer)
    for kind in ("weight", "bias"):
        separate = [f"{prefix}{part}.{kind}" for part in PARTS[name]]
        if all(one in state for one in separate):
            state[f"{prefix}{name}.{kind}"] = torch.cat([state.pop(one) for one in separate])
