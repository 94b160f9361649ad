"""Homes to open the app on, from empty to a full ladder, and the app itself without a browser."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
import streamlit as st
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from app import app as server
from profiler.combo import BASELINE, Combo
from profiler.record import SweepPlace
from runs import job_queue
from store import folders
from tests.support.imported import write_imported
from tests.support.run_folders import (
    CPU_WORKLOAD,
    FIRST_START,
    FIXTURE_CPU,
    GPU_WORKLOAD,
    step_samples,
    write_ladder,
    write_run,
    write_study,
)
from tests.support.traces import kernel, op

APP = Path(__file__).parents[2] / server.script_path


def _empty(runs: Path) -> None:
    return None


def _one_run(runs: Path) -> None:
    write_run(runs, run_id="only", workload=CPU_WORKLOAD)


def _oom_only(runs: Path) -> None:
    place = SweepPlace(sweep_id="all-oom", name="grid", position=0, num_jobs=1, role="baseline")
    write_run(runs, run_id="oom", workload=GPU_WORKLOAD, status="oom", cause="CUDA out of memory", sweep=place)


def _full(runs: Path) -> None:
    write_ladder(runs, sweep_id="ladder")
    write_run(runs, run_id="lone-cpu", combo=Combo(attention="sdpa"), started_at=FIRST_START - timedelta(days=1))
    failed = {"status": "failed", "cause": "RuntimeError: <b>shapes</b>", "traceback": "Traceback: RuntimeError"}
    write_run(runs, run_id="broken", step_ms=step_samples(9.0), started_at=FIRST_START - timedelta(days=2), **failed)


def _studies(runs: Path) -> None:
    """A study of each kind that has a view of its own; one choice halves the step, a second adds nothing."""

    def factor(combo: Combo) -> float:
        return 1.0 if combo == BASELINE else 0.5

    stack = {"attention": ["sdpa"], "precision": ["bf16"]}
    for name in ("pairs", "leave_one_out", "scaling_batch"):
        write_study(runs, name, GPU_WORKLOAD, factor, families=stack)
    write_study(runs, "one_at_a_time", CPU_WORKLOAD, factor)
    for position, attention in enumerate(("math", "sdpa", "flex")):
        place = SweepPlace(sweep_id="covering", name="covering", position=position, num_jobs=3)
        how = {"status": "failed", "cause": "RuntimeError: no such kernel"} if attention == "flex" else {}
        combo = Combo(attention=attention, precision="bf16" if position else "fp32")
        write_run(runs, run_id=f"covering-{attention}", combo=combo, workload=CPU_WORKLOAD, sweep=place, **how)


def _imported(runs: Path) -> None:
    """A foreign trace with steps, one without, and a measured run beside them."""
    write_imported(runs)
    stepless = runs.parent / "stepless.json"
    stepless.write_text(json.dumps({"traceEvents": [op("aten::mm", 0, 9000), kernel("gemm", 9000, 99_000)]}))
    write_imported(runs, stepless, run_id="imported-stepless")
    write_run(runs, run_id="only", workload=GPU_WORKLOAD)


HOMES: dict[str, Callable[[Path], None]] = {
    "empty": _empty,
    "one_run": _one_run,
    "oom_only": _oom_only,
    "full": _full,
    "studies": _studies,
    "imported": _imported,
}


@pytest.fixture(autouse=True, scope="session")
def _scan_packages_once() -> Iterator[None]:
    """AppTest looks through all installed packages for components of Streamlit each time it runs a page."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture
def make_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes the named home the app's, without recorded studies, schedulers or probes."""

    def make(name: str) -> Path:
        (tmp_path / "runs").mkdir()
        HOMES[name](tmp_path / "runs")
        return tmp_path

    monkeypatch.setenv("STEPLENS_HOME", str(tmp_path))
    monkeypatch.setattr(folders, "RECORDED_ROOT", tmp_path / "recorded")
    monkeypatch.setattr(job_queue, "read_machine", lambda home=None: FIXTURE_CPU)
    monkeypatch.setattr(job_queue, "ensure_scheduler", lambda home=None: False)
    st.cache_data.clear()
    return make


@pytest.fixture
def unwritable_home(make_home: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder that cannot be made: a file is in the way."""
    home = make_home("empty")
    (home / "file").write_text("in the way")
    monkeypatch.setenv("STEPLENS_HOME", str(home / "file" / "home"))


@pytest.fixture
def open_page() -> Callable[..., AppTest]:
    """Opens a page of the app as its address would: open_page("run", run=RUN_ID)."""

    def opened(page: str, **query: str | list[str]) -> AppTest:
        app = AppTest.from_file(str(APP), default_timeout=30)
        for name, value in query.items():
            app.query_params[name] = value
        if page != "overview":
            app.switch_page(f"{page}.py")
        return app.run()

    return opened
