"""FSDP2: data parallelism that keeps 1/N of parameters, gradients and optimizer state on each of N processes.

Every ResNet and transformer block (and attention layer outside of one) is a group: its parameters are all-gathered just
before its forward and again before its backward, freed after, and its gradients reduce-scattered; the next group's
gather runs meanwhile. The rest of the UNet is the root group. Weights, gradients and AdamW's state take 16 bytes a
parameter over N (ZeRO stage 3, arXiv 1910.02054), for 3(N-1)/N of the parameters' bytes sent per step instead of 2.

Under autocast the groups gather in its 16 bits, half the bytes, and reduce gradients in fp32. Norms' weights are
rounded with the rest, which autocast by itself does not do. Source: torch.distributed.fsdp.fully_shard.
"""

import re
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from profiler.record import Evidence
from profiler.subject import Subject, UNet
from profiler.traces.messages import Message
from profiler.tracing import Trace

_GATHER = re.compile(r"FSDP::all_gather($| \()")  # the ranges that FSDP2 itself opens in a trace, one per group


def apply(subject: Subject) -> tuple[Subject, dict[str, Any]]:
    """Shard the UNet's blocks, then what is left."""
    unet, groups = subject.unet, _blocks(subject.unet)
    mesh = init_device_mesh(subject.workload.device, (subject.parallel.world.size,))
    policy = MixedPrecisionPolicy(
        param_dtype=subject.autocast,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # autocast casts where an operator wants it
    )
    for group in groups:
        fully_shard(group, mesh=mesh, mp_policy=policy)
    fully_shard(unet, mesh=mesh, mp_policy=policy)
    parallel = replace(subject.parallel, splits_batch=True, whole=whole)
    # Gathered twice, for forward and backward, in the dtype of computing; reduced once, in fp32.
    gathered = sum(p.numel() * (subject.autocast or p.dtype).itemsize for p in unet.parameters())
    reduced = sum(p.numel() * torch.float32.itemsize for p in unet.parameters() if p.requires_grad)
    facts = {"num_groups": len(groups) + 1, "message_bytes": 2 * gathered + reduced}
    return replace(subject, parallel=parallel), facts | _sharded(unet)


def _blocks(unet: UNet) -> list[nn.Module]:
    blocks = [module for module in unet.modules() if isinstance(module, ResnetBlock2D | BasicTransformerBlock)]
    inside = {id(part) for block in blocks for part in block.modules()}
    return blocks + [part for part in unet.modules() if isinstance(part, Attention) and id(part) not in inside]


def whole(name: str, gradient: Tensor) -> Tensor:
    """A gradient put together from all ranks' shards; every rank must ask."""
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


def _sharded(unet: nn.Module) -> dict[str, int]:
    """How many parameters are shards, and their elements on this process."""
    shards = [parameter for parameter in unet.parameters() if isinstance(parameter, DTensor)]
    return {"num_sharded": len(shards), "num_local_elements": sum(shard.to_local().numel() for shard in shards)}


def check(evidence: Evidence, messages: list[Message], trace: Trace, subject: Subject) -> tuple[dict[str, Any], str]:
    """Every group is one, gathers its parameters in the forward, and holds its share only."""
    groups = sum(isinstance(module, FSDPModule) for module in subject.unet.modules())
    gathers = trace.per_step(sum(number for name, number in trace.names.items() if _GATHER.match(name)))
    seen: dict[str, Any] = {"num_groups": groups, "num_group_gathers": gathers} | _sharded(subject.unet)
    for name in ("num_groups", "num_sharded", "num_local_elements"):
        if seen[name] != evidence.facts[name]:
            return seen, f"{name.removeprefix('num_').replace('_', ' ')}: {seen[name]}, not {evidence.facts[name]}"
    if subject.parallel.world.size > 1 and gathers < groups:  # one process has nothing to gather
        return seen, f"only {gathers:g} of {groups} groups gather their parameters"
    return seen, ""
