"""This machine: what the probe found out about it, and which runs are its own."""

from dataclasses import replace

import pandas as pd
import streamlit as st

from pages.charts import readable
from pages.widgets import jobs
from profiler.machine import Machine
from profiler.record import Record
from profiler.why_not import why_not
from profiler.workload import Workload
from runs import job_queue, sweep
from runs.job import home
from runs.job_queue import JobState


def require_machine(key: str) -> Machine | None:
    """The probed machine; while there is none, has it probed and shows that this is under way."""
    found = job_queue.read_machine()
    if found is None and jobs.attempt(job_queue.ensure_probe) is not None:
        jobs.live(_show_probe, key=f"{key}_probe")
    return found


def _show_probe(states: list[JobState]) -> None:
    probe = next((s for s in states if s.job.kind == "probe"), None)
    if probe is not None and probe.state == "ended":
        st.error(f"This machine could not be looked at: {probe.cause or 'see the Queue page for its log'}")
        return
    st.info("Looking at this machine: which GPU, versions and packages it has. This takes some seconds.")


def facts(found: Machine) -> str:
    """The machine in one line."""
    memory = f" ({readable.number(found.gpu_memory_gib, 'GiB')})" if found.gpu_memory_gib else ""
    where = f"{found.label}{memory}" if found.has_cuda else f"{found.cpu_name}, {found.num_cpus} cores, no CUDA"
    return f"{where} · torch {found.torch} · python {found.python}"


def has_done_run(runs: pd.DataFrame) -> bool:
    """Whether any run of this home is done: one that was rejected, say, has measured nothing."""
    return bool(((runs["root"] == str(home() / "runs")) & (runs["status"] == "done")).any())


def quick_workload(found: Machine) -> Workload:
    return Workload(model="tiny", device=sweep.default_device(found))


def why_not_here(run: Record) -> str | None:
    """Why this machine cannot measure what would stand beside a measured run; None if it can."""
    found = job_queue.read_machine()
    if found is None:
        return "this machine was not looked at yet: open the Launch page"
    theirs, ours = ((one.device_name, one.machine.torch) for one in (run, replace(run, machine=found)))
    if theirs != ours:
        return f"it takes {theirs[0]} with torch {theirs[1]}, and here is {ours[0]} with {ours[1]}"
    return why_not(run.combo, run.workload, found)
