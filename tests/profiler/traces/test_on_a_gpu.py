"""On a GPU: real traced steps, eager, compiled and with CUDA graphs, through every view."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from profiler import provenance
from profiler.combo import Combo
from profiler.flops import forward_flop_per_sample
from profiler.optims import compilation
from profiler.traces.breakdown import breakdown, step_windows
from profiler.traces.classify import CATEGORIES
from profiler.traces.counted import op_flop
from profiler.traces.critical import critical_path
from profiler.traces.health import OTHER_LIMIT, UNATTRIBUTED_LIMIT, health
from profiler.traces.intervals import Union
from profiler.traces.launches import launch_statistics
from profiler.traces.objects import Found
from profiler.traces.operators import kernel_summary, operator_table
from profiler.traces.phases import PHASES
from profiler.traces.roofline import roofline
from profiler.traces.unet import attention_by_resolution, blocks, module_tree
from profiler.traces.views import write_views
from tests.support import unets
from tests.support.unets import subject, trace, workload

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("combo", [Combo(), Combo(attention="sdpa", precision="bf16", checkpointing="full")])
@pytest.mark.parametrize("kind", ["conditional_unet", "pixel_unet"])
def test_an_eager_training_step_is_attributed(kind: str, combo: Combo, tmp_path: Path) -> None:
    made, _ = subject(workload(kind, mode="train", device="cuda"), combo)
    found = trace(made, tmp_path).attribution
    card, work = health(found), found.traced
    assert card.unattributed_share is not None
    assert card.unattributed_share < UNATTRIBUTED_LIMIT
    assert card.other_share < OTHER_LIMIT
    start, end = step_windows(found)
    wall, parts = int((end - start).sum()), breakdown(found).to_pylist()
    assert sum(row["duration_ns"] for row in parts) == wall
    assert sum(row["duration_ns"] for row in critical_path(found).to_pylist()) == wall
    busy = Union.of(work.start_ns, work.end_ns).total_ns
    assert sum(row["duration_ns"] for row in parts if row["part"] in CATEGORIES) == busy
    phases = [found.phases.names[code] for code in work.phase.tolist()]
    layers = [CATEGORIES[code] in ("conv", "norm", "attention") for code in work.category.tolist()]
    unknown = [
        found.trace.names[name]
        for name, phase, module, layer in zip(work.name, phases, work.module.tolist(), layers, strict=True)
        if layer and phase != "optimizer" and module < 0
    ]
    assert unknown == []
    assert ("recompute" in phases) == (combo.checkpointing == "full")
    assert {row["block"] for row in blocks(found).to_pylist()} >= {"down.0", "up.1", "conv_in"}


def test_the_forwards_flop_are_the_models(tmp_path: Path) -> None:
    made, _ = subject(workload(device="cuda"))
    found = trace(made, tmp_path).attribution
    flop = op_flop(found)[found.op_step >= 0]
    assert flop[flop > 0].sum() == made.workload.batch * forward_flop_per_sample(made.unet, made.workload)


def test_every_view_takes_a_replayed_graph(tmp_path: Path) -> None:
    made, _ = subject(workload(device="cuda"), Combo(cuda_graphs="whole_step"))
    found = trace(made, tmp_path).attribution
    assert health(found).graph_share == pytest.approx(1, abs=0.2)
    statistics = launch_statistics(found)
    assert statistics is not None
    assert statistics.num_in_graphs > 0.8 * statistics.num_kernels
    for view in (operator_table, kernel_summary, roofline, module_tree, attention_by_resolution, blocks, critical_path):
        assert view(found).num_columns > 3


def test_a_run_folder_keeps_a_gpu_steps_views(tmp_path: Path) -> None:
    made, _ = subject(workload(mode="train", device="cuda"), Combo(attention="sdpa", precision="bf16_amp"))
    write_views(trace(made, tmp_path).attribution, tmp_path)
    summary = json.loads((tmp_path / "views" / "summary.json").read_text())
    rows = {path.stem: pq.read_table(path).to_pylist() for path in (tmp_path / "views").glob("*.parquet")}
    assert sum(row["duration_ns"] for row in rows["ledger"]) == summary["wall_ns"]
    assert sum(row["duration_ns"] for row in rows["critical_path"]) == summary["wall_ns"]
    assert (summary["on_gpu"], summary["knows_modules"]) == (True, True)
    assert summary["launches"]["num_launches"] > 0.9 * summary["launches"]["num_kernels"]
    assert {row["block"] for row in rows["ledger"]} >= {"down.0", "up.1", "conv_in"}
    assert all(row["grid"] and row["block"] for row in rows["kernel_kinds"] if row["category"] == "conv")
    assert any(row["flop"] for row in rows["roofline"])
    assert rows["attention"]


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty:UserWarning")  # Inductor's own, at its first graph
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # Dynamo's own, at block inputs
@pytest.mark.parametrize(
    ("mode", "choice"),
    [("inference", "default"), ("train", "default"), ("train", "regional"), ("inference", "reduce_overhead")],
)
def test_kernels_of_compiled_code_have_their_modules(
    mode: str, choice: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    provenance.listen()
    combo = Combo(attention="sdpa", precision="bf16", compilation=choice)
    made, _ = subject(workload(f"{unets.__name__}:one_level_unet", mode=mode, device="cuda"), combo)
    for _ in range(3):  # compiles, and records the graph of reduce_overhead
        unets.collect(made)
    num_graphs = compilation.num_graphs()
    found = trace(made, tmp_path).attribution
    assert compilation.num_graphs() == num_graphs  # the ranges round compiled blocks make nothing compile again
    assert provenance.note() == []
    work = found.traced
    in_model = work.take((work.compiled >= 0) & (work.phase != PHASES.index("optimizer")))
    assert len(in_model) > 30
    told = in_model.compiled == 1
    assert in_model.duration_ns[told].sum() >= 0.9 * in_model.duration_ns.sum()
    assert (in_model.in_graph > 0).mean() > 0.9 or choice != "reduce_overhead"
    tree = {(row["module"], row["phase"]): row["total_ns"] for row in module_tree(found).to_pylist()}
    for phase in ("forward", "backward") if mode == "train" else ("forward",):
        parts = [tree[f"up_blocks.0.resnets.{index}", phase] for index in range(2)]
        block, whole = tree["up_blocks.0.resnets", phase], tree["(root)", phase]
        assert 0 < sum(parts) <= block < whole
        assert all(part > 0.1 * block for part in parts)
    if choice == "reduce_overhead":
        return
    # a convolution is its own module's, whoever launched it
    calls = {op.event.name: set[str | None]() for op in Found(found).ops if "aten::convolution" in op.event.name}
    for op in Found(found).ops:
        if op.event.name in calls:
            calls[op.event.name].add(op.module)
    modules = {name for name, part in made.unet.named_modules() if isinstance(part, torch.nn.Conv2d)}
    assert calls
    assert {name: paths - modules for name, paths in calls.items() if paths - modules} == {}
