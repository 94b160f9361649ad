"""The processor of attention: what a diffusers attention layer does around the kernel that it was given."""

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from profiler.joined import project
from profiler.optims.attention_kernels import Kernel
from profiler.subject import NotApplicable


class KernelProcessor(nn.Module):
    """A diffusers attention processor that calls one kernel, for both UNet classes.

    Follows diffusers 0.42's AttnProcessor2_0 in all but the layout and the kernel; masks are refused, since
    no UNet of the zoo passes one and not every kernel takes one.
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """With names, since Attention drops what it does not find in this signature, with a warning at every call,
        which breaks the compiler's graph."""
        return self.forward(attn, hidden_states, encoder_hidden_states, attention_mask, temb)

    def forward(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states: (batch, tokens, channels), or (batch, channels, height, width) in UNet2DModel."""
        if attention_mask is not None:
            raise NotApplicable("this attention kernel takes no mask: choose attention=math")
        residual, shape = hidden_states, hidden_states.shape
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if len(shape) == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)

        query, key, value = (
            torch.unflatten(projected, 2, (attn.heads, -1)) for projected in project(attn, hidden_states, context)
        )
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        hidden_states = self.kernel(query, key, value).flatten(2).to(query.dtype)

        hidden_states = attn.to_out[1](attn.to_out[0](hidden_states))
        if len(shape) == 4:
            hidden_states = hidden_states.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            hidden_states = hidden_states + residual
        if attn.rescale_output_factor != 1:  # dividing by one is exact, and a pass over memory
            hidden_states = hidden_states / attn.rescale_output_factor
        return hidden_states
