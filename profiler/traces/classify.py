"""Classify: which kind of work a kernel does.

The order was tried on six public traces (NVIDIA and AMD, eager and compiled): Triton's names first, since they list the
operators fused *beside* a matmul; then the operator where it is certain; then the kernel's name; then the operator's.
"""

import re

CATEGORIES = (
    "attention", "conv", "gemm", "norm", "elementwise", "reduction", "layout", "memcpy", "optimizer",
    "communication", "other",
)  # fmt: skip

_COMMUNICATION = re.compile(r"nccl|rccl|gloo|c10d|record_param_comms|all_?reduce|all_?gather|reduce_?scatter", re.I)
_TRITON = re.compile(r"^triton_(poi|red|per|tem|mm|conv)\w*")
_RETURN_TYPE = re.compile(r"std::enable_if<.*?>::type|_typeConvert")
_LAYOUT = (
    r"nchwTo|nhwcTo|nhwcAddPadding|nchw_?to_?nhwc|nhwc_?to_?nchw|tensorTransform|batched_transpose|CatArray|chunk_cat"
    r"|split_with_sizes_copy|direct_copy|copy_kernel|transpose|aten::(copy_|clone|contiguous|cat|_to_copy)$"
)

_BY_OPERATOR = tuple(
    (category, re.compile(pattern, re.I))
    for category, pattern in (
        ("optimizer", r"_fused_adamw?_|Optimizer\.step"),
        (
            "attention",
            r"scaled_dot_product|_attention|flash_attn|flash_fwd|flash_bwd|memory_efficient_attention|xformers|_softmax",
        ),
        ("conv", r"conv(olution|[123]d)|cudnn_conv|mkldnn_conv|ConvolutionBackward"),
        ("norm", r"(group|layer|batch|rms)_?norm"),
        (
            "gemm",
            r"aten::(mm|addmm|bmm|baddbmm|matmul|linear|mkldnn_linear|_int_mm|_scaled_mm(_v2)?)\b|mkl_linear"
            r"|linear_pointwise|(mm|linear)Backward",
        ),
    )
)
_BY_KERNEL = tuple(
    (category, re.compile(pattern, re.I))
    for category, pattern in (
        ("optimizer", r"multi_tensor_apply|adam"),
        ("attention", r"flash|fmha|attn|mem_eff|sdpa|softmax"),
        ("layout", _LAYOUT),
        (
            "conv",
            r"fprop|dgrad|wgrad|implicit_gemm|winograd|fft[12]d_|flip_filter|convolve_|im2col|col2im|cudnn.*conv"
            r"|conv\w*_(fwd|bwd)|miopen",
        ),
        ("gemm", r"gemm|gemv|nvjet|cutlass|Cijk_|splitKreduce|cublas"),
        (
            "norm",
            r"group_?norm|layer_?norm|batch_?norm|bn_fw|bn_bw|RowwiseMoments|GammaBeta|rms_?norm"
            r"|ComputeFused|InternalGradients|BackwardFusedParams",
        ),
        ("reduction", r"reduce_kernel|cub::|aten::(sum|mean|amin|amax|norm|linalg_vector_norm)"),
        (
            "elementwise",
            r"elementwise|vectorized|pointwise|geglu|upsample|_foreach_|random|distribution|arange"
            r"|aten::(add|mul|div|sub|silu|gelu|sigmoid|fill|zero|exp|sin|cos|pow|sqrt|lerp|addcdiv|addcmul|rsub|neg|mse_loss"
            r"|round|clamp|reciprocal|minimum|maximum)",
        ),
    )
)  # fmt: skip


def classify(kernel: str, operator: str | None, phase: str | None = None, kind: str = "kernel") -> str:
    """One of CATEGORIES. `kind` is the trace category (gpu_memcpy and gpu_memset are memcpy)."""
    if kind in ("gpu_memcpy", "gpu_memset") or kernel.startswith("memset"):  # graphs replay memsets as kernels
        return "memcpy"
    if _COMMUNICATION.search(kernel):
        return "communication"
    if triton := _TRITON.match(kernel):
        return _classify_triton(kernel, triton.group(1))
    if phase == "optimizer":
        return "optimizer"
    name = _RETURN_TYPE.sub("", kernel)
    if re.search(_LAYOUT, name, re.I):
        return "layout"
    for text, table in ((operator or "", _BY_OPERATOR), (name, _BY_KERNEL), (operator or "", _BY_KERNEL)):
        for category, pattern in table:
            if text and pattern.search(text):
                return category
    return "other"


def _classify_triton(name: str, kind: str) -> str:
    """Templates are matmuls or convolutions; reductions are the norms and softmaxes that they name."""
    if kind == "tem" and "flex_attention" in name:
        return "attention"
    if kind in ("tem", "mm", "conv"):
        return "conv" if "conv" in name and "mm" not in name else "gemm"
    if "softmax" in name:
        return "attention"
    if "norm" in name:
        return "norm"
    if kind in ("red", "per"):
        return "reduction"
    # A fused pointwise kernel that only clones or converts layout has nothing else in its name.
    fused = name.split("_fused_", 1)[-1]
    if re.fullmatch(r"(_?(clone|convolution|view|permute|transpose|_to_copy|to|copy|contiguous))+_?\d*", fused):
        return "layout"
    return "elementwise"
