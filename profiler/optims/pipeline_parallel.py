"""Pipeline parallelism: one process runs the way down, the other the middle and the way up.

A UNet's skip connections cross any cut, so this one is where they are made and not yet used: the first stage sends its
last hidden state, the time embedding and every skip (13 MB in bf16 for one SD1.5 sample at 512 px), and gets a gradient
back for each. The batch goes through in up to four micro-batches, all forwards before all backwards (GPipe, arXiv
1811.06965), so that the stages overlap; with m micro-batches each waits at least 1/(m+1) of the time. Weights and
optimizer state are split, though not evenly: SD1.5's way up is heavier than its way down.

torch.distributed.pipelining has the same schedule, but runs forward, loss and backward in one call, which leaves no
phases to measure; point-to-point sends of torch.distributed are what both are made of.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from profiler.ranks import World
from profiler.record import Evidence
from profiler.subject import NotApplicable, Subject, UNet
from profiler.traces.messages import Message
from profiler.tracing import Trace

_MICROBATCHES = 4
_DOWN = ("conv_in", "time_proj", "time_embedding", "add_time_proj", "add_embedding", "down_blocks")
_UP = ("mid_block", "up_blocks", "conv_norm_out", "conv_out")
# What diffusers' UNets can have besides, which the stages here do not run.
_BEYOND = ("class_embedding", "encoder_hid_proj", "position_net", "time_embed_act")


def apply(subject: Subject) -> tuple[Subject, dict[str, Any]]:
    """Keep this process's half of the UNet. Raises NotApplicable for one that the cut does not fit."""
    unet, world = subject.unet, subject.parallel.world
    _refuse_unknown(unet)
    num_parameters = sum(parameter.numel() for parameter in unet.parameters())
    for name in _UP if world.is_first else _DOWN:
        if isinstance(getattr(unet, name, None), nn.Module):
            setattr(unet, name, nn.ModuleList() if name.endswith("blocks") else None)
    batch = subject.workload.batch
    num_microbatches = max(number for number in range(1, _MICROBATCHES + 1) if batch % number == 0)
    pipeline = Pipeline(unet, world, num_microbatches)
    kept = sum(parameter.numel() for parameter in unet.parameters())
    parallel = replace(subject.parallel, pipeline=pipeline)
    facts = {"num_microbatches": num_microbatches, "share_of_parameters": round(kept / num_parameters, 3)}
    return replace(subject, call=pipeline, parallel=parallel), facts


def _refuse_unknown(unet: UNet) -> None:
    beyond = [name for name in _BEYOND if getattr(unet, name, None) is not None]
    beyond += ["skip_conv"] if any(hasattr(block, "skip_conv") for block in unet.down_blocks) else []
    beyond += ["fourier"] if getattr(unet.config, "time_embedding_type", None) == "fourier" else []
    beyond += ["no mid_block"] if unet.mid_block is None else []
    if beyond:
        raise NotApplicable(f"parallelism=pipeline does not know UNets with {', '.join(beyond)}: choose ddp or tensor")


@dataclass(frozen=True, kw_only=True)
class _Micro:
    sample: Tensor
    timestep: Tensor
    condition: dict[str, Any]


class Pipeline:
    """Both stages; each process runs its own."""

    def __init__(self, unet: UNet, world: World, num_microbatches: int) -> None:
        self.num_microbatches = num_microbatches
        self._unet, self._world, self._other = unet, world, 1 - world.rank
        self._sizes: list[tuple[tuple[int, ...], torch.dtype]] = []  # of what one micro-batch sends
        self._sent: list[list[Tensor]] = []
        self._received: list[list[Tensor]] = []
        self._outputs: list[Tensor] = []

    def __call__(
        self, sample: Tensor, timestep: Tensor, *, return_dict: bool = False, **condition: Any
    ) -> tuple[Tensor]:
        """One denoising forward; the output is on both processes."""
        output = self.forward(sample, timestep, condition, is_training=False)
        dist.broadcast(output, src=1)
        return (output,)

    def forward(self, sample: Tensor, timestep: Tensor, condition: dict[str, Any], *, is_training: bool) -> Tensor:
        """All micro-batches' forwards; returns the output on the last stage, room for it on the first."""
        micros = self._cut(sample, timestep, condition)
        if self._world.is_first:
            self._run_first(micros)
            channels = self._unet.config.out_channels
            return sample.new_empty(sample.shape[0], channels, *sample.shape[2:])
        self._run_last(micros, is_training)
        return torch.cat([output.detach() for output in self._outputs]).to(sample.dtype)

    def backward(self, target: Tensor, size: int | None) -> Tensor:
        """Loss over the first `size` samples (None: all) and its backward; returns the loss on both processes."""
        loss = torch.zeros((), device=target.device)
        if self._world.is_first:
            self._back_first()
        else:
            loss += self._back_last(target, target.shape[0] if size is None else size)
        self._sent, self._received, self._outputs = [], [], []
        dist.broadcast(loss, src=1)
        return loss

    def _cut(self, sample: Tensor, timestep: Tensor, condition: dict[str, Any]) -> list[_Micro]:
        number = self.num_microbatches

        def chunks(value: Any) -> list[Any]:
            if isinstance(value, dict):
                parts = {name: chunks(inner) for name, inner in value.items()}
                return [{name: parts[name][index] for name in parts} for index in range(number)]
            return list(value.chunk(number))

        parts = zip(chunks(sample), chunks(timestep), chunks(condition), strict=True)
        return [_Micro(sample=one, timestep=time, condition=rest) for one, time, rest in parts]

    def _run_first(self, micros: list[_Micro]) -> None:
        works, kept = [], []
        for micro in micros:
            tensors = _way_down(self._unet, micro)
            self._agree_on_sizes(tensors)
            flat = [tensor.detach().contiguous() for tensor in tensors]
            works += self._send(flat)
            kept.append(flat)  # until they are sent
            self._sent.append(tensors)
        for work in works:
            work.wait()

    def _run_last(self, micros: list[_Micro], is_training: bool) -> None:
        self._outputs, self._received = [], []
        self._agree_on_sizes(None)
        awaited = [self._receive(micros[0].sample.device) for _ in micros]
        for micro, (tensors, works) in zip(micros, awaited, strict=True):
            for work in works:
                work.wait()
            self._received.append([tensor.requires_grad_(is_training) for tensor in tensors])
            self._outputs.append(_way_up(self._unet, tensors, micro))

    def _back_last(self, target: Tensor, size: int) -> Tensor:
        works, kept, total, first = [], [], torch.zeros((), device=target.device), 0
        for tensors, output in zip(self._received, self._outputs, strict=True):
            number = max(0, min(size - first, output.shape[0]))  # of the samples that count
            wide = torch.float64 if output.dtype is torch.float64 else torch.float32
            wanted = target[first : first + number].to(wide)
            loss = torch.nn.functional.mse_loss(output[:number].to(wide), wanted, reduction="sum")
            loss = loss / (target[0].numel() * size)
            loss.backward()  # type: ignore[no-untyped-call]
            gradients = [torch.zeros_like(one) if one.grad is None else one.grad.contiguous() for one in tensors]
            works += self._send(gradients)
            kept.append(gradients)
            total, first = total + loss.detach(), first + output.shape[0]
        for work in works:
            work.wait()
        return total

    def _back_first(self) -> None:
        awaited = [self._receive(tensors[0].device) for tensors in self._sent]
        for tensors, (gradients, works) in zip(self._sent, awaited, strict=True):
            for work in works:
                work.wait()
            pairs = [pair for pair in zip(tensors, gradients, strict=True) if pair[0].requires_grad]
            torch.autograd.backward([tensor for tensor, _ in pairs], [gradient for _, gradient in pairs])

    def _agree_on_sizes(self, tensors: list[Tensor] | None) -> None:
        """Shapes and dtypes are those of the first micro-batch ever; the last stage must know them to receive."""
        if self._sizes:
            return
        own = None if tensors is None else [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]
        found = self._world.gather(own)[0]
        assert found is not None
        self._sizes = found

    def _send(self, tensors: Iterable[Tensor]) -> list[Any]:
        return list(dist.batch_isend_irecv([dist.P2POp(dist.isend, tensor, self._other) for tensor in tensors]))

    def _receive(self, device: torch.device) -> tuple[list[Tensor], list[Any]]:
        tensors = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in self._sizes]
        return tensors, list(
            dist.batch_isend_irecv([dist.P2POp(dist.irecv, tensor, self._other) for tensor in tensors])
        )


def _way_down(unet: UNet, micro: _Micro) -> list[Tensor]:
    """Hidden state, time embedding and skips, as diffusers 0.42's forward makes them."""
    sample = 2 * micro.sample - 1.0 if unet.config.center_input_sample else micro.sample
    text = micro.condition.get("encoder_hidden_states")
    if isinstance(unet, UNet2DConditionModel):
        emb = unet.time_embedding(unet.get_time_embed(sample=sample, timestep=micro.timestep))
        added = unet.get_aug_embed(
            emb=emb, encoder_hidden_states=text, added_cond_kwargs=micro.condition.get("added_cond_kwargs")
        )
        emb = emb if added is None else emb + added
    else:
        emb = unet.time_embedding(unet.time_proj(micro.timestep).to(unet.dtype))
    hidden = unet.conv_in(sample)
    skips = [hidden]
    for block in unet.down_blocks:
        more = {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
        hidden, made = block(hidden_states=hidden, temb=emb, **more)
        skips += made
    return [emb, *skips] if skips[-1] is hidden else [emb, *skips, hidden]


def _way_up(unet: UNet, tensors: list[Tensor], micro: _Micro) -> Tensor:
    """The output, as diffusers 0.42's forward makes it from what the way down left."""
    emb, *skips = tensors
    text = micro.condition.get("encoder_hidden_states")
    needed = sum(len(block.resnets) for block in unet.up_blocks)
    hidden = skips[-1]
    skips = skips[:needed]  # the last one may be the hidden state alone
    for block in (unet.mid_block, *unet.up_blocks):
        more: dict[str, Any] = {}
        if getattr(block, "has_cross_attention", False):
            more["encoder_hidden_states"] = text
        if block is not unet.mid_block:
            number = len(block.resnets)
            more["res_hidden_states_tuple"] = tuple(skips[-number:])
            skips = skips[:-number]
        hidden = block(hidden_states=hidden, temb=emb, **more)
    if unet.conv_norm_out is not None:
        hidden = unet.conv_act(unet.conv_norm_out(hidden))
    output: Tensor = unet.conv_out(hidden)
    return output


def check(evidence: Evidence, messages: list[Message], trace: Trace, subject: Subject) -> tuple[dict[str, Any], str]:
    """This process sends each tensor of each micro-batch once, and receives as many in training."""
    pipeline = subject.parallel.pipeline
    if not isinstance(pipeline, Pipeline):
        return {}, "the UNet is not cut"
    promised = pipeline.num_microbatches * len(pipeline._sizes)
    is_training = subject.workload.mode == "train"
    kinds = ["send", "recv"] if is_training else ["send" if subject.parallel.world.is_first else "recv"]
    for kind in kinds:
        found = trace.per_step(sum(one.kind == kind for one in messages))
        if found != promised:
            return {"num_promised": promised}, f"{found:g} times {kind} per step, not {promised}"
    return {"num_promised": promised}, ""
