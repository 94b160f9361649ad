"""Does optimize() cost anything over the same change written by hand?

Run by hand: python tests/benchmarks/bench_optimize.py [MODEL [DEVICE [BATCH]]].
Two copies of one UNet take turns, one changed by optimize(), one by hand; the figure is the median of the rounds'
ratios, within 2% on a GPU is the aim. Choices that this machine does not have are named and left out.
"""

import copy
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

sys.path.insert(0, str(Path(__file__).parents[2]))

from profiler import measure, zoo
from profiler.clock import clock_for
from profiler.combo import Combo
from profiler.environment import probe
from profiler.optimize import optimize
from profiler.optims.precision import set_fp32_mode
from profiler.steps import make_step
from profiler.subject import Subject, UNet, cast_inputs, make_inputs
from profiler.why_not import why_not
from profiler.workload import Workload

ROUNDS = 9


def by_hand_sdpa(unet: UNet) -> UNet:
    """What diffusers builds, in bf16: its own SDPA processors."""
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor2_0())
    return unet.to(torch.bfloat16)


def by_hand_compiled(unet: UNet) -> UNet:
    unet = by_hand_sdpa(unet).to(memory_format=torch.channels_last)
    unet.forward = torch.compile(unet.forward, dynamic=False)
    return unet


class FlashProcessor(AttnProcessor2_0):
    """A user's own processor for flash_attn_func, with nothing that Stable Diffusion's attention does not need."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):  # type: ignore[no-untyped-def]
        from flash_attn import flash_attn_func

        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            part.unflatten(2, (attn.heads, -1))
            for part in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        return attn.to_out[0](flash_attn_func(query, key, value).flatten(2))


def by_hand_flash(unet: UNet) -> UNet:
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(FlashProcessor())
    return unet.to(torch.bfloat16)


CASES: dict[str, tuple[Combo, Callable[[UNet], UNet]]] = {
    "sdpa": (Combo(precision="bf16", attention="sdpa"), by_hand_sdpa),
    "channels_last + compile default": (
        Combo(precision="bf16", attention="sdpa", memory_format="channels_last", compilation="default"),
        by_hand_compiled,
    ),
    "flash_attn_2": (Combo(precision="bf16", attention="flash_attn_2"), by_hand_flash),
}


def compare(name: str, workload: Workload) -> str:
    combo, by_hand = CASES[name]
    if reason := why_not(combo, workload, probe()):
        return f"{name:32s} left out: {reason}"
    set_fp32_mode("ieee")
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    unet = zoo.build(workload).eval()
    hand = by_hand(copy.deepcopy(unet))
    ours, _ = optimize(unet, combo)
    layout = torch.channels_last if combo.memory_format == "channels_last" else torch.contiguous_format
    inputs = cast_inputs(make_inputs(ours, workload, batch=workload.batch), torch.bfloat16, layout)
    clock = clock_for(workload.device)
    steps = [make_step(Subject(unet=u, workload=workload, call=u)) for u in (ours, hand)]
    for step in steps:
        measure.warm_up(step, [inputs], clock, min_seconds=2.0)

    def median_ms(index: int) -> float:
        return statistics.median(
            measure.time_steps(steps[index], [inputs], clock, min_samples=20, min_seconds=0).step_ms
        )

    pairs = [(median_ms(0), median_ms(1)) for _ in range(ROUNDS)]
    ratio = statistics.median(ours_ms / hand_ms for ours_ms, hand_ms in pairs)
    ours_ms, hand_ms = (statistics.median(column) for column in zip(*pairs, strict=True))
    return f"b{workload.batch} {name:32s} optimize {ours_ms:8.3f} ms   by hand {hand_ms:8.3f} ms   ratio {ratio:.4f}"


if __name__ == "__main__":
    model, device, batch = [*sys.argv[1:], *("sd15", "cuda", "8")[len(sys.argv) - 1 :]]
    for case in CASES:
        print(compare(case, Workload(model=model, device=device, batch=int(batch))), flush=True)
