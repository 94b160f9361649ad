"""Baseline and stack over batch, resolution or model size: throughput and memory, and where one stops to fit."""

import math
from itertools import pairwise

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pages.charts import palette, readable, theme

TITLE = "Throughput and memory"
COLOURS = {"baseline": palette.BASELINE, "stack": palette.BETTER}
NEAR = 0.05  # of the axis: two labels nearer than that would lie on one another
AXES = {
    "batch": "Batch (samples, logarithmic)",
    "resolution": "Resolution (px)",
    "model": "Model (by its parameters in millions, logarithmic)",
}


def scaling(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """Two panels over one size: samples per second with 95% intervals, and peak memory; crosses did not run.

    rows: store.frames.scaling.
    """
    own = rows[rows["x"].notna()].reset_index(drop=True)
    if own.empty:
        return theme.empty(TITLE, "No run of this study has a known size yet.", dark=dark)
    axis = str(own.at[0, "axis"])
    title = f"{TITLE} over {axis}{' size' if axis == 'model' else ''}"
    figure = theme.titled(
        title, "Whisker: 95% interval of the median; cross: did not fit or did not run", dark=dark, height=420
    )
    panels = make_subplots(rows=1, cols=2, horizontal_spacing=0.09)
    panels.update_layout(figure.layout)
    unit = readable.memory_unit(own["peak_allocated_gib"].max())
    own = own.assign(peak=own["peak_allocated_gib"] * unit.per_gib)
    for series, colour in COLOURS.items():
        _draw_series(panels, own[own["series"] == series], series, colour, dark)
    _draw_missing(panels, own, dark)
    _draw_axes(panels, own, axis, unit.name)
    for size in crossovers(own):
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
            x=rows["x"].tolist(),
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
    """What has no time keeps its place: a cross in its status' colour along the top of the memory panel."""
    missing = rows[rows["samples_per_s"].isna()]
    if missing.empty:
        return
    top = float(rows["peak"].max()) * 1.12 if rows["peak"].notna().any() else 1.0
    lift = {"baseline": 1.0, "stack": 1.07}
    figure.add_scatter(
        name="did not run",
        x=missing["x"].tolist(),
        y=[top * lift[series] for series in missing["series"]],
        mode="markers+text",
        marker={"symbol": "x", "size": 9, "color": [palette.status(status) for status in missing["status"]]},
        text=[status if row == 0 else "" for row, status in enumerate(missing["status"])],
        textposition="bottom center",
        textfont={"color": theme.ink(dark).muted},
        hovertext=[
            f"<b>{row.series}, {row.x_label}</b><br>{row.status}: {theme.hover(row.cause)}"
            for row in missing.itertuples(index=False)
        ],
        hoverinfo="text",
        row=1,
        col=2,
    )


def _draw_axes(figure: go.Figure, rows: pd.DataFrame, axis: str, memory: str) -> None:
    ticks = sorted(rows["x"].unique().tolist())
    texts = [f"{tick:g}" for tick in ticks]
    if axis == "model":
        ticks, texts = _models(rows)
    kind = "linear" if axis == "resolution" else "log"
    figure.update_xaxes(title_text=AXES[axis], type=kind, tickmode="array", tickvals=ticks, ticktext=texts)
    figure.update_yaxes(title_text="Samples per second", rangemode="tozero", row=1, col=1)
    if axis == "model":
        figure.update_yaxes(title_text="Samples per second (logarithmic)", type="log", dtick=1, row=1, col=1)
    figure.update_yaxes(title_text=f"Peak allocated ({memory})", rangemode="tozero", row=1, col=2)
    figure.update_layout(margin={"t": 96})


def _models(rows: pd.DataFrame) -> tuple[list[float], list[str]]:
    """A tick per model with its name and size; models too near to one another to be told apart share one."""
    models = rows.drop_duplicates("x_label").sort_values("x")
    apart = NEAR * math.log(models["x"].iloc[-1] / models["x"].iloc[0])
    groups: list[list[tuple[float, str]]] = []
    for size, name in zip(models["x"], models["x_label"], strict=True):
        if groups and math.log(size / groups[-1][0][0]) <= apart:
            groups[-1].append((size, name))
        else:
            groups.append([(size, name)])
    ticks = [group[0][0] for group in groups]
    return ticks, ["<br>".join([*(name for _, name in group), readable.number(group[0][0])]) for group in groups]


def crossovers(rows: pd.DataFrame) -> list[float]:
    """The sizes between which the faster of the two changes: the geometric mean of two neighbours."""
    judged = rows[(rows["series"] == "stack") & rows["verdict"].isin(("faster", "slower"))].sort_values("x")
    points = list(zip(judged["x"], judged["verdict"], strict=True))
    return [math.sqrt(one[0] * two[0]) for one, two in pairwise(points) if one[1] != two[1]]


def reading(rows: pd.DataFrame) -> str:
    """The chart in one or two sentences: what the stack buys, where that turns, and what did not fit."""
    judged = rows[(rows["series"] == "stack") & rows["speedup"].notna() & rows["x"].notna()].sort_values("x")
    parts = [_gain(judged)] if len(judged) else []
    for series in ("baseline", "stack"):
        gone = rows[(rows["series"] == series) & (rows["status"] == "oom")].sort_values("x")
        if len(gone):
            parts.append(f"The {series} does not fit at {gone['x_label'].iloc[0]}.")
    return " ".join(parts)


def _gain(judged: pd.DataFrame) -> str:
    best = judged.loc[judged["speedup"].idxmax()]
    pays = judged["verdict"] == "faster"
    where = f"The stack gains most at {best['x_label']} ({readable.times(best['speedup'])})"
    if pays.all():
        least = judged.loc[judged["speedup"].idxmin()]
        return f"{where}, least at {least['x_label']} ({readable.times(least['speedup'])}), and pays at every size."
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


def _hover(row: pd.Series) -> str:
    return (
        f"<b>{row['series']}, {theme.hover(row['x_label'])}</b><br>{theme.hover(row['combo_label'])}<br>"
        f"{readable.number(row['samples_per_s'], 'samples/s')}, "
        f"peak {readable.gib(row['peak_allocated_gib'])}<br>"
        f"speedup {readable.interval(row['speedup'], row['speedup_low'], row['speedup_high'])}"
    )
