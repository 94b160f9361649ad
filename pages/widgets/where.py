"""Run's section on its trace: what to fix first, the step in parts, and one closer look at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from pages.charts import readable, steps
from pages.widgets import data, run_facts, trace_views, traces
from pages.widgets.chart import is_dark, show_chart
from profiler.record import Record
from runs import trace_views as trace_views_worker
from store import fixes, frames, views

MOST_FIXES = 3
SLOWER = 1.05
LOOKS: dict[str, Callable[[str, dict[str, Any]], None]] = {
    "modules": trace_views.show_modules,
    "kernels": trace_views.show_kernels,
    "operators": trace_views.show_operators,
    "roofline": trace_views.show_roofline,
    "critical path": trace_views.show_critical_path,
    "launches": trace_views.show_launches,
    "communication": trace_views.show_communication,
    "trace health": trace_views.show_health,
}


def show_where(run_id: str, folder: str) -> bool:
    """The section; False where the run keeps no views of its trace."""
    st.subheader("Where the time goes")
    summary = data.read(views.summary, run_id)
    if summary is None:
        _offer_views(run_id, data.read(frames.record, run_id)["trace_file"] or "", Path(folder))
        return False
    record = data.read(frames.record, run_id)
    summary = {**summary, "per": run_facts.per(record)}
    if Record.from_dict(record).of_whole_trace:
        st.caption("This trace marks no steps: what is called a step below is all of it, however many steps it holds.")
    if summary.get("is_one_module"):  # views of before do not say
        st.caption("What to fix first is told of whole steps; this trace was cut to one module of its step.")
    else:
        _show_fixes(data.read(fixes.fixes, run_id), summary)
    parts = data.read(views.step_parts, run_id)
    show_chart(steps.step_bars(parts, dark=is_dark()), parts, key="run_steps", name="step-parts", of=run_id)
    if not record["imported"]:  # a foreign trace has no timed step to compare with
        _say_slowdown(record["metrics"]["step_ms"], summary["wall_ns"] / 1e6)
    _warn_of_health(summary["health"])
    look = st.segmented_control(
        "A closer look",
        list(LOOKS),
        default="modules" if summary["knows_modules"] else "kernels",
        required=True,
        key="run_look",
        bind="query-params",
    )
    LOOKS[str(look)](run_id, summary)
    return True


def _offer_views(run_id: str, trace_file: str, folder: Path) -> None:
    """For a run of before, or one packed without: from its trace, where it kept one."""
    has_trace = (folder / trace_file).is_file()
    parts = "breakdown, modules, roofline and critical path"
    if traces.with_tables((run_id,)):
        rest = "; its trace is still here." if has_trace else ": measure it again."
        st.caption(f"This run was recorded before Steplens kept {parts} of a trace{rest}")
    else:
        traces.say_left_behind((run_id,))
        if has_trace:
            st.caption(f"Its trace is still here, and holds its {parts}.")
    if not has_trace:
        return
    if st.button("Show them from its trace", key="run_views_make", icon=":material/query_stats:"):
        try:
            with st.spinner("Reading the trace"):
                trace_views_worker.make_views(folder)
        except trace_views_worker.TraceError as error:
            st.error(readable.escaped(str(error)))
            return
        data.forget()
        st.rerun()


def _show_fixes(rows: pd.DataFrame, summary: dict[str, Any]) -> None:
    """The three things that could win most time, the best first."""
    if rows.empty:
        st.success("Nothing above 1% of the step is left that Steplens knows a remedy for.", icon=":material/check:")
        return
    lines = [f"{number}. {_sentence(row)}" for number, row in enumerate(rows.head(MOST_FIXES).itertuples(), start=1)]
    with st.container(border=True):
        st.markdown("**What to fix first**\n\n" + "\n".join(lines))
        if len(rows) > MOST_FIXES:
            with st.expander(f"{len(rows) - MOST_FIXES} more, each of less"):
                st.markdown("\n".join(f"- {_sentence(row)}" for row in rows.iloc[MOST_FIXES:].itertuples()))
        st.caption(
            "*At most*: the whole of that time, as if it could vanish; gains of several do not add up. "
            "*Measured*: what a run of this store that differs in nothing else has won. All times are of the "
            "timed step: those of the traced one are scaled to it."
        )


def _sentence(row: Any) -> str:
    size = f"{readable.number(row.saves_ms, 'ms')}, {readable.percent(row.share)} of the step"
    link = f"[measured](/run?run={row.run_id}) " if row.is_measured else "at most "
    remedy = f"`{row.remedy}`" if "=" in row.remedy and " " not in row.remedy else row.remedy
    return f"**{row.what}**: {link}{size}. {row.why[0].upper()}{row.why[1:]}. Try: {remedy}."


def _say_slowdown(step_ms: float | None, traced_ms: float) -> None:
    """The traced step is not the timed one; its idle time above all is the profiler's."""
    if step_ms and traced_ms > SLOWER * step_ms:
        st.caption(
            f"The profiler slows the host: this step took {readable.number(traced_ms, 'ms')}, a timed one "
            f"{readable.number(step_ms, 'ms')}. The parts drawn here are the traced step's; what to fix first is told "
            "of the timed one."
        )


def _warn_of_health(card: dict[str, Any]) -> None:
    """One line where the trace is not whole; the card has the rest."""
    bad = [finding for finding in card["findings"] if finding["level"] == "warning"]
    if bad:
        first = f"{bad[0]['what']} ({bad[0]['count']:,})"
        more = f", and {len(bad) - 1} more: see trace health" if len(bad) > 1 else ""
        st.warning(f"The trace is not whole: {first}{more}.", icon=":material/healing:")
