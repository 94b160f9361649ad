"""Synthetic alive.parquet and allocator.parquet of a run folder, by the code that writes the real ones."""

from pathlib import Path

from profiler.combo import Combo
from profiler.record import Metrics
from profiler.traces.alive import alive_table
from profiler.traces.fragments import Moment, allocator_table
from profiler.traces.tables import write_table
from profiler.traces.timeline import CATEGORIES, Point, Storage, Timeline
from profiler.workload import Workload

MODULES = (
    "conv_in",
    "time_embedding.linear_1",
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.resnets.0.conv1",
    "up_blocks.2.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.3.resnets.1.conv2",
    "conv_out",
)
KEPT = {"none": 1.0, "alternate": 0.6, "selective": 0.5, "full": 0.25}  # share of the activations, by checkpointing
GIB = 2**30


def write_memory(folder: Path, combo: Combo, workload: Workload, metrics: Metrics) -> None:
    """The peak's parts, spread over a few modules; on a GPU the allocator's curve, too."""
    gib = {"parameters": metrics.weights_gib, "gradients": metrics.gradients_gib}
    gib |= {"optimizer_state": metrics.optimizer_state_gib}
    gib |= {"activations": (metrics.activations_gib or 0) * KEPT[combo.checkpointing]}
    storages = [
        Storage(int((total or 0) * GIB * (index + 1) / 36), category, module)
        for category, total in gib.items()
        for index, module in enumerate(MODULES)
    ]
    storages.append(Storage(GIB // 64, "other", None))
    total = sum(storage.num_bytes for storage in storages)
    point = Point(0, dict.fromkeys(CATEGORIES, 0) | {"other": total}, None)
    line = Timeline([point], [one for one in storages if one.num_bytes], 0 if workload.mode == "train" else None)
    write_table(alive_table(line), folder / "alive.parquet")
    if workload.device == "cuda":
        reserved, step_ns = int((metrics.peak_reserved_gib or 0) * GIB), int((metrics.step_ms or 0) * 1e6)
        moments = [
            Moment(step_ns * at // 100, total * (150 - abs(2 * at - 100)) // 150, reserved, reserved // 50 + at * 2**20)
            for at in range(101)
        ]
        write_table(allocator_table(moments), folder / "allocator.parquet")
