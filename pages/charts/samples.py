"""The samples behind a median: in the order in which they were taken, and how they are spread."""

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, readable, theme


def samples(rows: pd.DataFrame, *, metric: str = "step_ms", dark: bool = False) -> go.Figure:
    """Every timed step as a dot, the middle half as a band, and the histogram at the right.

    rows: store.frames.samples of one run.
    """
    title = "Step times, one dot per step"
    own = rows[rows["metric"] == metric].sort_values("index") if not rows.empty else rows
    if own.empty:
        return theme.empty(title, "This run has no timed steps.", dark=dark)
    value = own["value"].astype(float)
    first, median, third, p95 = (float(value.quantile(q)) for q in (0.25, 0.5, 0.75, 0.95))
    spread = (
        f"{len(own)} steps: median {readable.number(median, 'ms')}, "
        f"middle half {readable.number(third - first, 'ms')} wide (band), p95 {readable.number(p95, 'ms')} (dotted)"
    )
    subtitle = spread if len(own) > 1 else f"1 step, {readable.number(median, 'ms')}: how far steps differ is unknown"
    figure = theme.titled(title, subtitle, dark=dark, height=330)
    figure.add_hrect(y0=first, y1=third, fillcolor=theme.ink(dark).band, line_width=0, layer="below")
    figure.add_hline(y=median, line={"color": theme.ink(dark).text, "width": 1}, layer="below")
    figure.add_hline(y=p95, line={"color": theme.ink(dark).axis, "width": 1, "dash": "dot"}, layer="below")
    figure.add_scatter(
        name="steps",
        x=own["index"].tolist(),
        y=value.tolist(),
        mode="markers",
        marker={"size": 6, "color": palette.SERIES[0], "opacity": 0.75},
        hovertemplate="step %{x}: %{y:.4g} ms<extra></extra>",
        showlegend=False,
    )
    figure.add_histogram(
        name="count",
        y=value.tolist(),
        xaxis="x2",
        nbinsy=24,
        marker={"color": palette.faded(palette.SERIES[0], 0.55)},
        hovertemplate="%{y} ms: %{x} steps<extra></extra>",
        showlegend=False,
    )
    figure.update_layout(
        xaxis={"domain": [0, 0.8], "title": {"text": "Step, in the order of timing"}},
        xaxis2={"domain": [0.82, 1], "anchor": "y", "title": {"text": "Steps"}, "showgrid": False},
        bargap=0.06,
    )
    figure.update_yaxes(title_text="Step time (ms)")
    return figure
