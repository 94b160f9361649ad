"""Jobs on a page: which are under way, drawn live while there are any, and what can be done to them."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from pages.charts import palette, readable
from runs import job_queue
from runs.job_queue import HomeError, JobState

POLL_S = 2
STAGES = {
    "starting": "starting the worker",
    "build": "building the model",
    "reference": "making the numerical reference",
    "apply": "applying the optimisations",
    "first_call": "first call",
    "fidelity": "checking the numbers",
    "warm_up": "warming up",
    "time": "timing",
    "energy": "measuring energy",
    "memory": "measuring memory",
    "trace": "tracing",
    "verify": "checking the trace",
    "write": "writing the record",
    "ended": "ended",
}


def attempt(action: Callable[..., Any], *arguments: Any) -> Any:
    """What the queue answers; None, with the remedy shown, when it cannot be written or a model is not there."""
    try:
        return action(*arguments)
    except (HomeError, ValueError) as error:
        st.error(str(error), icon=":material/error:")
        return None


def jobs() -> list[JobState]:
    """What runs, waits and ended last."""
    return job_queue.list_jobs()


def under_way(states: list[JobState]) -> list[JobState]:
    """Those that run or will run; a job that its sweep's budget holds back waits for a resume instead."""
    return [state for state in states if state.state == "running" or (state.state == "queued" and not state.is_held)]


def live(draw: Callable[[list[JobState]], None], key: str) -> None:
    """Call draw(jobs) now and every two seconds while jobs are under way; rerun the page when one ends."""
    st.fragment(_tick, run_every=POLL_S if under_way(jobs()) else None)(draw, f"{key}_seen", first=True)


def _tick(draw: Callable[[list[JobState]], None], seen_key: str, first: bool) -> None:
    states = jobs()
    ended = [state.job.job_id for state in states if state.state == "ended"]
    seen = (ended[:1], len(ended), bool(under_way(states)))
    if st.session_state.get(seen_key, seen) != seen:
        st.session_state[seen_key] = seen
        st.rerun()
    st.session_state[seen_key] = seen
    draw(states)


def progress(state: JobState) -> float:
    """How far a job is, by the stages behind it."""
    names = list(STAGES)
    return names.index(state.stage) / (len(names) - 1) if state.stage in names else 0.0


def doing(state: JobState) -> str:
    """What a job does now, e.g. 'timing: 12 of 20 steps'."""
    stage = STAGES.get(state.stage, state.stage)
    return f"{stage}: {state.detail}" if state.detail else stage


def show_strip(states: list[JobState]) -> None:
    """One line on what is under way and a bar over the sweep; nothing when nothing is."""
    active = under_way(states)
    if not active:
        return
    running = [state for state in active if state.state == "running"]
    now = running[0] if running else active[0]
    sweep = now.job.sweep
    same = [state for state in states if sweep and state.job.sweep and state.job.sweep.sweep_id == sweep.sweep_id]
    ended = [state for state in same if state.state == "ended"]
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        text = f"**{now.job.label}** · {doing(now) if running else 'waiting for the worker'}"
        share = (len(ended) + progress(now)) / (len(ended) + len(active))
        st.progress(min(1.0, share), text=f"{text} · {len(active)} to go")
        st.page_link("job_queue.py", label="Queue", icon=":material/list:")


def show_running(state: JobState, key: str) -> None:
    """A running job: stage, elapsed time, log, and the button that cancels it."""
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**{state.job.label}** · {readable.duration(state.elapsed_s)}", width="content")
            place = f"{key}_cancel_{state.job.job_id}"
            st.button("Cancel", key=place, on_click=attempt, args=(job_queue.cancel, state.job.job_id))
        st.progress(progress(state), text=doing(state))
        with st.expander("Log", key=f"{key}_log_{state.job.job_id}"):
            log = job_queue.log_tail(state.job.job_id, num_lines=60)
            st.code(log or "nothing printed yet", language=None, height=220)


def show_damaged() -> None:
    """The job files that cannot be read, each with what brings its job back."""
    for line in job_queue.damaged():
        st.warning(f"{line[0].upper()}{line[1:]}.", icon=":material/warning:")


def status_badge(status: str | None) -> str:
    """A status as coloured Markdown."""
    colours = {"done": "blue", "oom": "orange", "failed": "red", "wrong": "violet", "ineffective": "yellow"}
    word = status or "unknown"
    return f":{colours.get(word, 'gray')}-badge[{word}]" if word in palette.STATUSES else word
