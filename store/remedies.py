"""Remedies: what of a step could go away, by how much time at most, and which choice does it; one rule per part."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from profiler.record import Record


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of a run. Times in milliseconds per step."""

    record: Record
    summary: dict[str, Any]
    parts: dict[str, float]
    phases: dict[str, float]
    roofline: pd.DataFrame

    @property
    def wall_ms(self) -> float:
        return float(self.summary["wall_ns"]) / 1e6

    @property
    def step_ms(self) -> float:
        """The timed step where there is one: the profiler slows the host."""
        return self.record.metrics.step_ms or self.wall_ms

    @property
    def busy_factor(self) -> float:
        """What brings work of the traced step to the timed one.

        On a CPU each operator is scaled alike, up as well as down: the timed steps may be the slower ones, on a busy
        machine. On a GPU the profiler slows the host alone, but clocks may have been lower: work cannot outlast the
        step.
        """
        if not self.summary["on_gpu"]:
            return self.step_ms / self.wall_ms if self.wall_ms else 1.0
        return min(1.0, self.step_ms / self._busy_ms) if self._busy_ms else 1.0

    @property
    def idle_factor(self) -> float:
        """The same for idle time; on a GPU it is what the timed step lasts beyond its work."""
        if not self.summary["on_gpu"]:
            return self.busy_factor
        idle = sum(self.parts.values()) - self._busy_ms
        return max(0.0, self.step_ms - self._busy_ms) / idle if idle > 0 else 0.0

    @property
    def _busy_ms(self) -> float:
        return sum(ms for part, ms in self.parts.items() if not part.startswith("idle:"))

    def work(self, ms: float) -> float:
        """Time of kernels or operators of the traced step, as in the timed one."""
        return ms * self.busy_factor

    def part(self, *names: str) -> float:
        return self.work(sum(self.parts.get(name, 0.0) for name in names))

    def idle(self, *reasons: str) -> float:
        return sum(self.parts.get(f"idle: {reason}", 0.0) for reason in reasons) * self.idle_factor


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A part that could go away, the choices that do it (the best first), and what to do beside choices.

    Where otherwise is None, nothing beside choices is known to help but to spread it over a larger batch.
    """

    what: str
    most_ms: float
    why: str
    choices: tuple[dict[str, Any], ...] = ()
    otherwise: str | None = None


def candidates(seen: Seen) -> Iterator[Candidate]:
    """All of them, whether or not they are worth a sentence."""
    for rule in _RULES:
        yield from rule(seen)


def _launches(seen: Seen) -> Iterator[Candidate]:
    if not seen.summary["on_gpu"]:
        most = seen.idle("outside of operators")
        why = "Python and the framework between operators"
        yield Candidate(what="Python overhead", most_ms=most, why=why, choices=_COMPILED)
        return
    statistics = seen.summary["launches"] or {}
    count = statistics.get("num_launches", 0) / seen.summary["num_steps"]
    told = f", {count:,.0f} launches per step" if count else ""
    if seen.record.imported is not None:
        told += "; a part of that is the profiler's own slowdown"
    yield Candidate(
        what="The GPU waits for the host",
        most_ms=seen.idle("host", "queue"),
        why=f"it is idle until Python has launched the next kernel{told}",
        choices=({"compilation": "reduce_overhead"}, {"cuda_graphs": "whole_step"}, {"compilation": "default"}),
    )


def _waits(seen: Seen) -> Iterator[Candidate]:
    for reason, what, why, remedy in _WAITS:
        yield Candidate(what=what, most_ms=seen.idle(reason), why=why, otherwise=remedy)


def _attention(seen: Seen) -> Iterator[Candidate]:
    if seen.record.combo is None or seen.record.combo.attention != "math":
        return
    products = _time(seen, seen.roofline["name"].isin(("aten::bmm", "aten::baddbmm")))
    yield Candidate(
        what="Attention writes all scores to memory",
        most_ms=min(seen.part("attention") + products, seen.part("attention", "gemm")),
        why="softmax and two batched products run one after the other (attention=math)",
        choices=({"attention": "sdpa"}, {"attention": "flex"}),
        otherwise="use a fused attention kernel (scaled_dot_product_attention)",
    )


def _precision(seen: Seen) -> Iterator[Candidate]:
    """Products of fp32 inputs, against what 16 bits could do on Tensor Cores."""
    peaks, rows = seen.summary["peaks"], seen.roofline
    products = rows[rows["flop"].notna() & (rows["dtype"] == "float")]
    if "half" not in peaks or products.empty:
        return
    now = "tf32" if seen.record.combo is not None and seen.record.combo.precision == "tf32" else "fp32"
    compute = products["flop"].astype(float) / peaks["half"] / 1e9
    memory = products["num_bytes"].astype(float) / 2 / peaks["gbs"] / 1e6
    floor = float((compute.where(compute > memory, memory) * products["num_calls"]).sum())
    yield Candidate(
        what="Products in 32 bits",
        most_ms=seen.work(float(products["step_ms"].sum())) - floor,
        why=f"{len(products)} kinds of matmuls and convolutions have fp32 inputs; 16 bits run on Tensor Cores at "
        f"{peaks['half']:,.0f} TFLOP/s against {peaks[now]:,.0f}",
        choices=({"precision": "bf16"}, {"precision": "bf16_amp"}, {"precision": "fp16"}, {"precision": "tf32"}),
        otherwise="use bf16, or autocast in training",
    )


def _roofs(seen: Seen) -> Iterator[Candidate]:
    """Products in 16 or 8 bits that stay below what a large matmul of this run reached."""
    rows, metrics = seen.roofline, seen.record.metrics
    low = rows[rows["flop"].notna() & (rows["dtype"] != "float") & rows["roof_share"].notna()]
    best = _REACHABLE
    if metrics.ceiling_tflops and metrics.datasheet_tflops:
        best = min(1.0, metrics.ceiling_tflops / metrics.datasheet_tflops)
    for what, names, choice in _PRODUCTS:
        own = low[low["name"].str.contains(names)]
        if own.empty:
            continue
        share = 1 - own["lost_ms"].sum() / own["step_ms"].sum()
        now = f"{seen.work(float(own['step_ms'].sum())):.3g} ms at {share:.0%} of the datasheet's roof"
        why = f"{now}; a large matmul reaches {best:.0%}"
        most = seen.work(float((own["step_ms"] * (1 - own["roof_share"] / best)).clip(lower=0).sum()))
        yield Candidate(what=what, most_ms=most, why=why, choices=choice)


def _layout(seen: Seen) -> Iterator[Candidate]:
    yield Candidate(
        what="Copies that only change layout",
        most_ms=seen.part("layout"),
        why="transposes, copies and concatenations compute nothing",
        choices=({"memory_format": "channels_last"}, *_COMPILED, {"compilation": "max_autotune"}),
        otherwise="keep one memory format through the network",
    )


def _memory_bound(seen: Seen) -> Iterator[Candidate]:
    why = "norms, activations and sums read and write memory for little arithmetic"
    compiles = seen.record.combo is not None and seen.record.combo.compiles
    yield Candidate(
        what="Small kernels between the products",
        most_ms=seen.part("norm", "elementwise", "reduction"),
        why=f"{why}, even compiled" if compiles else f"{why}; fused, most of that goes away",
        choices=(*_COMPILED, {"fusion": "all"}, {"fusion": "norm_act"}),
        otherwise=None if compiles else "fuse them (torch.compile)",
    )


def _optimizer(seen: Seen) -> Iterator[Candidate]:
    yield Candidate(
        what="The optimizer's step",
        most_ms=seen.part("optimizer"),
        why="its floor is one pass over parameters, gradients and states",
        choices=({"optimizer": "adamw_fused"}, {"optimizer": "adamw_foreach"}),
        otherwise="accumulate gradients over more samples per step",
    )


def _recompute(seen: Seen) -> Iterator[Candidate]:
    yield Candidate(
        what="Forwards that run again",
        most_ms=seen.work(seen.phases.get("recompute", 0.0)),
        why="checkpointing pays with time for memory",
        choices=({"checkpointing": "selective"}, {"checkpointing": "alternate"}, {"checkpointing": "none"}),
        otherwise="checkpoint fewer blocks, if memory allows",
    )


def _traffic(seen: Seen) -> Iterator[Candidate]:
    yield Candidate(
        what="Communication that nothing hides",
        most_ms=seen.part("communication"),
        why="collectives during which no kernel computes",
        otherwise="overlap it with the backward (larger buckets), or send less (fp16 gradients, fewer ranks)",
    )
    yield Candidate(
        what="Copies between host and device",
        most_ms=seen.part("memcpy"),
        why="memcpy and memset during which no kernel computes",
        otherwise="pin host memory, copy with non_blocking=True, keep inputs on the device",
    )


def _time(seen: Seen, chosen: pd.Series) -> float:
    return seen.work(float(seen.roofline.loc[chosen, "step_ms"].sum()))


_REACHABLE = 0.8  # of the datasheet, where no matmul was measured in the same run
_PRODUCTS: tuple[tuple[str, str, tuple[dict[str, Any], ...]], ...] = (
    ("Convolutions below their roof", "conv", ({"memory_format": "channels_last"}, {"compilation": "max_autotune"})),
    ("Attention below its roof", "attention", ({"attention": "flash_attn_4"},)),
    ("Matmuls below their roof", "mm|linear", ({"compilation": "max_autotune"}, {"quantization": "fp8"})),
)
_COMPILED = ({"compilation": "default"}, {"compilation": "regional"})
_WAITS = (
    (
        "sync",
        "The host waits for the GPU",
        "after a wait the queue is empty, and the GPU idles until it fills again",
        "remove .item(), .cpu(), print and copies to the host from the loop",
    ),
    (
        "allocator",
        "Memory is allocated from the driver",
        "cudaMalloc and cudaFree stop the device",
        "warm up, and set PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True",
    ),
    ("data", "The data loader is late", "the GPU idles inside of the DataLoader", "more workers, or prefetch"),
)
_RULES: tuple[Callable[[Seen], Iterator[Candidate]], ...] = (
    *(_launches, _waits, _attention, _precision, _roofs, _layout, _memory_bound, _optimizer, _recompute, _traffic),
)
