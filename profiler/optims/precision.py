"""Precision: the number format of matmuls, convolutions, weights and gradients.

A UNet is matmul and convolution work; Tensor Cores do it 8 times faster in tf32 and 16 times in 16 bits than
the CUDA cores do in fp32, and 16-bit tensors halve the bytes of every norm and element-wise kernel.

- fp32: strict IEEE for matmuls and convolutions. By default PyTorch already runs convolutions in tf32 and matmuls
  not, so a baseline that does not pin both is ambiguous.
- tf32: both in tf32 (10-bit mantissa, fp32 range and storage).
- bf16_amp, fp16_amp: fp32 weights under autocast; norms and the loss stay fp32. fp16 gradients underflow below 6e-8,
  so fp16_amp trains with dynamic loss scaling (start 65536, halved on overflow: arXiv 1710.03740).
- bf16, fp16: the weights are converted too. Updates smaller than a weight's last bit are lost: fast, and not how
  one trains to convergence without fp32 master weights.

Norms: autocast keeps them in fp32 on CUDA, so each of a UNet's GroupNorms and LayerNorms (109 in SD1.5) reads a 16-bit
tensor, writes it as fp32, normalizes and is cast back by the next matmul. Pure 16-bit weights run them on 16-bit
tensors, PyTorch's kernels adding up in fp32 inside, and spare these casts (MosaicML's "low-precision norms"). On a CPU
autocast leaves norms in the type that they are given (torch 2.13). The evidence has what the trace showed; a norm that
a compiler or a fused kernel took over has no operator to show.

The price is rounding: see output_error and gradient_error.
"""

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from profiler.record import Evidence
from profiler.subject import Subject
from profiler.tracing import Trace

WEIGHTS = {"bf16": torch.bfloat16, "fp16": torch.float16}
_AUTOCAST = {"bf16_amp": torch.bfloat16, "fp16_amp": torch.float16}

# cuBLAS and cuDNN kernels that compute in tf32 carry it in their names (s1688 is the tf32 MMA shape).
TF32_KERNELS = r"tf32|s1688"
# Not aten::linear and aten::conv2d: under autocast they still see the fp32 input that they are about to cast.
_NORM = re.compile(r"aten::native_(group|layer)_norm$")
_MATMUL = re.compile(r"aten::(convolution|addmm|mm|bmm|baddbmm)$")


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Pin the global matmul modes and convert or autocast the UNet."""
    mode = "tf32" if choice == "tf32" else "ieee"
    set_fp32_mode(mode)
    dtype = WEIGHTS.get(choice, torch.float32)
    if dtype is not torch.float32:
        nn.Module.to(subject.unet, dtype)  # diffusers' own to() warns of modules that it keeps in fp32, here none
    is_training = subject.workload.mode == "train"
    scaler = torch.amp.GradScaler(subject.workload.device) if choice == "fp16_amp" and is_training else None
    on_gpu = subject.workload.device == "cuda"
    return replace(subject, dtype=dtype, autocast=_AUTOCAST.get(choice), scaler=scaler), Evidence(
        family="precision",
        choice=choice,
        facts={
            "weights": str(dtype).removeprefix("torch."),
            "autocast": str(_AUTOCAST.get(choice, "off")).removeprefix("torch."),
            "fp32_mode": mode,
            "loss_scaling": scaler is not None,
        },
        must_appear={"tf32 kernels": TF32_KERNELS} if choice == "tf32" and on_gpu else {},
        must_not_appear={"tf32 kernels": TF32_KERNELS} if choice == "fp32" and on_gpu else {},
    )


def set_fp32_mode(mode: str) -> None:
    """Run fp32 matmuls and convolutions in "ieee" or "tf32" (process-wide; one process measures one combo)."""
    torch.backends.cuda.matmul.fp32_precision = mode
    torch.backends.cudnn.conv.fp32_precision = mode  # type: ignore[attr-defined]


def dtype_in_trace(choice: str) -> str | None:
    """The input type that the trace must show for matmuls and convolutions; None where fp32 is right."""
    dtype = (WEIGHTS | _AUTOCAST).get(choice)
    return {torch.bfloat16: "c10::BFloat16", torch.float16: "c10::Half"}.get(dtype) if dtype else None


def check(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """Input types of the matmuls and convolutions, and of the norms; graphs replay without operators to see."""
    types = _input_types(trace, _MATMUL)
    seen = {"matmul_input_types": {name: trace.per_step(number) for name, number in types.items()}}
    if norms := _input_types(trace, _NORM):
        seen["norm_input_types"] = {name: trace.per_step(number) for name, number in norms.items()}
    expected = dtype_in_trace(evidence.choice) or "float"
    if not types:
        return seen, None
    share = types[expected] / types.total()
    return seen, "" if share >= 0.9 else f"only {share:.0%} of the matmuls and convolutions take {expected}"


def _input_types(trace: Trace, operators: re.Pattern[str]) -> Counter[str]:
    return Counter(
        args[0]
        for op in trace.found.ops
        if operators.search(op.event.name) and (args := op.event.args.input_type) and op.phase != "optimizer"
    )
