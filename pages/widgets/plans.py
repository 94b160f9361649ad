"""Plans: what a launch would run here, for how long, and why in that order."""

from typing import Any, get_args

import pandas as pd
import streamlit as st

from pages.charts import readable
from pages.widgets import data, jobs
from profiler.combo import BASELINE, Combo
from profiler.machine import Machine
from profiler.workload import Workload
from runs import command_line, job_queue, sweep

MANY, TALL_PX = 14, 560  # rows that stand on the page at once, and the height that scrolls beyond
KINDS: dict[str, str] = {name: kind.description for name, kind in sweep.SWEEPS.items()}


def mode_of(kind: str) -> str | None:
    """The only mode that a sweep is for, or None."""
    return sweep.SWEEPS[kind].mode


def has_own_workload(kind: str) -> bool:
    return sweep.SWEEPS[kind].has_own_workload


def sets(kind: str) -> tuple[str, ...]:
    """The fields of the workload that a sweep varies by itself."""
    return sweep.SWEEPS[kind].sets


def has_families(kind: str) -> bool:
    return bool(sweep.SWEEPS[kind].takes)


def first_choices(kind: str, workload: Workload) -> Combo:
    """What the form starts with: the baseline, or the stack that a study measures, takes apart or scales."""
    return sweep.default_stack(workload) if sweep.SWEEPS[kind].takes == "stack" else BASELINE


def takes_lists(kind: str) -> bool:
    return sweep.SWEEPS[kind].takes == "lists"


def options_form(kind: str, key: str) -> dict[str, Any]:
    """The switches of the ladders, how far a study of batches goes, and which models one of models takes."""
    chosen: dict[str, Any] = {}
    if kind == "scaling_model":
        field = sweep.Options.__dataclass_fields__["models"]
        place = {"help": field.metadata["help"], "key": f"{key}_models", "bind": "query-params"}
        options = get_args(sweep.Models)
        chosen["models"] = st.segmented_control("models", options, default=field.default, required=True, **place)
    if kind == "scaling_batch":
        field = sweep.Options.__dataclass_fields__["max_batch"]
        place = {"help": field.metadata["help"], "key": f"{key}_max_batch", "bind": "query-params"}
        chosen["max_batch"] = st.number_input("largest batch", min_value=1, value=field.default, step=1, **place)
    for name in ("max_autotune", "sdpa_kernels") if kind.startswith("ladder") else ():
        help = sweep.Options.__dataclass_fields__[name].metadata["help"]
        chosen[name] = st.toggle(name, key=f"{key}_{name}", help=help, bind="query-params")
    return chosen


def make_plan(
    kind: str, workload: Workload, machine: Machine | None, families: dict[str, list[str]], switches: dict[str, Any]
) -> sweep.Sweep | None:
    """The jobs of this launch; None, with the reason shown, where it makes no sense."""
    try:
        return sweep.expand(
            kind,
            workload,
            machine,
            options=sweep.Options(families=families, **switches),
            known_references=job_queue.known_references(),
            durations=data.durations(),
        )
    except ValueError as error:
        st.error(str(error), icon=":material/error:")
        return None


def show_command(
    kind: str, workload: Workload, machine: Machine | None, families: dict[str, list[str]], switches: dict[str, Any]
) -> None:
    """The command line that plans the same, to copy: make_plan's arguments as options of python -m runs."""
    options = sweep.Options(families=families, **switches)
    st.caption("The same from a shell in Steplens' folder; with --wait it follows the sweep to its end:")
    st.code(command_line.sweep_command(kind, workload, machine, options), language="bash", wrap_lines=True)


def show_summary(plan: sweep.Sweep) -> None:
    """How many runs and how long, and how many more cannot work here; or that none can. One reason of all is told."""
    reason = plan.shared_reason
    if not plan.num_runs:
        why = f": {readable.escaped(reason)}." if reason else ", each for its own reason: see below."
        st.error(f"None of these {len(plan.rejected)} runs can run here{why}", icon=":material/block:")
        return
    num_references = sum(job.kind == "reference" for job in plan.jobs)
    words = {0: "", 1: " and a numerical reference"}.get(num_references, f" and {num_references} numerical references")
    rough = ", a rough guess until such runs were measured here" if plan.estimate.is_rough else ""
    st.markdown(f"**{plan.num_runs} runs**{words}, **{plan.estimate.words}**{rough}.")
    if plan.rejected:
        st.warning(
            f"{len(plan.rejected)} more cannot run here: they take no time and are recorded as rejected, with the "
            f"reason{': ' + readable.escaped(reason) if reason else ''}.",
            icon=":material/block:",
        )


def show_jobs(plan: sweep.Sweep) -> None:
    """All jobs in their order, each with the reason why it is in the plan, or why it cannot work here.

    A reason that all of those share stands in the summary, once.
    """
    rejected = {job.job_id: reason for job, reason in plan.rejected}
    told = {} if plan.shared_reason else rejected
    rows = pd.DataFrame(
        {
            "run": [job.run_label if job.kind == "measure" else "numerical reference" for job in plan.jobs],
            "workload": [job.workload.label for job in plan.jobs],
            "why": [told.get(job.job_id, plan.reasons[job.job_id]) for job in plan.jobs],
        }
    )
    if rejected:
        rows.insert(1, "here", ["not possible" if job.job_id in rejected else "" for job in plan.jobs])
    if rows["workload"].nunique() == 1:
        rows = rows.drop(columns="workload")
    # A table of text wraps where a data frame would cut.
    with st.container(height=TALL_PX if len(rows) > MANY else "content", border=False):
        st.table(rows.rename(columns=str.capitalize), hide_index=True)


def submit_button(plan: sweep.Sweep, key: str) -> None:
    """Queue the plan's jobs, once per click, and say where to watch them; disabled where no run can work here."""
    place = {"icon": ":material/play_arrow:", "key": f"{key}_submit", "disabled": not plan.num_runs}
    if st.button("Start", type="primary", **place):
        submitted = jobs.attempt(job_queue.submit, plan.jobs)
        if submitted is None:
            return
        st.success(f"{len(submitted)} jobs are queued.", icon=":material/check:")
        st.page_link("job_queue.py", label="Watch them on the Queue page", icon=":material/list:")
