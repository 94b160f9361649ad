"""Imports and slices by real worker processes: whole or not at all, one line for what is no trace."""

import gzip
import io
import json
import os
import re
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from profiler.record import Record
from profiler.traces.read import read_trace
from runs.__main__ import app
from runs.imports import Limits, TraceError, import_file, import_stream
from tests.support.imported import NO_TRACES
from tests.support.traces import SDPA

SMALL = Limits(max_gb=0.05, memory_gib=1.0, timeout_s=60.0)
BEGIN = b'{"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "a", "pid": 1, "tid": 1, "ts": 1, "dur": 2}'


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def left_over(home: Path) -> list[Path]:
    return [path for name in ("runs", "imports") for path in (home / name).glob("*")]


def test_the_same_file_again_is_the_same_run(home: Path, tmp_path: Path) -> None:
    first = import_file(SDPA, home=home)
    copy = tmp_path / SDPA.name
    copy.write_bytes(SDPA.read_bytes())
    again = import_file(copy, home=home)
    assert (first.is_new, again.is_new) == (True, False)
    assert first.run_id == again.run_id
    assert Record.read(home / "runs" / first.run_id).run_id == first.run_id
    assert left_over(home) == [home / "runs" / first.run_id]


@pytest.mark.parametrize("kind", NO_TRACES)
def test_what_is_no_trace_gets_one_line_and_leaves_nothing(kind: str, home: Path, tmp_path: Path) -> None:
    make, expected = NO_TRACES[kind]
    file = tmp_path / f"{kind}.json.gz"
    file.write_bytes(make(file))
    with pytest.raises(TraceError) as refused:
        import_file(file, home=home, limits=Limits(max_gb=0.3, memory_gib=1.0, timeout_s=60.0))
    assert re.search(expected, str(refused.value)), refused.value
    assert "\n" not in str(refused.value)
    assert left_over(home) == []
    assert not (tmp_path / "unpickled").exists()


def test_a_file_of_three_gigabytes_is_refused_unread(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "huge.json"
    with file.open("wb") as sparse:
        sparse.truncate(3_000_000_000)
    with pytest.raises(TraceError, match=r"huge.json has 3.0 GB, the limit is 2.5 GB: profile fewer steps.*--max-gb"):
        import_file(file, home=home)
    assert left_over(home) == []


def test_a_bomb_is_refused_when_it_unpacks_to_too_much(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "bomb.json.gz"
    file.write_bytes(gzip.compress(BEGIN + b" " * 55_000_000, 1))
    with pytest.raises(TraceError, match=r"unpacks to more than 0.1 GB: profile fewer steps"):
        import_file(file, home=home, limits=SMALL)
    assert left_over(home) == []


def test_events_that_need_too_much_memory_are_refused(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "many.json.gz"
    file.write_bytes(gzip.compress(BEGIN + b',{"ph":"X","ts":1}' * 2_000_000, 1))
    limits = Limits(max_gb=0.2, memory_gib=0.06, timeout_s=60.0)
    with pytest.raises(TraceError, match=r"needs more than 0.1 GiB of memory|most often memory"):
        import_file(file, home=home, limits=limits)
    assert left_over(home) == []


def test_a_worker_that_takes_too_long_is_ended(home: Path) -> None:
    with pytest.raises(TraceError, match=r"took more than 0.05 s: profile fewer steps"):
        import_file(SDPA, home=home, limits=Limits(timeout_s=0.05))
    assert left_over(home) == []


def test_what_a_killed_import_left_is_gone_a_day_later(home: Path) -> None:
    for name, age_s in (("old", 90_000), ("under_way", 60)):
        (home / "imports" / name).mkdir(parents=True)
        os.utime(home / "imports" / name, (time.time() - age_s,) * 2)
    import_file(SDPA, home=home)
    assert [path.name for path in (home / "imports").iterdir()] == ["under_way"]


def test_no_name_of_an_upload_leads_out_of_the_home(home: Path) -> None:
    found = import_stream("../../../evil/[red]t\0\n.json.gz", io.BytesIO(SDPA.read_bytes()), home=home)
    assert left_over(home) == [home / "runs" / found.run_id]
    assert Record.read(home / "runs" / found.run_id).label == "evil_red_t.json.gz"


def test_the_command_line_from_import_to_slice(home: Path, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("{}")
    both = call("import", str(SDPA), str(tmp_path / "none.json"))
    assert both.exit_code == 1
    assert "imported as imported-sd15-inference-bf16-sdpa-" in both.output
    assert "error: none.json is no kineto trace" in both.output
    (row,) = json.loads(call("list", "--status", "imported", "--json").stdout)["runs"]
    assert (row["combo"], row["workload"]) == (SDPA.name, "trace of 1 step")
    assert "not said in the file" in call("show", row["run_id"]).output
    assert "import it again" in call("retry", row["run_id"]).output
    output = tmp_path / "step.pt.trace.json.gz"
    cut = call("slice", row["run_id"], "--step", "0", "-o", str(output))
    assert cut.exit_code == 0, cut.output
    assert len(read_trace(output).device) == 1176
    kept = call("views", row["run_id"])
    assert kept.exit_code == 0
    assert "keeps its views since it was recorded" in kept.output
    assert not (home / "views").exists()
    for _ in range(2):  # the second time in place of the first
        made = call("views", row["run_id"], "--again")
        assert made.exit_code == 0, made.output
        assert [path.name for path in (home / "views").iterdir()] == [row["run_id"]]
    assert (home / "views" / row["run_id"] / "ledger.parquet").is_file()
    unpacked = call("slice", row["run_id"], "-o", str(tmp_path / "slice.json"))
    assert unpacked.exit_code == 2
    assert "a slice is packed: name it slice.json.gz" in unpacked.output
    refused = call("slice", row["run_id"], "--module", "down", "-o", str(tmp_path / "no.json.gz"))
    assert refused.exit_code == 2
    assert "no module names: Steplens did not mark modules yet" in refused.output
    assert not (tmp_path / "no.json.gz").exists()
