"""Optimizer: how AdamW's update is launched.

AdamW reads and writes parameters, gradients and two moments: 28 bytes a parameter in fp32, a floor of 5.6 ms a step for
SD1.5 at 4.3 TB/s. The for-loop launches about a dozen kernels for each of its 686 tensors; foreach groups the tensors
into multi-tensor kernels, op by op; fused does the whole update in one kind of kernel and reads each byte once.

Same arithmetic up to rounding, same state. Source: torch.optim.AdamW; decoupled weight decay, arXiv 1711.05101.
"""

from dataclasses import replace

import torch

from profiler.record import Evidence
from profiler.subject import Subject

LEARNING_RATE = 1e-4  # Stable Diffusion's own

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
}
# On a CPU foreach has no multi-tensor kernel and loops over addcdiv_ itself, so that one is not excluded.
_EXCLUDED = {
    "adamw": ("adamw_foreach", "adamw_fused"),
    "adamw_foreach": ("adamw_fused",),
    "adamw_fused": ("adamw", "adamw_foreach"),
}


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Make the optimizer of a training step; other modes have none."""
    if subject.workload.mode != "train":
        return subject, Evidence(family="optimizer", choice=choice)
    foreach, fused = _FLAGS[choice]
    parameters = [parameter for parameter in subject.unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, foreach=foreach, fused=fused)
    return replace(subject, optimizer=optimizer), Evidence(
        family="optimizer",
        choice=choice,
        facts={"num_tensors": len(parameters)},
        must_appear=_UPDATES[choice],
        must_not_appear={name: pattern for other in _EXCLUDED[choice] for name, pattern in _UPDATES[other].items()},
    )
