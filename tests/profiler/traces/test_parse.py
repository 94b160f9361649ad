"""Parsing: nanoseconds from the first event, outer before inner, and files that are no trace."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from profiler.traces.parse import read_events
from tests.support.traces import SDPA


def _file(folder: Path, events: list[dict[str, Any]]) -> Path:
    path = folder / "a.json"
    path.write_text(json.dumps({"schemaVersion": 1, "traceEvents": events}))
    return path


INNER = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 4650317995370.675, "dur": 1.5, "tid": 3}
OUTER = INNER | {"name": "aten::linear", "dur": 2.25, "args": {"External id": 9, "Input Dims": [[2, 3], []]}}


def test_times_are_nanoseconds_from_the_first_event(tmp_path: Path) -> None:
    later = INNER | {"ts": 4650317995371.675, "name": "later"}
    found = read_events(_file(tmp_path, [later, INNER]))
    assert [(e.name, e.duration_ns) for e in found] == [("aten::mm", 1500), ("later", 1500)]
    assert found[0].start_ns == 0
    assert abs(found[1].start_ns - 1000) <= 1  # a double holds today's microseconds to one nanosecond


def test_outer_stands_before_inner(tmp_path: Path) -> None:
    assert [e.name for e in read_events(_file(tmp_path, [INNER, OUTER]))] == ["aten::linear", "aten::mm"]


def test_arguments_are_read_by_kinetos_names(tmp_path: Path) -> None:
    memory = {"Bytes": -512, "Addr": 77, "Device Type": 1, "Total Reserved": 1024, "Ev Idx": 3}
    instant = {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "ts": 1.0, "args": memory}
    released, operator = read_events(_file(tmp_path, [OUTER, instant]))
    assert (operator.args.external_id, operator.args.input_dims) == (9, [[2, 3], []])
    assert (released.args.num_bytes, released.args.address, released.args.device_type) == (-512, 77, 1)
    assert (released.args.total_reserved, released.duration_ns) == (1024, 0)


def test_flows_metadata_and_events_without_category_are_left_out(tmp_path: Path) -> None:
    noise = [INNER | {"ph": "s"}, INNER | {"ph": "M"}, {k: v for k, v in INNER.items() if k != "cat"}]
    assert len(read_events(_file(tmp_path, [*noise, INNER]))) == 1


def test_a_trace_without_events_is_empty(tmp_path: Path) -> None:
    assert read_events(_file(tmp_path, [])) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b"not json"),
        ("a.json", b"[]"),
        ("a.json", b'{"distributedInfo": {}}'),
        ("a.json", b'{"traceEvents": [{"ph": "X", "ts": "now"}]}'),
        ("a.json.gz", b"not gzip"),
        ("a.json.gz", SDPA.read_bytes()[:1000]),
        ("a.json.gz", gzip.compress(b'{"traceEvents": [', mtime=0)),
    ],
    ids=["no json", "a list", "no events", "no time", "no gzip", "cut short", "half a json"],
)
def test_a_file_that_is_no_trace_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is no kineto trace"):
        read_events(tmp_path / name)


def test_a_recorded_trace_is_read() -> None:
    found = read_events(SDPA)
    assert {"kernel", "cpu_op", "cuda_runtime", "cuda_driver", "user_annotation"} <= {e.category for e in found}
    assert [e.start_ns for e in found] == sorted(e.start_ns for e in found)
    assert found[0].start_ns == 0
