"""Ceilings: what a device could do at best, from its datasheet and measured by a large matmul."""

import re
import statistics

import torch

from profiler.clock import clock_for
from profiler.optims.precision import set_fp32_mode

# Dense peaks in TFLOP/s from NVIDIA's datasheets (without sparsity): fp32 on CUDA cores, tf32 and 16 bits on
# Tensor Cores. First match of whole words in the device's name (L4 is not L40), the more specific ones first.
DATASHEET: tuple[tuple[str, dict[str, float]], ...] = (
    ("B200", {"fp32": 75.0, "tf32": 1125.0, "half": 2250.0}),
    ("H200 NVL", {"fp32": 60.0, "tf32": 417.5, "half": 835.5}),
    ("H200", {"fp32": 67.0, "tf32": 494.5, "half": 989.5}),
    ("H100 NVL", {"fp32": 60.0, "tf32": 417.5, "half": 835.5}),
    ("H100 PCIe", {"fp32": 51.0, "tf32": 378.0, "half": 756.0}),
    ("H100", {"fp32": 67.0, "tf32": 494.5, "half": 989.5}),
    ("A100", {"fp32": 19.5, "tf32": 156.0, "half": 312.0}),
    ("L40S", {"fp32": 91.6, "tf32": 183.0, "half": 362.0}),
    ("L4", {"fp32": 30.3, "tf32": 60.0, "half": 121.0}),
    ("RTX 4090", {"fp32": 82.6, "tf32": 82.6, "half": 165.2}),
)

_DTYPES = {
    "bf16": torch.bfloat16,
    "bf16_amp": torch.bfloat16,
    "fp16": torch.float16,
    "fp16_amp": torch.float16,
}
_SIDE = {"cuda": 8192, "cpu": 1024}


def datasheet_tflops(device_name: str | None, precision: str) -> float | None:
    """The dense datasheet peak for a precision; None for a device that is not in the table."""
    rate = precision if precision in ("fp32", "tf32") else "half"
    return next((peaks[rate] for name, peaks in DATASHEET if re.search(rf"\b{name}\b", device_name or "")), None)


def matmul_ceiling_tflops(device: str, precision: str, *, repeats: int = 10) -> float:
    """TFLOP/s of one large square matmul of random numbers (zeros draw less power and run faster).

    Leaves the process in the precision's fp32 mode.
    """
    set_fp32_mode("tf32" if precision == "tf32" else "ieee")
    side, dtype = _SIDE[device], _DTYPES.get(precision, torch.float32)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    clock, times = clock_for(device), []
    for _ in range(repeats):
        start = clock.mark()
        torch.mm(left, right)
        end = clock.mark()
        clock.synchronize()
        times.append(clock.between_ms(start, end))
    return 2 * side**3 / (statistics.median(times[2:]) * 1e9)
