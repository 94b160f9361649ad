"""A foreign trace as a run folder: what it says is kept, what it does not say is None."""

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from profiler.record import Record
from profiler.traces.imported import import_trace, plain, stem
from profiler.traces.source import TooLargeError
from tests.support.imported import write_imported
from tests.support.traces import SDPA, Row, kernel, launch, op, step


def write_trace(folder: Path, *rows: Row, name: str = "foreign.json", **metadata: object) -> Path:
    file = folder / name
    file.write_text(json.dumps({"schemaVersion": 1, **metadata, "traceEvents": rows}))
    return file


def imported(folder: Path, *rows: Row, **metadata: object) -> Record:
    return write_imported(folder, write_trace(folder, *rows, **metadata))


def three_steps() -> list[Row]:
    return [
        row
        for number, wall in enumerate((1000, 3000, 1200))
        for row in (
            step(10_000 * number, 10_000 * number + wall, f"ProfilerStep#{number}"),
            op("aten::mm", 10_000 * number + 10, 10_000 * number + 90),
            launch(number + 1, 10_000 * number + 20),
            kernel("gemm", 10_000 * number + 100, 10_000 * number + 600, correlation=number + 1),
        )
    ]


def test_a_real_trace_becomes_a_whole_run_folder(tmp_path: Path) -> None:
    written = write_imported(tmp_path)
    folder = tmp_path / "imported-sdpa"
    assert Record.read(folder) == written
    assert (written.status, written.combo, written.workload, written.machine) == ("imported", None, None, None)
    assert written.device_name == "NVIDIA H200"
    assert written.label == SDPA.name
    assert {path.name for path in folder.iterdir()} == {
        "record.json", "kernels.parquet", "ops.parquet", "views", "log.txt", written.trace_file,
    }  # fmt: skip
    assert (folder / str(written.trace_file)).read_bytes() == SDPA.read_bytes()
    assert pq.read_table(folder / "kernels.parquet").num_rows == written.metrics.num_kernels == 1176


def test_steps_are_timed_by_their_median_and_a_note_says_how(tmp_path: Path) -> None:
    written = imported(tmp_path, *three_steps(), distributedInfo={"rank": 2, "world_size": 4})
    assert written.samples == {"step_ms": (0.001, 0.003, 0.0012)}
    assert written.metrics.step_ms == 0.0012
    assert written.metrics.gpu_busy_ms == pytest.approx(0.0005)
    assert written.metrics.samples_per_s is None
    assert "median of 3 traced steps, with the profiler's own slowdown" in written.notes[0]
    assert written.workload_label == "trace of 3 steps, rank 2 of 4"


def test_a_trace_without_steps_has_no_step_time(tmp_path: Path) -> None:
    written = imported(tmp_path, op("aten::mm", 0, 90), kernel("gemm", 100, 600))
    assert written.metrics.step_ms is None
    assert written.samples == {}
    assert written.workload_label == "trace without steps"
    assert written.imported is not None
    assert "call profiler.step()" in written.imported.why_empty["steps"]
    assert any("without a launching call" in note for note in written.notes)


def test_what_the_file_does_not_say_is_none(tmp_path: Path) -> None:
    facts = imported(tmp_path, op("aten::mm", 0, 90), distributedInfo={"rank": "first"}, deviceProperties=[]).imported
    assert facts is not None
    assert (facts.device_name, facts.rank, facts.world_size) == (None, None, None)
    assert "recorded on a CPU" in facts.why_empty["gpu"]


def test_a_plain_trace_is_kept_packed_under_the_name_that_tensorboard_looks_for(tmp_path: Path) -> None:
    written = imported(tmp_path, *three_steps())
    assert written.trace_file == "foreign.pt.trace.json.gz"
    kept = gzip.decompress((tmp_path / "imported-sdpa" / written.trace_file).read_bytes())
    assert kept == (tmp_path / "foreign.json").read_bytes()


def test_more_text_than_allowed_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    bomb = tmp_path / "bomb.json.gz"
    bomb.write_bytes(gzip.compress(b'{"traceEvents": [' + b" " * 20_000_000))
    with pytest.raises(TooLargeError, match=r"unpacks to more than 0.0 GB: profile fewer steps"):
        import_trace(bomb, tmp_path / "run", run_id="run", name=bomb.name, max_bytes=10_000_000)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("host_12.1790.pt.trace.json.gz", "host_12.1790"),
        ("../../etc/passwd", "etc-passwd"),
        ("трасса.json", "trace"),
        ("..", "trace"),
    ],
)
def test_no_name_leads_out_of_the_folder(name: str, expected: str) -> None:
    assert stem(name) == expected


def test_words_of_others_carry_no_markup() -> None:
    assert plain("![a](http://b/c.png) <b> [red]") == "__a_(http___b_c.png) _b_ _red_"


def test_a_record_of_no_import_may_not_lack_its_combo(tmp_path: Path) -> None:
    values = write_imported(tmp_path).to_dict()
    with pytest.raises(ValueError, match="say what was imported"):
        Record.from_dict(values | {"status": "done"})
    with pytest.raises(ValueError, match="say what was imported"):
        Record.from_dict(values | {"imported": None})
