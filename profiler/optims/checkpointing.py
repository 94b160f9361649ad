"""Gradient checkpointing: recompute activations in the backward instead of keeping them.

A training step keeps every layer's input for the backward; for SD1.5 at batch 16 that is most of the memory. With
checkpointing, only block inputs are kept and each block runs forward again in the backward: one more forward, a third
more work at best efficiency (arXiv 1604.06174), for a fraction of the activation memory.

- full: diffusers' enable_gradient_checkpointing(), every ResNet and transformer block, non-reentrant.

The recomputed work is not counted in model FLOPs (MFU), since a user gains nothing from it.
"""

from typing import Any

from torch import nn

from profiler.record import Evidence
from profiler.subject import NotApplicable, Subject
from profiler.tracing import Trace


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Switch the model's own checkpointing on. Raises NotApplicable when the class has none."""
    if choice == "none":
        return subject, Evidence(family="checkpointing", choice=choice)
    if not getattr(subject.unet, "_supports_gradient_checkpointing", False):
        raise NotApplicable(
            f"checkpointing=full: {type(subject.unet).__name__} has no gradient checkpointing; choose none"
        )
    subject.unet.enable_gradient_checkpointing()
    blocks = [module for module in subject.unet.modules() if _is_checkpointed(module)]
    return subject, Evidence(family="checkpointing", choice=choice, facts={"num_modules": len(blocks)})


def _is_checkpointed(module: nn.Module) -> bool:
    return bool(getattr(module, "gradient_checkpointing", False))


def check(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """Forward convolutions that run again inside the backward."""
    recomputed = sum(op.event.name == "aten::convolution" and op.phase == "backward" for op in trace.found.ops)
    seen = {"num_recomputed_convolutions": recomputed}
    if subject.uses_graphs or subject.workload.mode != "train":
        return seen, None
    if evidence.choice == "none":  # a compiler may choose to recompute by itself
        is_eager = subject.call is subject.unet
        return seen, "convolutions run again in the backward" if recomputed and is_eager else ""
    return seen, "" if recomputed else "no convolution runs again in the backward"
