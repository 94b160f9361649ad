"""Peak: what is alive at the fullest instant of a step, by place in the UNet and category."""

import re

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, readable, theme

TITLE = "What fills the peak"
ELSEWHERE = "no module"
ROW = 26
ORDER = ("conv_in", "time_proj", "time_embedding", "add_embedding", "down", "mid", "up", "conv_out")


def peak(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """One stacked bar per UNet block, in the order of the forward; what no module owns comes last.

    rows: store.frames.alive.
    """
    own = at_peak(rows)
    if own.empty:
        return theme.empty(TITLE, "This run recorded no memory by module.", dark=dark)
    blocks = sorted(own["block"].unique(), key=place)
    sums = own.groupby(["block", "category"])["gib"].sum()
    largest = _largest_modules(own)
    figure = theme.titled(TITLE, "Tensors alive at the fullest moment", dark=dark, height=132 + ROW * len(blocks))
    unit = readable.memory_unit(own.groupby("block")["gib"].sum().max())
    for category, colour in palette.MEMORY.items():
        values = [float(sums.get((block, category), 0.0)) * unit.per_gib for block in blocks]
        if not any(values):
            continue
        figure.add_bar(
            name=readable.memory_part(category),
            orientation="h",
            x=values,
            y=blocks,
            marker={"color": colour, "line": {"width": 0.6, "color": theme.ink(dark).background}},
            hovertext=[
                _hover(block, category, sums.get((block, category), 0.0), largest.get((block, category), []))
                for block in blocks
            ],
            hoverinfo="text",
            width=0.62,
        )
    figure.update_layout(barmode="stack", margin={"t": 108})
    figure.update_xaxes(title_text=f"Memory ({unit.name})", rangemode="tozero")
    figure.update_yaxes(autorange="reversed", showgrid=False, categoryorder="array", categoryarray=blocks)
    return figure


def at_peak(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the peak, each with a block."""
    own = rows[rows["moment"] == "peak"]
    return own.assign(block=own["block"].fillna(ELSEWHERE))


def modules(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per module at the peak with a column per category (those that occur) and their sum, the largest first."""
    own = at_peak(rows)
    own = own.assign(module=own["module"].fillna(ELSEWHERE))
    wide = own.pivot_table(index=["block", "module"], columns="category", values="gib", aggfunc="sum", fill_value=0.0)
    wide = wide[[category for category in palette.MEMORY if category in wide.columns]]
    wide.insert(0, "total", wide.sum(axis=1))
    return wide.sort_values("total", ascending=False).reset_index()


def reading(rows: pd.DataFrame, measured_gib: float | None) -> str:
    """The peak in a sentence: when, and what most of it is; and a second one where the measured peak is another."""
    own = at_peak(rows)
    if own.empty:
        return ""
    total = own["gib"].sum()
    category = own.groupby("category")["gib"].sum().idxmax()
    share = own.loc[own["category"] == category, "gib"].sum() / total
    block = own.groupby("block")["gib"].sum().idxmax()
    of_block = own.loc[own["block"] == block, "gib"].sum() / total
    most = "what no module owns" if block == ELSEWHERE else block
    text = (
        f"The traced step is fullest at {readable.number(own['time_ms'].iloc[0], 'ms')} with {readable.gib(total)}: "
        f"{readable.percent(share)} of it are {_said(category)}, and {most} holds {readable.percent(of_block)}."
    )
    if measured_gib and abs(total / measured_gib - 1) > 0.02:
        text += f" Without the profiler the peak is {readable.gib(measured_gib)}."
    return text


def place(block: str) -> tuple[int, str]:
    kind = re.sub(r"\.\d+$", "", block)
    return (ORDER.index(kind) if kind in ORDER else len(ORDER)) + (block == ELSEWHERE), block


def _said(category: str) -> str:
    return (
        "temporaries of backward and optimizer, and what nobody named"
        if category == "other"
        else readable.memory_part(category)
    )


def _largest_modules(rows: pd.DataFrame) -> dict[tuple[str, str], list[str]]:
    """(block, category) -> a line for each of the three modules that hold most of it."""
    ordered = rows.dropna(subset="module").sort_values("gib", ascending=False, kind="stable")
    lines: dict[tuple[str, str], list[str]] = {}
    for block, category, module, gib in ordered[["block", "category", "module", "gib"]].itertuples(index=False):
        of_part = lines.setdefault((block, category), [])
        if len(of_part) < 3:
            of_part.append(f"{theme.hover(module)} {readable.gib(gib)}")
    return lines


def _hover(block: str, category: str, gib: float, lines: list[str]) -> str:
    head = f"<b>{theme.hover(block)}: {readable.memory_part(category)}</b><br>{readable.gib(gib)}"
    return "<br>".join([head, *lines])
