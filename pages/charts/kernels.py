"""Where a step's time goes, by kernel category: bars side by side, and one run's breakdown."""

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, readable, theme

ROW = 44


def category_bars(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """One stacked bar per run, in milliseconds per step, the same order of categories in each.

    rows: store.frames.kernel_categories.
    """
    title = "Kernel time per step by category"
    if rows.empty:
        return theme.empty(title, "None of these runs has a trace with kernels.", dark=dark)
    runs = rows.drop_duplicates("run_id")[["run_id", "combo_label"]].reset_index(drop=True)
    position = {run_id: index for index, run_id in runs["run_id"].items()}
    figure = theme.titled(title, "Sum over all kernels of the traced steps", dark=dark, height=186 + ROW * len(runs))
    for name, colour in palette.CATEGORIES.items():
        own = rows[rows["category"] == name]
        if own.empty:
            continue
        figure.add_bar(
            name=name,
            orientation="h",
            x=own["step_total_ms"].tolist(),
            y=[position[run_id] for run_id in own["run_id"]],
            marker={"color": colour, "line": {"width": 0.6, "color": theme.ink(dark).background}},
            text=[readable.percent(share) if share >= 0.07 else "" for share in own["share"]],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            hovertext=[
                f"<b>{name}</b><br>{readable.number(row.step_total_ms, 'ms')} per step, {readable.percent(row.share)}"
                for row in own.itertuples(index=False)
            ],
            hoverinfo="text",
        )
    # Above the plot: room for title, subtitle and three rows of the legend, as it has beside long labels.
    figure.update_layout(barmode="stack", margin={"t": 124}, uniformtext={"minsize": 10, "mode": "hide"})
    figure.update_xaxes(title_text="Kernel time per step (ms)")
    theme.label_rows(figure, runs["combo_label"])
    return figure


def breakdown(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """One run's categories, the largest first. rows: store.frames.kernel_categories of one run."""
    title = "Kernel time by category"
    if rows.empty:
        return theme.empty(title, "This run has no trace with kernels.", dark=dark)
    own = rows.sort_values("step_total_ms", ascending=False).reset_index(drop=True)
    figure = theme.titled(
        title, "Milliseconds per step, and the share of all kernel time", dark=dark, height=112 + 27 * len(own)
    )
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
    figure.update_xaxes(title_text="Kernel time per step (ms)", range=[0, float(own["step_total_ms"].max()) * 1.3])
    theme.label_rows(figure, own["category"])
    return figure
