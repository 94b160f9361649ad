"""Broken files: none crashes or hangs the reader, and none loses an event in silence."""

import copy
import gzip
import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from profiler.traces.attribute import attribute
from profiler.traces.breakdown import breakdown, step_windows
from profiler.traces.columns import Trace
from profiler.traces.communication import collectives, overlap
from profiler.traces.critical import critical_path
from profiler.traces.health import health
from profiler.traces.launches import launch_statistics
from profiler.traces.operators import kernel_summary, operator_table
from profiler.traces.read import read_trace
from profiler.traces.roofline import roofline
from profiler.traces.tables import kernel_table, op_table
from profiler.traces.unet import attention_by_resolution, blocks, denoising_steps, module_tree
from tests.support.traces import GOLDEN, SDPA, kernel, launch, op, read_text, step

ROWS = [step(0, 900_000), op("aten::mm", 5000, 9000, external=3), launch(4, 6000), kernel("gemm", 7000, 9500)]
TEXT = json.dumps({"schemaVersion": 1, "traceEvents": ROWS, "traceName": "a"}, indent=2)


def _num_rows(trace: Trace) -> int:
    tables = (trace.ops, trace.ranges, trace.launches, trace.device, trace.others, trace.modules, trace.syncs)
    return sum(map(len, tables)) + len(trace.allocations) + len(trace.flows)


@pytest.mark.parametrize(
    ("old", "new", "note"),
    [
        ('"aten::mm"', '"aten::\x01mm"', "control characters"),
        ('"aten::mm"', '"aten::\nmm"', ""),
        ('"aten::mm"', '"aten "quoted" mm"', "quotes inside of a text"),
        ('"aten::mm"', r'"C:\code\mm"', "escapes that JSON does not know"),
        ('"aten::mm"', r'"\ud800 mm"', "escapes that JSON does not know"),
        ('"dur": 4.0', '"dur": NaN', "numbers that are none"),
        ('"dur": 4.0', '"dur": -Infinity', "numbers that are none"),
        ('"dur": 4.0', '"dur": N/A', "numbers that are none"),
        ('"dur": 4.0', '"dur": -4.0', "durations that cannot be"),
        ('"External id": 3', '"External id": "3"', ""),
        ('"External id": 3', '"External id": [3]', "a value of an unexpected type"),
        ('"External id": 3', '"External id": null', ""),
        ('"correlation": 4', '"correlation": 4.0', ""),
    ],
)
def test_a_broken_value_costs_no_event(old: str, new: str, note: str) -> None:
    assert old in TEXT
    trace = read_text(TEXT.replace(old, new))
    assert _num_rows(trace) == len(ROWS)
    assert any(note in kind for kind in trace.notes) or not note
    assert trace.metadata == {"schemaVersion": 1, "traceName": "a"}
    assert not [kind for kind in trace.notes if kind.startswith("dropped")]


def test_bad_utf8_costs_no_event() -> None:
    trace = read_text(TEXT.encode().replace(b"aten::mm", b"aten::\xff\xfemm"))
    assert _num_rows(trace) == len(ROWS)
    assert "repaired: bytes that are not UTF-8" in trace.notes


def test_an_event_without_a_time_is_dropped_and_counted() -> None:
    trace = read_text(TEXT.replace('"ts": 5.0', '"ts": "now"'))
    assert _num_rows(trace) == len(ROWS) - 1
    assert trace.notes["dropped: events without a time"].count == 1


def test_an_unreadable_event_costs_no_other() -> None:
    trace = read_text(TEXT.replace('"ts": 5.0', '"ts": {{{'))
    assert _num_rows(trace) == len(ROWS) - 1
    assert trace.notes["dropped: an unreadable event"].count == 1
    assert trace.metadata["traceName"] == "a"


@pytest.mark.parametrize("part", [0.2, 0.4, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_dying_process_loses_its_last_event_only(tmp_path: Path, part: float, packed: bool) -> None:
    data = gzip.decompress(SDPA.read_bytes())
    file = tmp_path / "a.json"
    if packed:
        data = SDPA.read_bytes()
    file.write_bytes(data[: int(len(data) * part)])
    trace = read_trace(file)
    assert trace.num_events > part * 0.5 * 13065
    assert "the file ends before its list of events does" in trace.notes
    assert sum(note.count for kind, note in trace.notes.items() if kind.startswith("dropped: an event")) <= 1


@settings(max_examples=60)
@given(st.integers(0, len(TEXT) - 1))
def test_a_cut_anywhere_keeps_every_whole_event(cut: int) -> None:
    starts = TEXT[:cut].count('"ph"')
    trace = _read_or_none(TEXT[:cut].encode())
    assert starts <= 1 if trace is None else starts - 1 <= _num_rows(trace) <= len(ROWS)


def _read_or_none(data: bytes) -> Trace | None:
    """None for a file that is refused as no trace."""
    with suppress(ValueError):
        return read_text(data)
    return None


@settings(max_examples=80)
@given(st.lists(st.tuples(st.integers(0, len(TEXT) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@example([(126, 0), (234, 0)])  # a name without its end, before an event without its first key
@example([(TEXT.rindex('"X"') + 1, ord("M"))])  # a kernel becomes metadata
def test_flipped_bytes_crash_nothing(flips: list[tuple[int, int]]) -> None:
    data = bytearray(TEXT.encode())
    for place, value in flips:
        data[place] = value
    trace = _read_or_none(bytes(data))
    if trace is None:
        return
    attribute(trace)
    lost = len(ROWS) - _num_rows(trace)
    said = sum(note.count for kind, note in trace.notes.items() if kind.startswith(("dropped", "left out")))
    assert lost <= 0 or said or "the file ends before its list of events does" in trace.notes


CORPUS = {  # events that are whole in each file, and what is said about it
    "nan_duration": (4, "repaired: numbers that are none"),
    "control_character": (4, "repaired: control characters"),
    "quotes_in_a_name": (4, "repaired: quotes inside of a text"),
    "not_utf8": (4, "repaired: bytes that are not UTF-8"),
    "windows_path": (4, "repaired: escapes"),
    "trailing_comma": (4, "repaired: commas before a closing bracket"),
    "text_ids": (4, "repaired: a value of an unexpected type"),
    "broken_metadata": (4, "dropped: metadata"),
    "cut_in_an_event": (3, "dropped: an event that the file's end cuts off"),
    "cut_after_an_event": (3, "the file ends before its list"),
    "no_closing_bracket": (4, "the file ends before its list"),
    "not_a_list": (0, "no kineto trace: it has no traceEvents"),
    "no_json": (0, "no kineto trace: it is not a JSON object"),
}


@pytest.mark.parametrize("file", sorted((GOLDEN / "broken").iterdir()), ids=lambda file: file.stem)
def test_every_file_of_the_corpus_gives_what_is_whole_in_it(file: Path) -> None:
    whole, said = CORPUS[file.stem]
    if not whole:
        with pytest.raises(ValueError, match=rf"^{file.name} is {said}$"):
            read_trace(file)
        return
    trace = read_trace(file)
    assert _num_rows(trace) == whole
    assert any(kind.startswith(said) for kind in trace.notes)
    assert health(attribute(trace)).findings


HUGE = [2**31, 2**53, 2**62, 2**63, 2**70, -(2**63), 1e300]
STRANGE = st.sampled_from([*HUGE, -1, 0, 0.5, None, "", "x", [], [[1, "a"]], [[2], [2**40, 2**40], [2**40, 1]], {}])
FIELDS = ("ts", "dur", "pid", "tid", "name", "cat", "id")
ARGS = ("External id", "correlation", "stream", "grid", "Input Dims", "Input type", "Sequence number", "Fwd thread id")
NAMES = ("aten::_softmax", "aten::scaled_dot_product_attention", "aten::convolution", "aten::mul", "aten::addmm")
VIEWS = (breakdown, operator_table, kernel_summary, roofline, critical_path, blocks, module_tree, health, kernel_table)
MORE_VIEWS = (op_table, attention_by_resolution, denoising_steps, launch_statistics, overlap, collectives)


@settings(max_examples=150)
@given(
    st.sampled_from(NAMES), st.lists(st.tuples(st.integers(0, 5), st.sampled_from(FIELDS + ARGS), STRANGE), max_size=6)
)
def test_strange_values_break_no_view(name: str, changes: list[tuple[int, str, object]]) -> None:
    product = op(name, 4000, 9500, external=3, sequence=1, forward_thread=0, dims=[[2], [2, 3], [3, 2]])
    rows = copy.deepcopy([*ROWS[:3], product, kernel("gemm", 7000, 9500, external=3), ROWS[1]])
    for row, key, value in changes:
        (rows[row]["args"] if key in ARGS else rows[row])[key] = value
    trace = _read_or_none(json.dumps({"traceEvents": rows}).encode())
    if trace is None:
        return
    found = attribute(trace)
    for view in VIEWS + MORE_VIEWS:
        view(found)
    start, end = step_windows(found)
    assert sum(breakdown(found)["duration_ns"].to_pylist()) == int((end - start).sum())
