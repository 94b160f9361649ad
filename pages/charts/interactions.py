"""Which choices help each other, and which buy the same thing twice."""

import pandas as pd
import plotly.graph_objects as go

from pages.charts import dots, palette, readable, theme

TITLE = "Interaction of two choices"
PROCESSES = (
    "Each run is one process: what two processes of one combo differ by (up to a few percent, see Drift) is not in the "
    "whiskers."
)
NAMED = 3  # of the pairs of a kind, and of the runs that wait for launches
COLOURS = {"help": palette.BETTER, "overlap": palette.WORSE}


def interactions(rows: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """A dot per pair with its 95% interval, the pair that helps most first. rows: store.frames.interactions."""
    if rows.empty:
        return theme.empty(TITLE, "No two choices ran together and each alone yet.", dark=dark)
    own = rows.sort_values("interaction", ascending=False, na_position="last").reset_index(drop=True)
    subtitle = "Speedup of both over the product of each alone; 1×: independent; whisker: 95% interval"
    doubtful = _doubtful(own)
    if doubtful.any():
        subtitle += "; hollow: launches set some of a run's time"
    figure = theme.titled(TITLE, subtitle, dark=dark, height=dots.height(len(own)))
    colours = [COLOURS.get(verdict, palette.EVEN) for verdict in own["verdict"]]
    hovers = [_hover(row) for _, row in own.iterrows()]
    dots.draw(figure, own, "interaction", colours=colours, hovers=hovers, dark=dark, hollow=doubtful.tolist())
    for position, row in own[own["interaction"].isna()].iterrows():
        dots.draw_reason(figure, int(str(position)), "", str(row["why_unknown"]), dark)
    shown = {"interaction": "interaction", "both": "speedup_both", "first": "speedup_first", "second": "speedup_second"}
    columns = {heading: [_times(value) for value in own[name]] for heading, name in shown.items()}
    dots.draw_columns(figure, columns, dark)
    theme.label_rows(figure, [f"{row.first} + {row.second}" for row in own.itertuples(index=False)], one_line=True)
    figure.update_xaxes(title_text="Interaction (×, logarithmic)")
    return figure


def reading(rows: pd.DataFrame) -> str:
    """The chart in a few sentences: who helps whom, what moves an interaction besides, what the whiskers leave out."""
    if rows.empty or rows["interaction"].isna().all():
        return ""
    parts = [
        _named(rows[rows["verdict"] == "help"], "help each other", ascending=False),
        _named(rows[rows["verdict"] == "overlap"], "buy the same thing twice", ascending=True),
    ]
    num_even = int((rows["verdict"] == "independent").sum())
    multiply = "pairs multiplies" if num_even == 1 else "pairs multiply"
    parts.append(f"{num_even} of {len(rows)} {multiply} as if the other were not there" if num_even else "")
    judged = "; ".join(part for part in parts if part)
    return " ".join([*([f"{judged}."] if judged else []), *_launches(rows), PROCESSES])


def _doubtful(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Which pairs have an interaction that launches move."""
    return rows["interaction"].notna() & (rows["why_doubtful"].fillna("") != "")


def _launches(rows: pd.DataFrame) -> list[str]:
    """How many pairs hold a run that waited for launches, and which runs these are, in a sentence."""
    doubtful = rows.loc[_doubtful(rows), "why_doubtful"]
    if doubtful.empty:
        return []
    runs = list(dict.fromkeys(run for why in doubtful for run in why.split("; ")))
    named = "; ".join(readable.escaped(run) for run in runs[:NAMED])
    more = f" and {len(runs) - NAMED} more" if len(runs) > NAMED else ""
    pairs = "1 pair (hollow)" if len(doubtful) == 1 else f"{len(doubtful)} pairs (hollow)"
    return [f"Launches move the interaction of {pairs}, since they set some of a run's time: {named}{more}."]


def _named(rows: pd.DataFrame, what: str, *, ascending: bool) -> str:
    """The strongest pairs of a kind."""
    strongest = rows.sort_values("interaction", ascending=ascending).head(NAMED)
    names = [
        f"**{row.first}** and **{row.second}** ({_times(row.interaction)})" for row in strongest.itertuples(index=False)
    ]
    more = f" and {len(rows) - NAMED} more pairs" if len(rows) > NAMED else ""
    return f"{', '.join(names)}{more} {what}" if names else ""


def _times(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.2f}×"


def _hover(row: pd.Series) -> str:
    both = readable.times(row["speedup_both"])
    return (
        f"<b>{theme.hover(row['first'])} + {theme.hover(row['second'])}</b><br>"
        f"{readable.interval(row['interaction'], row['interaction_low'], row['interaction_high'])}, "
        f"{row['verdict']}<br>"
        f"{both} together, {readable.times(row['speedup_first'])} and {readable.times(row['speedup_second'])} alone"
        + (f"<br>{theme.hover(row['why_doubtful'])}" if row["why_doubtful"] else "")
    )
