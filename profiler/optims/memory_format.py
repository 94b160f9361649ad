"""Memory format: NCHW (contiguous) or NHWC (channels_last) images and convolution weights.

cuDNN's Tensor Core convolutions work in NHWC; given NCHW they pay a transpose before and after, which the trace
shows as nchwToNhwc kernels. In eager mode PyTorch before 2.14 answers a channels_last GroupNorm with a contiguous
tensor on CUDA (pytorch#111824), so that much of the gain appears only under torch.compile, which decomposes the norm.

Cost: none in memory or accuracy beyond another summation order. Source: PyTorch's channels_last tutorial.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from profiler.record import Evidence
from profiler.subject import NotApplicable, Subject
from profiler.traces.objects import Op
from profiler.tracing import Trace


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Convert convolution weights, and say which layout the inputs must have."""
    if choice == "contiguous":
        return subject, Evidence(family="memory_format", choice=choice)
    convolutions = [module for module in subject.unet.modules() if isinstance(module, nn.Conv2d)]
    if not convolutions:
        raise NotApplicable("memory_format=channels_last: this UNet has no 2-D convolution; choose contiguous")
    subject.unet.to(memory_format=torch.channels_last)
    # 1x1 kernels are contiguous in both layouts; they count as converted.
    converted = sum(conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in convolutions)
    return replace(subject, memory_format=torch.channels_last), Evidence(
        family="memory_format",
        choice=choice,
        facts={"num_convolutions": len(convolutions), "num_converted": converted},
    )


def check(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """How many convolutions really get an NHWC image; in eager mode GroupNorm may have undone the layout."""
    if evidence.choice == "contiguous":
        return {}, None
    convolutions = [op for op in trace.found.ops if op.event.name == "aten::convolution"]
    images = [strides for op in convolutions if (strides := _strides(op, 0)) and len(strides) == 4]
    weights = [strides for op in convolutions if (strides := _strides(op, 1)) and len(strides) == 4]
    nhwc, nhwc_weights = (sum(strides[1] == 1 for strides in tensors) for tensors in (images, weights))
    layout = sum(kernel.category == "layout" for kernel in trace.found.kernels)
    counted = {"num_convolutions": len(images), "num_nhwc_inputs": nhwc, "num_layout_kernels": layout}
    counted["num_nhwc_weights"] = nhwc_weights
    seen = {what: trace.per_step(number) for what, number in counted.items()}
    if not evidence.facts["num_converted"]:
        return seen, "no convolution weight is channels_last"
    if not images:
        return seen, None
    if not nhwc:
        return seen, "no convolution was given a channels_last image"
    if nhwc_weights < 0.9 * len(weights):
        return seen, f"only {nhwc_weights} of {len(weights)} convolutions had a channels_last weight"
    return seen, ""


def _strides(op: Op, position: int) -> list[int] | None:
    """Strides of an operator's input: 0 is a convolution's image, 1 its weight."""
    strides = op.event.args.input_strides
    has = isinstance(strides, list) and len(strides) > position and isinstance(strides[position], list)
    return strides[position] if has else None
