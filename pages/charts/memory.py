"""Memory: what the peak is made of, and how it moves over one step."""

import pandas as pd
import plotly.graph_objects as go

from pages.charts import dots, palette, readable, theme

PARTS = {
    "weights_gib": "parameters",
    "gradients_gib": "gradients",
    "optimizer_state_gib": "optimizer_state",
    "activations_gib": "activations",
}
ROW = 40


def words(category: str) -> str:
    return category.replace("_", " ")


def memory_split(runs: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """One stacked bar per run from its parts, a tick at the measured peak.

    runs: run_id, combo_label, peak_allocated_gib and the columns of PARTS (store.frames.runs).
    """
    title = "What the memory holds"
    known = runs.dropna(subset=list(PARTS), how="all").reset_index(drop=True)
    if known.empty:
        return theme.empty(title, "None of these runs has its memory split into parts.", dark=dark)
    figure = theme.titled(
        title,
        "Parts as counted one by one; the tick is the peak of a whole step",
        dark=dark,
        height=172 + ROW * len(known),
    )
    unit = readable.memory_unit(max(known[list(PARTS)].sum(axis=1).max(), known["peak_allocated_gib"].max()))
    for column, category in PARTS.items():
        if not known[column].fillna(0).any():
            continue
        figure.add_bar(
            name=words(category),
            orientation="h",
            x=(known[column] * unit.per_gib).tolist(),
            y=known.index.tolist(),
            marker={"color": palette.MEMORY[category], "line": {"width": 0.6, "color": theme.ink(dark).background}},
            hovertext=[f"<b>{words(category)}</b><br>{readable.gib(value)}" for value in known[column]],
            hoverinfo="text",
            width=0.56,
        )
    _draw_peaks(figure, known, unit, dark)
    figure.update_layout(barmode="stack", margin={"t": 108, "r": 76})
    figure.update_xaxes(title_text=f"Memory ({unit.name})", rangemode="tozero")
    theme.label_rows(figure, known["combo_label"])
    return figure


def _draw_peaks(figure: go.Figure, known: pd.DataFrame, unit: readable.MemoryUnit, dark: bool) -> None:
    figure.add_scatter(
        name="peak allocated",
        x=(known["peak_allocated_gib"] * unit.per_gib).tolist(),
        y=known.index.tolist(),
        mode="markers",
        marker={"symbol": "line-ns", "size": 20, "line": {"width": 2.5, "color": theme.ink(dark).text}},
        hovertext=[f"peak {readable.gib(value)}" for value in known["peak_allocated_gib"]],
        hoverinfo="text",
    )
    peaks = known["peak_allocated_gib"] * unit.per_gib
    texts = {position: f"<b>{readable.number(peak)}</b> {unit.name}" for position, peak in peaks.items()}
    dots.annotate(figure, [dots.cell(text, 70, y=position) for position, text in texts.items()])


def memory_timeline(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """The bytes alive over one traced step, stacked by category. rows: store.frames.memory_timeline."""
    title = "Memory over one step"
    if rows.empty:
        return theme.empty(title, "This run recorded no memory timeline.", dark=dark)
    present = rows.groupby("category", observed=True)["gib"].max()
    unit = readable.memory_unit(rows.groupby("time_ms")["gib"].sum().max())
    figure = theme.titled(title, "Tensors alive, by what they are for", dark=dark, height=340)
    for category, colour in palette.MEMORY.items():
        if present.get(category, 0) <= 0:
            continue
        own = rows[rows["category"] == category]
        figure.add_scatter(
            name=words(category),
            x=own["time_ms"].to_numpy(),
            y=own["gib"].to_numpy() * unit.per_gib,
            mode="lines",
            stackgroup="memory",
            line={"width": 0, "shape": "hv", "color": colour},
            fillcolor=palette.faded(colour, 0.85),
            hovertemplate=f"{words(category)} %{{y:.3g}} {unit.name}<extra></extra>",
        )
    figure.update_layout(hovermode="x unified", margin={"t": 108})
    figure.update_xaxes(title_text="Time since the step began (ms)")
    figure.update_yaxes(title_text=f"Memory ({unit.name})", rangemode="tozero")
    return figure
