"""FLOPs: the work of a step, counted once on meta tensors and the same for every combo.

One multiply-accumulate is 2 FLOP; convolutions, linear layers and both attention products count, softmax, norms and
element-wise work do not. Counting on the real run would miss fused attention and compiled kernels (torch's
FlopCounterMode knows no custom operators), and recomputation is no progress. A training step is 3 forwards.
"""

import copy

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from profiler.sampling import guides
from profiler.schedulers import num_forwards
from profiler.subject import Subject, UNet, make_inputs
from profiler.workload import Workload

TRAIN_FORWARDS = 3  # the backward does two products for each of the forward's


def forward_flop_per_sample(unet: UNet, workload: Workload) -> int:
    """FLOP of one forward of one sample, on a meta copy of the UNet with materialised attention."""
    meta = to_meta(unet)
    for module in meta.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
    inputs = make_inputs(unet, workload, batch=1, device="meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        meta(inputs.sample, inputs.timestep, **inputs.condition, return_dict=False)
    return int(counter.get_total_flops())


def step_flop(forward_flop: int, subject: Subject) -> int:
    """FLOP of one step of the subject's mode, for its whole batch."""
    workload = subject.workload
    if workload.mode == "sample":
        forwards = num_forwards(workload) * (2 if guides(subject) else 1)
    else:
        forwards = TRAIN_FORWARDS if workload.mode == "train" else 1
    return forward_flop * forwards * workload.batch


def to_meta(unet: UNet) -> UNet:
    """A copy without data; copying real weights of SDXL first would cost 10 GB."""
    memo: dict[int, torch.Tensor] = {id(b): torch.empty_like(b, device="meta") for b in unet.buffers()}
    for parameter in unet.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    meta: UNet = copy.deepcopy(unet, memo)
    return meta
