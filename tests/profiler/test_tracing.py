"""The traced pass of a real step on a CPU, and the tables that a run folder keeps of it."""

import gzip
import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from profiler import memory
from profiler.combo import Combo
from profiler.flops import forward_flop_per_sample
from profiler.subject import Subject
from profiler.tracing import Trace, write_tables
from tests.support.unets import subject, trace, workload
from tests.support.waterfalls import changes, wall_of, waterfall


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, Trace, Path]:
    folder = tmp_path_factory.mktemp("trace")
    made, _ = subject(workload(mode="train"))
    found = trace(made, folder)
    write_tables(found, folder)
    return made, found, folder


def _step_ns(found: Trace) -> int:
    steps = found.attribution.steps
    return int(steps.end_ns[0] - steps.start_ns[0])


def test_one_step_is_traced_in_its_phases(traced: tuple[Subject, Trace, Path]) -> None:
    _, found, _ = traced
    assert found.num_steps == 1
    assert {op.phase for op in found.found.ops} >= {"forward", "backward", "optimizer"}
    assert found.step_ms >= _step_ns(found) / 1e6 * 0.9


def test_the_trace_file_is_one_that_perfetto_opens(traced: tuple[Subject, Trace, Path]) -> None:
    (file,) = traced[2].glob("*.pt.trace.json.gz")
    assert len(json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]) > 100


def test_kernel_times_add_up_to_the_step(traced: tuple[Subject, Trace, Path]) -> None:
    _, found, folder = traced
    table = pq.read_table(folder / "kernels.parquet")
    step_ns = _step_ns(found)
    assert 0.3 * step_ns < sum(table["duration_ns"].to_pylist()) <= step_ns * 1.02
    assert all(0 <= start <= step_ns for start in table["start_ns"].to_pylist())
    assert set(table["stream"].to_pylist()) == {None}


# Self time of operators that compute nothing here: views, allocations, a dropout of 0, and the autograd engine's nodes.
_BOOKKEEPING = re.compile(
    r"^(autograd::engine|torch::autograd|\w+Backward\d*$|detach"
    r"|aten::(t|view|_?reshape\w*|_unsafe_view|permute|empty\w*|expand|as_strided|(un)?squeeze"
    r"|broadcast_tensors|resize_|dropout|split|chunk|slice|narrow|select|transpose|detach|result_type|resolve_\w+|to|zeros|zeros_like|ones_like|item|_local_scalar_dense"
    r"|slice_backward|lift_fresh)$)"
)


def test_on_a_cpu_only_bookkeeping_is_of_category_other(traced: tuple[Subject, Trace, Path]) -> None:
    kernels = traced[1].found.kernels
    assert {"conv", "gemm", "norm", "attention", "elementwise", "optimizer"} <= {k.category for k in kernels}
    assert {k.name for k in kernels if k.category == "other" and not _BOOKKEEPING.search(k.name)} == set()


def test_forward_and_backward_know_their_modules(traced: tuple[Subject, Trace, Path]) -> None:
    kernels = traced[1].found.kernels
    for phase in ("forward", "backward"):
        layers = [k for k in kernels if k.phase == phase and k.category in ("conv", "norm", "gemm", "attention")]
        assert [kernel for kernel in layers if not kernel.module] == []
        assert {"conv_in", "mid_block.resnets.0.conv1", "conv_out"} <= {kernel.module for kernel in layers}
    assert not any(kernel.module for kernel in kernels if kernel.phase == "optimizer")
    assert not any(name.startswith("steplens.module.") for name in (op.event.name for op in traced[1].found.ops))


def test_the_forwards_flop_are_those_counted_on_the_model(traced: tuple[Subject, Trace, Path]) -> None:
    made, _, folder = traced
    table = pq.read_table(folder / "ops.parquet").to_pandas()
    counted = table.loc[table["phase"] == "forward", "flops"].sum()
    assert counted == made.workload.batch * forward_flop_per_sample(made.unet, made.workload)


def test_two_attention_kernels_are_compared_by_module(traced: tuple[Subject, Trace, Path], tmp_path: Path) -> None:
    made, _ = subject(workload(mode="train"), Combo(attention="sdpa"))
    before, after = traced[1].attribution, trace(made, tmp_path).attribution
    parts = changes(waterfall(before, after, "place"))  # though they share no attention kernel
    assert sum(parts.values()) == wall_of(after) - wall_of(before)
    assert {"down_blocks.0, forward", "down_blocks.0, backward"} <= set(parts)


def test_operators_keep_their_shapes(traced: tuple[Subject, Trace, Path]) -> None:
    table = pq.read_table(traced[2] / "ops.parquet").to_pandas()
    first = table[table["name"] == "aten::convolution"].iloc[0]
    assert first["shapes"].startswith("2x4x8x8, 32x4x3x3")
    assert (table["self_ns"] <= table["duration_ns"]).all()
    assert table["device_self_ns"].isna().all()


def test_the_memory_of_a_training_step_has_its_categories(traced: tuple[Subject, Trace, Path]) -> None:
    made, found, folder = traced
    num_parameters = sum(p.numel() for p in made.unet.parameters())
    table = pq.read_table(folder / "memory.parquet").to_pandas()
    held = memory.held(made, [])
    assert table["parameters_bytes"].iloc[0] == 4 * num_parameters
    assert table["optimizer_state_bytes"].iloc[0] == sum(held.optimizer_state.values())
    # Every gradient is alive at the end of the backward, and none after zero_grad.
    assert table["gradients_bytes"].max() == pytest.approx(4 * num_parameters, rel=0.02)
    assert table["gradients_bytes"].iloc[-1] <= 0.02 * 4 * num_parameters
    assert table["activations_bytes"].max() > 0
    assert table["time_ns"].is_monotonic_increasing
    assert table["reserved_bytes"].isna().all()
    assert found.peak_bytes > 3 * 4 * num_parameters


def test_the_peak_is_told_to_the_last_byte(traced: tuple[Subject, Trace, Path]) -> None:
    made, found, folder = traced
    table = pq.read_table(folder / "alive.parquet").to_pandas()
    peak, kept = (table[table["moment"] == moment] for moment in ("peak", "forward_end"))
    assert peak["bytes"].sum() == found.peak_bytes
    assert kept.loc[kept["category"] == "activations", "bytes"].sum() == found.timeline.activations
    weights = {path: 4 * sum(p.numel() for p in m.parameters(recurse=False)) for path, m in made.unet.named_modules()}
    for category, factor in (("parameters", 1), ("optimizer_state", 2)):
        own = peak[peak["category"] == category].set_index("module")["bytes"]
        assert own["mid_block.resnets.0.conv1"] == pytest.approx(
            factor * weights["mid_block.resnets.0.conv1"], rel=0.01
        )
        assert set(own.index) == {path for path, size in weights.items() if size}
    gradients = peak[peak["category"] == "gradients"]
    assert set(gradients["module"]) <= set(weights)
    told = kept[(kept["category"] == "activations") & kept["module"].notna()]
    assert told["bytes"].sum() > 0.95 * found.timeline.activations
    assert (folder / "alive.parquet").stat().st_size < 20_000


def test_checkpointing_keeps_less_and_names_the_modules_that_run_again(
    traced: tuple[Subject, Trace, Path], tmp_path: Path
) -> None:
    made, _ = subject(workload(mode="train"), Combo(checkpointing="full"))
    found = trace(made, tmp_path)
    assert 0 < found.timeline.activations < traced[1].timeline.activations / 2
    assert found.timeline.most("activations") > found.timeline.activations  # they are back while their block runs again
    again = [kernel for kernel in found.found.kernels if kernel.phase == "recompute"]
    named = [kernel for kernel in again if kernel.module and re.search(r"resnets|transformer_blocks", kernel.module)]
    assert sum(k.duration_ns for k in named) > 0.9 * sum(k.duration_ns for k in again)
