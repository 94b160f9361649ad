"""Launch: choose what to measure, see what it will cost and what cannot work here, and queue it."""

import streamlit as st

from pages.widgets import form, machine, plans
from runs import sweep

st.header("Launch")
found = machine.require_machine("launch")
if found is not None:
    st.caption(machine.facts(found))
device = sweep.default_device(found)

kind = st.segmented_control(
    "What to run", list(plans.KINDS), default="quick", required=True, key="launch_kind", bind="query-params"
)
st.caption(plans.KINDS[kind])
left, right = st.columns([2, 3], gap="large")
with left:
    st.subheader("Workload")
    if plans.has_own_workload(kind):
        workload = form.device_form("launch", device=device)
    else:
        own = {"mode": plans.mode_of(kind), "without": plans.sets(kind)}
        workload = form.workload_form("launch", device=device, **own)
if workload is None:
    st.stop()

reasons = form.impossible_choices(workload, found)
families = {}
with right:
    if plans.has_families(kind):
        st.subheader("Choices")
        start, multiple = plans.first_choices(kind, workload), plans.takes_lists(kind)
        families = form.families_form(
            f"launch_{kind}_{workload.device}", workload.mode, start, reasons=reasons, multiple=multiple
        )
        form.show_impossible(reasons)
    switches = plans.options_form(kind, "launch")
    st.subheader("Plan")
    plan = plans.make_plan(kind, workload, found, families, switches)
    if plan is not None:
        plans.show_summary(plan)
        plans.submit_button(plan, "launch")
        plans.show_command(kind, workload, found, families, switches)
if plan is not None:
    plans.show_jobs(plan)
st.caption("Each run has a process of its own. Jobs run one after another and go on when this page is closed.")
