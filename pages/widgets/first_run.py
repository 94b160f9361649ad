"""What a fresh machine sees first: one button that measures it; and the run folders that could not be read."""

import pandas as pd
import streamlit as st

from pages.widgets import data, jobs, machine
from runs import job_queue, sweep


def offer_quick(runs: pd.DataFrame, key: str) -> None:
    """Until a run of this home is done: the button that runs the quick sweep on it."""
    if machine.has_done_run(runs) or jobs.under_way(jobs.jobs()):
        return
    found = machine.require_machine(key)
    if found is None:
        return
    known = job_queue.known_references()
    plan = sweep.expand(
        "quick", machine.quick_workload(found), found, known_references=known, durations=data.durations()
    )
    with st.container(border=True, horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(
            f"**No run of this machine is done yet.** {plan.num_runs} short runs of the tiny model on "
            f"{found.label}, {plan.estimate.words}.",
            width="stretch",
        )
        is_pressed = st.button("Measure this machine", type="primary", key=f"{key}_quick", icon=":material/play_arrow:")
    if is_pressed and jobs.attempt(job_queue.submit, plan.jobs):
        st.rerun()


def show_set_aside() -> None:
    """The run folders that are not in the store, each with its reason."""
    aside = data.set_aside()
    if aside:
        with st.expander(f"{len(aside)} run folders could not be read", icon=":material/warning:"):
            st.dataframe(pd.DataFrame(aside, columns=["Folder", "Reason"]), hide_index=True)
