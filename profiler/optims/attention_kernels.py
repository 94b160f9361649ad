"""The attention kernels behind the choices: loaded, or rejected with the line that installs them.

A kernel takes query (batch, tokens, heads, dim) and key and value (batch, context tokens, heads, dim) and returns the
query's shape. Its softmax is of Q K^T / sqrt(dim).
"""

import ctypes
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
import torch._dynamo.config as dynamo
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import pad, scaled_dot_product_attention

from profiler.subject import NotApplicable, Subject

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
ScaledKernel = Callable[[Tensor, Tensor, Tensor, float], Tensor]  # the same with the softmax scale

BACKENDS = {
    "sdpa_flash": SDPBackend.FLASH_ATTENTION,
    "sdpa_efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa_cudnn": SDPBackend.CUDNN_ATTENTION,
}
FLEX_MIN_HEAD_DIM = 16  # of Inductor's CUDA template: a side of the Tensor Cores' smallest tile
_MAX_SHAPES = 256  # of one model's calls, two batch sizes each; Dynamo gives up after eight by itself
# Backend, whether it is on, how to switch it: what sdpa_kernel does, for a tenth of its 18 us a call.
_SWITCHES = (
    (SDPBackend.FLASH_ATTENTION, cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
    (SDPBackend.EFFICIENT_ATTENTION, cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    (SDPBackend.CUDNN_ATTENTION, cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
    (SDPBackend.MATH, cuda.math_sdp_enabled, cuda.enable_math_sdp),
)


def load(choice: str, dim: int, subject: Subject) -> Kernel | None:
    """The function behind a choice at one head dim; None for math, which is diffusers' own processor.

    Raises NotApplicable with the pip line when the choice's package does not load.
    """
    match choice:
        case "math":
            return None
        case "xformers":
            return _load_xformers()
        case "flash_attn_2":
            return _load_flash_attn()
        case "flash_attn_4":
            return padded(
                _load_flash_attn_4(subject.combo.compilation != "eager"), dim, padded_dim(choice, dim, subject)
            )
        case "flex":
            return padded(_load_flex(subject), dim, padded_dim(choice, dim, subject))
        case _:
            return _sdpa(BACKENDS.get(choice))


def materialised(layer: Attention) -> Kernel:
    """What diffusers' AttnProcessor does between the projections, for a layer whose projections are joined."""
    scale, upcasts_scores, upcasts_softmax = layer.scale, layer.upcast_attention, layer.upcast_softmax

    def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, dtype = query.shape[0], query.dtype
        query, key, value = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
        if upcasts_scores:
            query, key = query.float(), key.float()
        scores = torch.baddbmm(query.new_empty(1, 1, 1), query, key.transpose(1, 2), beta=0, alpha=scale)
        weights = (scores.float() if upcasts_softmax else scores).softmax(dim=-1).to(dtype)
        out = torch.bmm(weights, value)
        return out.view(batch, -1, *out.shape[1:]).transpose(1, 2)

    return kernel


def padded_dim(choice: str, dim: int, subject: Subject) -> int:
    """The head dim at which a kernel is called; more than `dim` where the kernel needs it."""
    if subject.workload.device != "cuda":
        return dim
    if choice == "flex":
        return max(dim, FLEX_MIN_HEAD_DIM)
    if choice == "flash_attn_4" and subject.workload.mode == "train" and torch.cuda.get_device_capability()[0] == 9:
        return safe_dim_sm90(dim)
    return dim


def safe_dim_sm90(dim: int) -> int:
    """The head dim at which flash-attn-4's backward is right on sm_90: one that rounds to a multiple of 32.

    The kernel rounds to 16, its buffers to 32; between the two it returns a wrong dQ, silently. Removable with the
    release that has flash-attention's PR 2896 (4.0.0b36 has it not).
    """
    return dim if -(-dim // 16) % 2 == 0 else -(-dim // 32) * 32


def padded(kernel: ScaledKernel, dim: int, width: int) -> Kernel:
    """The kernel at head dim `dim`, called with `width` >= dim features of which the last are zeros.

    Exact: zeros add nothing to a score, the scale is that of the true head dim, and the values' zeros are cut off.
    """
    scale = dim**-0.5

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return kernel(query, key, value, scale)

    def wide(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        extra = (0, width - dim)
        return kernel(pad(query, extra), pad(key, extra), pad(value, extra), scale)[..., :dim]

    return plain if width == dim else wide


def _sdpa(backend: SDPBackend | None) -> Kernel:
    def held() -> AbstractContextManager[object]:
        if backend is None:
            return nullcontext()
        return sdpa_kernel(backend) if torch.compiler.is_compiling() else _held(backend)  # Dynamo knows the first

    def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with held():
            out = scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return out.transpose(1, 2)

    return kernel


@contextmanager
def _held(backend: SDPBackend) -> Iterator[None]:
    changed = [(switch, not wanted) for one, is_on, switch in _SWITCHES if is_on() != (wanted := one is backend)]  # type: ignore[no-untyped-call]
    for switch, before in changed:
        switch(not before)
    try:
        yield
    finally:
        for switch, before in changed:
            switch(before)


def _load_xformers() -> Kernel:
    """xFormers 0.0.35's extension is linked against libcudart.so.12; beside a CUDA 13 torch it loads only
    when the wheel nvidia-cuda-runtime-cu12 is there and its library is loaded first."""
    _preload_cudart12()
    try:
        from xformers import _cpp_lib
        from xformers.ops import memory_efficient_attention
        from xformers.ops.fmha import common
    except ImportError as error:
        raise NotApplicable(f"attention=xformers: the package does not load ({error}): pip install xformers") from error
    if _cpp_lib._cpp_library_load_exception is not None:
        # xFormers only logs it, and refuses every input later. Diffusers imports xFormers before anything of ours can
        # load the library, so what failed then is tried again.
        try:
            metadata = _cpp_lib._register_extensions()
        except Exception as failure:  # its own two kinds, around an OSError
            raise NotApplicable(why_no_extension(failure)) from failure
        _cpp_lib._build_metadata, _cpp_lib._cpp_library_load_exception = metadata, None
        common._built_with_cuda = metadata.cuda_version is not None
    kernel: Kernel = memory_efficient_attention
    return kernel


def why_no_extension(failure: BaseException) -> str:
    """Why xFormers' extension did not load, with the line that mends it."""
    while (
        failure.__cause__ is not None
    ):  # xFormers' error, torch's, and at the root the loader's, which names the library
        failure = failure.__cause__
    cause = str(failure).splitlines()[0]
    if "libcudart.so.12" in cause:
        return (
            "attention=xformers: its extension is linked against libcudart.so.12, which is missing: "
            "pip install nvidia-cuda-runtime-cu12"
        )
    return (
        f"attention=xformers: its extension does not load beside this torch ({cause}): pip install --upgrade xformers"
    )


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


def _load_flash_attn_4(is_compiled: bool) -> ScaledKernel:
    try:
        from flash_attn.cute import flash_attn_func
    except Exception as error:  # an old cute fails with an AttributeError, a driver too old with the DSL's own errors
        raise NotApplicable(
            f"attention=flash_attn_4: flash_attn.cute does not load ({type(error).__name__}: {error}): "
            "install it after flash-attn, whose wheel carries an old flash_attn/cute: "
            "pip install --pre --force-reinstall --no-deps flash-attn-4"
        ) from error

    def kernel(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        key, value = key.to(query.dtype), value.to(query.dtype)
        out: Tensor = flash_attn_func(query, key, value, softmax_scale=scale)[0]
        return out

    # Dynamo cannot trace the JIT inside; told so, it breaks the graph here instead of failing within.
    return torch.compiler.disable(kernel) if is_compiled else kernel  # type: ignore[no-untyped-call]


def _load_flex(subject: Subject) -> ScaledKernel:
    on_cpu = subject.workload.device == "cpu"
    if on_cpu and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        raise NotApplicable("attention=flex needs AVX2 on a CPU, which this one lacks: choose sdpa")
    dynamo.recompile_limit = max(dynamo.recompile_limit, _MAX_SHAPES)
    # fullgraph: past the limit Dynamo would fall back to unfused attention with no more than a warning.
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True)

    def kernel(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        query, key, value = (tensor.to(query.dtype).transpose(1, 2) for tensor in (query, key, value))
        if on_cpu and torch.compiler.is_compiling():
            # Inductor's C++ template takes no view of a tensor that the same graph computes (torch 2.13: "not enough
            # values to unpack" in choose_flex_template).
            query, key, value = (tensor.contiguous() for tensor in (query, key, value))
        out: Tensor = compiled(query, key, value, scale=scale)
        return out.transpose(1, 2)

    return kernel
