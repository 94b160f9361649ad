"""Baseline and stack over batch, resolution or model size: throughput and memory, and where one stops to fit."""

import math
from collections.abc import Container
from itertools import pairwise
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pages.charts import palette, readable, theme
from pages.charts.ladder import WAITS_IN_PART

TITLE = "Throughput and memory"
COLOURS = {"baseline": palette.BASELINE, "stack": palette.BETTER}
EDGE = 1.15  # times the highest peak: where the memory panel ends
AXES = {
    "batch": "Batch (samples, logarithmic)",
    "resolution": "Resolution (px)",
    "model": "Model (in the order of its parameters, in millions)",
}


def scaling(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """Two panels over one size: samples per second with 95% intervals, and peak memory; crosses did not run.

    Models stand at equal distances: sd15 and sd2 differ by less than 1%, and would lie on one another by size.

    rows: store.frames.scaling.
    """
    own = rows[rows["x"].notna()].reset_index(drop=True)
    if own.empty:
        return theme.empty(TITLE, "No run of this study has a known size yet.", dark=dark)
    axis = str(own.at[0, "axis"])
    title = f"{TITLE} over {axis}{' size' if axis == 'model' else ''}"
    subtitle = "Whisker: 95% interval of the median"
    if own["samples_per_s"].isna().any():
        subtitle += "; cross, along the upper edge: did not fit or did not run, no amount of memory"
    figure = theme.titled(title, subtitle, dark=dark, height=420)
    panels = make_subplots(rows=1, cols=2, horizontal_spacing=0.09)
    panels.update_layout(figure.layout)
    unit = readable.memory_unit(own["peak_allocated_gib"].max())
    place = own["x_label"].map(_order(own)) if axis == "model" else own["x"]
    own = own.assign(place=place.astype(float), peak=own["peak_allocated_gib"] * unit.per_gib)
    for series, colour in COLOURS.items():
        _draw_series(panels, own[own["series"] == series], series, colour, dark)
    _draw_missing(panels, own, dark)
    _draw_axes(panels, own, axis, unit.name)
    for size in crossovers(own, "place"):
        panels.add_vline(x=size, line={"color": theme.ink(dark).axis, "width": 1, "dash": "dot"}, row=1, col=1)
    return panels


def _draw_series(figure: go.Figure, rows: pd.DataFrame, series: str, colour: str, dark: bool) -> None:
    hovers = [_hover(row) for _, row in rows.iterrows()]
    for column, name in ((1, "samples_per_s"), (2, "peak")):
        whiskers = None
        if column == 1:
            value = rows["samples_per_s"]
            low, high = rows["samples_low"].fillna(value), rows["samples_high"].fillna(value)
            whiskers = {"type": "data", "symmetric": False, "thickness": 1.3, "width": 4}
            whiskers |= {"array": (high - value).tolist(), "arrayminus": (value - low).tolist()}
        figure.add_scatter(
            name=series,
            x=rows["place"].tolist(),
            y=rows[name].tolist(),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 8, "color": colour},
            error_y=whiskers,
            hovertext=hovers,
            hoverinfo="text",
            legendgroup=series,
            showlegend=column == 1,
            row=1,
            col=column,
        )


def _draw_missing(figure: go.Figure, rows: pd.DataFrame, dark: bool) -> None:
    """What has no time keeps its place: a cross in its status' colour along the upper edge of the memory panel."""
    missing = rows[rows["samples_per_s"].isna()]
    if missing.empty:
        return
    edge = _edge(rows)
    sizes = [own for _, own in missing.groupby("place")]
    figure.add_scatter(
        name="did not run",
        x=[own["place"].iloc[0] for own in sizes],
        y=[edge] * len(sizes),
        mode="markers+text",
        marker={"symbol": "x", "size": 9, "color": [palette.status(own["status"].iloc[0]) for own in sizes]},
        text=[missing["status"].iloc[0], *[""] * (len(sizes) - 1)],
        textposition="bottom center",
        textfont={"color": theme.ink(dark).muted},
        cliponaxis=False,
        hovertext=["<br>".join(_why_missing(row) for row in own.itertuples(index=False)) for own in sizes],
        hoverinfo="text",
        row=1,
        col=2,
    )


def _edge(rows: pd.DataFrame) -> float:
    highest = float(rows["peak"].max())
    return 1.0 if math.isnan(highest) else EDGE * highest


def _why_missing(row: Any) -> str:
    return f"<b>{row.series}, {theme.hover(row.x_label)}</b><br>{row.status}: {theme.hover(row.cause)}"


def _draw_axes(figure: go.Figure, rows: pd.DataFrame, axis: str, memory: str) -> None:
    sizes = rows.drop_duplicates("place").sort_values("place")
    texts = [f"{size:g}" for size in sizes["x"]]
    if axis == "model":
        names = zip(sizes["x_label"], sizes["x"], strict=True)
        texts = [f"{theme.hover(name)}<br>{readable.number(size)}" for name, size in names]
    kind = "log" if axis == "batch" else "linear"
    ticks = sizes["place"].tolist()
    figure.update_xaxes(title_text=AXES[axis], type=kind, tickmode="array", tickvals=ticks, ticktext=texts)
    figure.update_yaxes(title_text="Samples per second", rangemode="tozero", row=1, col=1)
    if axis == "model":
        figure.update_yaxes(title_text="Samples per second (logarithmic)", type="log", dtick=1, row=1, col=1)
    figure.update_yaxes(title_text=f"Peak allocated ({memory})", range=[0, _edge(rows)], row=1, col=2)
    figure.update_layout(margin={"t": 96})


def _order(rows: pd.DataFrame) -> dict[str, int]:
    """The models' places by their size, the smallest at 1."""
    names = rows.sort_values("x", kind="stable")["x_label"].drop_duplicates()
    return {name: place for place, name in enumerate(names, start=1)}


def crossovers(rows: pd.DataFrame, along: str = "x") -> list[float]:
    """Where along an axis the faster of the two changes: the geometric mean of two neighbours that were steady."""
    steady = rows[~rows["x_label"].isin(_unsteady(rows)["x_label"])]
    judged = steady[(steady["series"] == "stack") & steady["verdict"].isin(("faster", "slower"))].sort_values("x")
    points = list(zip(judged[along], judged["verdict"], strict=True))
    return [math.sqrt(one[0] * two[0]) for one, two in pairwise(points) if one[1] != two[1]]


def reading(rows: pd.DataFrame) -> str:
    """The chart in a few sentences: what the stack buys, where that turns, what makes it doubtful, what did not fit."""
    judged = rows[(rows["series"] == "stack") & rows["speedup"].notna() & rows["x"].notna()].sort_values("x")
    unsteady = _unsteady(rows[rows["x_label"].isin(judged["x_label"])])
    steady = judged[~judged["x_label"].isin(unsteady["x_label"])]
    parts = [_gain(steady, "every size that was steady" if len(unsteady) else "every size")] if len(steady) else []
    if len(unsteady):
        spreads = [readable.apart(row, f"the {row.series}'s") for row in unsteady.itertuples(index=False)]
        named = [f"{size} ({spread})" for size, spread in zip(unsteady["x_label"], spreads, strict=True)]
        parts.append(f"Left out as unsteady, to be measured again: {', '.join(named)}.")
    parts += [_launches(rows), _launches_of_baseline(rows)]
    for series in ("baseline", "stack"):
        gone = rows[(rows["series"] == series) & (rows["status"] == "oom")].sort_values("x")
        if len(gone):
            parts.append(f"The {series} does not fit at {gone['x_label'].iloc[0]}.")
    return " ".join(part for part in parts if part)


def disturbed(rows: pd.DataFrame, run_ids: Container[str]) -> str:
    """Which of the sizes were timed beside other work, in a sentence. run_ids: store.frames.disturbed_runs."""
    timed = rows[rows["samples_per_s"].notna()]
    own = timed[[run_id in run_ids for run_id in timed["run_id"]]].sort_values(["series", "x"])
    named = [f"the {series} at {', '.join(labels)}" for series, labels in own.groupby("series")["x_label"]]
    return f"Timed while other programs used the machine's cores or GPU: {'; '.join(named)}." if named else ""


def _unsteady(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs, of baseline or stack, that their own pages call unsteady."""
    return rows[readable.unsteady(rows)].sort_values(["x", "series"])


def _gain(judged: pd.DataFrame, every: str) -> str:
    best = judged.loc[judged["speedup"].idxmax()]
    pays = judged["verdict"] == "faster"
    where = f"The stack gains most at {best['x_label']} ({readable.times(best['speedup'])})"
    if pays.all():
        least = judged.loc[judged["speedup"].idxmin()]
        return f"{where}, least at {least['x_label']} ({readable.times(least['speedup'])}), and pays at {every}."
    if not pays.any():
        return "The stack pays at no size beyond spread and drift."
    turns = [
        f"{'begins' if now else 'ceases'} to pay between {before['x_label']} and {after['x_label']}"
        for (_, before), (_, after), was, now in zip(
            judged.iterrows(), judged.iloc[1:].iterrows(), pays, pays.iloc[1:], strict=False
        )
        if was != now
    ]
    return f"{where}; it {', and '.join(turns)}."


def _launches(rows: pd.DataFrame) -> str:
    """Where the CPU sets the stack's time: there its kernels may gain more than its steps show."""
    bound, partly = (_sizes(rows, "stack", verdict) for verdict in ("launch-bound", "partly launch-bound"))
    parts = [f"the stack's time at {bound}"] if bound else []
    if partly:
        of = "it" if bound else "the stack's time"
        parts.append(f"some of {of} at {partly} (the GPU waits {WAITS_IN_PART})")
    more = "its kernels may gain more than is seen there."
    return f"The CPU's launches set {' and '.join(parts)}: {more}" if parts else ""


def _launches_of_baseline(rows: pd.DataFrame) -> str:
    """Where the CPU sets the baseline's time: there a gain may be host time."""
    bound = _sizes(rows, "baseline", "launch-bound")
    return f"The CPU's launches set the baseline's time at {bound}: some of that gain is host time." if bound else ""


def _sizes(rows: pd.DataFrame, series: str, verdict: str) -> str:
    """The sizes at which a series got this launch verdict; three or more in a row as 'batch 1 to batch 8'."""
    own = rows[(rows["series"] == series) & rows["x"].notna()].sort_values("x")
    spans: list[list[str]] = [[]]
    for label, found in zip(own["x_label"], own["launch_verdict"], strict=True):
        if found == verdict:
            spans[-1].append(label)
        elif spans[-1]:
            spans.append([])
    texts = [f"{span[0]} to {span[-1]}" if len(span) > 2 else " and ".join(span) for span in spans if span]
    return ", ".join(texts)


def _hover(row: pd.Series) -> str:
    return (
        f"<b>{row['series']}, {theme.hover(row['x_label'])}</b><br>{theme.hover(row['combo_label'])}<br>"
        f"{readable.number(row['samples_per_s'], 'samples/s')}, "
        f"peak {readable.gib(row['peak_allocated_gib'])}<br>"
        f"speedup {readable.interval(row['speedup'], row['speedup_low'], row['speedup_high'])}"
    )
