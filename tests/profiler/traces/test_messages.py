"""Messages: bytes of messages, exposed time and waiting, read from small traces."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler.traces.attribute import Attribution, attribute
from profiler.traces.intervals import Union
from profiler.traces.messages import (
    Message,
    Transfers,
    exposed_ns,
    joined_ns,
    messages_of,
    transfers_of,
    work_of,
)
from profiler.traces.read import read_trace


def event(category: str, name: str, start: int, duration: int, thread: int = 1, **args: Any) -> dict[str, Any]:
    values = {"ph": "X", "cat": category, "name": name, "ts": start, "dur": duration, "pid": 1, "tid": thread}
    return values | {"args": args}


def read(folder: Path, events: list[dict[str, Any]]) -> Attribution:
    file = folder / "worker.pt.trace.json"
    file.write_text(json.dumps({"traceEvents": events}), encoding="utf-8")
    return attribute(read_trace(file))


STEP = event("user_annotation", "steplens.step", 0, 100)
FORWARD = event("user_annotation", "steplens.phase.forward", 0, 50)


def gloo(what: str, start: int, duration: int, dtype: str = "c10::BFloat16") -> dict[str, Any]:
    shapes = {"Input Dims": [[3, 5]], "Input type": [dtype]}
    return event("user_annotation", f"gloo:{what}", start, duration, 2, **shapes)


def test_messages_of_gloo_are_ranges_with_shapes(tmp_path: Path) -> None:
    found = read(tmp_path, [STEP, FORWARD, gloo("all_reduce", 10, 20), gloo("send", 60, 5), gloo("recv", 200, 5)])
    assert messages_of(found) == [Message("all_reduce", 30, "forward"), Message("send", 30)]


@pytest.mark.parametrize(("dtype", "num_bytes"), [("long int", 120), ("c10::Float8_e4m3fn", 15), ("strange", None)])
def test_a_message_of_an_unknown_type_has_no_size(tmp_path: Path, dtype: str, num_bytes: int | None) -> None:
    (found,) = messages_of(read(tmp_path, [STEP, gloo("send", 60, 5, dtype)]))
    assert found.num_bytes == num_bytes
    assert found.sent_bytes(2) == num_bytes


def test_messages_of_nccl_are_operators_with_sizes(tmp_path: Path) -> None:
    def nccl(start: int, collective: str) -> dict[str, Any]:
        said = {"Collective name": collective, "In msg nelems": 10, "dtype": "BFloat16"}
        return event("cpu_op", "record_param_comms", start, 1, **said)

    found = read(tmp_path, [STEP, FORWARD, nccl(10, "allreduce"), nccl(60, "_allgather_base"), nccl(70, "wait")])
    assert messages_of(found) == [Message("all_reduce", 20, "forward"), Message("all_gather", 20)]


def test_on_a_cpu_a_transfer_is_exposed_where_no_operator_runs(tmp_path: Path) -> None:
    ops = [event("cpu_op", "aten::mm", 0, 15), event("cpu_op", "c10d::allreduce_", 15, 5)]
    found = read(tmp_path, [STEP, *ops, gloo("all_reduce", 10, 20)])
    transfers, work = transfers_of(found), work_of(found)
    assert transfers.durations == [("all_reduce", 20_000)]
    assert work.total_ns == 15_000
    assert exposed_ns(transfers.start_ns, transfers.end_ns, work) == 15_000


def test_on_a_gpu_transfers_are_kernels(tmp_path: Path) -> None:
    kernels = [
        event("kernel", "ncclDevKernel_AllReduce_Sum_f32_RING_LL", 10, 30, 20, stream=20, device=0),
        event("kernel", "ampere_gemm", 0, 20, 7, stream=7, device=0),
    ]
    found = read(tmp_path, [STEP, *kernels])
    transfers, work = transfers_of(found), work_of(found)
    assert transfers.durations == [("all_reduce", 30_000)]
    assert exposed_ns(transfers.start_ns, transfers.end_ns, work) == 20_000


@pytest.mark.parametrize(
    ("kind", "sent"),
    [("all_reduce", 150.0), ("reduce_scatter", 75.0), ("all_gather", 300.0), ("send", 100.0), ("recv", 0.0)],
)
def test_a_ring_of_four_sends_its_share(kind: str, sent: float) -> None:
    assert Message(kind, 100).sent_bytes(4) == sent


def test_alone_nothing_is_sent() -> None:
    assert [Message(kind, 100).sent_bytes(1) for kind in ("all_reduce", "all_gather", "reduce_scatter")] == [0, 0, 0]


def test_the_last_rank_joins_a_transfer_as_long_before_its_end_as_the_shortest_takes() -> None:
    own = Transfers(("all_reduce", "send", "all_reduce"), np.array([0, 20, 40]), np.array([10, 30, 44]))
    joined = joined_ns(own, [own.durations, [("recv", 4), ("all_reduce", 3), ("all_reduce", 4)]])
    assert joined is not None
    assert joined.tolist() == [7, 26, 40]
    assert exposed_ns(own.start_ns, joined, Union.of(np.array([5]), np.array([22]))) == 5 + 4


def test_ranks_whose_transfers_do_not_match_have_no_waiting() -> None:
    own = Transfers(("all_reduce",), np.array([0]), np.array([10]))
    assert joined_ns(own, [own.durations, []]) is None
