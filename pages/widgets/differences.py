"""Compare's section on traces: where a difference in step time comes from."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.charts import differences, readable
from pages.widgets import data
from pages.widgets.chart import is_dark, show_chart
from store import views

APART = 1.5  # a traced step that much off the timed one, or off the other side's, is another step
CUTS = {"kernel class": "class", "module and phase": "place"}


def show_differences_in_time(runs: pd.DataFrame, baseline: str, run_ids: tuple[str, ...]) -> None:
    """A waterfall from the baseline to one run, and the parts of all runs that keep views."""
    st.subheader("Traced steps")
    labels = _labels(runs, (baseline, *run_ids))
    summaries = {run_id: data.read(views.summary, run_id) for run_id in (baseline, *run_ids)}
    known = [run_id for run_id, summary in summaries.items() if summary is not None]
    if baseline not in known or len(known) < 2:
        missing = "the baseline" if baseline not in known else "every other run"
        st.caption(f"Needs the parts of two traced steps; {missing} keeps none here: its Run page says why.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        others = [run_id for run_id in known if run_id != baseline]
        after = st.selectbox("Against the baseline", others, format_func=labels.__getitem__, key="compare_after")
        cut = st.segmented_control(
            "Cut by", list(CUTS), default="kernel class", required=True, key="compare_cut", bind="query-params"
        )
    kind = CUTS[str(cut)]
    if kind == "place" and not all(summaries[run_id]["knows_modules"] for run_id in (baseline, after)):
        kind = "phase"
        st.caption(
            "One of the two traces knows no modules (an old compiled run, or a replayed graph): cut by class and phase."
        )
    rows = data.read(views.waterfall, baseline, after, kind)
    figure = differences.waterfall(rows, before=labels[baseline], after=labels[after], dark=is_dark())
    show_chart(figure, rows, key="compare_waterfall", name=f"waterfall-{kind}", of=f"against {baseline}")
    _say_timed(runs, summaries, baseline, after)
    matrix = data.read(views.part_matrix, tuple(known))
    figure = differences.part_matrix(matrix, {run_id: labels[run_id] for run_id in known}, dark=is_dark())
    show_chart(figure, matrix, key="compare_matrix", name="parts-of-runs", of=f"against {baseline}")
    left = len(summaries) - len(known)
    if left:
        st.caption(f"{left} of the chosen runs keep no parts of their step and are left out.")


def _say_timed(runs: pd.DataFrame, summaries: dict[str, Any], baseline: str, after: str) -> None:
    """What the bars may be trusted with: one traced step on each side, beside the medians of the timed ones."""
    chosen = runs.set_index("run_id").loc[[baseline, after]]
    if (chosen["status"] == "imported").any():
        st.caption(
            "One traced step on each side. An imported trace has no timed step, so nobody knows how far the profiler "
            "slowed it: do not read the bars as a cause."
        )
        return
    before_ms, after_ms = chosen["step_ms"].astype(float)
    timed = f"Timed, the median step went from {readable.number(before_ms, 'ms')} to {readable.number(after_ms, 'ms')}"
    before, now = (summaries[run_id]["wall_ns"] / 1e6 / chosen.at[run_id, "step_ms"] for run_id in (baseline, after))
    factors = f"traced over timed is {readable.times(before)} for the baseline and {readable.times(now)} for the other"
    if are_apart(before, now):
        st.warning(
            f"The traced steps are not like the timed ones: {factors}. Do not read the bars as a cause. {timed}.",
            icon=":material/warning:",
        )
    else:
        st.caption(f"One traced step on each side; {factors}. {timed}: believe that for how much changed.")


def are_apart(before: float, after: float) -> bool:
    """Whether traced over timed of the two sides is too far from 1, or from one another, to explain a difference."""
    return any(max(ratio, 1 / ratio) > APART for ratio in (before, after, before / after))


def _labels(runs: pd.DataFrame, run_ids: tuple[str, ...]) -> dict[str, str]:
    """The combos' names; where two runs share one, the whole label."""
    chosen = runs.set_index("run_id")["combo_label"].reindex(list(run_ids))
    labels = data.run_labels(runs) if chosen.duplicated().any() else chosen.to_dict()
    is_whole = runs.set_index("run_id")["of_whole_trace"]
    return {run_id: f"{label} (whole trace)" if is_whole[run_id] else label for run_id, label in labels.items()}
