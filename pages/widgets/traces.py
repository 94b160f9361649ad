"""A run's trace out again: the whole of it, or a slice, and how to open either."""

from pathlib import Path
from typing import Any

import streamlit as st

from pages.charts import readable
from pages.widgets import data
from runs import slices
from store import frames

WHOLE = "the whole step"


def with_tables(run_ids: tuple[str, ...]) -> tuple[str, ...]:
    """The runs whose folders keep the tables of the traced step, or that were never traced."""
    without = data.read(frames.without_tables, run_ids)
    return tuple(run_id for run_id in run_ids if run_id not in without)


def say_left_behind(run_ids: tuple[str, ...]) -> None:
    """Where the traced step of some of the runs cannot be drawn: that it was recorded, and why it is not here."""
    without = data.read(frames.without_tables, run_ids)
    if without:
        whose = f"of {len(without)} of these {len(run_ids)} runs " if len(without) < len(run_ids) else ""
        folder = "its folder was" if len(without) == 1 else "their folders were"
        st.caption(
            f":material/info: Kernels and memory over time {whose}were recorded, but cannot be drawn: {folder} "
            "packed without the tables of the traced step (`pack --tables`). All numbers are whole."
        )


def offer_trace(record: dict[str, Any], folder: str) -> None:
    """The kineto trace of the run, a slice of it, and the ways to open them."""
    path = Path(folder, record["trace_file"] or "")
    if not record["trace_file"] or not path.is_file():
        st.caption("No trace is kept here: the run ended before it, or its folder was packed without (pack --traces).")
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        place = {"file_name": path.name, "mime": "application/gzip", "key": "run_trace", "on_click": "ignore"}
        st.download_button("Download the trace", path.read_bytes, icon=":material/download:", **place)
        with st.popover("Download a slice", icon=":material/content_cut:"):
            _offer_slice(record["run_id"], Path(folder))
        with st.popover("How to open it", icon=":material/help:", type="tertiary"):
            st.markdown(
                "**Perfetto**: open [ui.perfetto.dev](https://ui.perfetto.dev) and drop the file on it; it stays in "
                "your browser. A large trace opens faster as a slice.\n\n**TensorBoard**, with torch-tb-profiler:"
            )
            st.code(f"tensorboard --logdir {folder}", language="sh")


def _offer_slice(run_id: str, folder: Path) -> None:
    """One step, or one module in it. The slice is made when asked for, in a process of its own."""
    parts = data.read(frames.trace_modules, run_id)
    steps = sorted(parts["step"].unique()) or [0]
    step = int(st.selectbox("Step", steps, key="run_slice_step")) if len(steps) > 1 else int(steps[0])
    modules = parts.loc[parts["step"] == step, "module"].tolist()
    module = st.selectbox("Module", [WHOLE, *modules], key="run_slice_module", width=420)
    if not modules:
        st.caption("This trace names no modules.")
    chosen = None if module == WHOLE else str(module)
    if st.button("Make the slice", key="run_slice_make", type="primary"):
        try:
            with st.spinner("Cutting it out"):
                made = slices.slice_bytes(folder, step=step, module=chosen)
        except slices.TraceError as error:
            st.error(readable.escaped(str(error)))
            return
        name = slices.slice_name(run_id, step, chosen)
        label = f"Save it ({len(made) / 2**20:.2f} MiB)"
        st.download_button(label, made, file_name=name, mime="application/gzip", key="run_slice", on_click="ignore")
