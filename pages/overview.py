"""Overview: what won in a study, at which price, and every run behind it."""

import streamlit as st

from pages.charts import kernels, ladder, tradeoff
from pages.widgets import data, departures, first_run, jobs, run_table, studies, study_views, traces, winners
from pages.widgets.chart import is_dark, show_chart
from store import frames

runs = data.read(frames.runs)
chosen = studies.choose_study("overview")
jobs.live(jobs.show_strip, key="overview")
first_run.offer_quick(runs, key="overview")
if chosen is None:
    if runs.empty:
        st.info("There is no finished run yet. Results appear here as they come in.", icon=":material/info:")
    else:
        run_table.show_runs(runs, None, None, key="overview")
    first_run.show_set_aside()
    st.stop()

sweep, study = chosen
of = str(sweep["sweep_id"])
rows = studies.study_ladder(sweep, study)
studies.show_environment(study)
winners.show_headlines(rows)

has_view = study_views.show_view(sweep, rows, key="overview")
with st.expander("Every run against the baseline") if has_view else st.container():
    samples = data.read(frames.samples, tuple(rows["run_id"]))
    figure = ladder.ladder(rows, samples, study=study["workload_label"].iloc[0], dark=is_dark())
    show_chart(figure, rows, key="overview_ladder", name="speedup-ladder", of=of)
    st.caption(f"{studies.rows_build_on(sweep)} A row without a bar says why it has none.")
    winners.say_launch_bound(rows)
    departures.say(tuple(rows["run_id"]))
explained = winners.why_run_ids(rows)
drawn = traces.with_tables(explained)
has_kernels = bool(drawn) or not explained  # nothing was timed: an empty chart says so
with st.grid(2, min_column_width=480, gap="medium") if has_kernels else st.container():
    figure = tradeoff.tradeoff(rows, dark=is_dark())
    show_chart(figure, rows, key="overview_tradeoff", name="speed-against-memory", of=of)
    if has_kernels:
        categories = data.read(frames.kernel_categories, drawn)
        figure = kernels.category_bars(categories, dark=is_dark())
        show_chart(figure, categories, key="overview_kernels", name="kernels", of=of)
if drawn:
    st.caption(
        "Kernel time is shown of the baseline and the three fastest runs alone: they explain the study's result. "
        "Any others can be set side by side in Compare."
    )
traces.say_left_behind(explained)

st.subheader("Runs")
run_table.show_runs(runs, study, rows, key="overview")
first_run.show_set_aside()
