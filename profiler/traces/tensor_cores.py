"""Tensor Cores: whether a kernel uses them, and how well we know. No field of a trace says so.

- certain: the name holds a matrix instruction's shape or its library's word for it;
- library: a library's kernel that, for 16-bit or TF32 inputs, exists on Tensor Cores only;
- none: a name that says CUDA cores, or a class of work that multiplies no matrices;
- unknown: nothing in the name decides (Triton); achieved FLOP/s may (roofline.py).

Eligible is another question, of the operator: 16-bit, TF32 or fp8 inputs of a product.
"""

import re
from functools import cache

import numpy as np

from profiler.traces.attribute import Attribution
from profiler.traces.classify import CATEGORIES
from profiler.traces.columns import Ints
from profiler.traces.groups import Groups

EVIDENCE = ("certain", "library", "none", "unknown")

_CERTAIN = re.compile(
    r"hmma|[sh]884|[sh]1688|[sh]16816|i8816|i16832|s161616gemm|wmma|tensorop|gmma|mma_sync|tf32f32|xmma.*(tf32|bf16|f16|e4m3)"
    r"|MI\d+x\d+x\d+|_mma_|cublasLt.*splitK.*(bf16|f16)|s64x\d+x16gemm",
    re.I,
)
_CORES = re.compile(r"sgemm|ffma|_simt_|simt_|gemv|dgemm|_f32f32_f32f32_f32(?!.*tf32)|gemmSN|splitKreduce|im2col", re.I)
_LIBRARY = re.compile(
    r"nvjet|bmm_.*(sm100|e4m3|bfloat16|fp16)|cutlass|xmma|flash|fmha|cudnn_generated|flashattn|implicit_gemm.*(bf16|f16)",
    re.I,
)
_PRODUCTS = ("attention", "conv", "gemm")
_SOFTMAX = re.compile(r"softmax|elementwise|masked|copy|reduce_kernel|vectorized|dot_do_o|convert_dq", re.I)


@cache
def evidence(kernel: str, category: str) -> str:
    """One of EVIDENCE for a kernel of a class."""
    if _CERTAIN.search(kernel):
        return "certain"
    if category not in _PRODUCTS or _CORES.search(kernel) or _SOFTMAX.search(kernel):
        return "none"
    return "library" if _LIBRARY.search(kernel) else "unknown"


def evidence_of_work(found: Attribution) -> Ints:
    """A number in EVIDENCE for each piece of work of the steps; on a CPU all are none."""
    work = found.traced
    if not found.on_gpu:
        return np.full(len(work), EVIDENCE.index("none"))
    groups = Groups.by(work.name, work.category)
    names = (found.trace.names[code] for code in work.name[groups.first].tolist())
    classes = (CATEGORIES[code] for code in work.category[groups.first].tolist())
    said = [EVIDENCE.index(evidence(name, category)) for name, category in zip(names, classes, strict=True)]
    return np.array(said, np.int64)[groups.of_row]
