"""A step's wall time in parts that add up to it: kernel classes in colour, idle time hatched by its reason."""

from collections.abc import Iterable

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, readable, theme

MOST_BARS = 8
ROW = 46


def step_bars(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """One stacked bar per traced step, as long as the step. rows: store.views.step_parts."""
    title = "The traced step in parts" if rows["step"].nunique() < 2 else "Traced steps in parts"
    if rows.empty:
        return theme.empty(title, "This run keeps no breakdown of its trace.", dark=dark)
    shown = rows[(rows["step"] < MOST_BARS) & (rows["step_ms"] > 0)]
    steps = shown["step"].drop_duplicates().tolist()
    idle = rows.loc[rows["part"].str.startswith("idle:"), "step_ms"].sum() / rows["step_ms"].sum()
    said = f"They add up to the wall time; {readable.percent(1 - idle)} of it is work"
    if rows["step"].nunique() > MOST_BARS:
        said = f"The first {MOST_BARS} of {rows['step'].nunique()} steps. {said}"
    figure = theme.titled(title, said, dark=dark, height=186 + ROW * len(steps))
    for name in _in_order(shown["part"]):
        own = shown[shown["part"] == name]
        figure.add_bar(
            name=name,
            orientation="h",
            x=own["step_ms"].tolist(),
            y=[steps.index(step) for step in own["step"]],
            marker=look(name, dark),
            text=[readable.number(row.step_ms, "ms") if row.share >= 0.07 else "" for row in own.itertuples()],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            hovertext=[
                f"<b>{name}</b><br>{readable.number(row.step_ms, 'ms')}, {readable.percent(row.share)} of the step"
                for row in own.itertuples()
            ],
            hoverinfo="text",
        )
    # Above the plot: room for title, subtitle and three rows of the legend on a narrow page.
    figure.update_layout(barmode="stack", margin={"t": 124}, uniformtext={"minsize": 10, "mode": "hide"})
    figure.update_xaxes(title_text="Wall time (ms)")
    theme.label_rows(figure, [f"step {step}" for step in steps] if len(steps) > 1 else ["step"])
    return figure


def look(name: str, dark: bool) -> dict[str, object]:
    """A bar's colour; idle time is hatched."""
    ink = theme.ink(dark)
    marker: dict[str, object] = {"color": palette.part(name), "line": {"width": 0.6, "color": ink.background}}
    if name.startswith("idle:"):
        marker["pattern"] = {"shape": "/", "size": 6, "solidity": 0.2, "fillmode": "overlay", "fgcolor": ink.background}
    return marker


def _in_order(names: Iterable[str]) -> list[str]:
    """Work before idle time, in the palette's order."""
    order = list(palette.PARTS)
    return sorted(set(names), key=lambda name: order.index(name) if name in order else len(order))


def critical_bar(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """The critical path added up: which kernels and which waits the step could not be shorter than.

    rows: store.views.critical_path.
    """
    title = "What the step had to wait for"
    if rows.empty:
        return theme.empty(title, "There is a critical path on a GPU only.", dark=dark)
    names = rows["category"].where(rows["kind"] == "kernel", rows["kind"])
    sums = rows.groupby(names)[["step_ms", "share"]].sum().sort_values("step_ms", ascending=False)
    figure = theme.titled(
        title, "The critical path, added up by kind; it fills the wall time", dark=dark, height=112 + 27 * len(sums)
    )
    figure.add_bar(
        orientation="h",
        x=sums["step_ms"].tolist(),
        y=list(range(len(sums))),
        marker={"color": [palette.WAITS.get(name) or palette.part(name) for name in sums.index]},
        text=[
            f"{readable.number(row.step_ms, 'ms')}  {readable.percent(row.share)}"
            for row in sums.itertuples(index=False)
        ],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
        width=0.66,
    )
    figure.update_xaxes(title_text="Time on the path (ms)", range=[0, float(sums["step_ms"].max()) * 1.3])
    theme.label_rows(figure, [_WORDS.get(name, f"{name} kernels") for name in sums.index])
    return figure


_WORDS = {
    "host": "the host, before a launch",
    "launch": "from a launch to its kernel",
    "gap": "between queued kernels",
    "sync": "a wait that returns",
}
