"""What do the fused kernels buy, each alone, against PyTorch's own pair of operators?

Run by hand, on a GPU: python tests/benchmarks/bench_fusion.py. Under a minute, the kernels' first compilation included.
GPU time is that of recorded graphs, over enough different tensors that none is found in the L2 cache. GB/s counts the
least traffic with statistics in a pass of their own (GroupNorm: 3 tensors forward, 8 with the backward; GEGLU: 3 and 8
outputs), for both sides alike, beside the rate of a large copy. The last columns are what one call costs the CPU.
"""

import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2]))

from profiler.optims import fused_operators  # noqa: F401, registers the operators

ROUNDS, COLD_BYTES = 15, 300e6
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
# Model, samples, channels, side of the image: the largest norms of each, and a small one.
NORMS = [("sd15 b16", 16, 320, 64), ("sd15 b16", 16, 1280, 16), ("sd15 b2", 2, 320, 64), ("sdxl b2", 2, 320, 128)]
GATES = [("sd15 b16", 16 * 4096, 1280), ("sdxl b2", 2 * 4096, 2560), ("sdxl b2", 2 * 1024, 5120)]
Call = Callable[..., Tensor]


def plain_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.silu(F.group_norm(x, 32, weight, bias, 1e-5))


def fused_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    out: Tensor = torch.ops.steplens.group_norm_silu(x, weight, bias, 32, 1e-5, x.dtype)[0]
    return out


def plain_geglu(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, dim=-1)
    return value * F.gelu(gate)


def fused_geglu(x: Tensor) -> Tensor:
    out: Tensor = torch.ops.steplens.geglu(x)
    return out


def step_of(call: Call, leaves: list[Tensor], slope: Tensor, with_backward: bool) -> Callable[[], Any]:
    def forward() -> Any:
        with torch.no_grad():
            return call(*leaves)

    def both() -> Any:
        return torch.autograd.grad(call(*leaves), leaves, slope)

    return both if with_backward else forward


def gpu_ms(steps: list[Callable[[], Any]]) -> list[float]:
    """Milliseconds of one step, ROUNDS samples of the graph of all of them."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(2):
            steps[0]()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for step in steps:
            step()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(ROUNDS + 2)]
    for mark in marks:
        graph.replay()
        mark.record()
    torch.cuda.synchronize()
    return [one.elapsed_time(other) / len(steps) for one, other in pairwise(marks[1:])]


def host_us(step: Callable[[], Any]) -> float:
    """Microseconds of the CPU to launch one step into an empty queue."""
    times = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            step()
        times.append((time.perf_counter() - start) * 1e5)
    return statistics.median(times)


def line(what: str, calls: tuple[Call, Call], make: Callable[[], tuple[list[Tensor], Tensor]], size: int) -> None:
    """One row: plain and fused; `size` is the number of bytes of the output."""
    sets = [make() for _ in range(max(2, min(32, round(COLD_BYTES / (3 * size)))))]
    for with_backward, tensors in ((False, 3), (True, 8)):
        cells = []
        for call in calls:
            steps = [step_of(call, leaves, slope, with_backward) for leaves, slope in sets]
            low, middle, high = statistics.quantiles(gpu_ms(steps), n=4)
            rate = tensors * size / middle / 1e6
            cells.append((middle, high - low, rate, host_us(steps[0])))
        plain, fused = cells
        print(
            f"{what:34} {'forward+backward' if with_backward else 'forward':16} "
            f"plain {plain[0]:.4f} ms (IQR {plain[1]:.4f}) {plain[2]:5.0f} GB/s   "
            f"fused {fused[0]:.4f} ms (IQR {fused[1]:.4f}) {fused[2]:5.0f} GB/s   {plain[0] / fused[0]:.2f}x   "
            f"CPU {plain[3]:.0f} and {fused[3]:.0f} us",
            flush=True,
        )


def copy_rate() -> float:
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / statistics.median(gpu_ms([lambda: target.copy_(source)])) / 1e6


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def main() -> None:
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16; a copy runs at {copy_rate():.0f} GB/s")
    for model, samples, channels, side in NORMS:
        for name, layout in LAYOUTS.items():

            def norm(n: int = samples, c: int = channels, s: int = side, layout: Any = layout) -> Any:
                image, slope = (random(n, c, s, s).to(memory_format=layout) for _ in range(2))
                return [t.requires_grad_() for t in (image, random(c), random(c))], slope

            what = f"{model} norm+silu {samples}x{channels}x{side}x{side} {name}"
            line(what, (plain_norm, fused_norm), norm, 2 * samples * channels * side * side)
    for model, rows, width in GATES:

        def gate(rows: int = rows, width: int = width) -> Any:
            return [random(rows, 2 * width).requires_grad_()], random(rows, width)

        line(f"{model} geglu {rows}x{width}", (plain_geglu, fused_geglu), gate, 2 * rows * width)


if __name__ == "__main__":
    main()
