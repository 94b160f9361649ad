"""A parallel run's processes side by side, and, marked as such, a projection to more GPUs."""

from dataclasses import fields
from typing import Any

import pandas as pd
import streamlit as st

from pages.widgets import tables
from profiler.record import Projection, Rank

Column = st.column_config
_RANKS = {
    "rank": Column.NumberColumn("Rank", width=60),
    "step_ms": Column.NumberColumn("Step (ms)", format="%.3f", help="Median, without a profiler."),
    "compute_ms": Column.NumberColumn("Compute (ms)", format="%.3f", help="Of the traced step, as the next two."),
    "exposed_communication_ms": Column.NumberColumn("Exposed communication (ms)", format="%.3f"),
    "wait_ms": Column.NumberColumn(
        "of which waiting (ms)", format="%.3f", help="Before the slowest rank joined the transfer."
    ),
    "communicated_mb": Column.NumberColumn("Sent (MB)", format="%.2f", help="Per step, by a ring's arithmetic."),
    "peak_allocated_gib": Column.NumberColumn("Peak (GiB)", format="%.3g"),
}
_PROJECTED = {
    "world_size": Column.NumberColumn("GPUs", width=60),
    "batch": Column.NumberColumn("Batch of all"),
    "sent_mb": Column.NumberColumn("Sent per GPU (MB)", format="%.1f"),
    "communication_ms": Column.NumberColumn("Communication (ms)", format="%.3f"),
    "step_ms_hidden": Column.NumberColumn("Projected step, all hidden (ms)", format="%.3f"),
    "step_ms_exposed": Column.NumberColumn("Projected step, none hidden (ms)", format="%.3f"),
    "assumptions": Column.TextColumn("Assumptions", width="large"),
}


def show_ranks(record: dict[str, Any]) -> None:
    """What each process of the run did; nothing for a run of one process."""
    if not record["ranks"]:
        return
    st.subheader("Ranks")
    rows = pd.DataFrame(record["ranks"], columns=[field.name for field in fields(Rank)])
    rows["communicated_mb"] = rows["communicated_bytes"].astype("float64") / 1e6
    _show(rows, _RANKS)
    st.caption("Exposed communication is the part during which the rank computed nothing.")


def show_projection(record: dict[str, Any]) -> None:
    """What more GPUs would take by arithmetic, under a title that says so."""
    if not record["projection"]:
        return
    st.subheader("Projection to more GPUs (not measured)")
    rows = pd.DataFrame(record["projection"], columns=[field.name for field in fields(Projection)])
    rows["sent_mb"] = rows["sent_bytes"] / 1e6
    _show(rows, _PROJECTED)
    st.caption("Arithmetic over this run's step and counted bytes; a real run lies between, or above, the two columns.")


def _show(rows: pd.DataFrame, columns: dict[str, Any]) -> None:
    st.dataframe(rows[list(columns)], hide_index=True, column_config=columns, placeholder="—", height=tables.fit(rows))
