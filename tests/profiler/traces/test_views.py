"""Views: operators, kernels, launches, Tensor Cores, roofline, communication, modules, critical path, health."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from profiler.traces.breakdown import step_windows
from profiler.traces.communication import collectives, overlap
from profiler.traces.counted import op_flop
from profiler.traces.critical import critical_path
from profiler.traces.health import health
from profiler.traces.launches import launch_statistics
from profiler.traces.operators import kernel_summary, operator_table
from profiler.traces.products import work_of
from profiler.traces.roofline import roofline
from profiler.traces.tensor_cores import evidence
from profiler.traces.unet import attention_by_resolution, blocks, denoising_steps, module_tree
from tests.support.traces import (
    COMPILED,
    EAGER,
    RECORDED,
    SDPA,
    TRAIN,
    Row,
    attributed,
    event,
    kernel,
    launch,
    module,
    op,
    phase,
    recorded,
    step,
)

LAUNCHED = (
    *(step(0, 100), op("aten::linear", 0, 30, external=1), op("aten::addmm", 5, 25, external=2)),
    *(launch(1, 10), launch(2, 20), launch(3, 27)),
    *(kernel("nvjet_a", 12, 40, correlation=1, external=2), kernel("nvjet_a", 40, 50, correlation=2, external=2)),
    kernel("bias", 50, 52, correlation=3, external=1),
)


def test_operators_have_self_and_total_times() -> None:
    rows = {row["name"]: row for row in operator_table(attributed(*LAUNCHED)).to_pylist()}
    assert {name: tuple(row.values())[1:] for name, row in rows.items()} == {
        "aten::addmm": (1, 20, 20, 38, 38),
        "aten::linear": (1, 10, 30, 2, 40),
    }


def test_an_operator_that_calls_itself_counts_once() -> None:
    (row,) = operator_table(attributed(step(0, 100), op("aten::to", 0, 50), op("aten::to", 10, 30))).to_pylist()
    assert (row["num_calls"], row["host_self_ns"], row["host_total_ns"], row["device_self_ns"]) == (2, 50, 50, None)


def test_kernels_have_their_launch_geometry() -> None:
    args = {"grid": [8, 2, 1], "block": [128, 1, 1], "registers per thread": 64, "est. achieved occupancy %": 50}
    rows = (kernel("k", 0, 10, **args), kernel("k", 10, 40, **args | {"est. achieved occupancy %": 10}))
    (found,) = kernel_summary(attributed(*rows), by_launch=True).to_pylist()
    assert (found["grid"], found["block"], found["registers"], found["num_calls"]) == ("8x2x1", "128x1x1", 64, 2)
    assert (found["total_ns"], found["min_ns"], found["max_ns"]) == (40, 10, 30)
    assert found["occupancy_percent"] == pytest.approx((50 * 10 + 10 * 30) / 40)  # weighted by time


def test_launches_are_counted_and_timed() -> None:
    found = launch_statistics(attributed(*LAUNCHED))
    assert found is not None
    assert (found.num_kernels, found.num_launches, found.num_short, found.short_ns) == (3, 3, 3, 40)
    assert (found.launch_ns, found.queue_ns, found.deepest_queue) == (1, 19, 3)
    assert launch_statistics(attributed(step(0, 9), op("aten::mm", 0, 5))) is None


def test_collectives_are_hidden_where_something_computes() -> None:
    message = {"Collective name": "allreduce", "dtype": "Float", "In msg nelems": 1000, "Group size": 4}
    rows = (kernel("ncclDevKernel_AllReduce", 10, 50, stream=9, **message), kernel("nvjet", 20, 40))
    found = attributed(step(0, 100), *rows)
    result = overlap(found)
    assert (result.communication_ns, result.exposed_ns, result.hidden_share) == (40, 20, 0.5)
    (row,) = collectives(found).to_pylist()
    assert (row["collective"], row["message_bytes"], row["num_ranks"]) == ("allreduce", 4000, 4)
    assert row["bus_gbs"] == pytest.approx(4000 * 2 * 3 / 4 / 40)
    assert overlap(recorded(SDPA)).hidden_share is None


@pytest.mark.parametrize(
    ("collective", "dtype", "num_bytes", "share"),
    [
        ("_allgather_base", "BFloat16", 2000, 3),  # NCCL's event counts the rank's own part
        ("_reduce_scatter_base", "Float", 4000, 3 / 4),
        ("broadcast", "Float8_e4m3fn", 1000, 1),
        ("send", "Half", 2000, 1),
        ("all_to_all", "Int", 4000, 3 / 4),
        ("barrier", "Float", 4000, None),
        ("allreduce", "strange", None, None),
    ],
)
def test_the_bus_carries_what_a_ring_of_four_sends(
    collective: str, dtype: str, num_bytes: int | None, share: float | None
) -> None:
    message = {"Collective name": collective, "dtype": dtype, "In msg nelems": 1000, "Group size": 4}
    (row,) = collectives(attributed(step(0, 100), kernel("ncclDevKernel_X", 10, 50, **message))).to_pylist()
    assert row["message_bytes"] == num_bytes
    assert row["bus_gbs"] == (None if num_bytes is None or share is None else pytest.approx(num_bytes * share / 40))


@pytest.mark.parametrize(
    ("name", "category", "expected"),
    [
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc", "conv", "certain"),
        ("cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16", "gemm", "certain"),
        ("ampere_bf16_s16816gemm_bf16_128x64", "gemm", "certain"),
        ("sm80_xmma_gemm_f32f32_tf32f32_f32_nn", "gemm", "certain"),
        ("nvjet_hsh_128x256_64x4", "gemm", "library"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64>>", "attention", "library"),
        ("sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nchwkcrs", "conv", "none"),
        ("ampere_sgemm_128x64_tn", "gemm", "none"),
        ("void cunn_SoftMaxForward<8>", "attention", "none"),
        ("vectorized_elementwise_kernel", "elementwise", "none"),
        ("triton_tem_fused_addmm_3", "gemm", "unknown"),
    ],
)
def test_tensor_cores_by_name(name: str, category: str, expected: str) -> None:
    assert evidence(name, category) == expected


@pytest.mark.parametrize(
    ("name", "dims", "concrete", "flop", "num_bytes"),
    [
        ("aten::mm", [[4, 8], [8, 16]], [], 2 * 4 * 8 * 16, 4 * (32 + 128 + 64)),
        ("aten::addmm", [[16], [4, 8], [8, 16]], [], 2 * 4 * 8 * 16, 4 * (16 + 32 + 128 + 64)),
        ("aten::bmm", [[3, 4, 8], [3, 8, 16]], [], 3 * 2 * 4 * 8 * 16, 4 * 3 * (32 + 128 + 64)),
        ("aten::linear", [[2, 5, 8], [16, 8]], [], 2 * 10 * 8 * 16, 4 * (80 + 128 + 160)),
        (
            *("aten::convolution", [[2, 4, 8, 8], [6, 4, 3, 3]]),
            ["", "", "", "[2, 2]", "[1, 1]", "[1, 1]", "False", "[0, 0]", "1"],
            *(2 * 2 * 6 * 4 * 4 * 4 * 9, 4 * (512 + 216 + 192)),
        ),
        ("aten::_scaled_dot_product_flash_attention", [[2, 3, 8, 4], [2, 3, 5, 4], [2, 3, 5, 4]], [],
         2 * 2 * 3 * 8 * 5 * (4 + 4), 4 * 2 * 3 * 4 * (8 + 5 + 5 + 8)),
        ("aten::mul", [[4, 8], [4, 8]], [], None, 4 * 3 * 32),
        ("aten::mm", [], [], None, None),
    ],
)  # fmt: skip
def test_products_have_their_flop(
    name: str, dims: list[object], concrete: list[str], flop: int, num_bytes: int
) -> None:
    types = json.dumps(["float"] * len(dims)).encode()
    work = work_of(name, json.dumps(dims).encode(), types, json.dumps(concrete).encode())
    assert (work.flop, work.num_bytes) == (flop, num_bytes)


@pytest.mark.parametrize("file", [EAGER, SDPA], ids=["math", "sdpa"])
def test_a_traces_flop_are_those_counted_on_the_model(file: Path) -> None:
    flop = op_flop(recorded(file))
    record = json.loads((EAGER.parent / "record.json").read_text())  # the same UNet at the same batch
    assert flop[flop > 0].sum() == round(record["metrics"]["step_tflop"] * 1e12)


def test_no_operator_is_faster_than_its_roof() -> None:
    for file in (EAGER, SDPA, TRAIN):
        rows = [row for row in roofline(recorded(file)).to_pylist() if row["flop"] and row["roof_share"]]
        assert len(rows) > 20
        assert all(row["roof_share"] < 1.1 for row in rows)
    fp32 = [row for row in roofline(recorded(EAGER)).to_pylist() if row["flop"]]
    assert {row["tensor_cores"] for row in fp32} == {"none by name"}  # strict fp32
    half = [row for row in roofline(recorded(SDPA)).to_pylist() if row["flop"]]
    assert {row["tensor_cores"] for row in half[:20]} == {"by name", "by rate"}
    assert roofline(recorded(COMPILED)).num_rows <= 3  # a replayed graph has no operators


IN_UNET = (
    *(step(0, 200), phase("forward", 0, 40), phase("forward", 60, 100)),
    *(module("", 0, 40), module("down_blocks.0.attn", 5, 20), module("mid_block", 20, 30), module("", 60, 100)),
    op(
        "aten::scaled_dot_product_attention", 6, 18, external=1, dims=[[2, 8, 4096, 40], [2, 8, 77, 40], [2, 8, 77, 40]]
    ),
    *(op("aten::mm", 21, 25, external=2), op("aten::mul", 70, 75, external=3), op("aten::add", 110, 115, external=4)),
    *(launch(1, 10), launch(2, 22), launch(3, 71), launch(4, 111)),
    kernel("flash_fwd", 50, 80, correlation=1, external=1),
    kernel("gemm", 80, 90, correlation=2, external=2),
    kernel("mul", 100, 105, correlation=3, external=3),
    kernel("add", 120, 127, correlation=4, external=4),
)


def test_time_by_module_block_resolution_and_denoising_step() -> None:
    found = attributed(*IN_UNET)
    tree = {(row["module"], row["phase"]): (row["self_ns"], row["total_ns"]) for row in module_tree(found).to_pylist()}
    assert tree["down_blocks.0", "forward"] == (0, 30)
    assert tree["(root)", "forward"] == (5, 45)
    assert tree["unattributed", None] == (7, 7)
    assert {
        row["block"]: row["duration_ns"] for row in blocks(found).to_pylist() if row["category"] == "attention"
    } == {"down.0": 30}
    (attention,) = attention_by_resolution(found).to_pylist()
    assert tuple(attention.values()) == ("64x64", 4096, 77, 8, 40, "forward", 1, 30)
    steps = denoising_steps(found).to_pylist()
    assert [(row["forward"], row["busy_ns"]) for row in steps] == [(0, 40), (1, 12)]


def test_materialised_attention_counts_the_softmax_of_both_passes() -> None:
    scores = [16, 4096, 77]
    found = attributed(
        *(step(0, 100), phase("forward", 0, 40), phase("backward", 40, 100)),
        *(op("aten::_softmax", 6, 18, external=1, dims=[scores, [], []]), launch(1, 10)),
        op("aten::_softmax_backward_data", 50, 60, external=2, dims=[scores, scores, [], []]),
        *(launch(2, 55), kernel("softmax_forward", 20, 30, correlation=1, external=1)),
        kernel("softmax_backward", 60, 75, correlation=2, external=2),
    )
    rows = attention_by_resolution(found).to_pylist()
    assert [(row["phase"], row["resolution"], row["key_tokens"], row["duration_ns"]) for row in rows] == [
        ("backward", "64x64", 77, 15),
        ("forward", "64x64", 77, 10),
    ]


@pytest.mark.parametrize("file", RECORDED, ids=lambda path: path.parent.name[-13:])
def test_the_critical_path_fills_the_step(file: Path) -> None:
    found = recorded(file)
    path, (start, end) = critical_path(found).to_pylist(), step_windows(found)
    assert sum(row["duration_ns"] for row in path) == int((end - start).sum())
    assert all(a["start_ns"] + a["duration_ns"] == b["start_ns"] for a, b in pairwise(path))


def test_the_critical_path_follows_kernels_while_the_gpu_is_behind_and_the_host_where_it_is_not() -> None:
    rows = (
        *(launch(1, 10), kernel("a", 12, 40, correlation=1), launch(2, 15), kernel("b", 41, 60, correlation=2)),
        event("cuda_runtime", "cudaDeviceSynchronize", 20, 62),
        *(launch(3, 80), kernel("c", 85, 95, correlation=3), event("cuda_runtime", "cudaDeviceSynchronize", 90, 98)),
    )
    path = critical_path(attributed(step(0, 100), *rows)).to_pylist()
    assert [(row["kind"], row["name"], row["duration_ns"]) for row in path] == [
        *(("host", None, 10), ("launch", None, 2), ("kernel", "a", 28), ("gap", None, 1), ("kernel", "b", 19)),
        *(("sync", None, 2), ("host", None, 18), ("launch", None, 5), ("kernel", "c", 10), ("sync", None, 3)),
        ("host", None, 2),
    ]


TWO_STREAMS = (  # c waits for a alone, the host for c alone; b and d run beside them
    *(launch(1, 10), kernel("a", 12, 40, correlation=1), launch(20, 14, name="cudaEventRecord")),
    *(launch(21, 15, name="cudaStreamWaitEvent"), launch(2, 16), kernel("c", 42, 70, stream=20, correlation=2)),
    *(launch(3, 18), kernel("b", 40, 41, correlation=3), launch(4, 20), kernel("d", 43, 71, correlation=4)),
    launch(23, 22, name="cudaEventRecord"),
)
ON_EVENT = {"wait_on_stream": 20, "wait_on_cuda_event_record_corr_id": 23}


@pytest.mark.parametrize(
    ("call", "kind", "args"),
    [
        ("cudaEventSynchronize", "Event Sync", ON_EVENT | {"stream": 4294967295}),
        ("cudaStreamSynchronize", "Stream Sync", {"stream": 20}),
    ],
)
def test_the_critical_path_follows_streams_and_events_where_the_trace_names_them(
    call: str, kind: str, args: dict[str, int]
) -> None:
    rows = (*TWO_STREAMS, launch(24, 30, name=call, until=72))
    on_event = {"stream": 20, "wait_on_stream": 7, "wait_on_cuda_event_record_corr_id": 20}
    waits = (
        event("cuda_sync", "Stream Wait Event", 15, 16, correlation=21, device=0, **on_event),
        event("cuda_sync", kind, 30, 72, correlation=24, device=0, **args),
    )
    start, end = [("host", None, 10), ("launch", None, 2), ("kernel", "a", 28)], [("host", None, 28)]
    assert _path(*rows, *waits) == [*start, ("gap", None, 2), ("kernel", "c", 28), ("sync", None, 2), *end]
    guessed = [("kernel", "b", 1), ("gap", None, 2), ("kernel", "d", 28), ("sync", None, 1)]
    assert _path(*rows) == [*start, *guessed, *end], "without them, what ended last"


def test_an_event_is_the_last_that_was_recorded_before_the_wait() -> None:
    """Whatever kineto says of it: nothing where the record comes later in its buffers, or an event's later use."""
    rows = (*TWO_STREAMS, launch(24, 30, name="cudaEventSynchronize", until=72))
    for said in (-1, 40):
        on_event = {"stream": 20, "wait_on_stream": said, "wait_on_cuda_event_record_corr_id": said}
        made = {"device": 0, "event_id": 5, "stream": 7}
        records = (
            event("cuda_event", "cudaEvent", 70, 71, correlation=30, **made | {"stream": 20}),
            event("cuda_event", "cudaEvent", 14, 14, correlation=20, **made),
            event("cuda_event", "cudaEvent", 15, 15, correlation=20, **made | {"event_id": 6, "stream": 20}),
        )
        wait = event(
            "cuda_sync", "Stream Wait Event", 15, 16, correlation=21, device=0, wait_on_cuda_event_id=5, **on_event
        )
        done = event("cuda_sync", "Event Sync", 30, 72, correlation=24, device=0, **ON_EVENT | {"stream": 4294967295})
        path = _path(*rows, *records, wait, done)
        assert [row[1] for row in path if row[0] == "kernel"] == ["a", "c"]


def test_a_kernel_that_waits_for_an_event_nobody_recorded_waits_for_what_ended_last() -> None:
    """torch 2.11 writes no cuda_event rows, and kineto may not find the record."""
    rows = (*TWO_STREAMS, launch(24, 30, name="cudaEventSynchronize", until=72))
    unknown = {"stream": 20, "wait_on_stream": -1, "wait_on_cuda_event_record_corr_id": -1, "wait_on_cuda_event_id": 5}
    wait = event("cuda_sync", "Stream Wait Event", 15, 16, correlation=21, device=0, **unknown)
    done = event("cuda_sync", "Event Sync", 30, 72, correlation=24, device=0, **ON_EVENT | {"stream": 4294967295})
    assert [row[1] for row in _path(*rows, wait, done) if row[0] == "kernel"] == ["a", "b", "c"]


def _path(*rows: Row) -> list[tuple[str, str | None, int]]:
    path = critical_path(attributed(step(0, 100), *rows)).to_pylist()
    return [(row["kind"], row["name"], row["duration_ns"]) for row in path]


def test_a_stream_of_another_device_is_another_stream() -> None:
    rows = (
        *(launch(1, 10), kernel("own", 12, 40, correlation=1)),
        *(
            launch(2, 20),
            kernel("other", 22, 60, correlation=2) | {"args": {"device": 1, "stream": 7, "correlation": 2}},
        ),
        launch(3, 30, name="cudaStreamSynchronize", until=62),
    )
    wait = event("cuda_sync", "Stream Sync", 30, 62, correlation=3, device=0, stream=7)
    assert ("kernel", "own", 28) in _path(*rows, wait)
    assert ("kernel", "other", 38) in _path(*rows)


def test_kernels_and_waits_without_length_end_the_walk() -> None:
    rows = (launch(1, 20), kernel("k", 20, 20, correlation=1), kernel("k", 20, 20, correlation=1))
    waits = (launch(number, 20, name="cudaDeviceSynchronize", until=20) for number in (3, 4))
    assert sum(row[2] for row in _path(*rows, *waits)) == 100


def test_a_whole_trace_is_in_good_health_and_says_what_it_lacks() -> None:
    card = health(recorded(SDPA))
    assert card.is_whole
    assert (card.unattributed_share, card.graph_share, card.num_events) == (0, 0, 13065)
    assert set(card.why_empty) == {"modules", "backward", "communication"}
    assert health(recorded(COMPILED)).graph_share == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("file", [COMPILED, TRAIN])
def test_a_compiled_trace_of_ours_says_why_it_names_no_modules(file: Path) -> None:
    assert "compiled as a whole" in health(recorded(file)).why_empty["modules"]


def test_a_trace_without_modules_says_what_would_give_them() -> None:
    replay = (launch(1, 10, name="cudaGraphLaunch"), kernel("gemm", 20, 30, correlation=1))
    assert "cuda_graphs=off" in health(attributed(step(0, 100), *replay)).why_empty["modules"]
    foreign = health(attributed(step(0, 100, "ProfilerStep#1"), *replay))
    assert foreign.why_empty["modules"] == "no module names: profile with with_stack=True, or measure with Steplens"


def test_the_card_names_what_is_wrong() -> None:
    rows: tuple[Row, ...] = (step(0, 50), step(50, 100), kernel("lost", 10, 20, correlation=77))
    card = health(attributed(*rows))
    said = {finding.what: finding.count for finding in card.findings}
    assert said["kernels without a launching call: their phase and step are guessed by time"] == 1
    assert said["steps with unequal numbers of kernels (0 to 1)"] == 2
    assert card.unattributed_share == 1
    assert not card.is_whole
    assert set(health(attributed()).why_empty) >= {"gpu", "operators", "modules", "memory", "steps"}
