"""Where a run's memory goes: the peak's parts, the allocator, what recomputation buys, and which batch would fit."""

from dataclasses import replace
from typing import Any

import pandas as pd
import streamlit as st

from pages.charts import allocator, batches, ledger, peak, readable
from pages.widgets import data, jobs, machine, tables
from pages.widgets.chart import is_dark, show_chart
from profiler.record import Record
from runs import job_queue
from runs.job import Job, measure_job, with_references
from store import fits, frames

Column = st.column_config


def show_memory(run_id: str, record: dict[str, Any]) -> None:
    """All views of a run's memory that it has something for."""
    alive = data.read(frames.alive, run_id)
    if len(alive):
        st.subheader("Memory")
        _show_peak(alive, run_id, record)
    _show_allocator(run_id)
    _show_ledger(run_id)
    show_batches((run_id,), key="run_batches", of=run_id)


def show_batches(run_ids: tuple[str, ...], key: str, *, of: str) -> None:
    """The largest batch of each run's combo, once two batches of one were measured; `of` names the run or study."""
    rows = data.read(frames.largest_batch, run_ids)
    if rows["per_sample_gib"].notna().any():
        show_chart(batches.batches(rows, dark=is_dark()), rows, key=key, name="largest-batch", of=of)
        st.caption(batches.reading(rows))
        for run_id, own in rows.groupby("anchor_run_id", sort=False):
            _offer_check(str(run_id), fits.to_try(own), key)


def _offer_check(run_id: str, to_try: list[int], key: str) -> None:
    """A button that starts the predicted batch and the next one up; where that makes no sense, why."""
    if not to_try:
        return
    run, words = Record.from_dict(data.read(frames.record, run_id)), " and ".join(str(batch) for batch in to_try)
    wanted = [measure_job(run.combo, replace(run.workload, batch=batch)) for batch in to_try]
    asked = {(job.combo, job.workload) for job in wanted}
    if asked & {(state.job.combo, state.job.workload) for state in jobs.under_way(jobs.jobs())}:
        st.caption(f"Batch {words} of {run.label} is under way: see the Queue page.")
    elif why := machine.why_not_here(run):
        how = f"there, `python -m runs run --like {run_id} --batch {to_try[0]}`"
        st.caption(f"Batch {words} of {run.label} would check this, but {why}; {how}.")
    else:
        label, place = f"Check it: run batch {words} of {run.label}", f"{key}_check_{run_id}"
        st.button(label, key=place, icon=":material/fact_check:", on_click=_queue, args=(wanted,))


def _queue(wanted: list[Job]) -> None:
    jobs.attempt(job_queue.submit, with_references(wanted, job_queue.known_references()))


def _show_peak(alive: pd.DataFrame, run_id: str, record: dict[str, Any]) -> None:
    show_chart(peak.peak(alive, dark=is_dark()), alive, key="run_peak", name="peak", of=run_id)
    st.caption(peak.reading(alive, record["metrics"]["peak_allocated_gib"]))
    with st.expander("The peak by module"):
        rows = peak.modules(alive)
        names = {"block": Column.TextColumn("Block", width=90), "module": Column.TextColumn("Module", width=380)}
        sizes = {
            name: Column.NumberColumn(f"{readable.memory_part(name).capitalize()} (GiB)", format="%.3g")
            for name in rows.columns.difference(list(names))
        }
        st.dataframe(rows, hide_index=True, column_config=names | sizes, height=tables.fit(rows))


def _show_allocator(run_id: str) -> None:
    rows = data.read(frames.allocator, run_id)
    if len(rows):
        show_chart(allocator.allocator(rows, dark=is_dark()), rows, key="run_allocator", name="allocator", of=run_id)
        st.caption(allocator.reading(rows))


def _show_ledger(run_id: str) -> None:
    rows = data.read(frames.recompute_ledger, run_id)
    if rows.empty:
        return
    show_chart(ledger.ledger(rows, dark=is_dark()), rows, key="run_ledger", name="recompute-ledger", of=run_id)
    st.caption(ledger.reading(rows))
    with st.expander("Recomputation by block"):
        columns = {
            "unit": Column.TextColumn("Block", width=340),
            "recompute_ms": Column.NumberColumn("Run again (ms)", format="%.3f"),
            "kept_gib": Column.NumberColumn("Kept (GiB)", format="%.3g"),
            "plain_gib": Column.NumberColumn("Kept without (GiB)", format="%.3g"),
            "saved_gib": Column.NumberColumn("Spared (GiB)", format="%.3g"),
            "ms_per_gib": Column.NumberColumn("ms per GiB", format="%.2f"),
        }
        st.dataframe(
            rows[list(columns)],
            hide_index=True,
            column_config=columns,
            height=tables.fit(rows),
            placeholder="—",
        )
