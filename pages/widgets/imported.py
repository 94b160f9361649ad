"""Imported traces: the drop zone, what became of each file, and what a foreign trace says of itself."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.charts import readable
from pages.widgets import data, measures, tables
from runs import imports
from runs.imports import TraceError
from runs.job_queue import HomeError

MAX_UPLOAD_MB = 500  # it passes through the app's memory; a larger file is imported by its path
Column = st.column_config
# Without repeat=1 the schedule begins again after the third step, and what a later cycle recorded is what is exported.
HOW_TO = """
```python
import torch

with torch.profiler.profile(
    schedule=torch.profiler.schedule(wait=1, warmup=1, active=3, repeat=1),
    record_shapes=True,
    with_stack=True,
    profile_memory=True,
) as profiler:
    for batch in batches:
        training_step(batch)
        profiler.step()
profiler.export_chrome_trace("trace.json.gz")
```
"""
HEADLINES = {"step_ms": "Traced step", "gpu_busy_ms": "GPU busy", "num_kernels": "Kernels"}
UNSAID = "the file does not say"


def drop_zone(key: str) -> None:
    """Takes files, and imports each when it arrives."""
    st.file_uploader(
        "Traces", type=["json", "gz"], accept_multiple_files=True, max_upload_size=MAX_UPLOAD_MB,
        key=f"{key}_files", on_change=_import_new, args=(key,), label_visibility="collapsed",
    )  # fmt: skip
    limits = imports.LIMITS
    st.caption(
        f".json or .json.gz, several at once. Limits: {MAX_UPLOAD_MB} MB a file, {limits.max_gb:g} GB unpacked, "
        f"{limits.memory_gib:g} GiB of memory, {readable.duration(limits.timeout_s)}. Each is read by a process of its "
        "own; a pickle is never opened. Larger ones: `python -m runs import FILE --max-gb 5`."
    )


def _import_new(key: str) -> None:
    """Import the files that were not there at the last change; keep what became of each by the upload's id."""
    answers: dict[str, tuple[str, str | None, str]] = st.session_state.setdefault(f"{key}_answers", {})
    for upload in st.session_state[f"{key}_files"]:
        if upload.file_id in answers:
            continue
        with st.spinner(f"Reading {readable.escaped(upload.name)}"):
            try:
                found = imports.import_stream(upload.name, upload)
                data.look_again()
                answers[upload.file_id] = (found.file_name, found.run_id, "" if found.is_new else "was imported before")
            except (TraceError, HomeError) as error:
                answers[upload.file_id] = (upload.name, None, str(error))


def show_answers(key: str) -> None:
    """What became of the files of this visit: a way to the run, or the reason why there is none."""
    for number, (name, run_id, words) in enumerate(st.session_state.get(f"{key}_answers", {}).values()):
        if run_id is None:
            st.error(readable.escaped(words), icon=":material/block:")
            continue
        with st.container(horizontal=True, vertical_alignment="center", key=f"{key}_answer_{number}"):
            st.markdown(
                f":material/check_circle: **{readable.escaped(name)}** {words or 'is imported'}", width="content"
            )
            st.page_link("run.py", label="Open it", icon=":material/search:", query_params={"run": run_id})


def show_imported(runs: pd.DataFrame, key: str) -> None:
    """All imported runs, the newest first."""
    rows = runs[runs["status"] == "imported"].reset_index(drop=True)
    if rows.empty:
        st.caption("None yet.")
        return
    columns = {
        "combo_label": Column.TextColumn("File", width=300),
        "workload_label": Column.TextColumn("Steps", width=150),
        "gpu_name": Column.TextColumn("GPU", width=120),
        "step_ms": Column.NumberColumn("Traced step (ms)", format="%.2f", help="With the profiler's own slowdown."),
        "gpu_busy_ms": Column.NumberColumn("GPU busy (ms)", format="%.2f"),
        "started_at": Column.DatetimeColumn("Imported (UTC)", format="D MMM YYYY, HH:mm"),
    }
    event = st.dataframe(
        rows[list(columns)], hide_index=True, column_config=columns, placeholder="—", height=tables.fit(rows),
        on_select="rerun", selection_mode="single-row", key=f"{key}_table",
    )  # fmt: skip
    chosen = [row for row in event["selection"]["rows"] if row < len(rows)]
    if st.button("Open the run", disabled=not chosen, key=f"{key}_open"):
        st.switch_page("run.py", query_params={"run": str(rows["run_id"].iloc[chosen[0]])})


def show_how_to() -> None:
    with st.expander("How to record a trace that shows the most"):
        st.markdown(HOW_TO)
        st.caption(
            "record_shapes gives shapes and FLOPs, with_stack the names of modules, profile_memory allocations (and "
            "a larger file); profiler.step marks steps. Three steps are enough: the loop needs five or more, and with "
            "repeat=1 all that come after the fifth are left out."
        )


def show_facts(record: dict[str, Any]) -> None:
    """What the file says of itself; what was lost, repaired or left out; and which views it cannot fill, and why."""
    facts = record["imported"]
    st.info(
        "An imported trace: nobody knows with which choices, model and batch it was made, so it has no speedup and no "
        "error. Its times are those of traced steps, with the profiler's own slowdown.",
        icon=":material/upload_file:",
    )
    said = {
        "size": f"{facts['num_bytes'] / 2**20:,.1f} MiB, {facts['num_events']:,} events",
        "marked steps": str(facts["num_steps"] or "none, the whole trace counts as one"),
        "GPU": facts["device_name"],
        "rank": None if facts["rank"] is None else f"{facts['rank']} of {facts['world_size'] or '?'}",
        "versions": ", ".join(f"{name} {value}" for name, value in facts["versions"].items()) or None,
        "SHA-256": facts["sha256"],
    }
    rows = [("says", what, value or UNSAID) for what, value in said.items()]
    rows += [("note", "", note) for note in record["notes"]]
    rows += [("cannot show", view, why) for view, why in facts["why_empty"].items()]
    with st.expander(f"The trace: {len(record['notes'])} notes, {len(facts['why_empty'])} views that it cannot fill"):
        columns = {"kind": Column.TextColumn("It", width=90), "what": Column.TextColumn("What", width=120)}
        columns["value"] = Column.TextColumn("In words", width="large")
        table = pd.DataFrame(rows, columns=list(columns))
        st.dataframe(table, hide_index=True, column_config=columns, height=tables.fit(table, most=24))


def show_headlines(record: dict[str, Any]) -> None:
    """The few numbers that a trace alone can give."""
    with st.grid(3, min_column_width=165):
        for name, title in HEADLINES.items():
            value = readable.metric(name, record["metrics"][name])
            with st.container(border=True, height="stretch", gap="xsmall"):
                st.metric(title, f"{value} ms" if name.endswith("_ms") and value != readable.UNKNOWN else value)
                st.caption(measures.why_unknown(name, record) or "per traced step")


def why_no_memory(record: dict[str, Any]) -> str:
    """Why an imported trace has no memory charts."""
    reason = record["imported"]["why_empty"].get("memory", "a foreign trace does not say what its allocations hold")
    return f"No memory over the step: {reason}."
