"""Optimizer: how AdamW's update is launched.

AdamW reads and writes parameters, gradients and two moments: 28 bytes a parameter in fp32, a floor of 5.6 ms a step for
SD1.5 at 4.3 TB/s. The for-loop launches about a dozen kernels for each of its 686 tensors; foreach groups the tensors
into multi-tensor kernels, op by op; fused does the whole update in one kind of kernel and reads each byte once.

Same arithmetic up to rounding, same state. Source: torch.optim.AdamW; decoupled weight decay, arXiv 1711.05101.

adamw_8bit keeps both moments in blocks of 256 8-bit codes with a scale (arXiv 2110.02861, torchao.optim.AdamW8bit): 2
bytes a parameter instead of 8, and rounding in the update, which the gradient check cannot see. It is about fitting a
larger batch, not about speed. Tensors under 4,096 elements, or no multiple of 256, keep fp32 moments. torchao compiles
its update once for every shape of parameter at the first step, also where the UNet itself runs eagerly.

With weights in fp16 (precision=fp16) the moments are in fp16, too: AdamW's eps of 1e-8 is zero there, and so is the
square of every gradient below 2.4e-4, so that the first update divides by zero and the second step is NaN (seen on an
H200). eps is 1e-4 then, which bounds such updates; a note says so.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from profiler.record import Evidence
from profiler.subject import NotApplicable, Subject
from profiler.tracing import Trace

LEARNING_RATE = 1e-4  # Stable Diffusion's own
EPS, FP16_EPS = 1e-8, 1e-4  # the smallest squares that fp16 holds are of 2.4e-4
# The rest are torch.optim.AdamW's defaults, as EPS is, which every choice has.
SETTINGS: dict[str, float | tuple[float, float]] = {
    "lr": LEARNING_RATE,
    "betas": (0.9, 0.999),
    "eps": EPS,
    "weight_decay": 1e-2,
}

_FLAGS = {  # foreach, fused
    "adamw": (False, False),
    "adamw_foreach": (True, False),
    "adamw_fused": (False, True),
}
# addcdiv_ is the last operation of AdamW's update: one call for each tensor, or one for each group of tensors.
_UPDATES = {
    "adamw": {"for-loop update": r"^aten::addcdiv_$"},
    "adamw_foreach": {"foreach update": r"^aten::_foreach_addcdiv_$"},
    "adamw_fused": {"fused update": r"^aten::_fused_adamw?_$"},
    "adamw_8bit": {"8-bit update": r"^Optimizer\.step#AdamW8bit\.step"},
}
# A recorded step shows kernels alone. addcdiv of a capturable update: pointwise, tensor by tensor or in lists of them.
_RECORDED_UPDATES = {
    "adamw": {"for-loop update": r"addcdiv_cuda_kernel"},
    "adamw_foreach": {"foreach update": r"multi_tensor_apply_kernel.*Pointwise"},
    "adamw_fused": {"fused update": r"multi_tensor_apply_kernel.*FusedAdam"},
}
# On a CPU foreach has no multi-tensor kernel and loops over addcdiv_ itself, so that one is not excluded.
_EXCLUDED = {
    "adamw": ("adamw_foreach", "adamw_fused"),
    "adamw_foreach": ("adamw_fused",),
    "adamw_fused": ("adamw", "adamw_foreach"),
    "adamw_8bit": ("adamw", "adamw_foreach", "adamw_fused"),
}
_QUANTIZED_FROM, _BLOCK = 4096, 256  # elements of the smallest tensor whose moments torchao quantizes; of a block


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Make the optimizer of a training step; other modes have none."""
    if subject.workload.mode != "train":
        return subject, Evidence(family="optimizer", choice=choice)
    parameters = [parameter for parameter in subject.unet.parameters() if parameter.requires_grad]
    quantized = [p for p in parameters if choice == "adamw_8bit" and _is_quantized(p)]
    is_recorded = subject.combo.cuda_graphs != "off"
    updates = _RECORDED_UPDATES if is_recorded else _UPDATES
    facts: dict[str, Any] = {"num_tensors": len(parameters), "num_8bit_tensors": len(quantized)}
    eps = _eps(subject)
    if eps != EPS:
        facts["note"] = f"AdamW's eps is {eps:g}: in fp16 the usual {EPS:g} is zero, and the update divides by it"
    optimizer = _make(choice, _groups(parameters), eps=eps, capturable=is_recorded)
    return replace(subject, optimizer=optimizer), Evidence(
        family="optimizer",
        choice=choice,
        facts=facts,
        must_appear=updates[choice],
        must_not_appear={name: pattern for other in _EXCLUDED[choice] for name, pattern in updates[other].items()},
    )


def _eps(subject: Subject) -> float:
    return FP16_EPS if subject.dtype is torch.float16 else EPS


def _groups(parameters: list[nn.Parameter]) -> list[dict[str, Any]]:
    """Shards and plain parameters apart: a kernel over a list takes only one kind."""
    shards = [parameter for parameter in parameters if isinstance(parameter, DTensor)]
    plain = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
    return [{"params": group} for group in (plain, shards) if group]


def _make(choice: str, parameters: list[dict[str, Any]], *, eps: float, capturable: bool) -> torch.optim.Optimizer:
    if choice != "adamw_8bit":
        foreach, fused = _FLAGS[choice]
        return torch.optim.AdamW(
            parameters, lr=LEARNING_RATE, eps=eps, foreach=foreach, fused=fused, capturable=capturable
        )
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise NotApplicable(
            f"optimizer=adamw_8bit: torchao does not load ({error}): pip install torchao, a release for this torch"
        ) from error
    optimizer: torch.optim.Optimizer = AdamW8bit(parameters, lr=LEARNING_RATE, eps=eps)
    return optimizer


def _is_quantized(parameter: nn.Parameter) -> bool:
    return parameter.numel() >= _QUANTIZED_FROM and parameter.numel() % _BLOCK == 0


def check(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """Which parameters the optimizer has a state for, and in which format."""
    if subject.optimizer is None:
        return {}, None
    states = subject.optimizer.state
    in_8_bits = sum(type(state.get("exp_avg")).__name__ == "OptimState8bit" for state in states.values())
    seen = {"num_updated_tensors": len(states), "num_8bit_tensors": in_8_bits}
    for what, name in (("have a state", "num_updated_tensors"), ("have 8-bit moments", "num_8bit_tensors")):
        promised = evidence.facts["num_tensors" if name == "num_updated_tensors" else name]
        if seen[name] != promised:
            return seen, f"{seen[name]} of the {promised} promised tensors {what}"
    for group in subject.optimizer.param_groups:  # the update comes after the gradient check, which cannot see it
        for name, right in (SETTINGS | {"eps": _eps(subject)}).items():
            if not _is_close(group[name], right):
                return seen, f"its {name} is {group[name]}, not {right}"
    return seen, ""


def _is_close(found: Any, right: float | tuple[float, float]) -> bool:
    """Whether two settings agree; torchao keeps the learning rate as an fp32 tensor."""
    pairs = zip(found, right, strict=True) if isinstance(right, tuple) else [(found, right)]
    return all(math.isclose(float(one), other, rel_tol=1e-6) for one, other in pairs)
