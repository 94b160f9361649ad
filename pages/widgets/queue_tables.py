"""The queue's tables: what waits, with a button to cancel each, and what ended, with a button to run it again."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st

from pages.charts import readable
from pages.widgets import jobs, tables
from profiler.machine import Machine
from profiler.why_not import why_not
from runs import job_queue
from runs.job import Job, retry_job
from runs.job_queue import JobState

Column = st.column_config
CANCEL, RETRY = ":material/close: Cancel", ":material/replay: Retry"
HELD = "held: its sweep's time is up, resume it"
RETRIABLE = ("failed", "timeout", "cancelled", "oom", "ineffective", "wrong", "rejected")


def show_waiting(states: list[JobState], key: str) -> None:
    """The queued jobs, the next one first."""
    rows = pd.DataFrame(
        {
            "place": [state.place for state in states],
            "job": [_name(state) for state in states],
            "workload": ["" if state.job.kind == "probe" else state.job.workload.label for state in states],
            "sweep": [_sweep(state) for state in states],
            "waits": [HELD if state.is_held else "for the jobs before it" for state in states],
            "cancel": [CANCEL for _ in states],
        }
    )
    columns = {
        "place": Column.NumberColumn("#", width=40),
        "job": Column.TextColumn("Job", width=210),
        "workload": Column.TextColumn("Workload"),
        "sweep": Column.TextColumn("Sweep"),
        "waits": Column.TextColumn("Waits"),
        "cancel": _button(_cancel, states, key, f"{key}_cancel_row"),
    }
    st.dataframe(rows, hide_index=True, column_config=columns, key=f"{key}_waiting", height=tables.fit(rows))


def show_ended(states: list[JobState], key: str) -> None:
    """The jobs that ended last, the newest first; no Retry for what this machine cannot run, but why."""
    found = job_queue.read_machine()
    reasons = [_why_not_again(state.job, found) if state.status in RETRIABLE else None for state in states]
    offered = [state.status in RETRIABLE and not reason for state, reason in zip(states, reasons, strict=True)]
    rows = pd.DataFrame(
        {
            "status": [state.status or "no record" for state in states],
            "run": [f"/run?run={state.job.job_id}" if state.job.kind == "measure" else None for state in states],
            "job": [_name(state) for state in states],
            "cause": [state.cause for state in states],
            "retry": [RETRY if offer else None for offer in offered],
            "took": [readable.duration(state.elapsed_s) for state in states],
            "workload": ["" if state.job.kind == "probe" else state.job.workload.label for state in states],
        }
    )
    # In the order of what a narrow screen must still show: what is cut off at the right can be scrolled to.
    columns = {
        "status": Column.TextColumn("Status", width=80),
        "run": Column.LinkColumn("Run", display_text="open", width=50),
        "job": Column.TextColumn("Job", width=190),
        "cause": Column.TextColumn("Cause", width=330),
        "retry": _button(_retry, states, key, f"{key}_retry_row"),
        "took": Column.TextColumn("Took", width=90, alignment="right"),
        "workload": Column.TextColumn("Workload", width=190),
    }
    table_key, height = f"{key}_ended", tables.fit(rows)
    st.dataframe(rows, hide_index=True, column_config=columns, key=table_key, placeholder="—", height=height)
    for reason in dict.fromkeys(filter(None, reasons)):
        st.caption(f"{reasons.count(reason)} without Retry: {reason}.")


def _why_not_again(job: Job, found: Machine | None) -> str | None:
    """Why a job cannot run here; None if it can, or nobody knows."""
    return None if found is None or job.kind == "probe" else why_not(job.combo, job.workload, found)


def cancel_all(states: list[JobState]) -> None:
    """Cancel every job that waits or runs, the waiting ones first so that none of them starts meanwhile."""
    for state in sorted(states, key=lambda state: state.state != "queued"):
        if state.state != "ended":
            jobs.attempt(job_queue.cancel, state.job.job_id)


def _button(on_click: Callable[..., None], states: list[JobState], key: str, click_key: str) -> Any:
    """A column of buttons; the click stands in the session's state under click_key."""
    return Column.ButtonColumn("", type="tertiary", on_click=on_click, args=(states, key), key=click_key, width=100)


def _cancel(states: list[JobState], key: str) -> None:
    jobs.attempt(job_queue.cancel, states[st.session_state[f"{key}_cancel_row"]["row"]].job.job_id)


def _retry(states: list[JobState], key: str) -> None:
    chosen = states[st.session_state[f"{key}_retry_row"]["row"]].job
    jobs.attempt(job_queue.submit, [retry_job(chosen, beyond_budget=True)])


def _name(state: JobState) -> str:
    names = {"reference": "numerical reference", "probe": "probe of this machine"}
    return names.get(state.job.kind, state.job.run_label)


def _sweep(state: JobState) -> str:
    place = state.job.sweep
    return f"{place.name} {place.position + 1}/{place.num_jobs}" if place else ""
