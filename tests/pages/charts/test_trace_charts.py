"""Charts of a trace's views: they add up to what they claim, and draw nothing wrong from nothing."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from pages.charts import differences, network, palette, readable, roofline, steps
from profiler.traces.breakdown import PARTS
from store import views
from store.ingest import sync
from tests.support.trace_views import in_unet, recorded, write_traced_run
from tests.support.traces import TRAIN

PEAKS = {"fp32": 67.0, "tf32": 494.5, "half": 989.5, "fp8": 1979.0, "gbs": 4800.0}
LABELS = {"unet": "baseline", "train": "sdpa"}
CHARTS: dict[str, Callable[..., go.Figure]] = {
    "step_bars": steps.step_bars,
    "critical_bar": steps.critical_bar,
    "icicle": network.icicle,
    "block_bars": network.block_bars,
    "attention_bars": network.attention_bars,
    "forward_bars": network.forward_bars,
    "roofline": lambda rows, dark: roofline.roofline(rows, PEAKS, dark=dark),
    "waterfall": lambda rows, dark: differences.waterfall(rows, before="a", after="b", dark=dark),
    "part_matrix": lambda rows, dark: differences.part_matrix(rows, LABELS, dark=dark),
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The frame that each chart draws."""
    home = tmp_path_factory.mktemp("traces")
    write_traced_run(home / "runs", "unet", in_unet())
    write_traced_run(home / "runs", "train", recorded(TRAIN))
    sync([home / "runs"], home / "index.duckdb")
    database: Path = home / "index.duckdb"
    return {
        "step_bars": views.step_parts("train", database=database),
        "critical_bar": views.critical_path("train", database=database),
        "icicle": views.modules("unet", database=database),
        "block_bars": views.blocks("unet", database=database),
        "attention_bars": views.attention("train", database=database),
        "forward_bars": pd.DataFrame({"step": [0, 0, 1], "forward": [0, 1, 0], "busy_ms": [2.0, 3.0, 2.0]}),
        "roofline": views.roofline("train", database=database),
        "waterfall": views.waterfall("unet", "train", "phase", database=database),
        "part_matrix": views.part_matrix(["unet", "train"], database=database),
    }


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_has_data_and_a_title_in_the_pages_theme(
    name: str, dark: bool, rows: dict[str, pd.DataFrame]
) -> None:
    figure = CHARTS[name](rows[name], dark=dark)
    assert figure.data
    assert figure.layout.title.text
    assert figure.layout.xaxis.title.text or name == "icicle"
    assert (figure.layout.template.layout.paper_bgcolor == "#ffffff") is not dark


@pytest.mark.parametrize("name", CHARTS)
def test_an_empty_frame_gives_an_empty_figure_that_says_why(name: str, rows: dict[str, pd.DataFrame]) -> None:
    figure = CHARTS[name](rows[name].iloc[:0], dark=False)
    assert not figure.data
    assert figure.layout.annotations[0].text.endswith(".")


def test_every_part_of_a_step_has_a_colour() -> None:
    assert set(PARTS) == set(palette.PARTS)
    assert len(set(palette.CATEGORIES.values())) == len(palette.CATEGORIES)


def test_a_step_is_as_long_as_its_parts_and_idle_time_is_hatched(rows: dict[str, pd.DataFrame]) -> None:
    figure = steps.step_bars(rows["step_bars"])
    assert sum(bar.x[0] for bar in figure.data) == pytest.approx(rows["step_bars"]["step_ms"].sum())
    hatched = {bar.name for bar in figure.data if bar.marker.pattern.shape}
    assert hatched == {bar.name for bar in figure.data if bar.name.startswith("idle:")} != set()


def test_of_many_steps_the_first_are_drawn_and_the_number_is_told(rows: dict[str, pd.DataFrame]) -> None:
    many = pd.concat([rows["step_bars"].assign(step=step) for step in range(20)], ignore_index=True)
    figure = steps.step_bars(many)
    assert "The first 8 of 20 steps" in figure.layout.title.subtitle.text
    assert set(figure.data[0].y) == set(range(8))


def test_an_icicle_holds_every_module_once_and_no_child_is_wider(rows: dict[str, pd.DataFrame]) -> None:
    (icicle,) = network.icicle(rows["icicle"]).data
    width = dict(zip(icicle.ids, icicle.values, strict=True))
    assert len(width) == len(icicle.ids)
    for name, parent in zip(icicle.ids, icicle.parents, strict=True):
        assert not parent or width[name] <= width[parent]


def test_a_trace_without_modules_draws_no_tree(rows: dict[str, pd.DataFrame]) -> None:
    nameless = rows["icicle"].assign(module="")
    assert network.NO_MODULES in network.icicle(nameless).layout.annotations[0].text


def test_thin_blocks_are_one(rows: dict[str, pd.DataFrame]) -> None:
    thin = pd.DataFrame({"block": ["conv_in"], "category": ["conv"], "step_ms": [1e-6], "share": [1e-6]})
    figure = network.block_bars(pd.concat([thin, rows["block_bars"]], ignore_index=True))
    assert figure.layout.xaxis.ticktext[-1] == "the rest"
    assert "conv_in" not in figure.layout.xaxis.ticktext


def test_no_dot_stands_above_the_ceilings_that_are_drawn(rows: dict[str, pd.DataFrame]) -> None:
    figure = roofline.roofline(rows["roofline"], PEAKS)
    dots = [y for trace in figure.data if trace.mode == "markers" for y in trace.y]
    assert len(dots) > 50
    assert max(dots) < PEAKS["half"]
    assert {note.text.split()[-1] for note in figure.layout.annotations} == {"990", "494", "67", "GB/s"}  # fp8: nowhere


def test_a_roofline_of_an_unknown_device_says_so(rows: dict[str, pd.DataFrame]) -> None:
    assert "datasheets" in roofline.roofline(rows["roofline"], {}).layout.annotations[0].text


def test_a_waterfalls_bars_add_up_though_small_ones_are_folded(rows: dict[str, pd.DataFrame]) -> None:
    (bars,) = differences.waterfall(rows["waterfall"], before="a", after="b").data
    assert len(bars.x) == differences.MOST_PARTS + 3
    assert sum(bars.x[:-1]) == pytest.approx(bars.x[-1])
    assert bars.x[-1] == pytest.approx(rows["waterfall"]["after_ms"].sum())


def test_a_matrix_ends_with_the_wall_time_of_each_run(rows: dict[str, pd.DataFrame]) -> None:
    (cells,) = differences.part_matrix(rows["part_matrix"], LABELS).data
    assert cells.text[-1][0] == "<b>0.200</b>"


def test_attention_that_has_no_bar_is_told(rows: dict[str, pd.DataFrame]) -> None:
    shapes = rows["attention_bars"]
    shown = float(shapes["step_ms"].sum())
    categories = pd.DataFrame({"category": ["attention", "gemm"], "step_total_ms": [shown, 99.0]})
    assert network.without_shape(shapes, categories) == ""
    twice = categories.assign(step_total_ms=[2 * shown, 99.0])
    assert network.without_shape(shapes, twice).startswith(f"The bars show {readable.number(shown, 'ms')} of the ")
