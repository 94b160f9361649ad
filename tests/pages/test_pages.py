"""Every page opens on every kind of home, through app.py, and shows what that home holds."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pandas as pd
import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

from profiler.combo import FAMILIES
from profiler.record import BUSY, Evidence
from runs import job_queue, sweep
from runs.job import measure_job
from tests.pages.conftest import HOMES
from tests.support.run_folders import (
    CPU_WORKLOAD,
    FIRST_START,
    FIXTURE_CPU,
    FIXTURE_GPU,
    GPU_WORKLOAD,
    LADDER,
    Combo,
    step_samples,
    write_ladder,
    write_run,
    write_study,
    write_training,
)

PAGES = sorted(path.stem for path in (Path(__file__).parents[2] / "pages").glob("*.py") if path.stem != "__init__")
Open = Callable[..., AppTest]
Make = Callable[[str], Path]


def figures(app: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def titles(app: AppTest) -> list[str]:
    return [figure["layout"]["title"]["text"] for figure in figures(app)]


def words(app: AppTest) -> str:
    """All that the page says in text elements."""
    kinds = (app.markdown, app.caption, app.info, app.warning, app.error, app.header, app.subheader, app.metric)
    return "\n".join(str(getattr(element, "label", "")) + str(element.value) for kind in kinds for element in kind)


def headlines(app: AppTest) -> dict[str, str]:
    """Overview's cards: title -> value."""
    texts = [element.value for element in app.markdown]
    titles = [(place, text[7:-1]) for place, text in enumerate(texts) if text.startswith(":small[")]
    return {title: texts[place + 1].strip("*") for place, title in titles}


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_on_every_home(page: str, home: str, make_home: Make, open_page: Open) -> None:
    make_home(home)
    app = open_page(page)
    assert not app.exception
    assert not app.error


def test_overview_of_a_fresh_machine_offers_one_button(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    app = open_page("overview")
    assert [button.label for button in app.button] == ["Measure this machine"]
    assert "No run of this machine is done yet" in words(app)


def _record_a_ladder_and_then_a_study(home: Path) -> None:
    write_ladder(home / "recorded" / "ladder", sweep_id="older", started_at=FIRST_START - timedelta(days=1))
    write_study(home / "recorded" / "study", "leave_one_out", CPU_WORKLOAD, lambda combo: 1.0)


def test_compare_of_a_fresh_machine_opens_on_the_study_of_overview(make_home: Make, open_page: Open) -> None:
    _record_a_ladder_and_then_a_study(make_home("empty"))
    [baseline] = [box for box in open_page("compare").selectbox if box.label == "Baseline"]
    assert baseline.value == "older-00"


def test_overview_of_a_fresh_machine_shows_a_recorded_ladder(make_home: Make, open_page: Open) -> None:
    _record_a_ladder_and_then_a_study(make_home("empty"))
    app = open_page("overview")
    assert not app.exception
    [study] = [box for box in app.selectbox if box.label == "Study"]
    assert study.value == "older"
    assert "change_speedup" in app.dataframe[0].value
    num_runs = len(app.dataframe[0].value)
    app.toggle(key="overview_all").set_value(True).run()
    assert len(app.dataframe[0].value) > num_runs, "those of the other study, too, which have no change here"


@pytest.mark.parametrize(("status", "is_offered"), [("rejected", True), ("failed", True), ("done", False)])
def test_the_button_stays_until_a_run_is_done(status: str, is_offered: bool, make_home: Make, open_page: Open) -> None:
    home = make_home("empty")
    write_run(home / "runs", run_id="first", workload=CPU_WORKLOAD, status=status)
    app = open_page("overview")
    assert not app.exception
    assert ("Measure this machine" in [button.label for button in app.button]) == is_offered


def test_the_button_of_a_fresh_machine_queues_the_quick_sweep(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    app = open_page("overview").button(key="overview_quick").click().run()
    assert not app.exception
    states = job_queue.list_jobs()
    assert {state.job.sweep.name for state in states} == {"quick"}
    assert "to go" in app.get("progress")[0].proto.text
    assert not app.button  # one sweep is enough


def test_a_machine_that_was_not_probed_is_probed(
    make_home: Make, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_home("empty")
    monkeypatch.setattr(job_queue, "read_machine", lambda home=None: None)
    app = open_page("launch")
    assert "Looking at this machine" in words(app)
    assert [state.job.kind for state in job_queue.list_jobs()] == ["probe"]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_while_the_machine_is_probed(
    page: str, make_home: Make, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_home("empty")
    monkeypatch.setattr(job_queue, "read_machine", lambda home=None: None)
    app = open_page(page)
    assert not app.exception
    assert not app.error
    assert page != "launch" or app.button(key="launch_submit").label == "Start"


def test_a_data_folder_that_cannot_be_written_is_named(unwritable_home: None, open_page: Open) -> None:
    app = open_page("overview")
    assert not app.exception
    assert "STEPLENS_HOME" in app.error[0].value


def test_overview_tells_a_ladder_and_the_steps_behind_each_median(make_home: Make, open_page: Open) -> None:
    make_home("full")
    app = open_page("overview")
    assert "Rows add up" in words(app)
    changes = app.dataframe[0].value.set_index("combo_label")["change_speedup"]
    assert changes["sdpa · bf16"] == pytest.approx(0.9 / 0.4), "a row of the table, too, against what it builds on"
    assert set(app.dataframe[0].value["num_samples"].dropna()) == {20}


def test_overview_says_what_won(make_home: Make, open_page: Open) -> None:
    make_home("full")
    app = open_page("overview")
    cards = headlines(app)
    assert cards == {"Fastest": "5.00×", "Leanest": "2.10 GiB", "Fastest as exact as eager": "5.00×", "Drift": "1.0%"}
    assert titles(app)[0].startswith("Speedup over the baseline")
    assert "clocks not locked" in words(app)
    assert "random weights" in words(app)


@pytest.mark.parametrize("mode", ["inference", "train"])
def test_overview_tells_the_errors_themselves(mode: str, make_home: Make, open_page: Open) -> None:
    """Their ratio to plain eager's is 1 at every precision."""
    write_ladder(make_home("empty") / "runs", sweep_id="errors", workload=replace(CPU_WORKLOAD, mode=mode))
    app = open_page("overview")
    table = app.dataframe[0].value.set_index("combo_label")
    assert table.loc["baseline", "output_error"].iloc[0] == 1e-6
    assert table.loc["sdpa · bf16", "output_error"] == 2e-3
    assert ("gradient_error" in table) is (mode == "train")
    bars = next(line for line in figures(app)[0]["data"] if line["name"] == "runs")
    assert "output error 1.0e-06 against the reference (1.00×" in bars["hovertext"][0]
    assert "output error 0.002 against the reference (1.00×" in bars["hovertext"][2]
    assert ("gradient error 0.004" in bars["hovertext"][2]) is (mode == "train")


def test_overview_warns_of_runs_that_other_programs_disturbed(make_home: Make, open_page: Open) -> None:
    record = make_home("full") / "runs" / "ladder-04" / "record.json"
    whole = json.loads(record.read_text())
    record.write_text(json.dumps(whole | {"notes": [f"{BUSY}: load average 6.0 on 2 cores while timing"]}))
    assert any("1 of 8 runs were timed while" in warning.value for warning in open_page("overview").warning)


def test_overview_of_a_study_without_a_single_time_keeps_its_rows(make_home: Make, open_page: Open) -> None:
    write_run(make_home("oom_only") / "runs", run_id="of-no-study", workload=CPU_WORKLOAD, sweep=None)
    app = open_page("overview", study="all-oom")
    assert "nothing has won" in words(app)
    assert "Baseline of the ratios" not in {box.label for box in app.selectbox}, "another study's run is none"
    notes = [note["text"] for note in figures(app)[0]["layout"]["annotations"]]
    assert any("CUDA out of memory" in note for note in notes)


@pytest.mark.parametrize(
    ("study", "title", "says"),
    [
        ("pairs", "Interaction of two choices", "buy the same thing twice"),
        ("leave_one_out", "What the stack loses without each choice", "No choice gains time beyond spread and drift"),
        ("one_at_a_time", "What each choice buys alone", "buys most time"),
        ("scaling_batch", "Throughput and memory over batch", "pays at every size"),
        ("covering", "Pairs of choices, and how their runs ended", "3 of 6 pairs are in some run"),
    ],
)
def test_a_study_answers_its_own_question(study: str, title: str, says: str, make_home: Make, open_page: Open) -> None:
    make_home("studies")
    app = open_page("overview", study=study)
    assert not app.exception
    assert titles(app)[0] == title
    assert says in words(app)
    assert any("baseline" in one.label for one in app.expander), "the ladder is folded away"
    assert "Rows do not add up" in words(app)


def test_runs_without_a_sweep_are_listed(make_home: Make, open_page: Open) -> None:
    make_home("one_run")
    app = open_page("overview")
    assert app.dataframe[0].value["combo_label"].tolist() == ["baseline"]


def test_runs_without_a_sweep_are_drawn_as_a_study(make_home: Make, open_page: Open) -> None:
    home = make_home("one_run")
    write_run(home / "runs", run_id="fast", combo=Combo(attention="sdpa"), step_ms=step_samples(5.0))
    app = open_page("overview")
    assert not app.exception
    assert titles(app)[0].startswith("Speedup over the baseline")
    assert figures(app)[0]["layout"]["yaxis"]["ticktext"] == ["baseline", "sdpa"]
    assert headlines(app)["Fastest"] == "2.00×"
    [study] = [box for box in app.selectbox if box.label == "Study"]
    assert study.options[0].startswith("single runs · ")


def test_selected_rows_lead_to_compare(make_home: Make, open_page: Open) -> None:
    make_home("full")
    app = open_page("overview")
    app.session_state["overview_table"] = {"selection": {"rows": [1], "columns": [], "cells": []}}
    app = app.run()
    assert not app.button(key="overview_compare").disabled
    app = app.button(key="overview_compare").click().run()
    assert not app.exception
    assert "Compare" in words(app)


def test_launch_offers_every_family_of_combo(make_home: Make, open_page: Open) -> None:
    make_home("full")
    app = open_page("launch", launch_kind="single_combo", launch_mode="train")
    labels = {box.label.replace(" ", "_") for box in app.selectbox}
    assert set(FAMILIES) <= labels


def test_launch_says_why_a_choice_is_impossible_here(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    app = open_page("launch", launch_kind="single_combo", launch_device="cpu")
    table = next(frame.value for frame in app.table if "choice" in frame.value)
    reasons = dict(zip(table["choice"], table["why"], strict=True))
    assert "needs CUDA" in reasons["sdpa_cudnn"]
    assert "sdpa_flash" not in reasons


def test_launch_queues_the_plan_once(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    app = open_page("launch").button(key="launch_submit").click().run()
    assert not app.exception
    num_jobs = len(job_queue.list_jobs())
    assert num_jobs == len(sweep.expand("quick", CPU_WORKLOAD, FIXTURE_CPU).jobs)
    app.run()
    assert len(job_queue.list_jobs()) == num_jobs


def test_launch_tells_the_command_line_of_its_plan(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    assert [code.value for code in open_page("launch").code] == ["python -m runs sweep quick"]
    app = open_page("launch", launch_kind="grid", launch_batch="4", launch_min_seconds="0.5")
    app.session_state["launch_grid_cpu_inference_attention"] = ["sdpa", "flex"]
    app.run()
    told = "python -m runs sweep grid --batch 4 --min-seconds 0.5 --attention sdpa,flex"
    assert [code.value for code in app.code] == [told]
    app = open_page("launch", launch_kind="scaling_batch", launch_max_batch="8")
    assert [code.value for code in app.code] == ["python -m runs sweep scaling_batch --max-batch 8"]


def test_launch_counts_what_can_run_here_and_offers_one_way_on(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    app = open_page("launch", launch_kind="grid")
    app.session_state["launch_grid_cpu_inference_attention"] = ["math", "sdpa", "sdpa_cudnn"]
    app.run()
    (said,) = [text.value for text in app.markdown if " runs" in text.value]
    assert said.startswith("**3 runs** and a numerical reference, **")
    assert [text.value.partition(" more")[0] for text in app.warning] == ["1"]
    assert [button.label for button in app.button if button.proto.type == "primary"] == ["Start"]


@pytest.mark.parametrize("kind", ["quick", "ladder_inference", "grid", "single_combo"])
def test_launch_of_what_cannot_run_here_is_disabled_and_says_why_once(
    kind: str, make_home: Make, open_page: Open
) -> None:
    make_home("empty")
    app = open_page("launch", launch_kind=kind, launch_device="cuda")
    assert not app.exception
    assert app.button(key="launch_submit").disabled
    [said] = [error.value.replace("\\", "") for error in app.error]
    assert "runs can run here: device=cuda needs CUDA, and this is a test fixture: choose device=cpu" in said
    everything = words(app) + "".join(pd.DataFrame(table.value).to_string() for table in app.table)
    assert everything.replace("\\", "").count("needs CUDA") == 1
    assert "no time" not in words(app)


def test_launch_tells_a_reason_that_rejected_runs_share_once(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    app = open_page("launch", launch_kind="grid")
    app.session_state["launch_grid_cpu_inference_attention"] = ["math", "sdpa_cudnn"]
    app.session_state["launch_grid_cpu_inference_precision"] = ["fp32", "bf16"]
    app.run()
    assert not app.button(key="launch_submit").disabled
    assert "2 more cannot run here" in app.warning[0].value
    assert "needs CUDA" in app.warning[0].value
    plan = pd.DataFrame(app.table[-1].value)
    assert plan["Here"].tolist().count("not possible") == 2
    assert not plan["Why"].str.contains("needs CUDA").any()


def test_launch_asks_for_the_number_of_processes(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    app = open_page("launch", launch_kind="single_combo")
    app.number_input(key="launch_world_size").set_value(2).run()
    app.selectbox(key="launch_single_combo_cpu_inference_parallelism").select("tensor").run()
    plan = pd.DataFrame(app.table[-1].value)
    assert plan["Run"].str.endswith(" x2").any()


def test_launch_explains_a_bad_model(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    app = open_page("launch", launch_kind="grid", launch_model=" ")
    assert not app.exception


def test_queue_shows_what_waits_and_cancels_it(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    job_queue.submit([measure_job(Combo(), CPU_WORKLOAD), measure_job(Combo(attention="sdpa"), CPU_WORKLOAD)])
    app = open_page("job_queue")
    assert app.dataframe[0].value["job"].tolist() == ["baseline", "sdpa"]
    app = app.button(key="queue_cancel_all").click().run()
    assert not app.exception
    assert {state.status for state in job_queue.list_jobs()} == {"cancelled"}


def test_queue_names_a_damaged_job_file_and_the_remedy(make_home: Make, open_page: Open) -> None:
    home = make_home("empty")
    (job,) = job_queue.submit([measure_job(Combo(), CPU_WORKLOAD)])
    next((home / "queue" / "queued").glob("*.json")).write_text("{")
    warnings = [warning.value for warning in open_page("job_queue").warning]
    assert len(warnings) == 1
    assert job.job_id in warnings[0]
    assert "start the run again" in warnings[0]


def test_launch_shows_the_resolution_of_the_model(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    app = open_page("launch", launch_kind="grid")
    assert app.number_input(key="launch_resolution").value == 128
    app = app.selectbox(key="launch_model").set_value("sd15").run()
    assert app.number_input(key="launch_resolution").value == 512
    app = app.number_input(key="launch_resolution").set_value(768).run()
    app = app.number_input(key="launch_batch").set_value(4).run()
    assert app.number_input(key="launch_resolution").value == 768
    assert not app.exception
    assert not app.warning


def test_launch_of_a_single_combo_starts_with_one(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    app = open_page("launch", launch_kind="single_combo").button(key="launch_submit").click().run()
    assert not app.error
    runs = [state.job for state in job_queue.list_jobs() if state.job.kind == "measure"]
    assert {job.sweep.name for job in runs} == {"single_combo"}
    assert [job.combo.label == "baseline" for job in runs] == [True, False, True]


def test_launch_scales_over_models_or_the_variants_of_one(make_home: Make, open_page: Open) -> None:
    make_home("empty")
    app = open_page("launch", launch_kind="scaling_model", launch_models="variants")
    table = next(frame.value for frame in app.table if "Workload" in frame.value)
    assert any("sd15-w0.5" in workload for workload in table["Workload"])
    assert not any("sdxl" in workload for workload in table["Workload"])
    assert "launch_model" not in {box.key for box in app.selectbox}, "the study chooses the models itself"


def test_compare_follows_its_address(make_home: Make, open_page: Open) -> None:
    make_home("full")
    app = open_page("compare", baseline="ladder-00", run=["ladder-02", "ladder-05"])
    assert "step_ms relative to baseline" in titles(app)[0]
    assert figures(app)[0]["data"][0]["x"] == pytest.approx([0.4, 0.25])
    differing = app.dataframe[0].value
    assert {"attention", "precision", "memory_format", "compilation"} <= set(differing.columns)
    assert "optimizer" not in differing.columns


def test_a_runs_link_to_compare_speaks_compares_own_words(make_home: Make, open_page: Open) -> None:
    make_home("full")
    (link,) = [one.proto for one in open_page("run", run="ladder-02").get("page_link") if "Compare" in one.proto.label]
    asked = parse_qs(link.query_string)
    assert asked == {"baseline": ["ladder-00"], "run": ["ladder-02"]}
    app = open_page("compare", **asked)
    assert app.selectbox[0].value == "ladder-00"
    assert app.multiselect[0].value == ["ladder-02"]


def test_compare_refuses_to_divide_what_does_not_belong_together(make_home: Make, open_page: Open) -> None:
    make_home("full")
    app = open_page("compare", baseline="ladder-00", run=["lone-cpu"])
    assert "has no ratio" in words(app)


@pytest.mark.parametrize("position", [n for n, rung in enumerate(LADDER) if "status" not in rung[2]])
def test_run_follows_its_address(position: int, make_home: Make, open_page: Open) -> None:
    make_home("full")
    app = open_page("run", run=f"ladder-{position:02d}")
    assert f"ladder-{position:02d}" in words(app)
    assert titles(app)[0] == "Step times, one dot per step"


def test_run_of_an_unknown_address_says_so(make_home: Make, open_page: Open) -> None:
    make_home("full")
    assert "There is no run nowhere" in words(open_page("run", run="nowhere"))
    assert "There is no study nowhere" in words(open_page("overview", study="nowhere"))


def test_run_on_a_cpu_says_what_it_cannot_measure(make_home: Make, open_page: Open) -> None:
    make_home("one_run")
    app = open_page("run", run="only")
    cards = {metric.label: metric.value for metric in app.metric}
    assert cards["MFU"] == cards["Energy per sample"] == "—"
    assert "not measurable on a CPU" in words(app)


def test_run_of_a_sampling_loop_says_how_long_an_image_takes(make_home: Make, open_page: Open) -> None:
    sampling = replace(CPU_WORKLOAD, mode="sample", num_inference_steps=20)
    write_run(make_home("empty") / "runs", run_id="loop", workload=sampling, metrics={"image_s": 0.75})
    assert "0.750 s per image of 20 steps" in words(open_page("run", run="loop"))


def test_run_of_a_training_draws_its_loss_beside_its_baselines(make_home: Make, open_page: Open) -> None:
    write_ladder(make_home("empty") / "runs", sweep_id="t", workload=replace(CPU_WORKLOAD, mode="train"))
    drawn = {figure["layout"]["title"]["text"]: figure for figure in figures(open_page("run", run="t-02"))}
    lines = [line["name"] for line in drawn["The first steps of training"]["data"]]
    assert lines == ["loss of the baseline", "loss of this run"]
    drawn = {figure["layout"]["title"]["text"]: figure for figure in figures(open_page("run", run="t-00"))}
    assert [line["name"] for line in drawn["The first steps of training"]["data"]] == ["loss of this run"]


def test_run_has_a_sentence_in_the_place_of_a_chart_without_data(make_home: Make, open_page: Open) -> None:
    """A replayed graph asks for no memory: one moment is no timeline."""
    folder = write_run(make_home("empty") / "runs", run_id="still", workload=replace(CPU_WORKLOAD, mode="train"))
    (folder / "curves.parquet").unlink()
    pq.write_table(pq.read_table(folder / "memory.parquet").slice(0, 1), folder / "memory.parquet")
    app = open_page("run", run="still")
    assert not {"Memory over one step", "The first steps of training"} & set(titles(app))
    assert "a replayed CUDA graph" in words(app)
    assert "This run has no curve of its loss" in words(app)
    assert not [one.proto.id for one in app.get("download_button") if "run_timeline" in one.proto.id]
    assert [one.proto.id for one in app.get("download_button") if "run_samples" in one.proto.id]


def test_run_that_failed_shows_its_traceback(make_home: Make, open_page: Open) -> None:
    make_home("full")
    app = open_page("run", run="broken")
    assert "RuntimeError" in app.error[0].value
    assert app.code[0].value.startswith("Traceback")


def test_the_title_grades_who_sets_the_pace_and_says_by_which_share(make_home: Make, open_page: Open) -> None:
    """The run is recorded as it was before there were grades."""
    home = make_home("empty")
    busy = {"gpu_busy_share": 0.88}
    write_run(home / "runs", run_id="busy", workload=GPU_WORKLOAD, metrics=busy, launch_verdict="launch-bound")
    assert "partly launch-bound (GPU busy 88%)" in words(open_page("run", run="busy"))


def test_a_loss_that_leaves_the_others_is_said_on_every_page_that_shows_the_run(
    make_home: Make, open_page: Open
) -> None:
    write_training(make_home("empty") / "runs")
    said = "at 5 of the first 9 training steps it is more than 0.5%"
    assert said in words(open_page("run", run="training-3"))
    assert said in words(open_page("overview", study="training"))
    assert said in words(open_page("compare", baseline="training-0", run="training-3"))
    assert "leaves the others" not in words(open_page("run", run="training-2"))


def _two_batches(home: Path) -> None:
    for batch, peak in ((2, 8.0), (4, 14.0)):
        peaks = {"peak_allocated_gib": peak, "peak_reserved_gib": peak, "peak_device_gib": peak + 3.8}
        write_run(home / "runs", run_id=f"b{batch}", workload=replace(GPU_WORKLOAD, batch=batch), metrics=peaks)


def test_the_predicted_batch_and_the_next_one_up_are_one_click_away(
    make_home: Make, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home("empty")
    monkeypatch.setattr(job_queue, "read_machine", lambda home=None: FIXTURE_GPU)
    _two_batches(home)
    app = open_page("run", run="b4")
    assert "24 is the largest that fits; not checked" in words(app)
    app = app.button(key="run_batches_check_b4").click().run()
    assert not app.exception
    queued = [state.job for state in job_queue.list_jobs()]
    assert [job.workload.batch for job in queued if job.kind == "measure"] == [24, 25]
    assert {job.kind for job in queued} == {"measure", "reference"}
    assert "is under way" in words(app)


def test_a_prediction_for_another_machine_says_what_its_check_takes(make_home: Make, open_page: Open) -> None:
    _two_batches(make_home("empty"))
    app = open_page("run", run="b4")
    assert "it takes Fixture GPU with torch 2.13.0, and here is Fixture CPU" in words(app)
    assert not [button for button in app.button if "Check it" in button.label]


def test_what_a_replayed_graph_hides_looks_like_no_failure(make_home: Make, open_page: Open) -> None:
    combo = Combo(precision="bf16", cuda_graphs="whole_step")
    evidence = [
        Evidence(family="precision", choice="bf16", observed={"matmul_input_types": {}}),
        Evidence(family="checkpointing", choice="none"),
        Evidence(family="cuda_graphs", choice="whole_step", confirmed=True),
    ]
    home = make_home("empty")
    write_run(home / "runs", run_id="graph", combo=combo, workload=GPU_WORKLOAD, evidence=tuple(evidence))
    write_run(home / "runs", run_id="plain", workload=GPU_WORKLOAD)
    app = open_page("run", run="graph")
    (table,) = [table.value for table in app.table if "Verdict" in table.value]
    assert table["Verdict"].tolist() == [":gray[out of sight]", ":gray[nothing to show]", ":blue[confirmed]"]
    assert "which types the matmuls take cannot be seen" in table["Finding"][0].replace("\\", "")
    assert "out of sight was applied, and is no failure" in words(app)
    assert "a baseline choice leaves no mark" in words(app)
    assert "A replayed CUDA graph (bf16 · graph whole_step) runs kernels" in words(
        open_page("compare", baseline="plain", run="graph")
    )
