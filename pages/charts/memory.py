"""Memory: what the peak is made of, and how it moves over one step."""

import pandas as pd
import plotly.graph_objects as go

from pages.charts import dots, palette, readable, theme

PARTS = {  # in the order of the stack, with what each is
    "parameters": "weights and buffers",
    "optimizer_state": "kept from step to step",
    "gradients": "of the parameters, as far as they were there at that moment",
    "activations": "kept from forward for backward; in inference all that the forward asked for",
    "workspace": "freed before the operator that asked for it returned",
    "temporary": "asked for by backward and optimizer beside gradients, and freed within the step",
    "other": "there before the step: inputs, cuBLAS' workspace, what nobody named",
    "untraced": "of the peak without the profiler, but not in the traced step",
}
WORTH_A_SENTENCE = 0.05
UNMOVED = (
    "The step asked for no memory and freed none: a replayed CUDA graph, say, works in memory that was set "
    "aside when it was recorded."
)
ROW = 40


def memory_split(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """One stacked bar per run from the parts of its peak, and a tick at the peak. rows: store.frames.peak_parts."""
    title = "What the peak holds"
    if rows.empty:
        return theme.empty(title, "None of these runs has its memory split into parts.", dark=dark)
    runs = rows.drop_duplicates("run_id").reset_index(drop=True)
    sizes = rows.pivot(index="run_id", columns="part", values="gib").loc[runs["run_id"]]
    subtitle = "Alive at the fullest moment of a step; the tick is its peak"
    figure = theme.titled(title, subtitle, dark=dark, height=204 + ROW * len(runs))
    unit = readable.memory_unit(max(sizes.sum(axis=1).max(), runs["peak_gib"].max()))
    for part, meaning in PARTS.items():
        if not (sizes[part] > 0).any():
            continue
        figure.add_bar(
            name=readable.memory_part(part),
            orientation="h",
            x=(sizes[part] * unit.per_gib).tolist(),
            y=runs.index.tolist(),
            marker={"color": palette.PEAK[part], "line": {"width": 0.6, "color": theme.ink(dark).background}},
            hovertext=[
                f"<b>{readable.memory_part(part)}</b> {readable.gib(value)}<br>{meaning}" for value in sizes[part]
            ],
            hoverinfo="text",
            width=0.56,
        )
    _draw_peaks(figure, runs["peak_gib"], unit, dark)
    figure.update_layout(barmode="stack", margin={"t": 64, "r": 76}, legend=theme.LEGEND_BELOW)
    figure.update_xaxes(title_text=f"Memory ({unit.name})", rangemode="tozero")
    theme.label_rows(figure, runs["combo_label"])
    return figure


def reading(rows: pd.DataFrame) -> str:
    """What the parts are, and which of them a reader may not expect. rows: store.frames.peak_parts of one run."""
    own = rows.set_index("part")["gib"]
    named = [
        f"{readable.gib(own[part])} are {readable.memory_part(part)} ({PARTS[part]})."
        for part in ("temporary", "workspace", "untraced")
        if own[part] > WORTH_A_SENTENCE * own.sum()
    ]
    time_ms = float(rows["time_ms"].iloc[0])
    when = f"{readable.number(time_ms, 'ms')} into the traced step" if time_ms > 0 else "when the traced step began"
    return " ".join([f"The parts add up: all were alive at once, {when}.", *named])


def _draw_peaks(figure: go.Figure, peaks: pd.Series, unit: readable.MemoryUnit, dark: bool) -> None:
    figure.add_scatter(
        name="peak allocated",
        x=(peaks * unit.per_gib).tolist(),
        y=peaks.index.tolist(),
        mode="markers",
        marker={"symbol": "line-ns", "size": 20, "line": {"width": 2.5, "color": theme.ink(dark).text}},
        hovertext=[f"peak {readable.gib(value)}" for value in peaks],
        hoverinfo="text",
    )
    texts = {position: f"<b>{readable.number(peak * unit.per_gib)}</b> {unit.name}" for position, peak in peaks.items()}
    dots.annotate(figure, [dots.cell(text, 70, y=position) for position, text in texts.items()])


def memory_timeline(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """The bytes alive over one traced step, stacked by category, on the host's clock: a GPU uses them later.

    rows: store.frames.memory_timeline.
    """
    title = "Memory over one step"
    if rows.empty:
        return theme.empty(title, "This run recorded no memory timeline.", dark=dark)
    if rows["time_ms"].nunique() < 2:
        return theme.empty(title, UNMOVED, dark=dark)
    present = rows.groupby("category", observed=True)["gib"].max()
    unit = readable.memory_unit(rows.groupby("time_ms")["gib"].sum().max())
    subtitle = "Tensors alive, by what they are for, as the host asks for and frees them"
    figure = theme.titled(title, subtitle, dark=dark, height=340)
    for category, colour in palette.MEMORY.items():
        if present.get(category, 0) <= 0:
            continue
        own = rows[rows["category"] == category]
        figure.add_scatter(
            name=readable.memory_part(category),
            x=own["time_ms"].to_numpy(),
            y=own["gib"].to_numpy() * unit.per_gib,
            mode="lines",
            stackgroup="memory",
            line={"width": 0, "shape": "hv", "color": colour},
            fillcolor=palette.faded(colour, 0.85),
            hovertemplate=f"{readable.memory_part(category)} %{{y:.3g}} {unit.name}<extra></extra>",
        )
    _mark_peak(figure, rows.groupby("time_ms")["gib"].sum(), unit, dark)
    figure.update_layout(hovermode="x unified", margin={"t": 108})
    figure.update_xaxes(title_text="Time of the host since the step began (ms)")
    figure.update_yaxes(title_text=f"Memory ({unit.name})", rangemode="tozero")
    return figure


def _mark_peak(figure: go.Figure, totals: "pd.Series[float]", unit: readable.MemoryUnit, dark: bool) -> None:
    """A peak may last for less than a pixel of the step."""
    time_ms, peak = totals.idxmax(), totals.max() * unit.per_gib
    ink = theme.ink(dark)
    figure.add_scatter(
        x=[time_ms],
        y=[peak],
        mode="markers+text",
        marker={"symbol": "triangle-down", "size": 9, "color": ink.text},
        text=[f"peak {readable.number(peak)} {unit.name}"],
        textposition="middle right" if time_ms < totals.index.max() / 2 else "middle left",
        textfont={"color": ink.text},
        showlegend=False,
        hoverinfo="skip",
    )
