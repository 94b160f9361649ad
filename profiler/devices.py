"""Ceilings: what a device could do at best, from its datasheet and measured by a large matmul."""

import statistics

import torch

from profiler.clock import clock_for
from profiler.optims.precision import set_fp32_mode
from profiler.traces.ceilings import ceilings

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
    peaks = ceilings(device_name)
    return peaks[rate] if peaks else None


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
