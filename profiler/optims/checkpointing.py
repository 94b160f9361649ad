"""Gradient checkpointing: recompute activations in the backward instead of keeping them.

A training step keeps every layer's input for the backward; for SD1.5 at batch 16 that is most of the memory. With
checkpointing, only block inputs are kept and each block runs forward again in the backward: one more forward, a third
more work at best efficiency (arXiv 1604.06174), for a fraction of the activation memory. The blocks are diffusers'
own: every ResNet block and every transformer block, non-reentrant.

- full: every block.
- alternate: every second block, half of the recomputation for about half of the saving.
- selective: every block, but the results of convolutions and fused attention kernels are kept, so that only norms,
  activations, casts and linear layers run again (selective activation checkpointing, torch.utils.checkpoint). What an
  attention kernel outside PyTorch is called must be known by name, or it would be recomputed in silence; flash-attn-4
  and compiled flex are no operators at all and are refused (why_not). Math attention materialises its scores, which
  are what checkpointing is to save: it runs again.
  Under torch.compile the same trade is the partitioner's: activation_memory_budget, 1 keeping what is fastest and 0
  recomputing everything (torch._functorch.config); it is set to 0.5, and no block is wrapped.

A random-number state is kept per block only where a dropout needs it. The recomputed work is not counted in model FLOPs
(MFU), since a user gains nothing from it; its time is recompute_ms.
"""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch._functorch.config as functorch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.autograd.profiler import record_function
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts, noop_context_fn

from profiler.optims.attention import SOFTMAX, calls_of, layers_in_order
from profiler.record import Evidence
from profiler.subject import NotApplicable, Subject, UNet
from profiler.traces.words import PHASE, RECOMPUTE
from profiler.tracing import Trace

MEMORY_BUDGET = 0.5  # of selective under torch.compile
_BLOCKS = (ResnetBlock2D, BasicTransformerBlock)
# The operators whose results selective keeps; those of a package are known once it is loaded.
_KEPT = (
    ("aten", "convolution"),
    ("aten", "_scaled_dot_product_flash_attention"),
    ("aten", "_scaled_dot_product_efficient_attention"),
    ("aten", "_scaled_dot_product_cudnn_attention"),
    ("aten", "_scaled_dot_product_flash_attention_for_cpu"),
    ("flash_attn", "_flash_attn_forward"),
    ("flash_attn_3", "_flash_attn_forward"),
    # xFormers 0.0.35: its CUTLASS kernel (all that serves fp32), flash-attn or PyTorch's flash, flash-attn 3
    ("aten", "_efficient_attention_forward"),
    ("aten", "_flash_attention_forward"),
    ("xformers_flash", "flash_fwd"),
    ("xformers_flash3", "flash_fwd"),
)
_DISPATCH = "PythonDispatchMode"  # selective's own mode below an operator: alone there, it answered from what is kept
# What runs when aten::convolution does work; the operator itself is seen even where its result was kept.
_CONVOLVES = ("aten::cudnn_convolution", "aten::mkldnn_convolution", "aten::_slow_conv2d_forward", "aten::thnn_conv2d")

_Contexts = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Checkpoint the model's blocks. Raises NotApplicable when the class has none of its own."""
    blocks = [module for module in subject.unet.modules() if isinstance(module, _BLOCKS)]
    is_compiled = subject.combo.compilation != "eager"
    facts: dict[str, object] = {"num_blocks": len(blocks), "num_checkpointed": 0}
    if choice == "none":
        return subject, Evidence(family="checkpointing", choice=choice, facts=facts)
    if choice == "selective" and is_compiled:
        functorch.activation_memory_budget = MEMORY_BUDGET
        return subject, Evidence(family="checkpointing", choice=choice, facts=facts | {"memory_budget": MEMORY_BUDGET})
    if not getattr(subject.unet, "_supports_gradient_checkpointing", False) or not blocks:
        raise NotApplicable(
            f"checkpointing={choice}: {type(subject.unet).__name__} has no gradient checkpointing; choose none"
        )
    chosen = blocks[::2] if choice == "alternate" else blocks
    options: dict[str, Any] = {}
    # A compiler follows its own plan, and stops at contexts that are no dispatch modes (torch 2.11's AOTAutograd).
    if not is_compiled:
        options["context_fn"] = partial(_marked, _selective if choice == "selective" else noop_context_fn)
    _wrap(subject.unet, chosen, options)
    return subject, Evidence(
        family="checkpointing",
        choice=choice,
        facts=facts
        | {
            "num_checkpointed": len(chosen),
            "num_resnet_blocks": sum(isinstance(block, ResnetBlock2D) for block in chosen),
            "num_convolutions": sum(isinstance(part, nn.Conv2d) for block in chosen for part in block.modules()),
            "num_attention_layers": sum(isinstance(part, Attention) for block in chosen for part in block.modules()),
        },
    )


def _wrap(unet: UNet, chosen: list[nn.Module], options: dict[str, Any]) -> None:
    has_dropout = any(module.p > 0 for module in unet.modules() if isinstance(module, nn.Dropout))
    recomputed = {id(block) for block in chosen}

    def run(block: nn.Module, *args: Any) -> Any:
        if id(block) not in recomputed:
            return block(*args)
        return checkpoint(block.__call__, *args, use_reentrant=False, preserve_rng_state=has_dropout, **options)

    unet.enable_gradient_checkpointing(run)


def _selective() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    kept = [
        getattr(getattr(torch.ops, library), name).default
        for library, name in _KEPT
        if hasattr(getattr(torch.ops, library), name)
    ]
    forward, recompute = create_selective_checkpoint_contexts(kept)  # type: ignore[no-untyped-call]
    return forward, recompute


def _marked(contexts: _Contexts) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """The same contexts, with a named range around the recomputation for the trace."""
    forward, recompute = contexts()
    return forward, _range(recompute)


@contextmanager
def _range(inner: AbstractContextManager[Any]) -> Any:
    with ExitStack() as stack:
        stack.enter_context(record_function(PHASE + RECOMPUTE))
        stack.enter_context(inner)
        yield


def check(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """Forward work that runs again: a promised number of convolutions and attention calls, or with selective none."""
    again = [op for op in trace.found.ops if op.phase == RECOMPUTE]
    ran = _CONVOLVES if evidence.choice == "selective" else ("aten::convolution",)
    convolutions = trace.per_step(sum(op.event.name in ran for op in again))
    in_backward = any(op.event.name == "aten::convolution" and op.phase == "backward" for op in trace.found.ops)
    seen = {"num_recomputed_ops": trace.per_step(len(again)), "num_recomputed_convolutions": convolutions}
    is_eager = subject.combo.compilation == "eager"
    if subject.uses_graphs or subject.workload.mode != "train" or not is_eager:
        return seen, None  # a compiler may choose to recompute by itself
    if evidence.choice == "none":
        return seen, "forward convolutions run again in the backward" if convolutions or in_backward else ""
    if not again:
        return seen, "nothing runs again in the backward"
    attention = _recomputed_attention(trace, subject)
    seen |= {} if attention is None else {"num_recomputed_attention_calls": attention}
    if evidence.choice == "selective":
        kept = {"convolutions": convolutions}
        if subject.combo.attention != "math":
            kept["attention calls"] = max(attention or 0, _attention_kernels(trace))
        wrong = [
            f"{number:g} {what} run again, their results were to be kept" for what, number in kept.items() if number
        ]
        return seen, "; ".join(wrong)
    promised = evidence.facts["num_attention_layers"]
    if attention is not None and attention != promised:
        return seen, f"{attention:g} attention calls run again in the backward, not {promised}"
    # Recomputation stops as soon as the last tensor that the backward needs is there, so that a block may not get to
    # its last convolution.
    runs = subject.parallel.pipeline.num_microbatches if subject.parallel.pipeline else 1  # of each block in a step
    most, blocks = runs * evidence.facts["num_convolutions"], runs * evidence.facts["num_resnet_blocks"]
    if most - blocks <= convolutions <= most:
        return seen, ""
    return seen, f"{convolutions:g} convolutions run again in the backward, not {most - blocks} to {most}"


def _recomputed_attention(trace: Trace, subject: Subject) -> float | None:
    """Attention calls per step that did work again; None where the forward does not show its layers' calls."""
    calls, layers = calls_of(trace, "forward"), layers_in_order(subject.unet)
    if not calls or len(calls) != len(layers) * trace.num_steps:
        return None
    answered = {id(op.parent) for op in trace.found.ops if op.event.name == _DISPATCH}
    return trace.per_step(sum(id(op) not in answered for _, op in calls_of(trace, RECOMPUTE)))


def _attention_kernels(trace: Trace) -> float:
    """Fused attention kernels per step that a GPU ran again, whatever called them."""
    again = [k for k in trace.found.kernels if k.stream is not None and k.phase == RECOMPUTE]
    return trace.per_step(sum(k.category == "attention" and not re.search(SOFTMAX, k.name) for k in again))
