"""Reading: exact nanoseconds, every spelling that kineto has had, and files that are no trace."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from profiler.traces.read import read_trace
from profiler.traces.source import TooLargeError
from tests.support.traces import RECORDED, SDPA, TRAIN, event, kernel, launch, op, read, read_text

INNER = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 4650317995370.675, "dur": 1.5, "tid": 3}
OUTER = INNER | {"name": "aten::linear", "dur": 2.25, "args": {"External id": 9, "Input Dims": [[2, 3], []]}}


def _names(trace: Any, table: Any) -> list[str]:
    return [trace.names[code] for code in table.name]


def test_times_are_exact_nanoseconds() -> None:
    micros = [4650317995370.675, 4650317995371.001, 4650317995371.999, 4650317995372.0]
    trace = read(*(INNER | {"ts": ts, "dur": ts % 7} for ts in micros))
    assert (trace.ops.start_ns + trace.origin_us * 1000).tolist() == [round(ts * 1000) for ts in micros]


def test_microseconds_since_1970_keep_their_nanoseconds() -> None:
    text = '{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "ts": 1700000000000000.123, "dur": 0.5}, '
    text += '{"ph": "X", "cat": "kernel", "name": "k", "ts": 1700000000000001.456, "dur": 1}]}'
    trace = read_text(text)
    assert (trace.device.start_ns + trace.origin_us * 1000).tolist() == [1700000000000000123, 1700000000000001456]


def test_outer_stands_before_inner() -> None:
    trace = read(INNER, OUTER)
    assert _names(trace, trace.ops) == ["aten::linear", "aten::mm"]


def test_arguments_are_read_by_kinetos_names() -> None:
    memory = {"Bytes": -512, "Addr": 77, "Device Type": 1, "Total Reserved": 1024, "Ev Idx": 3}
    trace = read(OUTER, {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "ts": 1.0, "args": memory})
    assert (trace.ops.external_id.tolist(), trace.texts[trace.ops.dims[0]]) == ([9], b"[[2, 3], []]")
    found = trace.allocations
    assert (found.num_bytes[0], found.address[0], found.device_type[0], found.total_reserved[0]) == (-512, 77, 1, 1024)


def test_what_is_not_read_is_counted() -> None:
    noise = [INNER | {"ph": ph, "cat": cat} for ph, cat in (("s", "ac2g"), ("f", "ac2g"), ("C", ""), ("B", "cpu_op"))]
    trace = read(*noise, INNER, event("python_function", "train.py(3): main", 0, 9))
    assert len(trace.ops) == 1
    assert {kind: note.count for kind, note in trace.notes.items()} == {
        "left out: arrows from launch to kernel": 2,
        "left out: counters": 1,
        "left out: events of the unknown type 'B'": 1,
        "left out: Python calls that are no module": 1,
    }


def test_old_and_foreign_spellings_mean_the_same() -> None:
    rows = [event(cat, cat, 0, 1) for cat in ("Operator", "Kernel", "Memcpy", "Memset", "Runtime", "xpu_driver")]
    trace = read(*rows, event("mtia_insight", "?", 0, 1))
    assert _names(trace, trace.ops) == ["Operator"]
    assert sorted(trace.device.kind.tolist()) == [0, 1, 2]
    assert len(trace.launches) == 2
    assert [trace.names[code] for code in trace.others.category] == ["mtia_insight"]  # unknown, and still there


def test_metadata_may_stand_after_the_events() -> None:
    text = json.dumps({"traceEvents": [INNER], "distributedInfo": {"rank": 3}, "deviceProperties": [{"name": "H200"}]})
    trace = read_text(text)
    assert (trace.metadata["distributedInfo"], trace.device_name) == ({"rank": 3}, "H200")
    assert read_text('{"schemaVersion": 1, "traceEvents": []}').metadata == {"schemaVersion": 1}


def test_names_of_threads_and_streams_may_be_words() -> None:
    rows = [op("a", 0, 1, thread="main"), kernel("k", 1, 2, stream="legacy")]  # type: ignore[arg-type]
    trace = read(*rows)
    assert (1, "main") in trace.threads
    assert trace.device.stream.tolist() == [-1]


def test_ids_beyond_64_bits_stay_apart() -> None:
    trace = read(launch(2**63 + 5, 0), launch(2**63 + 6, 1), kernel("k", 2, 3, correlation=2**63 + 6))
    assert trace.launches.correlation.tolist() == [5 - 2**63, 6 - 2**63]
    assert trace.device.correlation.tolist() == [6 - 2**63]
    assert "repaired: a correlation that is no number of 64 bits" in trace.notes


@pytest.mark.parametrize("file", RECORDED, ids=lambda path: path.parent.name[-13:])
def test_every_event_of_a_recorded_trace_is_in_its_table_or_counted(file: Path) -> None:
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    trace = read_trace(file)
    tables = (trace.ops, trace.ranges, trace.modules, trace.launches, trace.device, trace.syncs, trace.others)
    metadata = sum(event["ph"] == "M" for event in events)
    counted = sum(note.count for note in trace.notes.values()) + metadata
    assert sum(map(len, (*tables, trace.allocations, trace.flows))) + counted == len(events) == trace.num_events
    assert sum(len(table) for table in tables) == sum(event["ph"] == "X" for event in events)
    assert not [kind for kind in trace.notes if not kind.startswith("left out")]


def test_small_pieces_and_one_big_one_read_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(gzip.decompress(SDPA.read_bytes()))
    whole = read_trace(SDPA)
    monkeypatch.setattr("profiler.traces.source.read_pieces.__kwdefaults__", {"max_bytes": None, "piece": 10_000})
    for path in (file, SDPA):
        pieces = read_trace(path)
        assert pieces.num_events == whole.num_events
        assert pieces.metadata == whole.metadata
        assert (pieces.ops.start_ns == whole.ops.start_ns).all()
        assert [pieces.names[code] for code in pieces.device.name] == [whole.names[code] for code in whole.device.name]


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.json.gz"
    bomb.write_bytes(gzip.compress(b'{"traceEvents": [' + b" " * 50_000_000))
    with pytest.raises(TooLargeError, match=r"bomb.json.gz unpacks to more than 0.0 GB"):
        read_trace(bomb, max_bytes=10_000_000)


@pytest.mark.parametrize(
    "content",
    [b"not json", b"", b'{"distributedInfo": {}}', b"\x1f\x8b not gzip", gzip.compress(b"{}", mtime=0)],
    ids=["text", "empty", "no events", "not gzip", "packed nothing"],  # bytes of a moment would name no test
)
def test_a_file_that_is_no_trace_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^a.json is no kineto trace: "):
        read_trace(path)


def test_the_autograd_profilers_bare_list_is_read() -> None:
    assert len(read_text(json.dumps([INNER, OUTER])).ops) == 2


def test_a_recorded_training_step_links_runtime_and_driver_launches() -> None:
    trace = read_trace(TRAIN)
    kinds = {trace.names[code] for code in trace.launches.name}
    assert {"cudaLaunchKernel", "cuLaunchKernelEx"} <= kinds
