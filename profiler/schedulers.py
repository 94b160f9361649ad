"""Schedulers: who says what noise level comes next; the user's own pipeline folder brings its own.

Everything else is sampled with DDIM (arXiv 2010.02502) under Stable Diffusion's noise levels.
"""

import json
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DDIMScheduler, SchedulerMixin

from profiler.subject import ModelError
from profiler.workload import Workload

_DDIM = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}
_SAVE = "save the pipeline again with pipeline.save_pretrained, or choose mode=inference"


def make_scheduler(workload: Workload) -> Any:
    """The workload's scheduler, its timesteps set and on the CPU, where its tables are: no step waits for the GPU.

    Raises ModelError, naming the remedy, for a pipeline folder whose scheduler is missing or cannot be built.
    """
    folder = _pipeline_folder(workload)
    scheduler = _from_folder(folder) if folder else DDIMScheduler(**_DDIM)
    reset(scheduler, workload)
    return scheduler


def reset(scheduler: Any, workload: Workload) -> None:
    """Begin an image: schedulers of higher order remember the last one's outputs.

    Raises ModelError for a number of steps that the scheduler cannot take.
    """
    try:
        scheduler.set_timesteps(workload.num_inference_steps)
    except (ValueError, TypeError, ZeroDivisionError, IndexError, ImportError) as error:
        name = type(scheduler).__name__
        raise ModelError(
            f"{name} cannot take num_inference_steps={workload.num_inference_steps} ({error}): choose another number"
        ) from error


def num_forwards(workload: Workload) -> int:
    """Calls of the UNet for one batch of images: schedulers of higher order need more than num_inference_steps."""
    return len(make_scheduler(workload).timesteps)


def scheduler_note(workload: Workload) -> tuple[str, ...]:
    """What the record says of the sampler."""
    if workload.mode != "sample":
        return ()
    name, own = type(make_scheduler(workload)).__name__, _pipeline_folder(workload) is not None
    if not own:
        return (f"sampled by {name} with Stable Diffusion's noise levels",)
    return (f"sampled by the folder's own {name}; text embeddings are random, the text encoder is not run",)


def _pipeline_folder(workload: Workload) -> Path | None:
    folder = Path(workload.model).expanduser()
    return folder if workload.is_custom and (folder / "model_index.json").is_file() else None


def _from_folder(folder: Path) -> Any:
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        raise ModelError(f"{folder} has no scheduler/scheduler_config.json: {_SAVE}")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}): {_SAVE}") from error
    name = config.get("_class_name") if isinstance(config, dict) else None
    cls = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not (isinstance(cls, type) and issubclass(cls, SchedulerMixin)):
        raise ModelError(f"{path} names {name!r}, no scheduler of diffusers {diffusers.__version__}: {_SAVE}")
    try:
        return cls.from_config(config)  # type: ignore[attr-defined]
    except (ImportError, NotImplementedError, TypeError, ValueError) as error:
        raise ModelError(f"{path} cannot be built by diffusers ({error}): {_SAVE}") from error
