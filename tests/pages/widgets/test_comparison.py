"""Compare's table and its chart agree on what is a difference."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pages.charts import palette
from pages.charts import ratios as chart
from pages.widgets import comparison, differences, winners
from profiler.combo import Combo
from profiler.record import UNSTEADY, Metrics, SweepPlace
from store import frames, ratios
from store.ingest import sync
from tests.support.run_folders import step_samples, write_ladder, write_run, write_training


@pytest.mark.parametrize(("drift", "is_coloured"), [(0.02, False), (0.001, True), (None, True)])
def test_a_ratio_inside_the_measured_drift_has_no_colour(
    drift: float | None, is_coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "is_dark", lambda: False)
    ratio = {"ratio": 0.99, "ratio_low": 0.985, "ratio_high": 0.995, "better": "lower"}
    assert bool(comparison._style(pd.Series(ratio | {"is_timed": True}), drift)) is is_coloured
    assert comparison._style(pd.Series(ratio | {"is_timed": False}), drift)  # an error does not drift with the time


@pytest.mark.parametrize(("ceiling", "better"), [(67.0, "higher"), (68.0, "higher"), (990.0, ""), (None, "")])
def test_shares_of_different_ceilings_are_neither_better_nor_worse(ceiling: float | None, better: str) -> None:
    unknown = asdict(Metrics()) | {"precision": "fp32"}
    runs = pd.DataFrame(
        [
            unknown | {"run_id": "one", "label": "one", "mfu": 0.3, "datasheet_tflops": 67.0, "gpu_busy_share": 0.9},
            unknown | {"run_id": "two", "label": "two", "mfu": 0.2, "datasheet_tflops": ceiling, "gpu_busy_share": 0.5},
        ]
    )
    pairs = pd.DataFrame([{"run_id": "two", "baseline_run_id": "one", "why_not_comparable": None}])
    found = ratios.metric_ratios(pairs, runs, {}).set_index("metric")
    assert found.at["mfu", "better"] == better
    assert found.at["gpu_busy_share", "better"] == ""
    drawn = chart.ratios(found.reset_index(), metric="mfu", baseline="one").data[0]
    assert drawn.marker.color[0] == (palette.WORSE if better else palette.EVEN)
    assert ceiling is None or f"of {ceiling:.0f}" in drawn.hovertext[0].replace(".0 ", " ")


@pytest.mark.parametrize("metric", ["output_error", "gradient_error"])
@pytest.mark.parametrize(("precision", "is_judged"), [("fp32", True), ("bf16_amp", False)])
def test_error_ratios_of_different_precisions_are_not_judged(metric: str, precision: str, is_judged: bool) -> None:
    """Each is over plain eager's error at its own precision: bf16 at 0.92 of its own errs thousands of times more."""
    unknown = asdict(Metrics())
    errors = {"one": (3.1e-6, 3.1e-6, 1.0), "two": (1.17e-2, 1.28e-2, 0.917)}
    names = (metric, f"{metric}_eager", f"{metric}_ratio")
    runs = pd.DataFrame(
        [
            unknown | {"run_id": run_id, "label": run_id, "step_ms": 1.0} | dict(zip(names, values, strict=True))
            for run_id, values in errors.items()
        ]
    ).assign(precision=["fp32", precision])
    pairs = pd.DataFrame([{"run_id": "two", "baseline_run_id": "one", "why_not_comparable": None}])
    rows = ratios.metric_ratios(pairs, runs, {})
    found = rows.set_index("metric")
    assert found.at[f"{metric}_ratio", "better"] == ("lower" if is_judged else "")
    assert pd.isna(found.at[f"{metric}_ratio", "why_not_judged"]) is is_judged
    assert found.at[f"{metric}_ratio", "divisor"] == 1.28e-2

    figure = chart.ratios(rows, metric=f"{metric}_ratio", baseline="one", drift=0.2)
    assert figure.data[0].marker.color[0] == (palette.BETTER if is_judged else palette.EVEN)
    assert ("its own precision" in figure.layout.title.subtitle.text) is not is_judged
    assert "plain eager's error" in figure.data[0].hovertext[0]
    figure = chart.ratios(rows, metric=metric, baseline="one", drift=0.2)
    assert figure.data[0].marker.color[0] == palette.WORSE


def test_the_drift_of_step_times_is_drawn_on_times_and_rates_alone(tmp_path: Path) -> None:
    write_ladder(tmp_path / "runs", sweep_id="ladder")
    sync([tmp_path / "runs"], tmp_path / "index.duckdb")
    rows = frames.metric_ratios("ladder-00", ["ladder-02"], database=tmp_path / "index.duckdb")
    timed = set(rows.loc[rows["is_timed"], "metric"])
    assert {"step_ms", "samples_per_s", "achieved_tflops", "mfu"} <= timed
    assert not timed & {"output_error", "output_error_ratio", "peak_allocated_gib", "num_kernels"}
    for metric in ("step_ms", "peak_allocated_gib"):
        figure = chart.ratios(rows, metric=metric, baseline="baseline", drift=0.02)
        assert any(shape.type == "rect" for shape in figure.layout.shapes) is (metric in timed)
        assert ("grey band" in figure.layout.title.subtitle.text) is (metric in timed)


@pytest.mark.parametrize(
    ("before", "after", "is_apart"),
    [(1.04, 1.2, False), (1.02, 1.56, True), (0.9, 1.4, True), (2.0, 2.0, True), (0.5, 1.0, True)],
)
def test_traced_steps_far_from_the_timed_ones_explain_nothing(before: float, after: float, is_apart: bool) -> None:
    assert differences.are_apart(before, after) is is_apart


def test_headings_differ_where_labels_begin_alike() -> None:
    stack = "sdpa · bf16_amp · channels_last · adamw_fused"
    found = comparison.headings([stack, "sdpa · bf16_amp · adamw_fused", f"{stack} · compile default"])
    assert found == [
        "1: channels_last",
        "2: without channels_last, compile default",
        "3: channels_last · compile default",
    ]
    assert comparison.headings([stack]) == [f"1: {stack}"]


def test_the_fastest_runs_say_that_their_baseline_drifted(tmp_path: Path) -> None:
    write_ladder(tmp_path / "runs", sweep_id="ladder")
    sync([tmp_path / "runs"], tmp_path / "index.duckdb")
    rows = frames.ladder("ladder", database=tmp_path / "index.duckdb")
    compare = partial(frames.comparison, database=tmp_path / "index.duckdb")
    said = {card.title: card.run for card in winners.headlines(rows.assign(drift=1.1), compare)}
    assert said["Fastest"].startswith("baseline drifted 110% · ")
    assert said["Fastest as exact as eager"].startswith("baseline drifted 110% · ")
    assert "drifted" not in "".join(card.run for card in winners.headlines(rows, compare))


def test_the_fastest_run_says_that_its_loss_leaves_the_others(tmp_path: Path) -> None:
    write_training(tmp_path / "runs")
    sync([tmp_path / "runs"], tmp_path / "index.duckdb")
    rows = frames.ladder("training", database=tmp_path / "index.duckdb")
    left = frames.departures(tuple(rows["run_id"]), database=tmp_path / "index.duckdb")
    compare = partial(frames.comparison, database=tmp_path / "index.duckdb")
    said = {card.title: card.run for card in winners.headlines(rows, compare, left["run_id"].tolist())}
    assert said["Fastest"].startswith("**its loss leaves the others'**, see [its run](/run?run=training-3)")
    assert "its loss" not in "".join(card.run for card in winners.headlines(rows, compare))


@pytest.mark.parametrize(
    ("role", "says"),
    [
        ("candidate", "**unsteady**: half of its steps lie 30% apart"),
        ("baseline", "half of the baseline's steps lie 30%"),
    ],
)
def test_the_fastest_run_says_what_its_own_page_says_of_its_steps(role: str, says: str, tmp_path: Path) -> None:
    write_ladder(tmp_path / "runs", sweep_id="ladder")
    sync([tmp_path / "runs"], tmp_path / "index.duckdb")
    rows = frames.ladder("ladder", database=tmp_path / "index.duckdb")
    compare = partial(frames.comparison, database=tmp_path / "index.duckdb")
    assert "unsteady" not in "".join(card.run for card in winners.headlines(rows, compare))
    is_one = rows["sweep_role"].eq(role) & rows["status"].eq("done")
    place = rows[is_one].sort_values("step_ms").index[0]
    rows.loc[place, "step_iqr_ms"] = 0.3 * rows.loc[place, "step_ms"]
    said = {card.title: card.run for card in winners.headlines(rows, compare)}
    assert says in said["Fastest"]
    assert f"(/run?run={rows.loc[place, 'run_id']})" in said["Fastest"]
    rows.loc[place, "step_iqr_ms"] = UNSTEADY * rows.loc[place, "step_ms"]
    assert "unsteady" not in "".join(card.run for card in winners.headlines(rows, compare)), "as Run's note"


@pytest.mark.parametrize(("error", "wins"), [(1.8e-6, True), (1.8e-2, False)])
def test_twice_a_rounding_error_is_as_exact_as_eager(error: float, wins: bool, tmp_path: Path) -> None:
    write_ladder(tmp_path / "runs", sweep_id="ladder")
    sync([tmp_path / "runs"], tmp_path / "index.duckdb")
    rows = frames.ladder("ladder", database=tmp_path / "index.duckdb")
    is_best = rows["step_ms"] == rows.loc[rows["status"] == "done", "step_ms"].min()
    rows.loc[is_best, ["output_error", "output_error_ratio"]] = error, 2.3
    cards = winners.headlines(rows, partial(frames.comparison, database=tmp_path / "index.duckdb"))
    said = {card.title: card.value for card in cards}
    assert (said["Fastest as exact as eager"] == said["Fastest"]) is wins


def test_who_ties_with_the_fastest_and_the_leanest_is_named(tmp_path: Path) -> None:
    """qkv is as fast within the spread, and channels_last as lean within a percent."""
    runs = [(Combo(), 10.0, 8.0), (Combo(attention="sdpa"), 5.0, 4.0)]
    runs += [(Combo(attention="sdpa", fusion="qkv"), 5.002, 5.0)]
    runs += [(Combo(attention="sdpa", memory_format="channels_last"), 6.0, 4.02)]
    for position, (combo, step_ms, peak) in enumerate(runs):
        role: Any = "candidate" if position else "baseline"
        place = SweepPlace(sweep_id="s", name="grid", position=position, num_jobs=4, role=role)
        samples, metrics = step_samples(step_ms, seed=position), {"peak_allocated_gib": peak}
        write_run(tmp_path / "runs", run_id=f"{position}", combo=combo, step_ms=samples, sweep=place, metrics=metrics)
    sync([tmp_path / "runs"], tmp_path / "index.duckdb")
    rows = frames.ladder("s", database=tmp_path / "index.duckdb")
    cards = winners.headlines(rows, partial(frames.comparison, database=tmp_path / "index.duckdb"))
    said = {card.title: card.run for card in cards}
    assert said["Fastest"] == "5.00 ms · output error 1.0e-06 · sdpa · or: sdpa · fusion qkv"
    assert said["Leanest"] == "0.500× of the baseline · sdpa · or: sdpa · channels_last"


def test_the_drift_is_the_farthest_and_unknown_where_no_baseline_was_repeated() -> None:
    assert winners.drift(pd.DataFrame({"drift": [None, 0.02, 0.05]})) == 0.05
    assert winners.drift(pd.DataFrame({"drift": [None, None]})) is None


@pytest.mark.parametrize(
    ("verdicts", "says"),
    [
        (["launch-bound", "partly launch-bound"], "1 of 2 rows is bound by launches: "),
        (["launch-bound", "partly launch-bound"], " 1 more is so in part "),
        (["launch-bound"] * 2 + ["partly launch-bound"] * 2, "2 of 4 rows are bound by launches: "),
        (["launch-bound"] * 2 + ["partly launch-bound"] * 2, " 2 more are so in part "),
        (["gpu-bound", "partly launch-bound"], " 1 of 2 rows is so in part "),
    ],
)
def test_rows_that_launches_set_are_counted_in_one_or_many(verdicts: list[str], says: str) -> None:
    assert says in winners.launch_bound(pd.DataFrame({"launch_verdict": verdicts}))
    assert winners.launch_bound(pd.DataFrame({"launch_verdict": ["gpu-bound", None]})) == ""
