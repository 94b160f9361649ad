"""Which pairs of choices were run together, and how the runs ended."""

import pandas as pd
import plotly.graph_objects as go

from pages.charts import palette, theme
from profiler.combo import name_choice

TITLE = "Pairs of choices, and how their runs ended"
CELL = 21
GONE = "in no run"
ORDER = (*palette.STATUSES, GONE)


def covering(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """One cell per two choices of different families, in the colour of the best end of the runs that hold both.

    rows: store.frames.covering.
    """
    if rows.empty:
        return theme.empty(TITLE, "No run of this study has ended yet.", dark=dark)
    across = list(dict.fromkeys(zip(rows["other_family"], rows["other_choice"], strict=True)))[::-1]
    down = list(dict.fromkeys(zip(rows["family"], rows["choice"], strict=True)))
    figure = theme.titled(
        TITLE,
        "Grey: no run holds both, as a rule because they cannot run together",
        dark=dark,
        height=230 + CELL * len(down),
    )
    colours = palette.STATUSES | {GONE: theme.ink(dark).grid}
    for outcome in [name for name in ORDER if (rows["outcome"] == name).any()]:
        own = rows[rows["outcome"] == outcome]
        figure.add_scatter(
            name=outcome,
            x=[across.index(pair) for pair in zip(own["other_family"], own["other_choice"], strict=True)],
            y=[down.index(pair) for pair in zip(own["family"], own["choice"], strict=True)],
            mode="markers",
            marker={"symbol": "square", "size": 14, "color": colours[outcome]},
            hovertext=[_hover(row) for _, row in own.iterrows()],
            hoverinfo="text",
        )
    figure.update_layout(margin={"t": 92})
    place = {"tickmode": "array", "showgrid": False}
    names = [theme.short(name_choice(*pair), 24) for pair in across]
    figure.update_xaxes(
        tickvals=list(range(len(across))),
        ticktext=names,
        tickangle=-90,
        range=[-0.6, len(across) - 0.4],
        title_text="Other choice",
        **place,
    )
    names = [theme.short(name_choice(*pair), 24) for pair in down]
    figure.update_yaxes(tickvals=list(range(len(down))), ticktext=names, range=[len(down) - 0.4, -0.6], **place)
    return figure


def reading(rows: pd.DataFrame) -> str:
    """The chart in one sentence."""
    if rows.empty:
        return ""
    counts = rows["outcome"].value_counts()
    held = int((rows["num_runs"] > 0).sum())
    ends = ", ".join(f"{counts[name]} {name}" for name in ORDER if name in counts.index and name != GONE)
    return f"{held} of {len(rows)} pairs are in some run; by the best of their runs: {ends}."


def _hover(row: pd.Series) -> str:
    names = f"{name_choice(row['family'], row['choice'])} with {name_choice(row['other_family'], row['other_choice'])}"
    cause = f"<br>{theme.hover(row['cause'])}" if row["cause"] else ""
    return f"<b>{theme.hover(names)}</b><br>{row['num_runs']} runs, at best {row['outcome']}{cause}"
