"""Ratios against a baseline: a dot and its interval per run, around one."""

import math

import pandas as pd
import plotly.graph_objects as go

from pages.charts import dots, palette, readable, theme

ROW = 30
FINE = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 1.8, 2, 2.5)
COARSE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.33, 0.5, 0.7, 1, 1.4, 2, 3, 5, 10, 20, 50, 100)
DECADES = tuple(10.0**power for power in range(-9, 10))


def ratios(
    rows: pd.DataFrame, *, metric: str, baseline: str, drift: float | None = None, dark: bool = False
) -> go.Figure:
    """One metric of each run over the baseline's, on a logarithmic axis so that twice and half look alike.

    rows: store.frames.metric_ratios. drift: how far the repeated baseline was from the baseline in time (0.02 is
    2%); other metrics than times and rates have no band of it.
    """
    chosen = rows[(rows["metric"] == metric) & rows["ratio"].notna() & (rows["ratio"] > 0)].reset_index(drop=True)
    title = f"{metric} relative to {baseline}"
    if chosen.empty:
        why = f"No chosen run has {metric} together with the baseline: choose another metric or other runs."
        return theme.empty(title, why, dark=dark)
    drift = drift if chosen["is_timed"].all() else None
    row = max(ROW, 10 + theme.LABEL_LINE * theme.num_lines(chosen["label"]))
    figure = theme.titled(title, _subtitle(chosen, drift), dark=dark, height=130 + row * len(chosen))
    if drift:
        figure.add_vrect(x0=1 / (1 + drift), x1=1 + drift, fillcolor=theme.ink(dark).band, line_width=0, layer="below")
    figure.add_vline(x=1, line={"color": theme.ink(dark).axis, "width": 1}, layer="below")
    _draw_dots(figure, chosen, drift, dark)
    _draw_axes(figure, chosen)
    return figure


def _subtitle(rows: pd.DataFrame, drift: float | None) -> str:
    sides = {"lower": "left of 1× is better", "higher": "right of 1× is better", "": "neither side is better"}
    side, reasons = sides[max(rows["better"])], rows["why_not_judged"].dropna()  # '' is the least
    if len(reasons):
        side += f", but not where grey: there {reasons.iloc[0]}" if max(rows["better"]) else f": {reasons.iloc[0]}"
    band = f"; grey band: {readable.percent(drift)} drift of the repeated baseline" if drift else ""
    return f"{side[0].upper()}{side[1:]}; whisker: 95% interval where the metric was sampled{band}"


def _draw_dots(figure: go.Figure, chosen: pd.DataFrame, drift: float | None, dark: bool) -> None:
    ratio = chosen["ratio"].astype(float)
    low, high = chosen["ratio_low"].astype(float).fillna(ratio), chosen["ratio_high"].astype(float).fillna(ratio)
    figure.add_scatter(
        name="runs",
        x=ratio.tolist(),
        y=chosen.index.tolist(),
        mode="markers",
        marker={
            "size": 10,
            "color": [
                colour_of(*row, better=better, drift=drift)
                for *row, better in zip(ratio, low, high, chosen["better"], strict=True)
            ],
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (high - ratio).tolist(),
            "arrayminus": (ratio - low).tolist(),
            "color": theme.ink(dark).text,
            "thickness": 1.5,
            "width": 5,
        },
        customdata=chosen["run_id"].tolist(),
        hovertext=[_hover(row) for _, row in chosen.iterrows()],
        hoverinfo="text",
        showlegend=False,
    )


def colour_of(ratio: float, low: float, high: float, *, better: str, drift: float | None) -> str:
    """Better, worse or no difference: none when the interval holds 1 or the ratio lies inside the drift.

    low and high are missing where the metric was not sampled, drift where the baseline was not repeated.
    """
    low, high = (ratio if pd.isna(end) else end for end in (low, high))
    if not better or low <= 1 <= high or abs(math.log(ratio)) <= math.log1p(drift or 0.0):
        return palette.EVEN
    return palette.BETTER if (ratio < 1) == (better == "lower") else palette.WORSE


def _hover(row: pd.Series) -> str:
    unit = str(row["unit"] or "")
    of = "plain eager's error" if str(row["metric"]).endswith("error_ratio") else "TFLOP/s"
    divisors = (
        f"<br>of {readable.number(row['divisor'])} against {readable.number(row['baseline_divisor'])} {of}"
        if pd.notna(row["divisor"])
        else ""
    )
    return (
        f"<b>{theme.hover(str(row['label']))}</b><br>"
        f"{readable.interval(row['ratio'], row['ratio_low'], row['ratio_high'])}"
        f"<br>{_value(row, 'value', unit)} against {_value(row, 'baseline_value', unit)}{divisors}"
    )


def _value(row: pd.Series, column: str, unit: str) -> str:
    return f"{readable.metric(str(row['metric']), row[column])} {unit}".strip()


def _draw_axes(figure: go.Figure, chosen: pd.DataFrame) -> None:
    ends = pd.concat([chosen["ratio"], chosen["ratio_low"], chosen["ratio_high"]]).dropna().astype(float)
    low, high = min(0.9, ends.min() / 1.12), max(1.1, ends.max() * 1.12)
    ticks = FINE if high / low < 3 else COARSE if high / low < 1000 else DECADES
    figure.update_xaxes(
        type="log",
        range=[math.log10(low), math.log10(high)],
        tickmode="array",
        tickvals=list(ticks),
        ticktext=[f"{t:,g}×" for t in ticks],
        title_text="Ratio to the baseline (×, logarithmic)",
    )
    theme.label_rows(figure, chosen["label"])
    ratios = [
        dots.cell(f"<b>{readable.times(row['ratio'])}</b>", 62, y=position) for position, row in chosen.iterrows()
    ]
    dots.annotate(figure, ratios)
    figure.update_layout(margin={"r": 80})
