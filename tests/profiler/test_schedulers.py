"""Schedulers of a user's own pipeline folder, and what is answered when one is missing or broken."""

import json
from pathlib import Path
from typing import Any

import pytest
from diffusers import DDPMPipeline, DDPMScheduler, EulerDiscreteScheduler, SchedulerMixin

from profiler.schedulers import make_scheduler, num_forwards, scheduler_note
from profiler.steps import make_step, no_phase
from profiler.subject import ModelError
from profiler.zoo import build
from tests.support.unets import conditional_unet, inputs_of, pixel_unet, subject, workload


def save(folder: Path, scheduler: SchedulerMixin) -> Any:
    """A pipeline folder of diffusers, as save_pretrained leaves it; the sampling workload on it."""
    DDPMPipeline(unet=pixel_unet(), scheduler=scheduler).save_pretrained(folder)
    return workload(str(folder), mode="sample", num_inference_steps=3)


@pytest.mark.parametrize(
    "scheduler", [DDPMScheduler(beta_start=0.002), EulerDiscreteScheduler()], ids=lambda s: str(type(s).__name__)
)
def test_a_pipeline_folder_is_sampled_with_its_own_scheduler(tmp_path: Path, scheduler: Any) -> None:
    work = save(tmp_path, scheduler)
    found = make_scheduler(work)
    assert type(found) is type(scheduler)
    assert found.config.beta_start == scheduler.config.beta_start
    assert found.timesteps.device.type == "cpu"
    made, _ = subject(work)
    out = make_step(made)(inputs_of(made)[0], no_phase)
    assert out.isfinite().all()
    assert f"the folder's own {type(scheduler).__name__}" in scheduler_note(work)[0]


def test_what_brings_no_scheduler_is_sampled_with_ddim(tmp_path: Path) -> None:
    conditional_unet().save_pretrained(tmp_path)
    for model in ("tiny", str(tmp_path), "conditional_unet"):
        work = workload(model, mode="sample", num_inference_steps=5)
        assert scheduler_note(work) == ("sampled by DDIMScheduler with Stable Diffusion's noise levels",)
        assert num_forwards(work) == 5
    assert scheduler_note(workload("tiny")) == ()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "has no scheduler/scheduler_config.json: save the pipeline again"),
        ("{", "is not JSON .*save the pipeline again"),
        ({"_class_name": "NoSuchScheduler"}, "names 'NoSuchScheduler', no scheduler of diffusers"),
        ({"_class_name": "UNet2DModel"}, "names 'UNet2DModel', no scheduler"),
        ([], "names None, no scheduler"),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "crooked"}, "cannot be built by diffusers .*crooked"),
    ],
)
def test_a_folder_without_a_scheduler_is_answered_with_the_remedy(tmp_path: Path, config: Any, message: str) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    if config is not None:
        (tmp_path / "scheduler").mkdir()
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "scheduler" / "scheduler_config.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        make_scheduler(workload(str(tmp_path), mode="sample"))


def test_more_steps_than_the_scheduler_has_are_refused() -> None:
    with pytest.raises(ModelError, match=r"DDIMScheduler cannot take num_inference_steps=5000 .*choose another number"):
        make_scheduler(workload("tiny", mode="sample", num_inference_steps=5000))


def test_a_pipeline_without_a_unet_is_answered_with_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ModelError, match="its denoiser is a transformer: Steplens measures UNets"):
        build(workload(str(tmp_path), mode="sample"))
