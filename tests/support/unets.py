"""Very small UNets of both classes, and the steps of a run on them, for tests of the profiler."""

from functools import cache
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel, UNet2DModel

from profiler import memory, numerics, tracing
from profiler.clock import clock_for
from profiler.combo import Combo
from profiler.optims import apply_all
from profiler.record import TRACE_SUFFIX, Evidence
from profiler.steps import make_step, no_phase
from profiler.subject import Inputs, Subject, UNet, cast_inputs, make_inputs, own_share
from profiler.workload import Workload
from profiler.zoo import build

SMALL: dict[str, Any] = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}


def conditional_unet() -> UNet2DConditionModel:
    """Stable Diffusion's shape: 4 latent channels, text of 32 features, head dim 8."""
    return UNet2DConditionModel(
        **SMALL,
        sample_size=8,
        cross_attention_dim=32,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def one_level_conditional_unet() -> UNet2DConditionModel:
    """One level, whose self-attention has the shape of the pixel UNet's: flex builds one kernel for both."""
    return UNet2DConditionModel(
        block_out_channels=(64,),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=8,
        cross_attention_dim=32,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
    )


def shallow_conditional_unet() -> UNet2DConditionModel:
    """Three ResNet blocks, and two transformers with an attention layer of each kind: for many whole runs."""
    return UNet2DConditionModel(
        block_out_channels=(32,),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=8,
        cross_attention_dim=32,
        attention_head_dim=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=None,
    )


def wide_unet() -> UNet2DModel:
    """Three ResNet blocks, and two attention layers whose linear layers are wide enough for 8 bits."""
    return UNet2DModel(
        block_out_channels=(64,),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D",),
        up_block_types=("AttnUpBlock2D",),
        mid_block_type=None,
    )


def pixel_unet() -> UNet2DModel:
    """DDPM's shape: 3 pixel channels, attention on the lower level, head dim 8."""
    return UNet2DModel(
        **SMALL,
        sample_size=16,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


def smallest_unet() -> UNet2DModel:
    """One ResNet block and one attention layer of two heads: a whole one compiled is half the kernels of the next's."""
    return UNet2DModel(
        block_out_channels=(32,),
        layers_per_block=0,  # an up block has one more
        norm_num_groups=8,
        sample_size=8,
        attention_head_dim=16,
        down_block_types=("DownBlock2D",),
        up_block_types=("AttnUpBlock2D",),
        mid_block_type=None,
    )


def one_level_unet() -> UNet2DModel:
    """Three ResNet blocks, two of one shape, and an attention layer: as wide as the smallest, to share its kernels."""
    return UNet2DModel(
        block_out_channels=(32,),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=8,
        attention_head_dim=16,
        down_block_types=("AttnDownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
    )


def dropout_unet() -> UNet2DModel:
    """One that draws dropout masks in training, and takes a class beside each sample."""
    return UNet2DModel(
        **SMALL,
        sample_size=16,
        dropout=0.3,
        num_class_embeds=5,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


def not_a_unet() -> object:
    return object()


FACTORIES = {name: f"{__name__}:{name}" for name in ("conditional_unet", "pixel_unet", "dropout_unet")}
SHALLOW, WIDE = f"{__name__}:shallow_conditional_unet", f"{__name__}:wide_unet"


def workload(kind: str = "conditional_unet", mode: str = "inference", **changes: Any) -> Workload:
    """A CPU workload on one of the two UNets, two samples a step."""
    values = {"model": FACTORIES.get(kind, kind), "mode": mode, "device": "cpu", "batch": 2, "num_inference_steps": 2}
    return Workload(**values | {"min_samples": 2, "min_seconds": 0.0} | changes)


def subject(work: Workload, combo: Combo | None = None) -> tuple[Subject, tuple[Evidence, ...]]:
    """The workload's UNet with a combo applied."""
    unet: UNet = build(work).train(work.mode == "train")
    return apply_all(Subject(unet=unet, workload=work, call=unet), combo or Combo())


def inputs_of(made: Subject, draws: int = 1) -> list[Inputs]:
    plain = [make_inputs(made.unet, made.workload, batch=made.workload.batch, draw=draw) for draw in range(draws)]
    return [own_share(made, cast_inputs(one, made.dtype, made.memory_format)) for one in plain]


def fidelity(work: Workload, combo: Combo | None = None) -> numerics.Fidelity:
    """Output, loss and gradients of a fresh UNet under a combo."""
    return collect(subject(work, combo)[0])


def collect(made: Subject) -> numerics.Fidelity:
    """Output, loss and gradients of the first two samples of one call."""
    size = made.workload.fidelity_batch
    return numerics.collect(made, *numerics.run_once(made, inputs_of(made)[0], size), size)


def errors(work: Workload, combo: Combo) -> numerics.Errors:
    """A combo's errors against the plain model."""
    return compare(fidelity(work, combo), work)


def compare(found: numerics.Fidelity, work: Workload) -> numerics.Errors:
    """What was found against the plain model."""
    return numerics.compare(found, *_plain(work))


@cache  # many tests compare with the same
def _plain(work: Workload) -> tuple[numerics.Fidelity, dict[str, int]]:
    """The plain model's output, loss and gradients, and the size of each of its parameters."""
    made, _ = subject(work)
    return collect(made), {name: parameter.numel() for name, parameter in made.unet.named_parameters()}


def trace(made: Subject, folder: Path) -> tracing.Trace:
    """The traced pass of a run."""
    step, inputs = make_step(made), inputs_of(made, draws=2)
    step(inputs[0], no_phase)  # the optimizer's state exists from here on, as in a run
    held = memory.held(made, inputs)
    file = folder / f"worker{TRACE_SUFFIX}"
    return tracing.trace_steps(made, step, inputs, clock_for(made.workload.device), held=held, file=file)


def of(family: str, evidence: tuple[Evidence, ...]) -> Evidence:
    """The evidence of one family."""
    return next(one for one in evidence if one.family == family)
