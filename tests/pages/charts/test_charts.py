"""Charts: what they draw, what they say, and that they draw nothing wrong from nothing."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from pages.charts import (
    allocator,
    batches,
    contributions,
    covering,
    curves,
    interactions,
    kernels,
    ladder,
    ledger,
    memory,
    palette,
    peak,
    ratios,
    readable,
    samples,
    scaling,
    telemetry,
    tradeoff,
)
from store import fits, frames
from store.ingest import sync
from tests.support.run_folders import GPU_WORKLOAD, LADDER, Combo, Workload, write_ladder, write_run, write_study

CHARTS: dict[str, Callable[..., go.Figure]] = {
    "ladder": ladder.ladder,
    "tradeoff": tradeoff.tradeoff,
    "ratios": lambda rows, dark: ratios.ratios(rows, metric="step_ms", baseline="baseline", dark=dark),
    "category_bars": kernels.category_bars,
    "breakdown": kernels.breakdown,
    "memory_split": memory.memory_split,
    "memory_timeline": memory.memory_timeline,
    "samples": samples.samples,
    "telemetry": telemetry.telemetry,
    "training": curves.training,
    "sampling": curves.sampling,
    "interactions": interactions.interactions,
    "contributions": contributions.contributions,
    "scaling": scaling.scaling,
    "covering": covering.covering,
    "peak": peak.peak,
    "allocator": allocator.allocator,
    "ledger": ledger.ledger,
    "batches": batches.batches,
}
STACK = {"attention": ["sdpa"], "precision": ["bf16"], "memory_format": ["channels_last"]}


def _factor(combo: Combo) -> float:
    """bf16 and channels_last help each other; sdpa and bf16 buy the same thing twice."""
    held = {combo.attention, combo.precision, combo.memory_format}
    together = (0.8 if {"bf16", "channels_last"} <= held else 1.0) * (1.3 if {"bf16", "sdpa"} <= held else 1.0)
    return (0.5 if "bf16" in held else 1.0) * (0.8 if "sdpa" in held else 1.0) * together


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("charts")
    write_ladder(home / "runs", sweep_id="ladder")
    for name in ("pairs", "leave_one_out"):
        write_study(home / "runs", name, GPU_WORKLOAD, _factor, families=STACK)
    write_study(home / "runs", "scaling_batch", GPU_WORKLOAD, _factor, families=STACK, max_batch=8, max_gib=8)
    train = Workload(model="tiny", mode="train", device="cpu")
    write_run(home / "runs", run_id="train", workload=train)
    write_run(home / "runs", run_id="checkpointed", workload=train, combo=Combo(checkpointing="full"))
    sync([home / "runs"], home / "index.duckdb")
    return home / "index.duckdb"


@pytest.fixture(scope="module")
def rows(database: Path) -> dict[str, pd.DataFrame]:
    """The frame that each chart draws."""
    run_ids = ["ladder-00", "ladder-02", "ladder-05"]
    return {
        "ladder": frames.ladder("ladder", database=database),
        "tradeoff": frames.ladder("ladder", database=database),
        "ratios": frames.metric_ratios("ladder-00", run_ids[1:], database=database),
        "category_bars": frames.kernel_categories(run_ids, database=database),
        "breakdown": frames.kernel_categories(run_ids[:1], database=database),
        "memory_split": frames.peak_parts(["train", *run_ids], database=database),
        "memory_timeline": frames.memory_timeline("ladder-00", database=database),
        "samples": frames.samples(["ladder-00"], database=database),
        "telemetry": frames.telemetry("ladder-00", database=database),
        "training": frames.curves("train", database=database),
        "sampling": _points(latents_error=[1e-7, 3e-7], latents_error_eager=[1e-7, 2e-7]),
        "interactions": frames.interactions("pairs", database=database),
        "contributions": frames.contributions("leave_one_out", database=database),
        "scaling": frames.scaling("scaling_batch", database=database),
        "covering": frames.covering("pairs", database=database),
        "peak": frames.alive("train", database=database),
        "allocator": frames.allocator("ladder-00", database=database),
        "ledger": frames.recompute_ledger("checkpointed", database=database),
        "batches": frames.largest_batch(_series(database), database=database),
    }


def _series(database: Path) -> list[str]:
    """One run of each series of the scaling study."""
    rows = frames.scaling("scaling_batch", database=database)
    return rows.drop_duplicates("series")["run_id"].tolist()


def _points(**lines: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [(name, float(x), y) for name, line in lines.items() for x, y in enumerate(line, start=1)],
        columns=["name", "x", "y"],
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_has_data_a_title_and_a_unit_on_its_axes(
    name: str, dark: bool, rows: dict[str, pd.DataFrame]
) -> None:
    figure = CHARTS[name](rows[name], dark=dark)
    assert figure.data
    assert figure.layout.title.text
    assert figure.layout.xaxis.title.text
    assert figure.layout.template == CHARTS[name](rows[name], dark=dark).layout.template
    assert (figure.layout.template.layout.paper_bgcolor == "#ffffff") is not dark


@pytest.mark.parametrize("name", CHARTS)
def test_an_empty_frame_gives_an_empty_figure_that_says_why(name: str, rows: dict[str, pd.DataFrame]) -> None:
    figure = CHARTS[name](rows[name].iloc[:0], dark=False)
    assert not figure.data
    assert figure.layout.title.text
    assert figure.layout.annotations[0].text.endswith(".")


def test_ladder_keeps_a_row_for_every_run(rows: dict[str, pd.DataFrame]) -> None:
    figure = ladder.ladder(rows["ladder"])
    assert len(figure.layout.yaxis.tickvals) == len(LADDER)
    bars = next(trace for trace in figure.data if trace.name == "runs")
    notes = " ".join(note.text for note in figure.layout.annotations)
    assert len(bars.x) == len(LADDER) - 2
    assert "rejected" in notes
    assert "81.2 GiB asked" in notes


def test_ladder_draws_the_interval_of_each_speedup(rows: dict[str, pd.DataFrame]) -> None:
    bars = next(trace for trace in ladder.ladder(rows["ladder"]).data if trace.name == "runs")
    assert all(above >= 0 for above in bars.error_x.array)
    assert all(below >= 0 for below in bars.error_x.arrayminus)
    assert any(above > 0 for above in bars.error_x.array)


def test_ladder_hatches_what_failed_its_checks(rows: dict[str, pd.DataFrame]) -> None:
    bars = next(trace for trace in ladder.ladder(rows["ladder"]).data if trace.name == "runs")
    assert list(bars.marker.pattern.shape).count("/") == 1


def test_ladder_draws_single_steps_as_speedups(database: Path, rows: dict[str, pd.DataFrame]) -> None:
    steps = frames.samples(rows["ladder"]["run_id"].tolist(), database=database)
    dots = next(trace for trace in ladder.ladder(rows["ladder"], steps).data if trace.name == "samples")
    assert len(dots.x) == 20 * (len(LADDER) - 2)
    assert min(dots.x) > 0.9


def test_ladder_without_a_baseline_shows_times(rows: dict[str, pd.DataFrame]) -> None:
    alone = rows["ladder"].assign(speedup=None, speedup_low=None, speedup_high=None)
    assert ladder.ladder(alone).layout.xaxis.title.text == "Median step time (ms)"


def test_ladder_shows_a_rung_that_costs_what_it_builds_on(tmp_path: Path) -> None:
    """All beat the baseline; 'stack + sdpa_flash' is slower than the stack for all that."""
    slow = {"math": 1.0, "sdpa_flash": 0.55, "sdpa_efficient": 0.4}
    write_study(tmp_path / "runs", "around", GPU_WORKLOAD, lambda c: slow.get(c.attention, 0.5), families=STACK)
    sync([tmp_path / "runs"], tmp_path / "index.duckdb")
    rows = frames.ladder("around", database=tmp_path / "index.duckdb")
    figure = ladder.ladder(rows)
    bars = next(trace for trace in figure.data if trace.name == "runs")
    colours = dict(zip(rows["step_label"], bars.marker.color, strict=True))
    assert colours["stack"] == colours["stack + sdpa_efficient"] == palette.VERDICTS["faster"]
    assert colours["stack + sdpa_flash"] == palette.VERDICTS["slower"]
    assert colours["stack + bf16_amp"] == palette.VERDICTS["same"]
    assert "against the stack" in figure.layout.title.subtitle.text
    assert "against 'stack': 0.909×" in bars.hovertext[rows["step_label"].tolist().index("stack + sdpa_flash")]
    notes = [note.text for note in figure.layout.annotations]
    assert "vs stack" in notes
    assert f'<b style="color:{palette.WORSE}">0.909×</b>' in notes
    elsewhere = rows.assign(change_speedup=None, change_verdict="unknown")  # the stack ran on another machine
    bars = next(trace for trace in ladder.ladder(elsewhere).data if trace.name == "runs")
    colours = dict(zip(rows["step_label"], bars.marker.color, strict=True))
    assert colours["stack"] == palette.VERDICTS["faster"]
    assert colours["stack + sdpa_efficient"] == palette.VERDICTS["unknown"]


def test_ladder_tells_changes_only_where_rows_build_on_one_another(rows: dict[str, pd.DataFrame]) -> None:
    figure = ladder.ladder(rows["ladder"])
    assert "its change" in [note.text for note in figure.layout.annotations]
    assert "the row that its label builds on" in figure.layout.title.subtitle.text
    apart = ladder.ladder(rows["ladder"].assign(builds_on=None, change_speedup=None, change_verdict="unknown"))
    assert "its change" not in [note.text for note in apart.layout.annotations]
    assert "against the baseline" in apart.layout.title.subtitle.text


def test_names_cannot_restyle_a_chart(rows: dict[str, pd.DataFrame]) -> None:
    hostile = rows["ladder"].assign(step_label="<b>bold</b>", cause="<i>slanted</i>")
    figure = ladder.ladder(hostile)
    assert set(figure.layout.yaxis.ticktext) == {"&lt;b&gt;bold&lt;/b&gt;"}
    assert "<i>" not in " ".join(note.text for note in figure.layout.annotations)


def test_labels_of_compared_runs_are_whole_where_they_differ_at_their_ends(rows: dict[str, pd.DataFrame]) -> None:
    alike = "sdpa · bf16_amp · channels_last · adamw_fused · checkpointing selective · graph "
    long = rows["ratios"].assign(label=alike + rows["ratios"]["run_id"].str[-2:])
    figure = ratios.ratios(long, metric="step_ms", baseline="baseline")
    short = ratios.ratios(rows["ratios"], metric="step_ms", baseline="baseline")
    texts = [text.replace("<br>", " ") for text in figure.layout.yaxis.ticktext]
    assert texts == [f"{alike}02", f"{alike}05"]
    assert figure.layout.height > short.layout.height


def test_ladder_and_tradeoff_say_how_many_steps_a_median_is_of(rows: dict[str, pd.DataFrame]) -> None:
    for figure in (ladder.ladder(rows["ladder"]), tradeoff.tradeoff(rows["tradeoff"])):
        drawn = next(trace for trace in figure.data if trace.name == "runs")
        assert all("of 20 steps" in text for text in drawn.hovertext)


def test_tradeoff_names_the_frontier_and_the_baseline_alone(rows: dict[str, pd.DataFrame]) -> None:
    points = rows["tradeoff"].dropna(subset=["samples_per_s", "peak_allocated_gib"]).reset_index(drop=True)
    expected = set(points.loc[tradeoff.frontier(points), "step_label"]) | {"baseline"}
    drawn = next(trace for trace in tradeoff.tradeoff(rows["tradeoff"]).data if trace.name == "runs")
    shown = {text for text in drawn.text if text}
    assert {"baseline"} < shown <= expected
    assert len(drawn.hovertext) == len(points)


def test_tradeoff_finds_the_runs_that_nothing_beats(rows: dict[str, pd.DataFrame]) -> None:
    points = pd.DataFrame(
        {
            "samples_per_s": [1.0, 2.0, 3.0, 4.0],
            "peak_allocated_gib": [1.0, 3.0, 2.0, 1.0],
            "status": ["done", "done", "done", "wrong"],
        }
    )
    assert tradeoff.frontier(points) == [True, False, True, False]


def test_ratios_are_coloured_by_what_is_better() -> None:
    assert ratios.colour_of(0.5, 0.4, 0.6, better="lower", drift=0.02) == palette.BETTER
    assert ratios.colour_of(0.5, 0.4, 0.6, better="higher", drift=0.02) == palette.WORSE
    assert ratios.colour_of(0.5, 0.4, 1.1, better="lower", drift=0.02) == palette.EVEN
    assert ratios.colour_of(1.01, 1.005, 1.02, better="lower", drift=0.02) == palette.EVEN
    assert ratios.colour_of(2.0, 1.9, 2.1, better="", drift=0.0) == palette.EVEN
    unknown = float("nan")
    assert ratios.colour_of(0.9, unknown, unknown, better="lower", drift=None) == palette.BETTER
    assert ratios.colour_of(0.99, unknown, unknown, better="lower", drift=0.02) == palette.EVEN


def test_categories_keep_their_order_and_colour_in_every_run(rows: dict[str, pd.DataFrame]) -> None:
    figure = kernels.category_bars(rows["category_bars"])
    *parts, idle = figure.data
    names = [trace.name for trace in parts]
    assert names == [name for name in palette.CATEGORIES if name in names]
    assert all(trace.marker.color == palette.CATEGORIES[trace.name] for trace in parts)
    assert idle.name == kernels.IDLE


def test_bars_with_their_idle_part_add_up_to_the_step(database: Path, rows: dict[str, pd.DataFrame]) -> None:
    figure, steps = kernels.category_bars(rows["category_bars"]), frames.runs(database=database).set_index("run_id")
    ends = [sum(trace.x[trace.y.index(row)] for trace in figure.data if row in trace.y) for row in range(3)]
    run_ids = rows["category_bars"]["run_id"].drop_duplicates()
    assert ends == pytest.approx(steps.loc[run_ids, "step_ms"].tolist())


def test_a_trace_without_steps_is_not_called_a_step(rows: dict[str, pd.DataFrame]) -> None:
    mixed = rows["category_bars"].assign(of_whole_trace=rows["category_bars"]["run_id"] == "ladder-02")
    figure = kernels.category_bars(mixed)
    marked = [text for text in figure.layout.yaxis.ticktext if "whole" in text]
    assert len(marked) == 1
    assert "of the whole trace where a row says so" in figure.layout.xaxis.title.text
    alone = mixed[mixed["of_whole_trace"]]
    for figure in (kernels.category_bars(alone), kernels.breakdown(alone)):
        assert "per step" not in str(figure.layout.title) + str(figure.layout.xaxis.title.text)


def test_ladder_marks_what_the_launches_bound(rows: dict[str, pd.DataFrame]) -> None:
    bound = rows["ladder"].assign(launch_verdict="launch-bound", gpu_busy_share=0.55)
    figure = ladder.ladder(bound)
    bars = next(trace for trace in figure.data if trace.name == "runs")
    told = f"launch-bound: {ladder.SET_BY_LAUNCHES} (GPU waits 45%)"
    assert all(told in text for text in bars.hovertext)
    assert {"GPU waits", "45% (launches)"} <= {note.text for note in figure.layout.annotations}
    partly = ladder.ladder(bound.assign(launch_verdict="partly launch-bound", gpu_busy_share=0.88))
    bars = next(trace for trace in partly.data if trace.name == "runs")
    assert all(f"partly launch-bound: {ladder.SET_IN_PART} (GPU waits 12%)" in text for text in bars.hovertext)
    assert "12% (partly)" in {note.text for note in partly.layout.annotations}


def test_breakdown_stands_in_order_of_time(rows: dict[str, pd.DataFrame]) -> None:
    values = kernels.breakdown(rows["breakdown"]).data[0].x
    assert list(values) == sorted(values, reverse=True)


def test_the_parts_of_a_peak_stand_to_its_tick(rows: dict[str, pd.DataFrame]) -> None:
    own = rows["memory_split"].query("run_id == 'train'")
    *bars, tick = memory.memory_split(own).data
    assert [bar.name for bar in bars][:4] == ["parameters", "optimizer state", "gradients", "activations"]
    assert sum(bar.x[0] for bar in bars) == pytest.approx(tick.x[0])


def test_names_of_the_peaks_parts_stand_below_where_no_subtitle_is(rows: dict[str, pd.DataFrame]) -> None:
    """In a narrow column they take three lines."""
    legend = memory.memory_split(rows["memory_split"]).layout.legend
    assert (legend.yref, legend.y, legend.yanchor) == ("container", 0, "bottom")


def test_a_part_that_nobody_expects_is_explained(rows: dict[str, pd.DataFrame]) -> None:
    own = rows["memory_split"].query("run_id == 'train'")
    assert "temporaries" not in memory.reading(own.assign(gib=own["gib"].where(own["part"] != "temporary", 0.0)))
    large = own.assign(gib=own["gib"].where(own["part"] != "temporary", 24.2))
    assert "24.2 GiB are temporaries (asked for by backward and optimizer" in memory.reading(large)


def test_a_timeline_names_its_clock(rows: dict[str, pd.DataFrame]) -> None:
    """The allocator's events are of the calls, and the host runs ahead of a GPU."""
    layout = memory.memory_timeline(rows["memory_timeline"]).layout
    assert layout.xaxis.title.text == "Time of the host since the step began (ms)"
    assert "as the host asks" in layout.title.subtitle.text


def test_one_moment_is_no_timeline(rows: dict[str, pd.DataFrame]) -> None:
    timeline = rows["memory_timeline"]
    figure = memory.memory_timeline(timeline[timeline["time_ms"] == timeline["time_ms"].iloc[0]])
    assert not figure.data
    assert "a replayed CUDA graph" in figure.layout.meta["why_empty"]
    split = rows["memory_split"].query("run_id == 'train'")
    assert "alive at once, when the traced step began" in memory.reading(split.assign(time_ms=0.0))


def test_timeline_stacks_in_one_group(rows: dict[str, pd.DataFrame]) -> None:
    *stack, top = memory.memory_timeline(rows["memory_timeline"]).data
    assert {trace.stackgroup for trace in stack} == {"memory"}
    totals = rows["memory_timeline"].groupby("time_ms")["gib"].sum()
    assert (top.x[0], top.text[0]) == (totals.idxmax(), f"peak {readable.gib(totals.max())}"), "however short it was"


def test_neighbours_in_a_stack_differ_in_lightness_or_hue() -> None:
    """For red-green blindness, neighbours must differ in what remains: lightness, or blue against yellow."""

    def seen(colour: str) -> tuple[float, float]:
        red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
        return 0.3 * red + 0.59 * green + 0.11 * blue, blue - (red + green) / 2

    for colours in (palette.CATEGORIES, palette.MEMORY):
        for one, other in pairwise(colours.values()):
            (light, hue), (other_light, other_hue) = seen(one), seen(other)
            assert abs(light - other_light) + abs(hue - other_hue) > 30


def test_training_marks_the_steps_that_overflowed_beside_the_baselines_loss() -> None:
    own = _points(
        loss=[1.0, 0.9, 0.8],
        loss_scale=[65536, 32768, 16384],
        skipped_steps=[1, 2, 2],
        underflow_share=[0.2, 0.2, 0.1],
        underflow_share_scaled=[0.0, 0.0, 0.0],
    ).assign(run=curves.THIS)
    other = _points(loss=[1.0, 0.7]).assign(run="the baseline")
    figure = curves.training(pd.concat([own, other]))
    lines = {trace.name: trace for trace in figure.data}
    assert list(lines["skipped steps"].x) == [1, 2]
    assert list(lines["loss of the baseline"].y) == [1.0, 0.7]
    assert list(lines["loss of this run"].y) == [1.0, 0.9, 0.8]
    assert "2 steps skipped for an overflow" in figure.layout.title.subtitle.text
    assert [figure.layout[axis].title.text for axis in ("yaxis", "yaxis2", "yaxis3")] == [
        "Loss", "Loss scale", "Gradients below 6e-8",
    ]  # fmt: skip
    assert list(figure.layout.yaxis2.ticktext) == ["16,384", "32,768", "65,536"]


def test_training_says_when_the_scale_never_fell() -> None:
    rows = _points(loss=[1.0, 0.9], loss_scale=[65536, 65536], skipped_steps=[0, 0])
    assert "the loss scale stayed at 65536: no gradient overflowed" in curves.training(rows).layout.title.subtitle.text


def test_a_curve_of_few_steps_is_no_trend() -> None:
    said = [curves.training(_points(loss=[1.0, 2.0] * pairs)).layout.title.subtitle.text for pairs in (1, 3)]
    assert ["so few show no trend" in one for one in said] == [True, False]


def test_sampling_draws_the_yardsticks_and_leaves_out_what_a_logarithm_cannot_hold() -> None:
    rows = _points(latents_error=[0.0, 1e-3], latents_error_eager=[2e-3, 3e-3], latents_error_fp32=[1e-7, 2e-7])
    lines = {trace.name: list(trace.y) for trace in curves.sampling(rows).data}
    assert list(lines) == ["plain eager in fp32: the noise floor", "plain eager at this precision", "this run"]
    assert lines["this run"] == [1e-3]


def test_interactions_name_who_helps_and_who_overlaps(rows: dict[str, pd.DataFrame]) -> None:
    figure, text = interactions.interactions(rows["interactions"]), interactions.reading(rows["interactions"])
    assert figure.layout.yaxis.ticktext[0] == "bf16 + channels_last"
    assert figure.data[0].marker.color[0] == palette.BETTER
    assert figure.data[0].marker.color[-1] == palette.WORSE
    assert text == (
        "**bf16** and **channels_last** (1.25×) help each other; **sdpa** and **bf16** (0.77×) buy the same thing "
        "twice; 1 of 3 pairs multiplies as if the other were not there. Each run is one process: what two processes of "
        "one combo differ by (up to a few percent, see Drift) is not in the whiskers."
    )


def test_a_pair_whose_runs_wait_for_launches_is_hollow_and_named(rows: dict[str, pd.DataFrame]) -> None:
    own = rows["interactions"].sort_values("interaction", ascending=False)
    assert "hollow" not in interactions.interactions(own).layout.title.subtitle.text
    waits = "sdpa · bf16 (partly launch-bound, the GPU waits 10%)"
    figure = interactions.interactions(own.assign(why_doubtful=["", "", waits]))
    assert figure.data[0].marker.symbol == ("circle", "circle", "circle-open")
    assert figure.data[0].hovertext[2].endswith(waits)
    assert "hollow: launches set some of a run's time" in figure.layout.title.subtitle.text.replace("&#x27;", "'")
    text = interactions.reading(own.assign(why_doubtful=["", waits, f"baseline (launch-bound); {waits}"]))
    said = "Launches move the interaction of 2 pairs (hollow), since they set some of a run's time: sdpa · bf16 "
    assert said in text
    assert text.count("10%") == 1, "each run once"
    lost = own.assign(why_doubtful=waits, interaction=None).astype({"interaction": float})
    assert interactions.interactions(lost).data[0].x == ()


def test_contributions_stand_in_order_of_what_they_pay(rows: dict[str, pd.DataFrame]) -> None:
    figure, text = contributions.contributions(rows["contributions"]), contributions.reading(rows["contributions"])
    gains = list(figure.data[0].x)
    assert gains == sorted(gains, reverse=True)
    assert figure.layout.title.text == contributions.TITLES["without"]
    assert text.startswith(
        "Without **bf16** a step of the stack takes 1.92× as long; without **sdpa** its peak is 2.00×"
    )
    assert "slower: sdpa" in text, "without it the stack would be faster"


def test_a_choice_that_was_rejected_keeps_its_row_and_reason(rows: dict[str, pd.DataFrame]) -> None:
    lost = rows["contributions"].assign(gain=None, status="rejected", cause="it needs a GPU").astype({"gain": float})
    notes = [note.text for note in contributions.contributions(lost).layout.annotations]
    assert sum("it needs a GPU" in note for note in notes) == len(lost)
    assert contributions.reading(lost) == ""


def test_scaling_marks_what_did_not_fit(rows: dict[str, pd.DataFrame]) -> None:
    figure, text = scaling.scaling(rows["scaling"]), scaling.reading(rows["scaling"])
    crosses = next(trace for trace in figure.data if trace.name == "did not run")
    assert list(crosses.x) == [8.0]
    assert "baseline, batch 8" in crosses.hovertext[0]
    assert text.endswith("and pays at every size. The baseline does not fit at batch 8.")


def test_scaling_names_where_the_stack_begins_to_pay(rows: dict[str, pd.DataFrame]) -> None:
    turned = rows["scaling"].copy()
    small = (turned["series"] == "stack") & (turned["x"] < 2)
    turned.loc[small, ["speedup", "verdict"]] = [0.9, "slower"]
    assert scaling.crossovers(turned) == [pytest.approx(2**0.5)]
    assert "it begins to pay between batch 1 and batch 2." in scaling.reading(turned)
    assert len(scaling.scaling(turned).layout.shapes) == 1


def test_scaling_leaves_unsteady_sizes_out_of_most_and_least(rows: dict[str, pd.DataFrame]) -> None:
    own = rows["scaling"].copy()
    own.loc[own["series"] == "stack", "speedup"] = [18.2, 6.1, 7.8, float("nan")]
    text = scaling.reading(own)
    assert text.startswith("The stack gains most at batch 1 (18.2×), least at batch 2 (6.10×), and pays at every size.")
    first = (own["series"] == "baseline") & (own["x"] == 1)
    own.loc[first, "step_iqr_ms"] = own.loc[first, "step_ms"] * 0.34
    text = scaling.reading(own)
    assert text.startswith(
        "The stack gains most at batch 4 (7.80×), least at batch 2 (6.10×), and pays at every size that was steady. "
        "Left out as unsteady, to be measured again: batch 1 (half of the baseline's steps lie 34% apart)."
    )
    all_unsteady = own.assign(step_iqr_ms=own["step_ms"])
    assert "gains most" not in scaling.reading(all_unsteady)


def test_an_unsteady_size_turns_nothing(rows: dict[str, pd.DataFrame]) -> None:
    own = rows["scaling"].copy()
    small = (own["series"] == "stack") & (own["x"] < 2)
    own.loc[small, "verdict"] = "slower"
    own.loc[small, "step_iqr_ms"] = own.loc[small, "step_ms"]
    assert scaling.crossovers(own) == []


def test_scaling_says_where_launches_set_a_time(rows: dict[str, pd.DataFrame]) -> None:
    own, stack = rows["scaling"].assign(launch_verdict="gpu-bound"), rows["scaling"]["series"] == "stack"
    assert "launches" not in scaling.reading(own)
    own.loc[stack, "launch_verdict"] = [*["launch-bound"] * 3, "partly launch-bound"]
    assert (
        "The CPU's launches set the stack's time at batch 1 to batch 4 and some of it at batch 8 (the GPU waits 10% to "
        "25%): its kernels may gain more than is seen there."
    ) in scaling.reading(own)
    own["launch_verdict"] = "partly launch-bound"
    own.loc[~stack & (own["x"] != 2), "launch_verdict"] = "launch-bound"
    text = scaling.reading(own)
    assert "The CPU's launches set some of the stack's time at batch 1 to batch 8 (" in text
    assert "set the baseline's time at batch 1, batch 4 and batch 8: some of that gain is host time." in text


def test_scaling_names_the_sizes_that_were_timed_beside_other_work(rows: dict[str, pd.DataFrame]) -> None:
    own = rows["scaling"]
    assert scaling.disturbed(own, ()) == ""
    assert scaling.disturbed(own, own["run_id"].iloc[:3].tolist()).endswith(
        "the baseline at batch 1, batch 2; the stack at batch 1."
    )


@pytest.mark.parametrize("lost", ["one", "both"])
def test_what_did_not_fit_lies_along_the_upper_edge(rows: dict[str, pd.DataFrame], lost: str) -> None:
    own = rows["scaling"]
    if lost == "both":
        own = own.assign(status="oom", cause="no memory", samples_per_s=None).astype({"samples_per_s": float})
    drawn = {
        "did not run": scaling.scaling(own),
        "out of memory": batches.batches(rows["batches"]),
    }
    for name, figure in drawn.items():
        (crosses,) = [trace for trace in figure.data if trace.name == name]
        axis = figure.layout.yaxis2 if name == "did not run" else figure.layout.yaxis
        assert set(crosses.y) == {axis.range[1]}
        assert "along the upper edge" in figure.layout.title.subtitle.text
        assert len(set(crosses.x)) == len(crosses.x), "one cross a size"
    if lost == "both":
        crosses = next(trace for trace in drawn["did not run"].data if trace.name == "did not run")
        assert all("baseline" in hover and "stack" in hover for hover in crosses.hovertext)


def test_models_stand_at_equal_distances_each_with_its_own_size(rows: dict[str, pd.DataFrame]) -> None:
    one = rows["scaling"].iloc[:1].assign(axis="model")
    models = (("sdxl", 2567.5), ("tiny", 3.2), ("sd2", 865.9), ("sd15", 859.5))
    drawn = pd.concat([one.assign(x=size, x_label=name) for name, size in models])
    figure = scaling.scaling(drawn.sort_values("x"))
    for axis in (figure.layout.xaxis, figure.layout.xaxis2):
        assert axis.ticktext == ("tiny<br>3.20", "sd15<br>860", "sd2<br>866", "sdxl<br>2,568")
        assert axis.tickvals == (1, 2, 3, 4)
        assert axis.type == "linear"
    assert figure.data[0].x == (1, 2, 3, 4)


def test_covering_has_a_cell_for_every_pair(rows: dict[str, pd.DataFrame]) -> None:
    figure = covering.covering(rows["covering"])
    assert sum(len(trace.x) for trace in figure.data) == len(rows["covering"])
    assert covering.reading(rows["covering"]) == "12 of 12 pairs are in some run; by the best of their runs: 12 done."


def test_the_peaks_bars_sum_to_the_peak_in_the_order_of_the_forward(rows: dict[str, pd.DataFrame]) -> None:
    own = peak.at_peak(rows["peak"])
    figure = peak.peak(rows["peak"])
    assert sum(sum(bar.x) for bar in figure.data) == pytest.approx(own["gib"].sum())
    assert figure.data[0].y == (
        *("conv_in", "time_embedding", "down.0", "down.1", "mid", "up.2", "up.3", "conv_out", peak.ELSEWHERE),
    )
    assert [bar.name for bar in figure.data] == ["parameters", "gradients", "optimizer state", "activations", "other"]
    table = peak.modules(rows["peak"])
    assert table["total"].sum() == pytest.approx(own["gib"].sum())
    assert table["total"].is_monotonic_decreasing


def test_the_peaks_sentence_names_the_measured_peak_where_it_is_another(rows: dict[str, pd.DataFrame]) -> None:
    total = peak.at_peak(rows["peak"])["gib"].sum()
    assert "of it are optimizer state" in peak.reading(rows["peak"], total)
    assert "Without the profiler" not in peak.reading(rows["peak"], total * 1.01)
    assert "Without the profiler the peak is" in peak.reading(rows["peak"], total * 0.9)
    assert peak.reading(rows["peak"].iloc[:0], None) == ""


def test_the_allocators_parts_sum_to_the_reserve(rows: dict[str, pd.DataFrame]) -> None:
    *parts, reserve = allocator.allocator(rows["allocator"]).data
    assert [part.name for part in parts] == ["asked for", "stuck between tensors", "idle segments"]
    for values in zip(*(part.y for part in (*parts, reserve)), strict=True):
        assert sum(values[:-1]) == pytest.approx(values[-1])
    assert "stuck in segments in use." in allocator.reading(rows["allocator"])
    unknown = rows["allocator"].assign(stuck_gib=float("nan"), idle_gib=float("nan"))
    assert [line.name for line in allocator.allocator(unknown).data] == ["asked for", "reserved"]
    assert allocator.reading(unknown) == ""


def test_a_step_that_moves_no_memory_has_a_sentence_for_a_curve(rows: dict[str, pd.DataFrame]) -> None:
    figure = allocator.allocator(rows["allocator"].iloc[:1])
    assert not figure.data
    assert "works in memory that was set aside" in figure.layout.meta["why_empty"]


def test_much_fragmentation_comes_with_its_remedy(rows: dict[str, pd.DataFrame]) -> None:
    stuck = rows["allocator"].assign(stuck_gib=rows["allocator"]["reserved_gib"] / 5)
    assert "expandable_segments" in allocator.reading(stuck)
    assert "expandable_segments" not in allocator.reading(rows["allocator"].assign(stuck_gib=0.0))


def test_the_ledger_draws_cost_beside_gain(rows: dict[str, pd.DataFrame]) -> None:
    cost, gain = ledger.ledger(rows["ledger"]).data
    assert cost.y == gain.y == ("down.0", "down.1", "mid", "up.2", "up.3", "elsewhere")
    assert sum(cost.x) == pytest.approx(rows["ledger"]["recompute_ms"].sum())
    assert sum(gain.x) == pytest.approx(rows["ledger"]["saved_gib"].sum())
    assert "per step run again and spare" in ledger.reading(rows["ledger"])


def test_a_ledger_without_its_twin_says_what_to_run(rows: dict[str, pd.DataFrame]) -> None:
    lonely = rows["ledger"].assign(plain_gib=float("nan"), saved_gib=float("nan"), ms_per_gib=float("nan"))
    assert "checkpointing=none" in ledger.ledger(lonely).layout.annotations[0].text
    assert "run the same combo with checkpointing=none" in ledger.reading(lonely)


def test_the_batches_chart_tells_the_prediction_and_its_check(rows: dict[str, pd.DataFrame]) -> None:
    own = rows["batches"]
    figure = batches.batches(own)
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in dots) == len(own)
    assert {trace.name for trace in dots} >= {"out of memory"}
    assert "were off by at most" in batches.reading(own.assign(largest_batch=7))


@pytest.mark.parametrize(
    ("peaks", "says"),
    [
        ({}, "not checked"),
        ({32: None}, "not checked, 32 does not"),
        ({16: None}, "refuted: 16 does not, so the largest that fits is from 4 to 15"),
    ],
)
def test_a_prediction_stands_beside_what_checked_it(peaks: dict[int, float | None], says: str) -> None:
    said = batches.reading(_fitted({2: 8.0, 4: 14.0} | peaks))
    predicted = "predicted: 24; " if says.startswith("refuted") else "predicted: 24 is the largest that fits; "
    assert f"from batches 2 and 4, {predicted}{says}" in said


@pytest.mark.parametrize(
    ("peaks", "says"),
    [
        (
            {24: 74.0},
            "earlier predicted: 24 from batches 2 and 4, and 24 fits; now from batches 4 and 24, predicted: "
            "24 is the largest that fits; checked: 24 fits (peak 74.0 GiB), 25 is not checked.",
        ),
        (
            {24: 74.0, 25: None},
            "earlier predicted: 24 from batches 2 and 4, and 24 fits; measured: 24 is the largest that fits: "
            "24 fits (peak 74.0 GiB), 25 does not.",
        ),
        (
            {30: 70.0},
            "earlier predicted: 24 from batches 2 and 4, but 30 fits; now from batches 4 and 30, predicted: "
            "32 would be the largest that fits; not checked.",
        ),
    ],
)
def test_an_earlier_prediction_is_told_as_history(peaks: dict[int, float | None], says: str) -> None:
    said = batches.reading(_fitted({2: 8.0, 4: 14.0} | peaks))
    assert says.removesuffix(".") in said


def test_a_line_that_begins_below_nothing_is_said_not_to_hold() -> None:
    said = batches.reading(_fitted({4: 33.1, 8: 77.0}, device_gib=139.0))
    assert "all else would be -10.8 GiB: the line does not hold" in said
    assert "does not hold" not in batches.reading(_fitted({2: 8.0, 4: 14.0}))


def _fitted(peaks: dict[int, float | None], device_gib: float = 76.0) -> pd.DataFrame:
    same = {"anchor_run_id": "a", "combo_label": "baseline", "device_gib": device_gib, "overhead_gib": 0.0}
    runs = pd.DataFrame([{"batch": batch, "peak_gib": peak} | same for batch, peak in peaks.items()])
    return fits.largest_batch(runs.astype({"peak_gib": "float64"}))


def test_a_line_far_beyond_what_was_measured_is_called_a_guess() -> None:
    for device_gib, is_far in ((26.0, False), (32.0, True)):
        said = batches.reading(_fitted({2: 8.0, 4: 14.0}, device_gib))
        assert ("and 2.50 times the largest that was measured: a line so far on is a guess" in said) is is_far


def test_a_line_that_missed_measured_batches_is_called_no_guide() -> None:
    kept = batches.reading(_fitted({2: 8.0, 4: 14.0, 8: 27.0}))
    assert "24 is the largest" not in kept, "the line through 4 and 8"
    assert "is the largest that fits; not checked" in kept
    assert kept.endswith("were off by at most 3.7%.")
    leapt = batches.reading(_fitted({2: 8.0, 4: 14.0, 8: 36.0}))
    assert "15 would be the largest that fits; not checked" in leapt
    assert leapt.endswith(
        "were off by at most 27.8%: the line is no guide here (libraries take workspaces by leaps), only a measured "
        "batch is."
    )


def test_each_combo_has_a_paragraph_about_its_batches() -> None:
    one = _fitted({2: 8.0, 4: 14.0})
    said = batches.reading(pd.concat([one, one.assign(anchor_run_id="b", combo_label="stack")])).split("\n\n")
    assert [text.split(":")[0] for text in said] == ["baseline", "stack"]


def test_a_single_step_claims_no_spread(rows: dict[str, pd.DataFrame]) -> None:
    said = str(samples.samples(rows["samples"].query("metric == 'step_ms'").head(1)).layout.title)
    assert "how far steps differ is unknown" in said
    assert "middle half" not in said


@pytest.mark.parametrize(
    ("chart", "name", "columns"),
    [
        (memory.memory_timeline, "memory_timeline", ["gib"]),
        (peak.peak, "peak", ["gib"]),
        (allocator.allocator, "allocator", ["requested_gib", "stuck_gib", "idle_gib", "reserved_gib"]),
        (ledger.ledger, "ledger", ["saved_gib"]),
        (batches.batches, "batches", ["peak_gib", "per_sample_gib", "fixed_gib", "capacity_gib", "predicted_gib"]),
        (memory.memory_split, "memory_split", ["gib", "peak_gib"]),
        (tradeoff.tradeoff, "tradeoff", ["peak_allocated_gib"]),
        (scaling.scaling, "scaling", ["peak_allocated_gib"]),
    ],
)
def test_the_memory_of_small_models_is_drawn_in_mib(
    chart: Callable[..., go.Figure], name: str, columns: list[str], rows: dict[str, pd.DataFrame]
) -> None:
    own = rows[name]
    small = own.assign(**{column: own[column] / own[columns].max(axis=None) * 0.01 for column in columns})
    said = chart(small).to_json()
    assert "(MiB" in said
    assert "(GiB" not in said
    assert "0.00 GiB" not in said
