"""Run and Compare with runs that keep their trace's views."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.widgets.where import LOOKS
from profiler.combo import Combo
from store import folders
from tests.pages.test_pages import titles, words
from tests.support.run_folders import CPU_WORKLOAD, GPU_WORKLOAD, LADDER, step_samples, write_run
from tests.support.trace_views import in_unet, on_cpu, recorded, write_traced_run
from tests.support.traces import COMPILED, EAGER, attributed, kernel, module, op, step

Open = Callable[..., AppTest]
Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("traced")
    write_traced_run(root, "unet", in_unet())
    write_traced_run(root, "slower", in_unet(scale=2), combo=Combo(attention="flex"))
    write_traced_run(root, "slowed", in_unet(), step_ms=step_samples(0.1))  # and 0.2 ms traced
    write_traced_run(root, "no-modules", recorded(EAGER))
    write_traced_run(root, "cpu", on_cpu(), workload=CPU_WORKLOAD)
    write_traced_run(root, "broken", attributed(step(0, 90), kernel("lost", 10, 20, correlation=77)))
    slice_rows = (*step(0, 100_000), module("down", 0, 9000), op("aten::mm", 0, 9000))
    write_traced_run(root, "sliced", attributed(*slice_rows, steplensOnlyModule="down"))
    write_run(root, run_id="old", workload=GPU_WORKLOAD)
    return root


@pytest.fixture
def home(make_home: Make, traced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_home("empty")
    monkeypatch.setattr(folders, "RECORDED_ROOT", traced)


def test_run_answers_first_what_to_fix_first(home: None, open_page: Open) -> None:
    app = open_page("run", run="no-modules")
    first = next(element.value for element in app.markdown if "What to fix first" in element.value)
    assert "1. **Attention writes all scores to memory**: [measured](/run?run=slower)" in first
    assert "2. **Products in 32 bits**: at most" in first
    assert "Try: `precision=bf16`" in first
    assert first.count("\n2. ") == first.count("\n3. ") == 1
    assert "\n4. " not in first
    assert "The traced step in parts" in titles(app)


def test_a_slice_of_one_module_gets_no_advice_on_the_time_that_was_cut_away(home: None, open_page: Open) -> None:
    app = open_page("run", run="sliced")
    assert not app.exception
    assert "What to fix first is told of whole steps" in words(app)
    assert not any("Python overhead" in element.value for element in app.markdown)
    assert any("cut to one module" in warning.value for warning in app.warning)


LANDMARKS = {
    "modules": "Time by module",
    "kernels": "Tensor Cores are told from the name",
    "operators": "Self is without the operators",
    "roofline": "Ceilings of NVIDIA H200",
    "critical path": "What the step had to wait for",
    "launches": "Deepest queue",
    "communication": "No collective ran",
    "trace health": "What this trace cannot show",
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_look_opens(look: str, home: None, open_page: Open) -> None:
    app = open_page("run", run="unet", run_look=look)
    assert not app.exception
    assert not app.error
    said = words(app) + "\n".join(titles(app))
    assert [name for name, landmark in LANDMARKS.items() if landmark in said] == [look]


def test_the_path_of_a_slowed_trace_is_said_to_be_the_profilers(home: None, open_page: Open) -> None:
    app = open_page("run", run="slowed", run_look="critical path")
    (warning,) = [element.value for element in app.warning if "traced step" in element.value]
    assert "traced step of 0.200 ms; a timed one takes 0.100 ms" in warning
    assert "Timed, this run is gpu-bound" in warning
    assert "the host alone decides" not in words(app)


def test_the_path_of_a_trace_as_fast_as_timed_is_the_runs_own(home: None, open_page: Open) -> None:
    as_timed = open_page("run", run="unet", run_look="critical path")
    assert "the host alone decides" in words(as_timed)
    assert not any("traced step" in element.value for element in as_timed.warning)


def test_looks_say_why_they_are_empty(home: None, open_page: Open) -> None:
    assert "No collective ran" in words(open_page("run", run="unet", run_look="communication"))
    assert "no GPU events" in words(open_page("run", run="cpu", run_look="launches"))


def test_a_trace_with_modules_opens_on_them_and_another_on_its_kernels(home: None, open_page: Open) -> None:
    assert {"Time by module", "Work by UNet block"} <= set(titles(open_page("run", run="unet")))
    assert "Kernel time by category" in titles(open_page("run", run="no-modules"))


def test_run_warns_of_a_trace_that_is_not_whole(home: None, open_page: Open) -> None:
    warnings = [warning.value for warning in open_page("run", run="broken").warning]
    assert any("without a launching call" in warning and "see trace health" in warning for warning in warnings)


def test_a_run_of_before_says_what_would_show_more(home: None, open_page: Open) -> None:
    app = open_page("run", run="old")
    assert "measure it again" in words(app)
    assert "Kernel time by category" in titles(app)
    assert any("Category" in str(frame.proto.columns) for frame in app.dataframe), "its kernels are still listed"


def test_compare_shows_where_the_difference_comes_from(home: None, open_page: Open) -> None:
    query = {"baseline": "unet", "run": ["slower", "old"]}
    app = open_page("compare", **query, compare_cut="module and phase")
    assert not app.exception
    assert {"Where the difference comes from", "The same parts in every run"} <= set(titles(app))
    assert "1 of the chosen runs keep no parts" in words(app)
    assert "Timed, the median step went from" in words(app), "one traced step alone is no speedup"


def test_compare_reads_no_cause_from_a_step_that_the_profiler_slowed(home: None, open_page: Open) -> None:
    app = open_page("compare", baseline="unet", run=["slowed"])
    assert not app.exception
    assert any("Do not read the bars as a cause" in warning.value for warning in app.warning)


def test_compare_without_modules_in_one_trace_cuts_by_class_and_phase(home: None, open_page: Open) -> None:
    query = {"baseline": "unet", "run": ["no-modules"]}
    app = open_page("compare", **query, compare_cut="module and phase")
    assert "cut by class and phase" in words(app)


def test_compare_of_runs_without_views_says_what_is_missing(home: None, open_page: Open) -> None:
    app = open_page("compare", baseline="old", run=["unet"])
    assert "the baseline keeps none here" in words(app)


PACKED = "packed without the tables of the traced step"
OF_TABLES = {
    "Kernel time by category",
    "Kernel time per step by category",
    "Memory over one step",
    "What the peak holds",
}


def _pack(runs: Path, *run_ids: str) -> None:
    """As pack --tables leaves a run folder."""
    for path in [path for run_id in run_ids for path in (runs / run_id).glob("*.parquet")]:
        if path.name not in ("curves.parquet", "telemetry.parquet"):
            path.unlink()


def test_run_says_that_its_tables_were_left_behind_and_draws_the_rest(make_home: Make, open_page: Open) -> None:
    _pack(make_home("full") / "runs", "ladder-01")
    app = open_page("run", run="ladder-01")
    assert not app.exception
    assert PACKED in words(app)
    assert "no trace with kernels" not in words(app)
    assert "recorded before" not in words(app)
    assert "measure it again" not in words(app)
    assert "Step times, one dot per step" in titles(app)
    assert not OF_TABLES & set(titles(app))
    assert PACKED not in words(open_page("run", run="ladder-02"))


SIDE_BY_SIDE = {
    "compare": ({"baseline": "ladder-00", "run": ["ladder-01", "ladder-02"]}, 3),
    "overview": ({"study": "ladder"}, 4),
}


@pytest.mark.parametrize("page", SIDE_BY_SIDE)
def test_pages_of_several_runs_say_of_how_many_the_tables_were_left_behind(
    page: str, make_home: Make, open_page: Open
) -> None:
    query, num_runs = SIDE_BY_SIDE[page]
    _pack(make_home("full") / "runs", *(f"ladder-{position:02d}" for position in range(1, len(LADDER))))
    app = open_page(page, **query)
    assert f"of {num_runs - 1} of these {num_runs} runs were recorded, but cannot be drawn: their folders" in words(app)
    assert "Kernel time per step by category" in titles(app), "the baseline's is drawn"


@pytest.mark.parametrize("page", SIDE_BY_SIDE)
def test_no_page_says_that_nothing_was_recorded_where_all_tables_were_left_behind(
    page: str, make_home: Make, open_page: Open
) -> None:
    _pack(make_home("full") / "runs", *(f"ladder-{position:02d}" for position in range(len(LADDER))))
    app = open_page(page, **SIDE_BY_SIDE[page][0])
    assert not app.exception
    assert "memory over time were recorded, but cannot be drawn: their folders" in words(app)
    assert "None of these runs" not in words(app)
    assert not OF_TABLES & set(titles(app))


def test_the_views_of_a_kept_trace_are_one_click_away(
    make_home: Make, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home("empty")
    monkeypatch.setattr(folders, "RECORDED_ROOT", COMPILED.parents[1])
    before = sorted(COMPILED.parent.iterdir())
    run_id = json.loads((COMPILED.parent / "record.json").read_text())["run_id"]
    app = open_page("run", run=run_id).button(key="run_views_make").click().run()
    assert not app.exception
    assert not app.error
    assert "The traced step in parts" in titles(app)
    assert (home / "views" / run_id / "summary.json").is_file()
    assert sorted(COMPILED.parent.iterdir()) == before, "a run folder is never changed"
