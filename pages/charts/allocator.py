"""Allocator: asked for, stuck between storages, idle in whole segments; their sum is what is reserved."""

import pandas as pd
import plotly.graph_objects as go

from pages.charts import memory, palette, readable, theme

TITLE = "The allocator over one step"
PARTS = {
    "requested_gib": ("asked for", palette.MEMORY["activations"]),
    "stuck_gib": ("stuck between tensors", palette.WORSE),
    "idle_gib": ("idle segments", palette.MEMORY["other"]),
}
MANY = 0.1  # share of the reserve from which fragmentation is worth a remedy


def allocator(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """A stack of three whose upper edge is the reserve. rows: store.frames.allocator."""
    if rows.empty:
        return theme.empty(TITLE, "Only CUDA's caching allocator keeps a reserve.", dark=dark)
    if len(rows) == 1:
        return theme.empty(TITLE, memory.UNMOVED, dark=dark)
    figure = theme.titled(
        TITLE, "A step without the profiler; the upper edge is what is reserved", dark=dark, height=340
    )
    unit = readable.memory_unit(rows[["requested_gib", "reserved_gib"]].max(axis=None))
    parts = {"requested_gib": PARTS["requested_gib"]} if rows["stuck_gib"].isna().all() else PARTS
    for column, (name, colour) in parts.items():
        figure.add_scatter(
            name=name,
            x=rows["time_ms"].to_numpy(),
            y=rows[column].to_numpy() * unit.per_gib,
            mode="lines",
            stackgroup="memory",
            line={"width": 0, "shape": "hv", "color": colour},
            fillcolor=palette.faded(colour, 0.85),
            hovertemplate=f"{name} %{{y:.3g}} {unit.name}<extra></extra>",
        )
    figure.add_scatter(
        name="reserved",
        x=rows["time_ms"].to_numpy(),
        y=rows["reserved_gib"].to_numpy() * unit.per_gib,
        mode="lines",
        line={"width": 1.6, "shape": "hv", "color": theme.ink(dark).text},
        hovertemplate=f"reserved %{{y:.3g}} {unit.name}<extra></extra>",
    )
    figure.update_layout(hovermode="x unified", margin={"t": 108})
    figure.update_xaxes(title_text="Time since the step began (ms)")
    figure.update_yaxes(title_text=f"Memory ({unit.name})", rangemode="tozero")
    return figure


def reading(rows: pd.DataFrame) -> str:
    """Fragmentation at the fullest moment in a sentence, with the remedy where it is much."""
    if rows.empty or rows["stuck_gib"].isna().all():
        return ""
    fullest = rows.loc[rows["requested_gib"].idxmax()]
    share = fullest["stuck_gib"] / fullest["reserved_gib"]
    text = (
        f"At the fullest moment {readable.gib(fullest['requested_gib'])} of {readable.gib(fullest['reserved_gib'])} "
        f"reserved are asked for; {readable.gib(fullest['stuck_gib'])} ({readable.percent(share)}) are stuck in "
        "segments in use."
    )
    if share > MANY:
        text += " PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True gives such pages back."
    return text
