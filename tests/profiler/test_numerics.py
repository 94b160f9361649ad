"""Errors against a reference: none against itself, found where something is broken, judged against plain eager."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from profiler import numerics
from profiler.numerics import (
    GRADIENT_SAMPLE,
    REFERENCE_FILE,
    Fidelity,
    NoReference,
    compare,
    fingerprint,
    is_wrong,
    load_reference,
    make_reference,
)
from profiler.workload import Workload
from profiler.zoo import build
from tests.support.unets import collect, conditional_unet, fidelity, pixel_unet, subject, workload

TRAIN = workload(mode="train")


def _silent(stage: str, detail: str) -> None:
    return None


def _sizes(found: Fidelity) -> dict[str, int]:
    return {name: gradient.numel() for name, gradient in found.gradients.items()}


@pytest.fixture(scope="module")
def plain() -> Fidelity:
    return fidelity(TRAIN)


def test_a_run_has_no_error_against_itself(plain: Fidelity) -> None:
    errors = compare(plain, plain, _sizes(plain))
    assert (errors.output_error, errors.gradient_error, errors.worst_gradient) == (0.0, 0.0, ("", 0.0))
    assert errors.output_cosine == pytest.approx(1.0)


def test_a_second_run_of_the_same_workload_agrees(plain: Fidelity) -> None:
    errors = compare(fidelity(TRAIN), plain, _sizes(plain))
    assert not is_wrong(errors.output_error, None, "fp32")
    assert not is_wrong(errors.gradient_error, None, "fp32")


def test_a_scaled_gradient_is_wrong_and_named(plain: Fidelity) -> None:
    gradients = {name: g * (2.0 if name == "conv_out.weight" else 1.0) for name, g in plain.gradients.items()}
    errors = compare(replace(plain, gradients=gradients), plain, _sizes(plain))
    assert errors.worst_gradient == ("conv_out.weight", 1.0)
    assert is_wrong(errors.gradient_error, None, "fp32")
    assert not is_wrong(errors.output_error, None, "fp32")


def test_a_parameter_left_without_a_gradient_is_wrong(plain: Fidelity) -> None:
    gradients = {name: g for name, g in plain.gradients.items() if name != "conv_in.weight"}
    errors = compare(replace(plain, gradients=gradients), plain, _sizes(plain))
    assert errors.worst_gradient == ("conv_in.weight", 1.0)
    assert is_wrong(errors.gradient_error, None, "fp32")


def test_a_layer_with_other_weights_is_wrong(plain: Fidelity) -> None:
    made, _ = subject(TRAIN)
    torch.nn.init.normal_(made.unet.mid_block.resnets[0].conv1.weight)
    errors = compare(collect(made), plain, _sizes(plain))
    assert is_wrong(errors.output_error, None, "fp32")
    assert is_wrong(errors.gradient_error, None, "fp32")


def test_nan_is_wrong_and_the_worst_of_all(plain: Fidelity) -> None:
    broken = plain.gradients | {"conv_in.bias": plain.gradients["conv_in.bias"] * math.nan}
    errors = compare(replace(plain, output=plain.output * math.nan, gradients=broken), plain, _sizes(plain))
    assert errors.worst_gradient is not None
    assert errors.worst_gradient[0] == "conv_in.bias"
    assert is_wrong(errors.output_error, 1.0, "fp32")
    assert is_wrong(errors.gradient_error, 1.0, "fp32")


@pytest.mark.parametrize(
    ("error", "eager", "precision", "wrong"),
    [
        (None, 0.01, "bf16", False),
        (0.02, 0.01, "bf16", False),
        (0.0201, 0.01, "bf16", True),
        (9e-6, 1e-9, "fp32", False),  # two roundings
        (1e-3, None, "tf32", False),
        (1.1e-3, None, "fp32", True),
        (0.5, None, "fp16", False),  # plain eager itself overflowed
        (math.inf, None, "fp16", True),
        (math.nan, None, "fp16", True),
        (math.inf, 1.0, "fp32", True),
    ],
)
def test_an_error_is_judged_against_plain_eager(
    error: float | None, eager: float | None, precision: str, wrong: bool
) -> None:
    assert is_wrong(error, eager, precision) is wrong


def test_gradients_do_not_depend_on_the_batch_or_the_loss_scale(plain: Fidelity) -> None:
    made, _ = subject(replace(TRAIN, batch=4))
    scaled = replace(made, scaler=torch.amp.GradScaler("cpu"))
    found = collect(scaled)
    errors = compare(found, plain, _sizes(plain))
    assert found.output.shape == plain.output.shape
    assert errors.gradient_error == pytest.approx(0.0, abs=1e-4)
    assert all(p.grad is None for p in made.unet.parameters())


def test_inference_has_an_output_and_no_gradients() -> None:
    found = fidelity(workload("pixel_unet"))
    assert (found.loss, found.gradients) == (None, {})
    assert compare(found, found, {}).gradient_error is None


def test_the_weight_of_sampled_gradients_is_unbiased() -> None:
    numel, names = 4 * GRADIENT_SAMPLE, [f"layer{index}" for index in range(50)]
    error = torch.linspace(0, 1, numel, dtype=torch.float64)
    sampled = {name: numerics._sampled(name, error) for name in names}
    exact = Fidelity(output=torch.ones(1), loss=0.0, gradients={n: torch.ones_like(s) for n, s in sampled.items()})
    found = replace(exact, gradients={name: 1 + sample for name, sample in sampled.items()})
    estimate = compare(found, exact, dict.fromkeys(names, numel)).gradient_error
    truth = float(error.norm()) / math.sqrt(numel)
    assert estimate == pytest.approx(truth, rel=2e-3)  # one of 50 samples has a standard error of 0.35%


def test_a_large_parameter_weighs_by_its_size() -> None:
    one = torch.ones(4, dtype=torch.float64)
    exact = Fidelity(output=one, loss=0.0, gradients={"small": one, "large": one})
    found = replace(exact, gradients={"small": one, "large": 2 * one})
    assert compare(found, exact, {"small": 4, "large": 12}).gradient_error == pytest.approx(math.sqrt(12 / 16))


def test_a_sample_is_the_same_elements_in_every_layout() -> None:
    weight = torch.randn(64, 64, 3, 3)
    other = weight.to(memory_format=torch.channels_last)
    assert numerics._sampled("w", weight).numel() == GRADIENT_SAMPLE
    assert torch.equal(numerics._sampled("w", weight), numerics._sampled("w", other))


@pytest.mark.parametrize("mode", ["inference", "train", "sample"])
def test_a_reference_survives_its_folder(tmp_path: Path, mode: str) -> None:
    work = workload(mode=mode, batch=5)
    make_reference(work, tmp_path / "ref", _silent)
    reference = load_reference(tmp_path / "ref", build(work))
    found = fidelity(replace(work, batch=2))
    errors = compare(found, reference.fidelity, reference.sizes)
    eager = reference.eager_error("fp32", "output_error")
    assert reference.facts["dtype"] == "float64"
    assert reference.facts["workload"]["model"] == work.model_label
    assert eager is not None
    assert 0 < eager < 1e-5
    assert not is_wrong(errors.output_error, eager, "fp32")
    assert set(reference.facts["eager"]) == {"fp32", "bf16", "bf16_amp"}
    assert (reference.eager_error("bf16", "gradient_error") is not None) == (mode == "train")
    assert reference.eager_error("fp16", "output_error") is None


def test_a_reference_of_other_weights_is_refused(tmp_path: Path) -> None:
    work = workload()
    make_reference(work, tmp_path, _silent)
    with pytest.raises(NoReference, match="other weights: delete its folder"):
        load_reference(tmp_path, build(workload(seed=1)))


def test_a_reference_of_another_version_is_refused(tmp_path: Path) -> None:
    work = workload()
    make_reference(work, tmp_path, _silent)
    facts = json.loads((tmp_path / REFERENCE_FILE).read_text())
    (tmp_path / REFERENCE_FILE).write_text(json.dumps(facts | {"version": 0}))
    with pytest.raises(NoReference, match="delete its folder"):
        load_reference(tmp_path, build(work))


def test_no_reference_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NoReference, match="submit it again through a sweep"):
        load_reference(tmp_path, pixel_unet())


def test_a_reference_needs_its_device(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ValueError, match="choose device=cpu"):
        make_reference(Workload(model="tiny", device="cuda"), tmp_path, _silent)


def test_a_fingerprint_tells_weights_apart() -> None:
    torch.manual_seed(0)
    unet = conditional_unet()
    before = fingerprint(unet)
    assert before == fingerprint(unet)
    with torch.no_grad():
        unet.conv_out.bias[0] += 1
    assert fingerprint(unet) != before


def test_without_a_yardstick_16_bits_must_only_be_finite() -> None:
    assert not is_wrong(5e-3, None, "bf16")
    assert is_wrong(float("nan"), None, "bf16")
