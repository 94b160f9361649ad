"""Packing and unpacking: everything arrives, nothing is replaced, nothing escapes."""

import io
import tarfile
from pathlib import Path

import pytest

from profiler.record import Metrics, Record, SweepPlace
from runs.archive import pack, unpack
from runs.job import run_folder
from runs.resume import read_plan
from tests.runs.conftest import fake_job, submit

TRACE = "worker.1.pt.trace.json.gz"


@pytest.fixture
def sweep_runs(home: Path) -> list[str]:
    """Three finished runs of a sweep of four, each with a table, a picture and a trace."""
    jobs = []
    for position, role in enumerate(("baseline", "candidate", "candidate", "baseline_repeat")):
        place = SweepPlace(sweep_id="a-sweep", name="grid", position=position, num_jobs=4, role=role)  # type: ignore[arg-type]
        jobs.append(fake_job(sweep=place))
    submit(home, *jobs)
    for step_ms, job in zip((30.0, 20.0, 10.0), jobs, strict=False):
        folder = run_folder(job.job_id, home)
        (folder / "samples").mkdir(parents=True)
        (folder / "samples/0.png").write_bytes(b"png")
        (folder / "kernels.parquet").write_bytes(b"PAR1 PAR1")
        (folder / TRACE).write_bytes(b"trace")
        for name in ("log.txt", "events.jsonl"):
            (folder / name).write_text("/home/someone/data")
        Record(
            run_id=job.job_id, status="done", combo=job.combo, workload=job.workload, sweep=job.sweep,
            metrics=Metrics(step_ms=step_ms),
        ).write(folder)  # fmt: skip
    return [job.job_id for job in jobs[:3]]


@pytest.mark.parametrize("name", ["sweep.tar", "sweep.tar.gz"])
def test_a_sweep_arrives_whole_in_another_home(home: Path, sweep_runs: list[str], tmp_path: Path, name: str) -> None:
    assert pack("a-sweep", tmp_path / name, home=home) == (3, 1)
    other = tmp_path / "other"
    assert unpack(tmp_path / name, home=other) == (sorted(sweep_runs), [])
    for run_id in sweep_runs:
        there, here = other / "runs" / run_id, home / "runs" / run_id
        assert Record.read(there) == Record.read(here)
        assert (there / "samples/0.png").read_bytes() == b"png"
        names = {path.name for path in there.iterdir()}
        assert names == {"record.json", "kernels.parquet", "samples"}, (
            "neither traces, nor logs with this machine's folders"
        )
    assert read_plan("a-sweep", other) == read_plan("a-sweep", home)
    assert not list(other.glob(".unpack-*"))


def test_a_study_folder_gets_the_run_folders_alone(home: Path, sweep_runs: list[str], tmp_path: Path) -> None:
    pack("a-sweep", tmp_path / "sweep.tar", home=home)
    unpack(tmp_path / "sweep.tar", study=tmp_path / "study")
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == sorted(sweep_runs)


def test_traces_are_those_of_the_baseline_and_the_fastest(home: Path, sweep_runs: list[str], tmp_path: Path) -> None:
    pack("a-sweep", tmp_path / "sweep.tar", home=home, num_traces=2)
    unpack(tmp_path / "sweep.tar", study=tmp_path / "study")
    traced = {path.parent.name for path in (tmp_path / "study").glob(f"*/{TRACE}")}
    assert traced == {sweep_runs[0], sweep_runs[2]}


def test_operators_go_with_the_trace_that_they_serve_to_cut(home: Path, sweep_runs: list[str], tmp_path: Path) -> None:
    for run_id in sweep_runs:
        (home / "runs" / run_id / "ops.parquet").write_bytes(b"a table")
    pack("a-sweep", tmp_path / "sweep.tar", home=home, num_traces=2, num_tables=0)
    unpack(tmp_path / "sweep.tar", study=tmp_path / "study")
    kept = {path.parent.name for path in (tmp_path / "study").glob("*/ops.parquet")}
    assert kept == {sweep_runs[0], sweep_runs[2]}


def test_tables_are_those_of_the_baseline_and_the_fastest_and_figures_of_all(
    home: Path, sweep_runs: list[str], tmp_path: Path
) -> None:
    tables = ["alive.parquet", "allocator.parquet", "kernels.parquet", "memory.parquet"]
    views = ["views/ledger.parquet", "views/summary.json"]
    of_the_run = ["curves.parquet", "record.json", "samples/0.png", "telemetry.parquet"]
    for run_id in sweep_runs:
        folder = home / "runs" / run_id
        (folder / "views").mkdir()
        for name in (*tables, *views, "curves.parquet", "telemetry.parquet"):
            (folder / name).write_bytes(b"PAR1 PAR1")
    pack("a-sweep", tmp_path / "sweep.tar", home=home, num_tables=2)
    unpack(tmp_path / "sweep.tar", study=tmp_path / "study")
    for run_id in sweep_runs:
        folder = tmp_path / "study" / run_id
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert there == {*of_the_run, *(() if run_id == sweep_runs[1] else (*tables, *views))}


def test_unpacking_twice_replaces_nothing(home: Path, sweep_runs: list[str], tmp_path: Path) -> None:
    pack("a-sweep", tmp_path / "sweep.tar", home=home)
    before = {run_id: (home / "runs" / run_id / "record.json").stat().st_ino for run_id in sweep_runs}
    assert unpack(tmp_path / "sweep.tar", home=home) == ([], sorted(sweep_runs))
    assert before == {run_id: (home / "runs" / run_id / "record.json").stat().st_ino for run_id in sweep_runs}


def test_every_member_is_a_relative_file_without_an_owner(home: Path, sweep_runs: list[str], tmp_path: Path) -> None:
    pack("a-sweep", tmp_path / "sweep.tar", home=home)
    with tarfile.open(tmp_path / "sweep.tar") as tar:
        for member in tar:
            assert member.isreg()
            assert member.name.startswith(("runs/", "sweeps/a-sweep/"))
            assert (member.uid, member.uname) == (0, "")


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        _member("/etc/passwd"),
        _member("runs/../../escaped"),
        _member("runs/a/link", tarfile.SYMTYPE, "/etc/passwd"),
        _member("runs/a/hard", tarfile.LNKTYPE, "/etc/passwd"),
        _member("runs/a/pipe", tarfile.FIFOTYPE),
        _member("elsewhere/a/b"),
    ],
    ids=lambda member: member.name,
)
def test_what_would_escape_is_refused_and_nothing_is_unpacked(tmp_path: Path, member: tarfile.TarInfo) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        tar.addfile(_member("runs/good/log.txt"), io.BytesIO())
        tar.addfile(member)
    with pytest.raises(ValueError, match="nothing was unpacked"):
        unpack(tmp_path / "bad.tar", home=tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []
    assert not (tmp_path / "escaped").exists()


def test_what_is_no_archive_or_holds_a_damaged_run_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("not a tar")
    with pytest.raises(ValueError, match="no archive that pack wrote"):
        unpack(tmp_path / "text.tar", home=tmp_path / "home")
    with tarfile.open(tmp_path / "damaged.tar", "w") as tar:
        tar.addfile(_member("runs/a-run/record.json"), io.BytesIO())
    with pytest.raises(ValueError, match=r"record\.json"):
        unpack(tmp_path / "damaged.tar", home=tmp_path / "home")
    assert not (tmp_path / "home/runs").exists()


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_an_archive_cut_short_is_refused_in_one_line(
    home: Path, sweep_runs: list[str], tmp_path: Path, keep: float
) -> None:
    pack("a-sweep", tmp_path / "sweep.tar.gz", home=home)
    whole = (tmp_path / "sweep.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(ValueError, match="no archive that pack wrote"):
        unpack(tmp_path / "cut.tar.gz", home=tmp_path / "other")
    assert not (tmp_path / "other/runs").exists()


def test_a_sweep_without_finished_runs_cannot_be_packed(home: Path, tmp_path: Path) -> None:
    place = SweepPlace(sweep_id="fresh", name="grid", position=0, num_jobs=1)
    submit(home, fake_job(sweep=place))
    with pytest.raises(ValueError, match="no finished run yet"):
        pack("fresh", tmp_path / "x.tar", home=home)
