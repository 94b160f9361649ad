"""Attention: which kernel computes softmax(Q K^T / sqrt(d)) V.

A UNet attends at every resolution below the first: SD1.5 has 32 calls with head dims 40, 80 and 160,
half of them against 77 text tokens. Materialising the scores costs quadratic memory (336 MB per layer
and sample for SDXL's 4096 tokens in bf16); the fused kernels never write them (FlashAttention, arXiv 2205.14135).

`unet.set_attention_backend` is without effect on diffusers' UNets (their processors call SDPA themselves,
diffusers 0.42), so one processor of our own calls each kernel directly, for UNet2DModel and UNet2DConditionModel
alike. Tensors stay in (batch, tokens, heads, dim); SDPA gets a transposed view, so no copy is made.

- math: diffusers' AttnProcessor, materialised scores. Not the same as SDPA's math backend.
- sdpa: F.scaled_dot_product_attention; PyTorch chooses (on Hopper with cuDNN above 9.15: cuDNN first).
- sdpa_flash, sdpa_efficient, sdpa_cudnn: SDPA held to one backend. Which head dims a backend serves depends on the
  GPU and the library's version (cuDNN 9.19 on an H200 runs d160, older ones stop at 128), so PyTorch is asked; layers
  that it cannot serve keep sdpa and are counted.
- xformers: memory_efficient_attention; 0.0.35 dispatches to flash-attn where that is installed.
- flash_attn_2: flash_attn.flash_attn_func, head dims up to 256.

Each fused kernel brings its own backward.
"""

import ctypes
import importlib.util
import re
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor, nn
from torch.backends.cuda import (
    SDPAParams,
    can_use_cudnn_attention,
    can_use_efficient_attention,
    can_use_flash_attention,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from profiler.record import Evidence
from profiler.subject import NotApplicable, Subject
from profiler.tracing import Trace

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]  # (batch, tokens, heads, dim) three times -> the same shape

_BACKENDS = {
    "sdpa_flash": SDPBackend.FLASH_ATTENTION,
    "sdpa_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION,
}
_CAN_USE = {
    "sdpa_flash": can_use_flash_attention,
    "sdpa_efficient": can_use_efficient_attention,
    "sdpa_cudnn": can_use_cudnn_attention,
}
FLASH_ATTN_MAX_HEAD_DIM = 256

# What the trace calls each kernel: regular expressions over kernel names and operator names. Inductor's Triton kernels
# name the operators around them (triton_poi_fused__scaled_dot_product_cudnn_attention_...), so they are no evidence.
_NOT_TRITON = r"^(?!triton_).*"
FLASH_SDPA = _NOT_TRITON + r"(pytorch_flash::|_scaled_dot_product_flash_attention)"
EFFICIENT = _NOT_TRITON + r"(fmha_cutlass|_scaled_dot_product_efficient_attention)"
CUDNN = _NOT_TRITON + r"(cudnn_generated_fort_native_sdpa|cudnn.*(sdpa|fmha)|_scaled_dot_product_cudnn_attention)"
FLASH_ATTN = _NOT_TRITON + r"((?<!pytorch_)flash::flash_(fwd|bwd)|flash_attn::)"
SOFTMAX = r"[Ss]oft[Mm]ax"
_BACKWARD = re.compile(r"backward|_bwd|bprop|fmha_cutlassB")

# What a trace shows, most specific first; math is the softmax of materialised scores.
OBSERVED = {"cudnn": CUDNN, "flash_attn": FLASH_ATTN, "flash": FLASH_SDPA, "efficient": EFFICIENT, "math": SOFTMAX}
_MUST_APPEAR = {
    "math": "math",
    "sdpa_flash": "flash",
    "sdpa_efficient": "efficient",
    "sdpa_cudnn": "cudnn",
    "flash_attn_2": "flash_attn",
}  # sdpa and xformers choose for themselves: what they chose is observed, not prescribed


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Give every attention layer the chosen kernel.

    Raises NotApplicable when the model has no attention layer that the kernel can serve.
    """
    layers = [module for module in subject.unet.modules() if isinstance(module, Attention)]
    if not layers:
        raise NotApplicable(f"attention={choice}: this UNet has no attention layer; choose attention=math")
    dims = {head_dim(layer) for layer in layers}
    served_dims = {dim for dim in dims if _serves(choice, dim, subject)}
    served = [layer for layer in layers if head_dim(layer) in served_dims]
    if not served:
        raise NotApplicable(f"attention={choice} serves none of this model's head dims {sorted(dims)}: choose sdpa")
    kernel, rest = _kernel(choice), _kernel("sdpa")
    for layer in layers:
        chosen = kernel if layer in served else rest
        layer.set_processor(AttnProcessor() if chosen is None else KernelProcessor(chosen))
    expected = [_MUST_APPEAR[choice]] if choice in _MUST_APPEAR else []
    excluded = [name for name in OBSERVED if name not in expected] if expected else ["math"]
    if choice == "math" and subject.combo.compilation != "eager" and subject.workload.device == "cpu":
        expected = []  # Inductor fuses the softmax into C++ code that a CPU trace has no name for
    return subject, Evidence(
        family="attention",
        choice=choice,
        facts={
            "num_layers": len(layers),
            "num_layers_served": len(served),
            "head_dims": {str(dim): count for dim, count in sorted(Counter(map(head_dim, layers)).items())},
        },
        must_appear={name: OBSERVED[name] for name in expected},
        # Layers beyond the kernel's head dims keep sdpa, whatever that is; so nothing can be excluded then.
        must_not_appear={name: OBSERVED[name] for name in excluded} if len(served) == len(layers) else {},
    )


def check(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """Whether as many forward kernels ran as layers were promised the kernel; recomputation may add to them."""
    pattern = evidence.must_appear.get(_MUST_APPEAR.get(evidence.choice, ""))
    if pattern is None or evidence.choice == "math":  # a compiler fuses the softmax of materialised scores
        return {}, None
    on_gpu = any(kernel.stream is not None for kernel in trace.found.kernels)
    names = [k.name for k in trace.found.kernels] if on_gpu else [op.event.name for op in trace.found.ops]
    calls = sum(bool(re.search(pattern, name)) and not _BACKWARD.search(name) for name in names) // trace.num_steps
    seen, promised = {"num_forward_kernels": calls}, evidence.facts["num_layers_served"]
    return seen, "" if calls >= promised else f"only {calls} of the {promised} promised layers ran the kernel"


def _serves(choice: str, dim: int, subject: Subject) -> bool:
    """Whether a kernel takes this head dim here, in the subject's mode and dtype."""
    if choice == "flash_attn_2":
        return dim <= FLASH_ATTN_MAX_HEAD_DIM
    if choice not in _CAN_USE or subject.workload.device == "cpu":
        return True
    dtype = subject.autocast or subject.dtype
    is_training = subject.workload.mode == "train"
    query, key = (
        torch.empty(1, 2, tokens, dim, device="cuda", dtype=dtype, requires_grad=is_training) for tokens in (64, 77)
    )
    return bool(_CAN_USE[choice](SDPAParams(query, key, key, None, 0.0, False, False)))


def head_dim(layer: Attention) -> int:
    return int(layer.inner_dim // layer.heads)


class KernelProcessor(nn.Module):
    """A diffusers attention processor that calls one kernel, for both UNet classes.

    Follows diffusers 0.42's AttnProcessor2_0 in all but the layout and the kernel; masks are refused, since
    no UNet of the zoo passes one and not every kernel takes one.
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **kwargs: Any,
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
            projected.unflatten(2, (attn.heads, -1))
            for projected in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
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
        output: Tensor = hidden_states / attn.rescale_output_factor
        return output


def _kernel(choice: str) -> Kernel | None:
    """The function behind a choice; None for math, which is diffusers' own processor."""
    match choice:
        case "math":
            return None
        case "xformers":
            return _load_xformers()
        case "flash_attn_2":
            return _load_flash_attn()
        case _:
            return _sdpa(_BACKENDS.get(choice))


def _sdpa(backend: SDPBackend | None) -> Kernel:
    def held() -> AbstractContextManager[None]:
        return nullcontext() if backend is None else sdpa_kernel(backend)

    def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with held():
            out = scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return out.transpose(1, 2)

    return kernel


def _load_xformers() -> Kernel:
    """xFormers 0.0.35's extension is linked against libcudart.so.12; beside a CUDA 13 torch it loads only
    when the wheel nvidia-cuda-runtime-cu12 is there and its library is loaded first."""
    _preload_cudart12()
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        raise NotApplicable(f"attention=xformers: the package does not load ({error}): pip install xformers") from error

    kernel: Kernel = memory_efficient_attention
    return kernel


def _preload_cudart12() -> None:
    package = importlib.util.find_spec("nvidia")
    for folder in (package.submodule_search_locations if package else None) or ():
        library = Path(folder) / "cuda_runtime" / "lib" / "libcudart.so.12"
        if library.is_file():
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            return


def _load_flash_attn() -> Kernel:
    try:
        from flash_attn import flash_attn_func
    except ImportError as error:
        raise NotApplicable(
            f"attention=flash_attn_2: flash-attn does not load ({error}): "
            "pip install flash-attn --no-build-isolation, built for this torch and CUDA"
        ) from error

    def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # Under autocast the projections are already 16-bit; a norm in fp32 between would not be.
        out: Tensor = flash_attn_func(query, key.to(query.dtype), value.to(query.dtype))
        return out

    return kernel
