"""The one way a chart gets on a page: drawn in the page's theme, with its downloads beside the title."""

from functools import partial

import pandas as pd
import streamlit as st

from pages.charts import export, readable

MIMES = {"png": "image/png", "svg": "image/svg+xml", "html": "text/html", "csv": "text/csv"}


def is_dark() -> bool:
    """Whether the reader's theme is dark; every chart function takes this."""
    return st.context.theme.type == "dark"


def show_chart(figure: export.Figure, rows: pd.DataFrame, *, key: str, name: str, of: str) -> None:
    """Draw the figure; offer it as PNG, SVG and HTML, and its rows as CSV. One that holds nothing is a sentence.

    of is its run or study: the files' names hold it, and the pictures' titles, as no page does that for them.
    """
    if figure.layout.meta and "why_empty" in figure.layout.meta:
        title, why = (readable.escaped(figure.layout.meta[name]) for name in ("title", "why_empty"))
        with st.container(key=f"chart-box-{key}", gap=None):
            st.markdown(f"**{title}**")
            st.caption(why)
        return
    with st.container(key=f"chart-box-{key}", gap=None):
        st.plotly_chart(figure, theme=None, key=key, config={"displayModeBar": False, "responsive": True})
        with (
            st.container(key=f"chart-download-{key}"),
            st.popover("", icon=":material/download:", type="tertiary", help="Download this chart or its data"),
        ):
            _downloads(figure, rows, key, name, of)


def _downloads(figure: export.Figure, rows: pd.DataFrame, key: str, name: str, of: str) -> None:
    """The files are made on click, so that a page with ten charts draws none of them twice."""
    has_browser = export.find_browser() is not None
    makers = {
        "png": partial(export.to_image, figure, "png", of),
        "svg": partial(export.to_image, figure, "svg", of),
        "html": partial(export.to_html, figure, of),
        "csv": partial(export.to_csv, rows),
    }
    for kind, maker in makers.items():
        st.download_button(
            kind.upper(),
            data=maker,
            file_name=f"{name}-{of.replace(' ', '-')}.{kind}",
            mime=MIMES[kind],
            key=f"{key}-{kind}",
            on_click="ignore",
            type="tertiary",
            disabled=kind in ("png", "svg") and not has_browser,
        )
    if not has_browser:
        st.caption(export.REMEDY)
