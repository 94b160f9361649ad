"""The Import page takes files; Run and Compare show what a foreign trace has, and say why the rest is not there."""

from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

from store import frames
from tests.pages.test_pages import figures, titles, words
from tests.support.imported import NO_TRACES
from tests.support.traces import SDPA

Open = Callable[..., AppTest]
Make = Callable[[str], Path]


def test_dropped_files_become_runs_or_say_why_not(make_home: Make, open_page: Open, tmp_path: Path) -> None:
    home = make_home("empty")
    open_page("overview")  # the first page that a process draws: see pages/__init__.py
    app = open_page("imports")
    assert "None yet" in words(app)
    pickled = NO_TRACES["pickle"][0](tmp_path / "trap")
    files = [(SDPA.name, SDPA.read_bytes(), "application/gzip"), ("a[b](http://c).json", pickled, "application/json")]
    app.file_uploader(key="import_files").set_value(files).run()
    assert not app.exception
    (run,) = (home / "runs").iterdir()
    assert frames.record(run.name)["status"] == "imported"
    assert "is imported" in words(app)
    (error,) = app.error
    assert r"\[b\]\(" in error.value
    assert "is a pickle, which is code and is never opened here" in error.value
    assert not (tmp_path / "unpickled").exists()
    assert app.dataframe[0].value["combo_label"].tolist() == [SDPA.name]
    assert list((home / "imports").iterdir()) == []


def test_a_file_that_is_there_already_is_not_another_run(make_home: Make, open_page: Open) -> None:
    home = make_home("empty")
    file = (SDPA.name, SDPA.read_bytes(), "application/gzip")
    app = open_page("imports")
    app.file_uploader(key="import_files").set_value([file]).run()
    app.file_uploader(key="import_files").set_value([file]).run()
    assert "was imported before" in words(app)
    assert len(list((home / "runs").iterdir())) == 1


def test_run_shows_an_imported_trace_and_why_the_rest_is_missing(make_home: Make, open_page: Open) -> None:
    make_home("imported")
    app = open_page("run", run="imported-sdpa")
    assert not app.exception
    assert SDPA.name.replace("_", r"\_").replace(".", r"\.") in app.header[0].value
    assert "nobody knows with which choices" in words(app)
    assert "with the profiler's own slowdown" in words(app)
    shown = dict(zip(titles(app), figures(app), strict=True))
    assert shown["Kernel time by category"]["data"]
    facts = app.dataframe[0].value["value"].tolist()
    assert any("no module names: Steplens did not mark modules yet" in fact for fact in facts)
    assert "step_ms is the only traced step, with the profiler's own slowdown" in facts
    assert "the file does not say" in facts
    assert "does not say what its allocations hold" in words(app)
    assert "Nothing was requested" in words(app)


def test_run_shows_a_trace_without_steps(make_home: Make, open_page: Open) -> None:
    make_home("imported")
    app = open_page("run", run="imported-stepless")
    assert not app.exception
    assert any("call profiler.step()" in fact for fact in app.dataframe[0].value["value"])
    assert "the trace marks no steps" in words(app)
    assert "what is called a step below is all of it" in words(app)
    assert not any("Per step (ms)" in str(table.proto.columns) for table in app.dataframe)
    breakdown = figures(app)[titles(app).index("Kernel time by category")]
    assert breakdown["layout"]["xaxis"]["title"]["text"] == "Kernel time of the whole trace (ms)"


def test_compare_shows_kernels_of_imported_traces_but_no_ratio(make_home: Make, open_page: Open) -> None:
    make_home("imported")
    app = open_page("compare", baseline="only", run=["imported-sdpa", "imported-stepless"])
    assert not app.exception
    assert "does not say with which choices" in words(app)
    bars = next(figure for figure in figures(app) if "Kernel time per step" in figure["layout"]["title"]["text"])
    names = bars["layout"]["yaxis"]["ticktext"]
    assert [name for name in names if "(whole trace)" in name.replace("<br>", " ")] == names[2:]
    assert "of the whole trace where a row says so" in bars["layout"]["xaxis"]["title"]["text"]


def test_an_imported_trace_is_no_measurement_of_this_machine(make_home: Make, open_page: Open) -> None:
    home = make_home("empty")
    app = open_page("imports")
    app.file_uploader(key="import_files").set_value([(SDPA.name, SDPA.read_bytes(), "application/gzip")]).run()
    assert len(list((home / "runs").iterdir())) == 1
    overview = open_page("overview")
    assert not overview.exception
    assert next(button.label for button in overview.button) == "Measure this machine"
    assert not any("Speedup" in title for title in titles(overview))


def test_a_slice_is_made_and_offered(make_home: Make, open_page: Open) -> None:
    make_home("imported")
    app = open_page("run", run="imported-sdpa").button(key="run_slice_make").click().run()
    assert not app.exception
    assert any("Save it" in button.proto.label for button in app.get("download_button"))
