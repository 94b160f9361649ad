"""Verify: does the trace bear out what each family's apply promised?"""

import re
from collections import Counter
from dataclasses import replace
from typing import Any

from profiler.optims.attention import OBSERVED
from profiler.optims.precision import dtype_in_trace
from profiler.record import Evidence
from profiler.subject import Subject
from profiler.traces.attribute import Op
from profiler.tracing import Trace

# Not aten::linear and aten::conv2d: under autocast they still see the fp32 input that they are about to cast.
_MATMUL = re.compile(r"aten::(convolution|addmm|mm|bmm|baddbmm)$")


def verify(evidence: Evidence, trace: Trace, subject: Subject) -> Evidence:
    """The evidence with `confirmed`, what was observed, and a finding when it is not borne out.

    confirmed stays None where there was nothing to look at: CUDA graphs replay kernels without operators, and a
    baseline choice may leave no mark.
    """
    names = trace.names()
    observed: dict[str, Any] = {}
    findings = []
    for what, pattern in evidence.must_appear.items():
        observed[what] = count(pattern, names)
        if not observed[what]:
            findings.append(f"the trace shows no {what}")
    for what, pattern in evidence.must_not_appear.items():
        observed[what] = count(pattern, names)
        if observed[what]:
            findings.append(f"the trace shows {what}: {_example(pattern, names)}")
    is_checked = bool(observed)
    if check := _CHECKS.get(evidence.family):
        facts, finding = check(evidence, trace, subject)
        observed |= facts
        is_checked |= finding is not None
        findings += [finding] if finding else []
    confirmed = not findings if is_checked else None
    return replace(evidence, observed=observed, confirmed=confirmed, finding="; ".join(findings))


def observed_attention(trace: Trace) -> dict[str, int]:
    """Attention kernels per step by family, forward and backward together; the most specific family wins."""
    calls: Counter[str] = Counter()
    on_gpu = any(kernel.stream is not None for kernel in trace.found.kernels)
    kernels = [kernel.name for kernel in trace.found.kernels if kernel.category == "attention"]
    names = kernels if on_gpu else [op.event.name for op in trace.found.ops]
    for name in names:
        family = next((family for family, pattern in OBSERVED.items() if re.search(pattern, name)), None)
        if family and (on_gpu or name.startswith("aten::_")):  # aten::softmax calls aten::_softmax: count one
            calls[family] += 1
    return {family: round(number / trace.num_steps) for family, number in calls.most_common()}


def count(pattern: str, names: Counter[str]) -> int:
    return sum(number for name, number in names.items() if re.search(pattern, name))


def _example(pattern: str, names: Counter[str]) -> str:
    return next(name for name in names if re.search(pattern, name))[:80]


def _check_precision(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """Input types of the matmuls and convolutions; CUDA graphs replay without operators, so none are seen there."""
    types = Counter(
        args[0]
        for op in trace.found.ops
        if _MATMUL.search(op.event.name) and (args := op.event.args.input_type) and op.phase != "optimizer"
    )
    seen = {"matmul_input_types": dict(types)}
    expected = dtype_in_trace(evidence.choice) or "float"
    if not types:
        return seen, None
    share = types[expected] / types.total()
    return seen, "" if share >= 0.9 else f"only {share:.0%} of the matmuls and convolutions take {expected}"


def _check_memory_format(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """How many convolutions really get an NHWC image; in eager mode GroupNorm may have undone the layout."""
    if evidence.choice == "contiguous":
        return {}, None
    convolutions = [op for op in trace.found.ops if op.event.name == "aten::convolution"]
    images = [strides for op in convolutions if (strides := _first_strides(op)) and len(strides) == 4]
    nhwc = sum(strides[1] == 1 for strides in images)
    layout = sum(kernel.category == "layout" for kernel in trace.found.kernels)
    seen = {"num_convolutions": len(images), "num_nhwc_inputs": nhwc, "num_layout_kernels": layout}
    if not evidence.facts["num_converted"]:
        return seen, "no convolution weight is channels_last"
    if not images:
        return seen, None
    return seen, "" if nhwc else "no convolution was given a channels_last image"


def _check_checkpointing(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """Forward convolutions that run again inside the backward."""
    recomputed = sum(op.event.name == "aten::convolution" and op.phase == "backward" for op in trace.found.ops)
    seen = {"num_recomputed_convolutions": recomputed}
    if subject.uses_graphs or subject.workload.mode != "train":
        return seen, None
    if evidence.choice == "none":  # a compiler may choose to recompute by itself
        is_eager = subject.call is subject.unet
        return seen, "convolutions run again in the backward" if recomputed and is_eager else ""
    return seen, "" if recomputed else "no convolution runs again in the backward"


def _first_strides(op: Op) -> list[int] | None:
    strides = op.event.args.input_strides
    return strides[0] if isinstance(strides, list) and strides and isinstance(strides[0], list) else None


_CHECKS = {
    "precision": _check_precision,
    "memory_format": _check_memory_format,
    "checkpointing": _check_checkpointing,
}
