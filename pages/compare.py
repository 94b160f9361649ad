"""Compare: chosen runs against one baseline, and only where they differ.

Deep link: /compare?baseline=RUN_ID&run=RUN_ID&run=RUN_ID.
"""

import streamlit as st

from pages.charts import kernels, memory, ratios
from pages.widgets import comparison, data, departures, differences, traces, winners
from pages.widgets.chart import is_dark, show_chart
from store import frames

st.header("Compare")
runs = data.read(frames.runs)
chosen = comparison.choose_runs(runs, key="compare")
if chosen is None:
    st.info("There is nothing to compare yet: two runs with times are needed.", icon=":material/info:")
    st.stop()

baseline, run_ids = chosen
against = data.read(frames.comparison, baseline, run_ids)
comparison.show_differences(runs, against)
winners.warn_of_disturbance(against)
rows = data.read(frames.metric_ratios, baseline, run_ids)
metric = comparison.choose_metric(rows, key="compare_metric")
label, of = data.run_labels(runs)[baseline], f"against {baseline}"
drift = winners.drift(against)
figure = ratios.ratios(rows, metric=metric, baseline=label, drift=drift, dark=is_dark())
show_chart(figure, rows, key="compare_ratios", name=f"ratios-{metric}", of=of)
comparison.say_what_differs(rows, metric, drift)
departures.say((baseline, *run_ids))

drawn = traces.with_tables((baseline, *run_ids))
if drawn:
    with st.grid(2, min_column_width=480, gap="medium"):
        categories = data.read(frames.kernel_categories, drawn)
        figure = kernels.category_bars(categories, dark=is_dark())
        show_chart(figure, categories, key="compare_kernels", name="kernel-time", of=of)
        split = data.read(frames.peak_parts, drawn)
        show_chart(memory.memory_split(split, dark=is_dark()), split, key="compare_memory", name="memory-split", of=of)

traces.say_left_behind((baseline, *run_ids))
comparison.say_replayed(runs, (baseline, *run_ids))

differences.show_differences_in_time(runs, baseline, run_ids)

st.subheader("All metrics")
comparison.show_metric_table(rows, key="compare_table", baseline=comparison.pinned(runs, baseline), drift=drift)
st.caption(
    "Blue is better than the baseline, orange worse. Without a colour: no difference, or one that is neither (how busy "
    "a GPU is, how long launching takes, a share of another ceiling, an error ratio of another precision). A metric "
    "that no run has is left out."
)
