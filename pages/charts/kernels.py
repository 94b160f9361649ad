"""Where a step's time goes, by kernel category: bars side by side, and one run's breakdown."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, readable, theme

ROW = 44
IDLE = "idle"


def category_bars(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """One stacked bar per run, in milliseconds per step, the same order of categories in each, idle time last.

    rows: store.frames.kernel_categories. A trace without marked steps is no step: its bar says "whole trace".
    """
    if rows.empty:
        return theme.empty(_title(rows), "None of these runs has a trace with kernels.", dark=dark)
    runs = rows.drop_duplicates("run_id").reset_index(drop=True)
    names = runs["combo_label"].mask(runs["of_whole_trace"].astype(bool), runs["combo_label"] + " (whole trace)")
    said = "Sum over all kernels of the traced steps; grey: the rest of the timed step, in which no kernel ran"
    said = said if runs["idle_ms"].notna().any() else said.partition(";")[0]
    figure = theme.titled(_title(rows), said, dark=dark, height=204 + ROW * len(runs))
    position = {run_id: index for index, run_id in runs["run_id"].items()}
    walls = rows.groupby("run_id")["step_total_ms"].sum() + runs.set_index("run_id")["idle_ms"].astype(float).fillna(0)
    for name, colour in palette.CATEGORIES.items():
        _draw_part(figure, name, colour, rows[rows["category"] == name], position, walls, dark)
    idle = runs.assign(step_total_ms=runs["idle_ms"])
    idle = idle[idle["idle_ms"].fillna(0) > 0]
    _draw_part(figure, IDLE, theme.ink(dark).axis, idle, position, walls, dark)
    figure.update_layout(barmode="stack", legend=theme.LEGEND_BELOW, uniformtext={"minsize": 10, "mode": "hide"})
    figure.update_xaxes(title_text=_axis(rows))
    theme.label_rows(figure, names)
    return figure


def _title(rows: pd.DataFrame) -> str:
    only_whole = len(rows) and rows["of_whole_trace"].all()
    return "Kernel time of the whole trace by category" if only_whole else "Kernel time per step by category"


def _axis(rows: pd.DataFrame) -> str:
    if rows["of_whole_trace"].all():
        return "Kernel time of the whole trace (ms)"
    mixed = ", of the whole trace where a row says so" if rows["of_whole_trace"].any() else ""
    return f"Time per step{mixed} (ms)"


def _draw_part(
    figure: go.Figure,
    name: str,
    colour: str,
    own: pd.DataFrame,
    position: Mapping[str, int],
    walls: pd.Series,
    dark: bool,
) -> None:
    """One category of all bars, or their idle time; the percent are of the whole bar."""
    if own.empty:
        return
    shares = own["step_total_ms"].astype(float) / own["run_id"].map(walls)
    figure.add_bar(
        name=name,
        orientation="h",
        x=own["step_total_ms"].tolist(),
        y=[position[run_id] for run_id in own["run_id"]],
        marker={"color": colour, "line": {"width": 0.6, "color": theme.ink(dark).background}},
        text=[readable.percent(share) if share >= 0.07 else "" for share in shares],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        hovertext=[
            f"<b>{name}</b><br>{readable.number(ms, 'ms')}, {readable.percent(share)} of the bar"
            for ms, share in zip(own["step_total_ms"], shares, strict=True)
        ],
        hoverinfo="text",
    )


def breakdown(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """One run's categories, the largest first. rows: store.frames.kernel_categories of one run."""
    title = "Kernel time by category"
    if rows.empty:
        return theme.empty(title, "This run has no trace with kernels.", dark=dark)
    own = rows.sort_values("step_total_ms", ascending=False).reset_index(drop=True)
    per = "of the whole trace, which marks no steps" if own["of_whole_trace"].all() else "per step"
    said = f"Milliseconds {per}, and the share of all kernel time"
    figure = theme.titled(title, said, dark=dark, height=112 + 27 * len(own))
    figure.add_bar(
        orientation="h",
        x=own["step_total_ms"].tolist(),
        y=own.index.tolist(),
        marker={"color": [palette.category(name) for name in own["category"]]},
        text=[
            f"{readable.number(row.step_total_ms, 'ms')}  {readable.percent(row.share)}"
            for row in own.itertuples(index=False)
        ],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="text",
        width=0.66,
    )
    figure.update_xaxes(title_text=_axis(own), range=[0, float(own["step_total_ms"].max()) * 1.3])
    theme.label_rows(figure, own["category"])
    return figure
