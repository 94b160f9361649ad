"""Run folders with the views of a trace: hand-made ones with modules, and recorded ones of an H200."""

from functools import cache
from pathlib import Path
from typing import Any

from profiler.traces.attribute import Attribution, attribute
from profiler.traces.read import read_trace
from profiler.traces.views import write_views
from tests.support.run_folders import GPU_WORKLOAD, step_samples, write_run
from tests.support.traces import attributed, kernel, launch, module, op, phase, step

H200 = {"deviceProperties": [{"name": "NVIDIA H200"}]}
_QKV = [[2, 8, 4096, 40], [2, 8, 77, 40], [2, 8, 77, 40]]
_MM = [[8192, 320], [320, 320]]


def in_unet(*, scale: int = 1, modules: bool = True) -> Attribution:
    """A forward and an optimizer step on a GPU; kernels take scale times as long. Wall time: 200 us x scale."""
    us = 1000 * scale
    named = (
        module("", 0, 40 * us),
        module("down_blocks.0.attentions.0", 5 * us, 20 * us),
        module("mid_block", 20 * us, 30 * us),
    )
    return attributed(
        *(step(0, 200 * us), phase("forward", 0, 100 * us), phase("optimizer", 105 * us, 120 * us)),
        *(named if modules else ()),
        op("aten::scaled_dot_product_attention", 6 * us, 18 * us, external=1, dims=_QKV, types=["c10::BFloat16"] * 3),
        op("aten::mm", 21 * us, 25 * us, external=2, dims=_MM, types=["float"] * 2),
        *(op("aten::mul", 70 * us, 75 * us, external=3), op("aten::add", 110 * us, 115 * us, external=4)),
        *(launch(1, 10 * us), launch(2, 22 * us), launch(3, 71 * us), launch(4, 111 * us)),
        kernel("flash_fwd", 50 * us, 80 * us, correlation=1, external=1, grid=[8, 2, 1], block=[128, 1, 1]),
        kernel("ampere_sgemm_128x64_tn", 80 * us, 90 * us, correlation=2, external=2),
        kernel("vectorized_elementwise_kernel", 100 * us, 105 * us, correlation=3, external=3),
        kernel("adam", 120 * us, 127 * us, correlation=4, external=4),
        **H200,
    )


def on_cpu() -> Attribution:
    """A forward of operators alone."""
    rows = (op("aten::addmm", 10_000, 60_000, dims=_MM), op("aten::silu", 60_000, 80_000))
    return attributed(step(0, 100_000), phase("forward", 0, 90_000), module("conv_in", 5_000, 85_000), *rows)


@cache
def recorded(file: Path) -> Attribution:
    return attribute(read_trace(file))


def write_traced_run(root: Path, run_id: str, found: Attribution, **how: Any) -> Path:
    """A run folder of tests.support.run_folders with the views of a trace, whose step was timed as fast as traced."""
    wall_ms = float((found.steps.end_ns - found.steps.start_ns)[0]) / 1e6
    how = {"workload": GPU_WORKLOAD, "step_ms": step_samples(wall_ms)} | how
    folder = write_run(root, run_id=run_id, **how)
    write_views(found, folder)
    return folder
