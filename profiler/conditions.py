"""Conditions: what a UNet's forward takes beside sample and timestep (text, class labels, sizes), drawn at random.

Read from the configuration, as diffusers' own forward reads it. An embedding that needs an image, or text in
another form, cannot be fed honestly by random tensors of a guessed shape: why_not_feed names it.
"""

from collections.abc import Callable
from typing import Any

import torch

TEXT_TOKENS = 77  # CLIP's context length, the cross-attention length of every Stable Diffusion

Normal = Callable[..., torch.Tensor]  # (name, *shape) -> (batch, *shape), the same for sample i in every batch

# UNet2DModel's timestep classes leave its own time_proj as float32 and meet weights of the model's dtype (diffusers
# 0.39): only a float32 model could run, and the error check needs a float64 one.
_CLASS_TYPES: dict[str, tuple[str | None, ...]] = {
    "UNet2DModel": (None, "identity"),
    "UNet2DConditionModel": (None, "timestep", "identity", "projection", "simple_projection"),
}
_ADDED_TYPES = (None, "text", "text_time")
_TEXT_TYPES = (None, "text_proj")


def why_not_feed(config: Any, class_name: str) -> str | None:
    """Why Steplens has no inputs for this UNet, in one sentence; None where it has.

    class_name: of the diffusers class that the model is, or is derived from.
    """
    known = {
        "addition_embed_type": _ADDED_TYPES,
        "encoder_hid_dim_type": _TEXT_TYPES,
        "class_embed_type": _CLASS_TYPES[class_name],
    }
    for name, types in known.items():
        value = getattr(config, name, None)
        if value not in types:
            fed = ", ".join(str(one) for one in types)
            return f"{class_name} with {name}={value} needs inputs that Steplens does not make: it feeds {fed}"
    if len(set(_text_widths(config))) > 1:
        return f"cross_attention_dim {list(_text_widths(config))} asks for texts of several widths: give one width"
    return None


def make_condition(config: Any, normal: Normal, *, batch: int, resolution: int, device: str) -> dict[str, Any]:
    """The keyword arguments of the forward. The configuration must be one that why_not_feed lets pass."""
    condition: dict[str, Any] = {}
    if widths := _text_widths(config):
        width = getattr(config, "encoder_hid_dim", None) or widths[0]
        condition["encoder_hidden_states"] = normal(1, TEXT_TOKENS, width)
    if getattr(config, "addition_embed_type", None) == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        size = float(resolution)
        condition["added_cond_kwargs"] = {
            "text_embeds": normal(2, pooled),
            "time_ids": torch.tensor([[size, size, 0.0, 0.0, size, size]] * batch, device=device),
        }
    if (labels := _class_labels(config, normal, batch, device)) is not None:
        condition["class_labels"] = labels
    return condition


def _class_labels(config: Any, normal: Normal, batch: int, device: str) -> torch.Tensor | None:
    """Indices for an embedding table, steps for a timestep embedding, else vectors; None without classes."""
    kind: str | None = getattr(config, "class_embed_type", None)
    num_classes: int | None = getattr(config, "num_class_embeds", None)
    if kind is None and num_classes is None:
        return None
    if kind in ("projection", "simple_projection"):
        return normal(4, config.projection_class_embeddings_input_dim)
    if kind == "identity":
        return normal(4, getattr(config, "time_embedding_dim", None) or 4 * config.block_out_channels[0])
    limit = 1000 if kind == "timestep" or num_classes is None else num_classes
    return torch.tensor([(row * 7919 + 17) % limit for row in range(batch)], device=device)


def _text_widths(config: Any) -> tuple[int, ...]:
    """The width of the text in each block; none for a UNet without cross-attention."""
    width = getattr(config, "cross_attention_dim", None) or ()
    return (width,) if isinstance(width, int) else tuple(width)
