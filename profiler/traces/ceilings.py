"""Ceilings: datasheet peaks of GPUs, dense, in TFLOP/s, and memory bandwidth in GB/s (devices.py has measured ones).

fp32 is on CUDA cores; tf32, half (fp16 and bf16) and fp8 on Tensor Cores, without sparsity.
"""

import re

# First match of whole words in the device's name (L4 is not L40), the more specific ones first.
DATASHEET: tuple[tuple[str, dict[str, float]], ...] = (
    ("B200", {"fp32": 75.0, "tf32": 1125.0, "half": 2250.0, "fp8": 4500.0, "gbs": 8000.0}),
    ("H200 NVL", {"fp32": 60.0, "tf32": 417.5, "half": 835.5, "fp8": 1671.0, "gbs": 4800.0}),
    ("H200", {"fp32": 67.0, "tf32": 494.5, "half": 989.5, "fp8": 1979.0, "gbs": 4800.0}),
    ("H100 NVL", {"fp32": 60.0, "tf32": 417.5, "half": 835.5, "fp8": 1671.0, "gbs": 3900.0}),
    ("H100 PCIe", {"fp32": 51.0, "tf32": 378.0, "half": 756.0, "fp8": 1513.0, "gbs": 2000.0}),
    ("H100", {"fp32": 67.0, "tf32": 494.5, "half": 989.5, "fp8": 1979.0, "gbs": 3350.0}),
    ("A100.*80GB", {"fp32": 19.5, "tf32": 156.0, "half": 312.0, "gbs": 1935.0}),
    ("A100", {"fp32": 19.5, "tf32": 156.0, "half": 312.0, "gbs": 1555.0}),
    ("L40S", {"fp32": 91.6, "tf32": 183.0, "half": 362.0, "fp8": 733.0, "gbs": 864.0}),
    ("L4", {"fp32": 30.3, "tf32": 60.0, "half": 121.0, "fp8": 242.0, "gbs": 300.0}),
    ("RTX 4090", {"fp32": 82.6, "tf32": 82.6, "half": 165.2, "fp8": 330.3, "gbs": 1008.0}),
)


def ceilings(device_name: str | None) -> dict[str, float] | None:
    """A device's peaks; None for one that is not in the table."""
    return next((peaks for name, peaks in DATASHEET if re.search(rf"\b{name}\b", device_name or "")), None)
