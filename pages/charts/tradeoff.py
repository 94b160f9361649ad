"""Speed against memory: which runs nothing else beats in both."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, readable, theme
from pages.charts.labels import place_labels

TITLE, HEIGHT, PLOT_WIDTH, LONGEST = "Speed against memory", 440, 440, 38


def tradeoff(runs: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """Samples per second over peak memory, with the frontier of the runs that no other run beats in both.

    Only these and the baseline bear their names: all of them would lie on one another.
    """
    if runs.empty:
        return theme.empty(TITLE, "This study has no runs yet.", dark=dark)
    points = runs.dropna(subset=["samples_per_s", "peak_allocated_gib"]).reset_index(drop=True)
    if points.empty:
        return theme.empty(TITLE, "No run of this study has both a speed and a peak memory.", dark=dark)
    points = points.assign(is_best=frontier(points)).sort_values("is_best", ascending=False, kind="stable")
    figure = theme.titled(TITLE, _subtitle(len(runs) - len(points)), dark=dark, height=HEIGHT)
    unit = readable.memory_unit(points["peak_allocated_gib"].max())
    points["peak"] = points["peak_allocated_gib"] * unit.per_gib
    memory, speed = Span.of(points["peak"]), Span.of(points["samples_per_s"])
    _draw_frontier(figure, points, dark)
    _draw_points(figure, points, memory, speed, dark)
    figure.update_xaxes(title_text=f"Peak memory allocated ({unit.name}{memory.note})", **memory.axis)
    figure.update_yaxes(title_text=f"Samples per second{speed.note}", **speed.axis)
    return figure


def frontier(points: pd.DataFrame) -> list[bool]:
    """For each run: whether no other run is at least as fast with less memory, or faster with as little."""
    speed, memory = points["samples_per_s"].astype(float), points["peak_allocated_gib"].astype(float)
    trusted = points["status"] == "done"
    return [
        bool(trusted[i])
        and not any(
            trusted[j]
            and speed[j] >= speed[i]
            and memory[j] <= memory[i]
            and (speed[j] > speed[i] or memory[j] < memory[i])
            for j in points.index
        )
        for i in points.index
    ]


def _subtitle(num_missing: int) -> str:
    missing = f"; {num_missing} without both numbers not drawn" if num_missing else ""
    return f"Up and left is better; line, and named: runs that no other run beats in both{missing}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """The range of one axis: from zero, or logarithmic where the largest value dwarfs the smallest."""

    low: float
    high: float
    is_log: bool

    @classmethod
    def of(cls, values: pd.Series) -> "Span":
        low, high = float(values.min()), float(values.max())
        if 0 < low < high / 5:
            return cls(low=math.log10(low / 1.6), high=math.log10(high * 1.5), is_log=True)
        return cls(low=0.0, high=high * 1.12 or 1.0, is_log=False)

    @property
    def axis(self) -> dict[str, Any]:
        log = {"type": "log", "dtick": "D2", "minor": {"showgrid": False}, "tickformat": "~g"}
        return {"range": [self.low, self.high], **(log if self.is_log else {})}

    @property
    def note(self) -> str:
        return ", logarithmic" if self.is_log else ""

    def place(self, value: float) -> float:
        """Where the value lies on the axis, from 0 to 1."""
        return ((math.log10(value) if self.is_log else value) - self.low) / (self.high - self.low)


def _draw_frontier(figure: go.Figure, points: pd.DataFrame, dark: bool) -> None:
    best = points[points["is_best"]].sort_values("peak_allocated_gib")
    figure.add_scatter(
        name="frontier",
        x=best["peak"],
        y=best["samples_per_s"],
        mode="lines",
        line={"shape": "hv", "width": 1.5, "dash": "dot", "color": theme.ink(dark).axis},
        hoverinfo="skip",
        showlegend=False,
    )


def _draw_points(figure: go.Figure, points: pd.DataFrame, memory: Span, speed: Span, dark: bool) -> None:
    named = points["is_best"] | (points["sweep_role"] == "baseline")  # the others are told by hovering
    labels = [
        theme.short(str(label), LONGEST) if one else "" for label, one in zip(points["step_label"], named, strict=True)
    ]
    places = place_labels(
        [(memory.place(row.peak), speed.place(row.samples_per_s)) for row in points.itertuples(index=False)],
        labels,
        width=PLOT_WIDTH,
        height=HEIGHT - 110,
    )
    colours = [_colour(row) for _, row in points.iterrows()]
    figure.add_scatter(
        name="runs",
        x=points["peak"],
        y=points["samples_per_s"],
        mode="markers+text",
        marker={
            "opacity": 1,
            "size": [11 if best else 8 for best in points["is_best"]],
            "color": [
                c if best else theme.ink(dark).background for c, best in zip(colours, points["is_best"], strict=True)
            ],
            "line": {"width": 1.6, "color": colours},
            "symbol": ["diamond" if "baseline" in role else "circle" for role in points["sweep_role"].fillna("")],
        },
        text=[label if place else "" for label, place in zip(labels, places, strict=True)],
        textposition=[place or "top center" for place in places],
        textfont={"size": 12, "color": theme.ink(dark).muted},
        customdata=points["run_id"].tolist(),
        hovertext=[_hover(row) for _, row in points.iterrows()],
        hoverinfo="text",
        showlegend=False,
    )


def _colour(row: pd.Series) -> str:
    if row["status"] in ("wrong", "ineffective"):
        return palette.status(row["status"])
    if "baseline" in str(row["sweep_role"]):
        return palette.BASELINE
    return palette.VERDICTS["faster"]


def _hover(row: pd.Series) -> str:
    return "<br>".join(
        (
            f"<b>{theme.hover(str(row['combo_label']))}</b>",
            f"{readable.number(row['samples_per_s'])} samples/s",
            readable.median_step(row["step_ms"], row["num_samples"]),
            f"peak {readable.gib(row['peak_allocated_gib'])}",
            str(row["status"]),
        )
    )
