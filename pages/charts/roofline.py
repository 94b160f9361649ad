"""Roofline: each operator's rate over its arithmetic intensity, under the device's ceilings."""

import math
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, readable, theme

KINDS = (("attention", "attention"), ("conv", "conv"), ("mm|linear|matmul", "gemm"))
CEILINGS = (("half", "16 bits"), ("tf32", "TF32"), ("fp32", "fp32"), ("fp8", "fp8"))
MOST_POINTS = 200


def roofline(rows: pd.DataFrame, peaks: Mapping[str, float], *, dark: bool = False) -> go.Figure:
    """One dot per operator and shape, as large as its time. rows: store.views.roofline; peaks: TFLOP/s, and gbs."""
    title = "Roofline"
    known = rows[rows["flop_per_byte"].notna() & (rows["tflops"] > 0)].head(MOST_POINTS)
    if known.empty or "gbs" not in peaks:
        why = (
            "The trace has no products with their shapes (a CPU, a CUDA graph, or no recorded shapes)."
            if known.empty
            else "This device's ceilings are not in the table of datasheets."
        )
        return theme.empty(title, why, dark=dark)
    said = "Dot: an operator at one shape, as large as its time; lines: the datasheet's bandwidth and dense peaks"
    figure = theme.titled(title, said, dark=dark, height=470)
    low, high = known["flop_per_byte"].min() / 2, max(known["flop_per_byte"].max() * 2, 2000)
    _draw_ceilings(figure, known, peaks, (low, high), dark)
    kinds = known["name"].map(_kind)
    longest = known["step_ms"].max()
    for kind in kinds.drop_duplicates():
        own = known[kinds == kind]
        figure.add_scatter(
            name=kind,
            x=own["flop_per_byte"].tolist(),
            y=own["tflops"].tolist(),
            mode="markers",
            marker={
                "size": [6 + 26 * math.sqrt(ms / longest) for ms in own["step_ms"]],
                "color": palette.faded(palette.category(kind), 0.75),
                "line": {"width": 1, "color": theme.ink(dark).background},
            },
            hovertext=[_hover(row) for row in own.itertuples(index=False)],
            hoverinfo="text",
        )
    figure.update_layout(margin={"t": 84})
    figure.update_xaxes(type="log", range=[math.log10(low), math.log10(high)], title_text="FLOP per byte", dtick=1)
    lowest = min(known["tflops"].min() / 2, 1)
    figure.update_yaxes(
        type="log", range=[math.log10(lowest), math.log10(2 * _shown_peak(known, peaks))], title_text="TFLOP/s", dtick=1
    )
    return figure


def _kind(name: str) -> str:
    return next((kind for words, kind in KINDS if any(word in name for word in words.split("|"))), "other")


def _rates(rows: pd.DataFrame, peaks: Mapping[str, float]) -> list[tuple[str, float]]:
    """The ceilings that the rows' types and those above them can reach; fp8 only where something runs in 8 bits."""
    has_bytes = rows["dtype"].fillna("").str.contains("Float8|char").any()
    return [(label, peaks[rate]) for rate, label in CEILINGS if rate in peaks and (rate != "fp8" or has_bytes)]


def _shown_peak(rows: pd.DataFrame, peaks: Mapping[str, float]) -> float:
    return max(peak for _, peak in _rates(rows, peaks))


def _draw_ceilings(
    figure: go.Figure, rows: pd.DataFrame, peaks: Mapping[str, float], ends: tuple[float, float], dark: bool
) -> None:
    """The slope is memory, each level a type's peak; they meet at the ridge."""
    line = {"color": theme.ink(dark).muted, "width": 1.2}
    low, high = ends
    rates = _rates(rows, peaks)
    ridge = _shown_peak(rows, peaks) * 1000 / peaks["gbs"]
    slope = [(x, x * peaks["gbs"] / 1000) for x in (low, ridge)]
    figure.add_scatter(
        x=[x for x, _ in slope], y=[y for _, y in slope], mode="lines", line=line, hoverinfo="skip", showlegend=False
    )
    for label, peak in rates:
        figure.add_scatter(
            x=[peak * 1000 / peaks["gbs"], high],
            y=[peak, peak],
            mode="lines",
            line=line | {"dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_annotation(
            text=f"{label} {peak:,.0f}",
            x=math.log10(high),
            y=math.log10(peak),
            xanchor="right",
            yanchor="bottom",
            showarrow=False,
            font={"size": 11, "color": theme.ink(dark).muted},
        )
    figure.add_annotation(
        text=f"{peaks['gbs']:,.0f} GB/s",
        x=math.log10(math.sqrt(low * ridge)),
        y=math.log10(math.sqrt(low * ridge) * peaks["gbs"] / 1000),
        xanchor="right",
        yanchor="bottom",
        showarrow=False,
        font={"size": 11, "color": theme.ink(dark).muted},
    )


def _hover(row: object) -> str:
    share = readable.percent(getattr(row, "roof_share", None))
    return (
        f"<b>{theme.hover(str(row.name))}</b><br>{theme.hover(str(row.shapes or ''))}<br>"
        f"{readable.number(row.step_ms, 'ms')} per step, {readable.number(row.tflops, 'TFLOP/s')}<br>"
        f"{share} of its {row.bound or 'unknown'} roof"
    )
