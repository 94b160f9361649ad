"""Ledger of checkpointing: what each block costs in time and spares in memory."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pages.charts import palette, peak, readable, theme

TITLE = "What recomputation costs and spares"
ROW = 26
NOTHING = 1e-6  # GiB: a kilobyte


def ledger(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """Two panels over the UNet's blocks: ms per step that run again, and GiB not kept until the backward.

    rows: store.frames.recompute_ledger.
    """
    if rows.empty:
        return theme.empty(TITLE, "Nothing is recomputed in this run.", dark=dark)
    sums = by_block(rows)
    figure = theme.titled(TITLE, "Per step, by block of the UNet", dark=dark, height=140 + ROW * len(sums))
    panels = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.06)
    panels.update_layout(figure.layout)
    memory = readable.memory_unit(sums["saved_gib"].abs().max())
    for column, (name, title, unit, factor, colour) in enumerate(
        (
            ("recompute_ms", "Run again (ms)", "ms", 1.0, palette.WORSE),
            ("saved_gib", f"Spared ({memory.name})", "GiB", memory.per_gib, palette.BETTER),
        ),
        start=1,
    ):
        values = sums[name] * factor
        panels.add_bar(
            name=title,
            orientation="h",
            x=values.tolist(),
            y=sums["block"].tolist(),
            marker={"color": colour},
            hovertext=[f"<b>{row.block}</b><br>{_number(getattr(row, name), unit)}" for row in sums.itertuples()],
            hoverinfo="text",
            showlegend=False,
            width=0.62,
            row=1,
            col=column,
        )
        panels.update_xaxes(title_text=title, col=column)
    if sums["saved_gib"].isna().all():
        _say_unknown(panels, dark)
    panels.update_yaxes(autorange="reversed", showgrid=False)
    return panels


def by_block(rows: pd.DataFrame) -> pd.DataFrame:
    """Sums per block of the UNet in the order of the forward; a sum of unknowns is unknown."""
    own = rows.assign(block=rows["block"].fillna("elsewhere"))
    sums = own.groupby("block")[["recompute_ms", "kept_gib", "plain_gib", "saved_gib"]].sum(min_count=1).reset_index()
    sums = sums[(sums["recompute_ms"] > 0) | ~(sums["saved_gib"].abs() < NOTHING)]
    return sums.sort_values("block", key=lambda blocks: blocks.map(peak.place), kind="stable").reset_index(drop=True)


def reading(rows: pd.DataFrame) -> str:
    """The bargain in a sentence: the whole, and the cheapest and the dearest block."""
    if rows.empty:
        return ""
    cost, spared = rows["recompute_ms"].sum(), rows["saved_gib"].sum(min_count=1)
    if pd.isna(spared):
        return (
            f"{readable.number(cost, 'ms')} per step run again. What that spares is unknown: "
            "run the same combo with checkpointing=none, too."
        )
    text = f"{readable.number(cost, 'ms')} per step run again and spare {readable.gib(spared)} until the backward."
    priced = rows.dropna(subset="ms_per_gib")
    if len(priced) < 2:
        return text
    cheap, dear = priced.loc[priced["ms_per_gib"].idxmin()], priced.loc[priced["ms_per_gib"].idxmax()]
    return text + (
        f" Cheapest is {cheap['unit']} with {readable.number(cheap['ms_per_gib'], 'ms')} per GiB, "
        f"dearest {dear['unit']} with {readable.number(dear['ms_per_gib'], 'ms')}."
    )


def _number(value: float, unit: str) -> str:
    return readable.gib(value) if unit == "GiB" else readable.number(value, unit)


def _say_unknown(figure: go.Figure, dark: bool) -> None:
    figure.update_xaxes(showticklabels=False, showgrid=False, col=2)
    figure.add_annotation(
        text="unknown without a run<br>of checkpointing=none",
        showarrow=False,
        font={"color": theme.ink(dark).muted},
        xref="x2 domain",
        yref="y2 domain",
        x=0.5,
        y=0.5,
    )
