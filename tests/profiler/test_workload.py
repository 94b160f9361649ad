"""Workloads: their values, names and reference keys."""

from dataclasses import replace
from typing import Any

import pytest

from profiler.workload import ZOO, Workload


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "dream"}, "unknown mode 'dream': choose one of inference, train, sample"),
        ({"device": "tpu"}, "unknown device 'tpu': choose one of cuda, cpu"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"num_inference_steps": 0}, "num_inference_steps must be at least 1"),
        ({"dataset_size": -1}, "dataset_size must be at least 1"),
        ({"min_samples": 0}, "min_samples must be at least 1"),
        ({"min_seconds": -1}, "min_seconds must not be negative"),
        ({"resolution": -8}, "resolution must not be negative"),
        ({"model": " "}, "model is empty"),
        ({"bach": 4}, "unknown workload field bach"),
        ({"batch": "4"}, "batch must be a whole number, not '4'"),
        ({"batch": 2.5}, "batch must be a whole number, not 2.5"),
        ({"seed": None}, "seed must be a whole number, not None"),
        ({"min_seconds": "2"}, "min_seconds must be a number, not '2'"),
        ({"model": 7}, "model must be a text, not 7"),
    ],
)
def test_a_bad_value_is_answered_in_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Workload.from_dict(values)


@pytest.mark.parametrize("model", ZOO)
def test_a_zoo_model_brings_its_own_resolution(model: str) -> None:
    assert Workload(model=model).resolution == ZOO[model].resolution
    assert Workload(model=model, resolution=256).resolution == 256


def test_a_workload_survives_its_json_form() -> None:
    work = Workload(model="sdxl", mode="sample", batch=3, guidance_scale=5.0)
    assert Workload.from_dict(work.to_dict()) == work


def test_the_label_says_what_runs_where() -> None:
    assert Workload(model="sd15", mode="train", batch=16).label == "sd15 train b16 512 px cuda"


@pytest.mark.parametrize(("model", "label"), [("/models/mine/", "mine"), ("my.unets:build", "my.unets:build")])
def test_an_own_model_is_named_without_its_path(model: str, label: str) -> None:
    work = Workload(model=model)
    assert work.is_custom
    assert work.model_label == label
    assert work.resolution == 0


SAME = {"batch": 8, "min_samples": 5, "min_seconds": 9.0, "dataset_size": 7, "num_inference_steps": 50}
OTHER = {"model": "sd15", "mode": "train", "resolution": 64, "device": "cpu", "seed": 1, "batch": 1}


@pytest.mark.parametrize("name", SAME)
def test_a_reference_serves_workloads_with_the_same_first_outputs(name: str) -> None:
    work = Workload(model="tiny", batch=2)
    assert replace(work, **{name: SAME[name]}).reference_key == work.reference_key


@pytest.mark.parametrize("name", OTHER)
def test_other_outputs_need_another_reference(name: str) -> None:
    work = Workload(model="tiny", batch=2)
    assert replace(work, **{name: OTHER[name]}).reference_key != work.reference_key


@pytest.mark.parametrize("change", [{"num_inference_steps": 50}, {"guidance_scale": 1.0}])
def test_sampling_has_a_reference_for_each_schedule(change: dict[str, Any]) -> None:
    work = Workload(model="tiny", mode="sample")
    assert replace(work, **change).reference_key != work.reference_key
