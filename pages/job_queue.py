"""Queue: what is being measured, what waits, what ended, and the buttons that change it."""

import streamlit as st

from pages.widgets import jobs, queue_tables
from runs.job_queue import JobState


def draw(states: list[JobState]) -> None:
    jobs.show_damaged()
    running = [state for state in states if state.state == "running"]
    waiting = [state for state in states if state.state == "queued"]
    ended = [state for state in states if state.state == "ended"]
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"{len(running)} running · {len(waiting)} waiting · {len(ended)} ended lately", width="content")
        with st.popover("Cancel all", disabled=not (running or waiting), icon=":material/close:"):
            st.write(f"This ends {len(running)} running and {len(waiting)} waiting jobs. What is measured stays.")
            cancel = {"on_click": queue_tables.cancel_all, "args": (states,), "key": "queue_cancel_all"}
            st.button("Yes, cancel them", type="primary", **cancel)
    for state in running:
        jobs.show_running(state, key="queue")
    if waiting:
        st.subheader("Waiting")
        queue_tables.show_waiting(waiting, key="queue")
    if ended:
        st.subheader("Ended")
        queue_tables.show_ended(ended, key="queue")
    if not states:
        st.info("Nothing runs and nothing waits. Jobs come from the Launch page or from python -m runs.")


st.header("Queue")
jobs.live(draw, key="queue")
st.caption("One job runs at a time. Jobs go on when this page, or the whole app, is closed.")
