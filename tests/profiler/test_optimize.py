"""optimize(): the user's UNet in the user's pipeline or loop, changed wholly or not at all."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EulerDiscreteScheduler,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from profiler.combo import Combo
from profiler.optimize import optimize
from profiler.optims.attention import KernelProcessor
from profiler.subject import NotApplicable
from tests.support.unets import conditional_unet, pixel_unet, smallest_unet
from tests.support.vectors import vector_types

ERROR = {"fp32": 1e-5, "bf16": 3e-2, "bf16_amp": 3e-2}


def images(unet: torch.nn.Module, pipeline: Any = DDIMPipeline, scheduler: Any = DDIMScheduler) -> torch.Tensor:
    pipe = pipeline(unet=unet, scheduler=scheduler())
    pipe.set_progress_bar_config(disable=True)
    made = pipe(batch_size=2, num_inference_steps=3, generator=torch.Generator().manual_seed(0), output_type="np")
    return torch.from_numpy(made.images)


@pytest.mark.parametrize(("pipeline", "scheduler"), [(DDIMPipeline, DDIMScheduler), (DDPMPipeline, DDPMScheduler)])
@pytest.mark.parametrize("precision", ["fp32", "bf16_amp"])  # these pipelines cannot turn bf16 images into numpy's
def test_a_pipeline_makes_the_same_images(precision: Any, pipeline: Any, scheduler: Any) -> None:
    torch.manual_seed(0)
    unet = pixel_unet().eval()
    expected = images(unet, pipeline, scheduler)
    combo = Combo(attention="sdpa", precision=precision, memory_format="channels_last")
    found, evidence = optimize(unet, combo)
    assert found is unet
    assert {e.family for e in evidence} >= {"attention", "precision", "memory_format", "compilation"}
    made = images(unet, pipeline, scheduler)
    assert (made - expected).norm() / expected.norm() < ERROR[precision]


def latents(unet: UNet2DConditionModel) -> torch.Tensor:
    """Stable Diffusion's loop as its pipeline has it (which needs transformers), up to the VAE."""
    scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    scheduler.set_timesteps(3)
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(2, 7, 32, generator=generator)
    found = torch.randn(1, 4, 8, 8, generator=generator) * scheduler.init_noise_sigma
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            given = scheduler.scale_model_input(torch.cat([found] * 2), timestep)
            without, noise = unet(given, timestep, encoder_hidden_states=text, return_dict=False)[0].chunk(2)
            found = scheduler.step(without + 7.5 * (noise - without), timestep, found).prev_sample
    return found


@pytest.mark.parametrize("precision", ERROR)
def test_stable_diffusions_loop_makes_the_same_latents(precision: Any) -> None:
    torch.manual_seed(0)
    unet = conditional_unet().eval()
    expected = latents(unet)
    optimize(unet, Combo(attention="sdpa", precision=precision, memory_format="channels_last"))
    made = latents(unet)
    assert (made - expected).norm() / expected.norm() < ERROR[precision]


@vector_types()  # its kernels are those of test_attention.py, built once for both
def test_a_compiled_unet_serves_a_pipeline_without_a_compile_per_step() -> None:
    torch.manual_seed(0)
    unet = smallest_unet().eval()
    expected = images(unet)
    optimize(unet, Combo(attention="sdpa", compilation="default"))
    torch._dynamo.utils.counters.clear()
    assert torch.allclose(images(unet), expected, atol=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_the_forward_keeps_its_face() -> None:
    unet = conditional_unet().eval()
    signature, config = inspect.signature(unet.forward), dict(unet.config)
    sample, text = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 32)
    with torch.no_grad():
        plain = unet(sample, 10, encoder_hidden_states=text)
        optimize(unet, Combo(precision="bf16"))
        made = unet(sample, 10, encoder_hidden_states=text)
        (alone,) = unet(sample, timestep=torch.tensor(10), encoder_hidden_states=text, return_dict=False)
    assert type(unet) is UNet2DConditionModel
    assert inspect.signature(unet.forward) == signature
    assert dict(unet.config) == config
    assert (unet.dtype, made.sample.dtype, type(made)) == (torch.bfloat16, torch.float32, type(plain))
    assert torch.equal(made.sample, alone)
    assert torch.allclose(made.sample, plain.sample, atol=5e-2)


def test_residuals_of_a_controlnet_are_cast_too() -> None:
    unet = conditional_unet().eval()
    optimize(unet, Combo(precision="bf16", memory_format="channels_last"))
    shapes = [(32, 8), (32, 8), (32, 4), (64, 4)]
    residuals = tuple(torch.randn(1, channels, side, side) for channels, side in shapes)
    given = {"encoder_hidden_states": torch.randn(1, 7, 32), "mid_block_additional_residual": torch.randn(1, 64, 4, 4)}
    with torch.no_grad():
        out = unet(torch.randn(1, 4, 8, 8), 10, down_block_additional_residuals=residuals, **given).sample
    assert out.isfinite().all()


@pytest.mark.parametrize("checkpointing", ["none", "full"])
@pytest.mark.parametrize("precision", ["fp32", "bf16_amp"])
def test_a_training_loop_learns_as_the_plain_one(precision: Any, checkpointing: Any) -> None:
    def losses(combo: Combo | None) -> list[float]:
        torch.manual_seed(0)
        unet = pixel_unet().train()
        if combo:
            optimize(unet, combo, mode="train")
        optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3)
        sample, noise, timestep = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16), torch.tensor([10, 500])
        found = []
        for _ in range(6):
            loss = torch.nn.functional.mse_loss(unet(sample, timestep).sample, noise)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        return found

    expected = losses(None)
    made = losses(Combo(attention="sdpa", precision=precision, checkpointing=checkpointing))
    assert expected[-1] < expected[0]
    assert made == pytest.approx(expected, rel=1e-4 if precision == "fp32" else 5e-2)


@pytest.mark.parametrize(
    ("combo", "mode", "message"),
    [
        (Combo(optimizer="adamw_fused"), "train", "changes the step, not the UNet: make the optimizer in your loop"),
        (Combo(precision="bf16", attention="flash_attn_2"), "inference", "needs CUDA: on a CPU choose"),
        (Combo(checkpointing="full"), "inference", "no effect without a backward pass"),
        (Combo(), "sample", "unknown mode 'sample': choose inference or train"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(combo: Combo, mode: Any, message: str) -> None:
    unet = pixel_unet()
    with pytest.raises(ValueError, match=message):
        optimize(unet, combo, mode)
    assert_untouched(unet)


def test_a_family_that_refuses_late_leaves_nothing_changed() -> None:
    """Precision and layout come before attention, which this UNet has not."""
    unet = pixel_unet()
    for block in [module for module in unet.modules() if hasattr(module, "attentions")]:
        block.attentions = torch.nn.ModuleList()
    mode = torch.backends.cuda.matmul.fp32_precision
    with pytest.raises(NotApplicable, match="no attention layer"):
        optimize(unet, Combo(precision="bf16", memory_format="channels_last", attention="sdpa"))
    assert_untouched(unet)
    assert torch.backends.cuda.matmul.fp32_precision == mode


def assert_untouched(unet: torch.nn.Module) -> None:
    assert {p.dtype for p in unet.parameters()} == {torch.float32}
    assert unet.conv_in.weight.is_contiguous()  # type: ignore[union-attr, operator]
    assert "forward" not in unet.__dict__
    layers = [module for module in unet.modules() if isinstance(module, Attention)]
    assert all(isinstance(layer.processor, AttnProcessor2_0) for layer in layers)


def test_a_unet_is_optimized_once() -> None:
    unet, _ = optimize(pixel_unet(), Combo(attention="sdpa"))
    assert any(isinstance(m, KernelProcessor) for m in unet.modules())
    with pytest.raises(ValueError, match="was replaced or compiled before"):
        optimize(unet, Combo())


def test_weights_of_another_dtype_are_refused() -> None:
    unet = torch.nn.Module.to(pixel_unet(), torch.float16)
    with pytest.raises(ValueError, match="load them in float32"):
        optimize(unet, Combo(precision="bf16"))


def test_an_optimized_unet_saves_as_what_it_is(tmp_path: Path) -> None:
    unet, _ = optimize(conditional_unet(), Combo(attention="sdpa"))
    unet.save_pretrained(tmp_path)
    again = UNet2DConditionModel.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(unet.parameters(), again.parameters(), strict=True))


def test_another_object_is_no_unet() -> None:
    with pytest.raises(ValueError, match="Linear is no UNet"):
        optimize(torch.nn.Linear(2, 2), Combo())  # type: ignore[arg-type]
