"""Precision: what is converted, what is pinned, and which types the trace shows."""

from pathlib import Path
from typing import Any

import pytest
import torch

from profiler.combo import Combo
from profiler.optims import precision
from profiler.optims.precision import dtype_in_trace, set_fp32_mode
from profiler.verify import verify
from tests.support.unets import FACTORIES, fidelity, subject, trace, workload


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("mode", ["inference", "train", "sample"])
@pytest.mark.parametrize(
    ("choice", "seen"), [("fp32", "float"), ("bf16", "c10::BFloat16"), ("bf16_amp", "c10::BFloat16")]
)
def test_the_trace_bears_the_choice_out(kind: str, mode: str, choice: Any, seen: str, tmp_path: Path) -> None:
    made, evidence = subject(workload(kind, mode=mode), Combo(precision=choice))
    found = verify(evidence[0], trace(made, tmp_path), made)
    assert found.confirmed, found.finding
    assert max(found.observed["matmul_input_types"].items(), key=lambda item: item[1])[0] == seen
    # What the trace shows of the norms: a CPU's autocast leaves them in 16 bits, where CUDA's makes them fp32.
    assert set(found.observed["norm_input_types"]) == {seen}


@pytest.mark.parametrize(
    ("choice", "weights", "autocast"),
    [
        ("fp32", torch.float32, None),
        ("tf32", torch.float32, None),
        ("bf16_amp", torch.float32, torch.bfloat16),
        ("fp16_amp", torch.float32, torch.float16),
        ("bf16", torch.bfloat16, None),
        ("fp16", torch.float16, None),
    ],
)
def test_a_choice_is_weights_and_autocast(choice: str, weights: torch.dtype, autocast: torch.dtype | None) -> None:
    made, evidence = precision.apply(subject(workload(mode="train"))[0], choice)
    assert {p.dtype for p in made.unet.parameters()} == {weights}
    assert (made.dtype, made.autocast) == (weights, autocast)
    assert (made.scaler is not None) == (choice == "fp16_amp") == evidence.facts["loss_scaling"]


def test_inference_needs_no_loss_scaling() -> None:
    assert precision.apply(subject(workload())[0], "fp16_amp")[0].scaler is None


@pytest.mark.parametrize(("choice", "mode"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16_amp", "ieee")])
def test_both_fp32_modes_are_pinned(choice: str, mode: str) -> None:
    set_fp32_mode("ieee" if mode == "tf32" else "tf32")
    precision.apply(subject(workload())[0], choice)
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    assert (matmul.fp32_precision, convolution.fp32_precision) == (mode, mode)
    set_fp32_mode("ieee")


def test_fewer_bits_round_more() -> None:
    plain, coarse = (fidelity(workload(), Combo(precision=choice)).output for choice in ("fp32", "bf16"))
    error = float((plain - coarse).norm() / plain.norm())
    assert 1e-4 < error < 3e-2


def test_the_expected_type_follows_the_choice() -> None:
    assert [dtype_in_trace(c) for c in ("fp32", "tf32", "bf16", "fp16_amp")] == [
        None,
        None,
        "c10::BFloat16",
        "c10::Half",
    ]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("choice", "norms"), [("fp32", "float"), ("bf16_amp", "float"), ("fp16_amp", "float"), ("bf16", "c10::BFloat16")]
)
def test_autocast_on_a_gpu_keeps_norms_in_fp32(choice: Any, norms: str, tmp_path: Path) -> None:
    made, evidence = subject(workload("conditional_unet", device="cuda"), Combo(precision=choice))
    found = verify(evidence[0], trace(made, tmp_path), made)
    assert set(found.observed["norm_input_types"]) == {norms}
