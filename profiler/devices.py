"""Ceilings: what a device could do at best, from its datasheet and measured by a large matmul."""

import re
import statistics
from dataclasses import dataclass

import torch

from profiler.clock import clock_for
from profiler.optims.precision import set_fp32_mode
from profiler.traces.ceilings import ceilings


@dataclass(frozen=True, slots=True)
class Link:
    """What GPUs of one host send each other over."""

    name: str
    datasheet_gb_per_s: float  # one direction of one GPU, all its lanes

    @property
    def gb_per_s(self) -> float:
        return round(self.datasheet_gb_per_s * LINK_EFFICIENCY, 1)

    @property
    def words(self) -> str:
        return f"{self.name} at {self.gb_per_s:g} GB/s (89% of NVIDIA's {self.datasheet_gb_per_s:g} each way)"


LINK_EFFICIENCY = 0.89  # an assumption for large messages: 400 GB/s of NVLink 4's 450
# From NVIDIA's datasheets, which give both directions together (900 GB/s for NVLink 4). First match of whole words in
# the device's name, the more specific ones first.
LINKS: tuple[tuple[str, Link], ...] = (
    ("B200", Link("NVLink 5", 900.0)),
    ("H200 NVL", Link("NVLink 4 bridge", 450.0)),
    ("H200", Link("NVLink 4", 450.0)),
    ("H100 NVL", Link("NVLink 4 bridge", 300.0)),
    ("H100 PCIe", Link("PCIe 5.0 x16", 64.0)),
    ("H100", Link("NVLink 4", 450.0)),
    ("A100[ -]PCI[eE]", Link("PCIe 4.0 x16", 32.0)),
    ("A100", Link("NVLink 3", 300.0)),
    ("L40S", Link("PCIe 4.0 x16", 32.0)),
    ("L4", Link("PCIe 4.0 x16", 32.0)),
    ("RTX 4090", Link("PCIe 4.0 x16", 32.0)),
)


def link_of(device_name: str | None) -> Link | None:
    """How GPUs of this name reach one another in their usual servers; None for a device that is not in the table."""
    return next((link for name, link in LINKS if re.search(rf"\b{name}\b", device_name or "")), None)


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
