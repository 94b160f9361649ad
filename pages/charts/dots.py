"""Rows of dots with whiskers round one, on a logarithmic axis, and the figures in columns at the right."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, theme

ROW = 28
TICKS = (0.1, 0.2, 0.33, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.7, 2, 2.5, 3, 4, 5, 7, 10, 20, 50)
COLUMN = 74  # pixels


def height(num_rows: int) -> int:
    return 128 + ROW * num_rows


def draw(
    figure: go.Figure,
    rows: pd.DataFrame,
    value: str,
    *,
    colours: Sequence[str],
    hovers: Sequence[str],
    dark: bool,
    hollow: Sequence[bool] = (),
) -> None:
    """A dot per row at rows[value], with a whisker from value_low to value_high; rows without a value get none.

    hollow: which rows' dots are rings; none without.
    """
    known = rows[rows[value].notna()]
    low, high = known[f"{value}_low"].fillna(known[value]), known[f"{value}_high"].fillna(known[value])
    rings = [bool(hollow) and hollow[position] for position in known.index]
    figure.add_vline(x=1, line={"color": theme.ink(dark).axis, "width": 1}, layer="below")
    figure.add_scatter(
        name=value,
        x=known[value].tolist(),
        y=known.index.tolist(),
        mode="markers",
        marker={
            "size": 10,
            "color": [colours[position] for position in known.index],
            "symbol": ["circle-open" if ring else "circle" for ring in rings],
            "line": {"width": [2 if ring else 0 for ring in rings]},
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (high - known[value]).tolist(),
            "arrayminus": (known[value] - low).tolist(),
            "color": theme.ink(dark).text,
            "thickness": 1.5,
            "width": 5,
        },
        hovertext=[hovers[position] for position in known.index],
        hoverinfo="text",
        showlegend=False,
    )
    _draw_axis(figure, float(low.min()) if len(low) else 0.9, float(high.max()) if len(high) else 1.1)


def _draw_axis(figure: go.Figure, low: float, high: float) -> None:
    low, high = min(0.95, low / 1.08), max(1.05, high * 1.08)
    inside = [tick for tick in TICKS if low <= tick <= high]
    # Ticks that are close to each other would print over one another.
    apart = [t for t in inside if t == 1 or abs(math.log(t)) > 0.06 * math.log(high / low)]
    chosen = apart if len(apart) <= 10 else [t for t in apart if t in (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50)]
    figure.update_xaxes(
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickmode="array",
        tickvals=chosen,
        ticktext=[f"{tick:g}×" for tick in chosen],
    )


def draw_band(figure: go.Figure, drift: float, dark: bool) -> None:
    """The drift of the repeated baseline, inside which no difference is seen."""
    if drift > 0:
        figure.add_vrect(x0=1 / (1 + drift), x1=1 + drift, fillcolor=theme.ink(dark).band, line_width=0, layer="below")


def draw_columns(figure: go.Figure, columns: dict[str, Sequence[str]], dark: bool, *, ends: Sequence[int] = ()) -> None:
    """Right-aligned texts beside the plot, a heading over each column; the first is printed bold.

    ends: how far right of the plot each column ends, in pixels; without, all are COLUMN wide.
    """
    ends = ends or [COLUMN * number for number in range(1, len(columns) + 1)]
    cells: list[dict[str, Any]] = []
    for end, (heading, texts) in zip(ends, columns.items(), strict=True):
        cells.append(heading_cell(heading, end, dark))
        told = [(position, text) for position, text in enumerate(texts) if text]
        cells += [cell(f"<b>{text}</b>" if end == ends[0] else text, end, y=position) for position, text in told]
    annotate(figure, cells)
    figure.update_layout(margin={"r": ends[-1] + 16, "t": 84})


def heading_cell(heading: str, shift: float, dark: bool) -> dict[str, Any]:
    """The annotation over a column beside the plot, `shift` pixels from it."""
    return cell(heading, shift, yref="paper", y=1, yanchor="bottom", font={"color": theme.ink(dark).muted})


def cell(text: str, shift: float, **place: Any) -> dict[str, Any]:
    """One right-aligned text beside the plot."""
    return {"text": text, "xshift": shift, "xref": "paper", "x": 1, "xanchor": "right", "showarrow": False} | place


def annotate(figure: go.Figure, annotations: Sequence[dict[str, Any]]) -> None:
    """Add them all at once: plotly checks all that are there for each that is added."""
    figure.update_layout(annotations=[*figure.layout.annotations, *annotations])


def draw_reason(figure: go.Figure, position: int, status: str, reason: str, dark: bool) -> None:
    """A row without a dot says in words why it has none."""
    word = f'<b style="color:{palette.ink(palette.status(status), dark)}">{status}</b>  ' if status else ""
    figure.add_annotation(
        text=f"{word}{theme.short(reason, 84)}",
        hovertext=theme.hover(reason),
        x=0,
        y=position,
        xref="paper",
        xanchor="left",
        xshift=4,
        showarrow=False,
        align="left",
        font={"color": theme.ink(dark).muted},
    )
