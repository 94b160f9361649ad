"""Ceilings: the datasheet by the device's name, and a measured matmul."""

import pytest
import torch

from profiler.devices import datasheet_tflops, matmul_ceiling_tflops
from profiler.traces.ceilings import DATASHEET


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("NVIDIA H200", "bf16", 989.5),
        ("NVIDIA H200 NVL", "fp16_amp", 835.5),
        ("NVIDIA H100 80GB HBM3", "tf32", 494.5),
        ("NVIDIA H100 PCIe", "fp32", 51.0),
        ("NVIDIA A100-SXM4-80GB", "bf16_amp", 312.0),
        ("NVIDIA L4", "fp16", 121.0),
        ("NVIDIA L40S", "fp16", 362.0),
        ("NVIDIA GeForce RTX 4090", "fp32", 82.6),
        ("NVIDIA L40", "fp16", None),
        ("NVIDIA GB200", "bf16", None),
        ("Tesla T4", "fp16", None),
        (None, "bf16", None),
    ],
)
def test_a_peak_belongs_to_one_device(name: str | None, precision: str, tflops: float | None) -> None:
    assert datasheet_tflops(name, precision) == tflops


def test_fewer_bits_are_never_slower() -> None:
    assert all(peaks["fp32"] <= peaks["tf32"] < peaks["half"] for _, peaks in DATASHEET)


def test_a_cpu_has_a_measured_ceiling() -> None:
    assert 1e-3 < matmul_ceiling_tflops("cpu", "fp32", repeats=4) < 100


def test_the_ceiling_leaves_the_precisions_mode() -> None:
    matmul_ceiling_tflops("cpu", "fp32", repeats=3)
    assert torch.backends.cuda.matmul.fp32_precision == "ieee"
