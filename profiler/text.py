"""Text: keys and values of the cross-attention layers, computed once per image instead of at every step.

They depend on the text alone, which does not change while an image is sampled; SD1.5 has 32 such projections, SDXL 140.
The same modules compute them on the same text in the same precision, so the values are the same: exact, not a cache of
something near. They lie in buffers of fixed address that a compiler or a CUDA graph reads like weights, and the loop
refills them for each image.
"""

from collections.abc import Iterator

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from profiler.subject import Subject

_SAFE_PARALLELISM = ("none", "cfg")  # the others shard weights, which are whole inside a forward only


class KeptProjection(nn.Module):
    """A projection of the text that answers with what keep() computed; before that, it computes."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection
        self.kept: Tensor | None
        self.register_buffer("kept", None, persistent=False)

    def forward(self, text: Tensor) -> Tensor:
        if self.kept is None:
            result: Tensor = self.projection(text)
            return result
        return self.kept

    def keep(self, text: Tensor) -> None:
        """Compute for this text; the address stays while the shape does."""
        result = self.projection(text)
        if self.kept is None or self.kept.shape != result.shape or self.kept.dtype != result.dtype:
            self.kept = result.clone()
        else:
            self.kept.copy_(result)


def keep_text(subject: Subject) -> tuple[KeptProjection, ...]:
    """Put a KeptProjection round each text projection (none where why_no_text says so); idempotent."""
    if why_no_text(subject):
        return ()
    for layer, name in list(_text_projections(subject.unet)):
        projection = getattr(layer, name)
        if not isinstance(projection, KeptProjection):
            setattr(layer, name, KeptProjection(projection))
    return tuple(module for module in subject.unet.modules() if isinstance(module, KeptProjection))


def why_no_text(subject: Subject) -> str:
    """Why keys and values of the text are computed at every step; empty where once is enough."""
    unet, combo = subject.unet, subject.combo
    if not any(True for _ in _text_projections(unet)):
        return "this UNet takes no text"
    if getattr(unet, "encoder_hid_proj", None) is not None:
        return "this UNet changes the text embeddings inside its forward"
    parallelism = getattr(combo, "parallelism", "none")
    if parallelism not in _SAFE_PARALLELISM:
        return f"parallelism={parallelism} shards the projections"
    return ""


def note(subject: Subject, num_forwards: int) -> tuple[str, ...]:
    """What the record says of it."""
    if why := why_no_text(subject):
        return () if why == "this UNet takes no text" else (f"text keys and values are computed at every step: {why}",)
    number = sum(1 for _ in _text_projections(subject.unet))
    total = number * num_forwards
    return (f"{number} projections of the text are computed once per image: {total - number} of {total} spared",)


def _text_projections(unet: nn.Module) -> Iterator[tuple[Attention, str]]:
    """Of the cross-attention layers that project the text as they are given it; fusion may have joined the two."""
    for layer in unet.modules():
        if not isinstance(layer, Attention) or not layer.is_cross_attention:
            continue
        if layer.norm_cross or layer.added_kv_proj_dim is not None:
            continue
        names = ("to_k", "to_v") if hasattr(layer, "to_k") else ("to_kv",)
        yield from ((layer, name) for name in names if isinstance(getattr(layer, name, None), nn.Module))


@torch.no_grad()
def refill(projections: tuple[KeptProjection, ...], text: Tensor) -> None:
    """Compute all of them for one image's text."""
    for projection in projections:
        projection.keep(text)
