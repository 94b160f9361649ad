"""Run: everything that one run found out. Deep link: /run?run=RUN_ID."""

import streamlit as st

from pages.charts import curves, kernels, memory, samples, telemetry
from pages.widgets import data, departures, imported, measures, memory_views, ranks, run_facts, traces, where
from pages.widgets.chart import is_dark, show_chart
from store import frames

runs = data.read(frames.runs)
run_id = run_facts.choose_run(runs)
if run_id is None:
    st.info("No run has been measured yet.", icon=":material/info:")
    st.stop()

record, row = data.read(frames.record, run_id), runs[runs["run_id"] == run_id]
run_facts.show_title(record)
run_facts.link_comparison(record)
run_facts.show_outcome(record)
is_foreign = record["imported"] is not None
if is_foreign:
    imported.show_facts(record)
if not measures.has_numbers(record):
    run_facts.show_environment(record)
    st.caption("This run ended before anything was measured, so it has no charts.")
    st.stop()
(imported if is_foreign else measures).show_headlines(record)
has_views = where.show_where(run_id, row["folder"].iloc[0])
has_tables = bool(traces.with_tables((run_id,)))

with st.grid(2, min_column_width=480, gap="medium"):
    steps = data.read(frames.samples, (run_id,))
    if len(steps) > 1 or not is_foreign:
        show_chart(samples.samples(steps, dark=is_dark()), steps, key="run_samples", name="step-times", of=run_id)
    if has_tables and not has_views:
        categories = data.read(frames.kernel_categories, (run_id,))
        figure = kernels.breakdown(categories, dark=is_dark())
        show_chart(figure, categories, key="run_categories", name="kernel-time", of=run_id)
    if has_tables and not is_foreign:
        timeline = data.read(frames.memory_timeline, run_id)
        figure = memory.memory_timeline(timeline, dark=is_dark())
        show_chart(figure, timeline, key="run_timeline", name="memory-timeline", of=run_id)
        with st.container():
            parts = data.read(frames.peak_parts, (run_id,))
            figure = memory.memory_split(parts, dark=is_dark())
            show_chart(figure, parts, key="run_memory", name="memory-split", of=run_id)
            if len(parts):
                st.caption(memory.reading(parts))
if is_foreign:
    st.caption(imported.why_no_memory(record))

moving, mode = run_facts.curves(record), (record["workload"] or {}).get("mode")
if mode == "train":
    show_chart(curves.training(moving, dark=is_dark()), moving, key="run_training", name="training", of=run_id)
    departures.say((run_id,))
elif mode == "sample":
    show_chart(curves.sampling(moving, dark=is_dark()), moving, key="run_sampling", name="sampling", of=run_id)

memory_views.show_memory(run_id, record)

if has_tables and not has_views:
    st.subheader("Kernels")
    run_facts.show_kernels(data.read(frames.kernels, run_id), record)
traces.offer_trace(record, row["folder"].iloc[0])

st.subheader("Requested against observed")
run_facts.show_evidence(data.read(frames.evidence, run_id), record)

ranks.show_ranks(record)
ranks.show_projection(record)

state = data.read(frames.telemetry, run_id)
if state.empty:
    why = "a trace holds none" if is_foreign else "NVML measures them on NVIDIA GPUs only"
    st.caption(f"No power, clocks or temperature: {why}.")
else:
    show_chart(telemetry.telemetry(state, dark=is_dark()), state, key="run_telemetry", name="telemetry", of=run_id)

st.subheader("All numbers")
measures.show_all(record)
st.caption("A dash is a number that this run does not have; the last column says why.")
run_facts.show_environment(record)
