"""Whole runs in one process, many of them: what depends on the workload and the machine alone is measured once."""

from functools import cache

import pytest

from profiler import session
from profiler.devices import matmul_ceiling_tflops
from profiler.flops import forward_flop_per_sample
from profiler.workload import Workload
from profiler.zoo import build

_ceiling = cache(matmul_ceiling_tflops)


@cache
def _forward_flop(work: Workload) -> int:
    return forward_flop_per_sample(build(work), work)


def measure_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions take the ceiling of a product, and a forward's FLOP, from the first that asked."""
    monkeypatch.setattr(session, "forward_flop_per_sample", lambda unet, work: _forward_flop(work))
    monkeypatch.setattr(session, "matmul_ceiling_tflops", _ceiling)
