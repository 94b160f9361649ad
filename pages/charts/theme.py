"""The look of every chart: two Plotly templates, and the titled (or empty) figure that charts start from.

Streamlit's own chart theme is applied in the browser only, so exported files would look different from
the page; these templates are part of the figure and go where it goes.
"""

import html
from collections.abc import Iterable
from dataclasses import dataclass

import plotly.graph_objects as go
import plotly.io as pio


@dataclass(frozen=True, kw_only=True, slots=True)
class Ink:
    """The neutral colours of a chart; background and text are those of .streamlit/config.toml."""

    background: str
    text: str
    muted: str
    grid: str
    axis: str
    band: str  # fill of "no difference" bands


LIGHT = Ink(
    background="#ffffff", text="#1f2933", muted="#66707c", grid="#e9ecef", axis="#b4bcc6", band="rgba(107,114,128,.13)"
)
DARK = Ink(
    background="#12161c", text="#e4e8ee", muted="#97a1ae", grid="#262d37", axis="#4a5462", band="rgba(151,161,174,.16)"
)
FONT = '"Source Sans", "Source Sans 3", "Source Sans Pro", "Segoe UI", "DejaVu Sans", sans-serif'

LABEL_WIDTH, LABEL_LINE = 38, 16  # characters of a line down the y axis, and its height in pixels

# For many names: they take as many lines as they need, and the plot gives way. Above it they would meet the subtitle.
LEGEND_BELOW = {"yref": "container", "y": 0, "yanchor": "bottom"}


def ink(dark: bool) -> Ink:
    return DARK if dark else LIGHT


def _template(colours: Ink) -> go.layout.Template:
    axis = {
        "gridcolor": colours.grid,
        "linecolor": colours.axis,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "title": {"font": {"size": 12, "color": colours.muted}, "standoff": 8},
        "tickfont": {"size": 12},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 12, "color": colours.text},
            "paper_bgcolor": colours.background,
            "plot_bgcolor": colours.background,
            "title": {
                "x": 0,
                "xref": "container",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"t": 6, "l": 4},
                "font": {"size": 15, "weight": 600},
                "subtitle": {"font": {"size": 12, "color": colours.muted}},
            },
            "margin": {"l": 8, "r": 16, "t": 64, "b": 8},
            "xaxis": axis,
            "yaxis": axis | {"ticklabelstandoff": 5},
            "hoverlabel": {
                "align": "left",
                "bgcolor": colours.background,
                "bordercolor": colours.axis,
                "font": {"family": FONT, "size": 12, "color": colours.text},
            },
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1,
                "yanchor": "bottom",
                "font": {"size": 12},
                "traceorder": "normal",
            },
            "bargap": 0.3,
            "barcornerradius": 2,
        }
    )


pio.templates["steplens_light"] = _template(LIGHT)
pio.templates["steplens_dark"] = _template(DARK)


def titled(title: str, subtitle: str = "", *, dark: bool, height: int) -> go.Figure:
    """A figure in the project's look, with nothing drawn yet; the texts are escaped here, a subtitle line by line."""
    figure = go.Figure()
    lines = "<br>".join(map(html.escape, subtitle.splitlines()))
    figure.update_layout(
        template="steplens_dark" if dark else "steplens_light",
        title={"text": html.escape(title), "subtitle": {"text": lines}},
        height=height,
    )
    return figure


def empty(title: str, why: str, *, dark: bool, height: int = 140) -> go.Figure:
    """A figure that has a title and says why nothing is drawn, in its meta, too: a page has that in a sentence."""
    figure = titled(title, dark=dark, height=height)
    figure.update_layout(meta={"title": title, "why_empty": why})
    figure.add_annotation(
        text="<br>".join(html.escape(line) for line in wrapped(why, 90)),
        showarrow=False,
        font={"size": 13, "color": ink(dark).muted},
        xref="paper",
        yref="paper",
        x=0.5,
        y=0.5,
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most this many characters, broken between words."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def short(text: str, width: int) -> str:
    """The text cut to this many characters, escaped for Plotly."""
    return html.escape(text if len(text) <= width else text[: width - 1].rstrip() + "…")


def num_lines(labels: Iterable[object]) -> int:
    """How many lines the longest of these labels takes down the y axis."""
    return max((len(wrapped(str(label), LABEL_WIDTH)) for label in labels), default=1)


def label_rows(figure: go.Figure, labels: Iterable[object], *, one_line: bool = False) -> None:
    """Texts down the y axis for rows at 0, 1, 2..., the first on top; one_line for rows too close to wrap in."""
    lines = [[str(label)] if one_line else wrapped(str(label), LABEL_WIDTH) for label in labels]
    texts = ["<br>".join(short(line, 54 if one_line else 44) for line in row) for row in lines]
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(range(len(texts))),
        ticktext=texts,
        range=[len(texts) - 0.5, -0.5],
        showgrid=False,
    )


def hover(text: str) -> str:
    """A long text escaped and wrapped for a hover label."""
    return "<br>".join(html.escape(line) for line in wrapped(text, 70))
