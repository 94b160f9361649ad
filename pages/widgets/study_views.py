"""What a study has to say beyond its ladder: the chart that answers its question, and that answer in a sentence."""

from collections.abc import Callable
from types import ModuleType

import pandas as pd
import streamlit as st

from pages.charts import contributions, covering, interactions, scaling
from pages.widgets import data, memory_views, tables
from pages.widgets.chart import is_dark, show_chart
from store import frames

VIEWS: dict[str, tuple[Callable[..., pd.DataFrame], ModuleType]] = {
    "pairs": (frames.interactions, interactions),
    "one_at_a_time": (frames.contributions, contributions),
    "leave_one_out": (frames.contributions, contributions),
    "scaling_batch": (frames.scaling, scaling),
    "scaling_resolution": (frames.scaling, scaling),
    "scaling_model": (frames.scaling, scaling),
    "covering": (frames.covering, covering),
}


def show_view(sweep: pd.Series, ladder: pd.DataFrame, key: str) -> bool:
    """Draw the study's own chart, where its kind has one; whether it has."""
    name, sweep_id = str(sweep["sweep_name"]), str(sweep["sweep_id"])
    if name not in VIEWS:
        return False
    frame, chart = VIEWS[name]
    rows = data.read(frame, sweep_id)
    draw = getattr(chart, frame.__name__)
    show_chart(draw(rows, dark=is_dark()), rows, key=f"{key}_study", name=name, of=sweep_id)
    if text := chart.reading(rows):
        st.markdown(text)
    if frame is frames.scaling and (text := scaling.disturbed(rows, data.read(frames.disturbed_runs, _ids(rows)))):
        st.warning(text, icon=":material/warning:")
    if name == "scaling_batch":
        memory_views.show_batches(tuple(rows.drop_duplicates("series")["run_id"]), key=f"{key}_batches", of=sweep_id)
    if name == "covering":
        _show_ends(ladder)
    return True


def _ids(rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(rows["run_id"])


def _show_ends(ladder: pd.DataFrame) -> None:
    """How the runs ended, the same end and reason in one row."""
    causes = ladder["cause"].fillna("")
    grouped = ladder.assign(cause=causes).groupby(["status", "cause"], sort=False)["combo_label"]
    rows = grouped.agg(["size", "first"]).reset_index().sort_values("size", ascending=False)
    columns = {
        "status": st.column_config.TextColumn("How it ended", width=110),
        "cause": st.column_config.TextColumn("Why", width=420),
        "size": st.column_config.NumberColumn("Runs", width=60),
        "first": st.column_config.TextColumn("First of them", width=320),
    }
    order = ["status", "size", "cause", "first"]
    st.dataframe(rows[order], hide_index=True, column_config=columns, height=tables.fit(rows), placeholder="—")
