"""The table of runs: filters, a pinned baseline, and what can be done with the rows that are selected."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.charts import palette, readable
from pages.widgets import data, linked, tables, winners
from pages.widgets.chart import is_dark
from pages.widgets.measures import META
from profiler.record import GPU_BOUND, LAUNCH_BOUND
from store import frames

FILTERS = {"model_label": "Model", "mode": "Mode", "device": "Device", "status": "Status"}
ALIKE = ("workload_label", "machine_label", "cause")  # left out where all rows say the same
KNOWN_BY_SOME = ("gradient_error", "change_speedup")  # left out where no row knows it
RATIOS = ("speedup", "memory_ratio", "break_even_steps")
Column = st.column_config
VERDICTS = {"speedup": "verdict", "change_speedup": "change_verdict"}
CHANGE = ("change_speedup", "change_verdict")
COLUMNS: dict[str, Any] = {
    "combo_label": Column.TextColumn("Combo", pinned=True, width=290),
    "workload_label": Column.TextColumn("Workload", width=210),
    "status": Column.TextColumn("Status", width=90),
    "step_ms": Column.NumberColumn("Step (ms)", format="%.2f"),
    "num_samples": Column.NumberColumn("n", format="%d", width=50, help="Timed steps behind the median."),
    "speedup": Column.NumberColumn("Speedup", format="%.2f×", help="Baseline median over this median."),
    "change_speedup": Column.NumberColumn(
        "Its change",
        format="%.3f×",
        help="What the choice did that this run's row of the study above is named by: the median of the run that it "
        "builds on (the stack, or the earlier rung most like it) over this median.",
    ),
    "gpu_waits": Column.TextColumn(
        "GPU waits",
        width=110,
        help=f"How much of the step the GPU was idle. Above {1 - LAUNCH_BOUND:.0%} the CPU's launches set the step's "
        f"time, not the GPU (launches), and a speedup is host time; above {1 - GPU_BOUND:.0%} some of it (partly).",
    ),
    "samples_per_s": Column.NumberColumn("Samples/s", format="%.2f"),
    "peak_allocated_gib": Column.NumberColumn("Peak (GiB)", format="%.3g"),
    "memory_ratio": Column.NumberColumn("Peak ratio", format="%.2f×", help="Peak over the baseline's peak."),
    **{
        name: Column.NumberColumn(title, format="%.2e", help=META[name]["help"])
        for name, title in {"output_error": "Output error", "gradient_error": "Gradient error"}.items()
    },
    "output_error_ratio": Column.NumberColumn(
        "Error ratio",
        format="%.2f×",
        help="Output error over that of plain eager at the same precision; above 2 the run is wrong. Compare it only "
        "between runs of the same precision.",
    ),
    "compile_s": Column.NumberColumn("Compile (s)", format="%.1f"),
    "break_even_steps": Column.NumberColumn(
        "Break-even (steps)", format="%.0f", help="Steps after which compiling has paid for itself against eager."
    ),
    "sample_energy_j": Column.NumberColumn("Energy (J/sample)", format="%.2f"),
    "mfu": Column.NumberColumn("MFU", format="percent", help="Achieved over the datasheet's FLOP rate."),
    "machine_label": Column.TextColumn("Machine", width=150),
    "started_at": Column.DatetimeColumn("Started (UTC)", format="D MMM YYYY, HH:mm"),
    "cause": Column.TextColumn("Cause", width=320),
}


def show_runs(runs: pd.DataFrame, study: pd.DataFrame | None, ladder: pd.DataFrame | None, key: str) -> None:
    """The table with everything around it. study: the runs that it begins with, ladder: store.frames.ladder of them."""
    baseline = None if ladder is None else winners.baseline_of(ladder)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = choose_baseline(runs, baseline, f"{key}_baseline") if ladder is None or baseline else None
        everything = study is None or st.toggle("All studies", key=f"{key}_all", bind="query-params")
        shown = filter_runs(runs if everything else study, key)
    rows = with_changes(with_ratios(shown, chosen), ladder)
    show_actions(show_run_table(rows, f"{key}_table"), chosen, key)


def filter_runs(runs: pd.DataFrame, key: str) -> pd.DataFrame:
    """The runs that pass the filters; an empty filter lets everything pass, one without a choice is not drawn."""
    shown = runs
    for column, title in FILTERS.items():
        options = sorted(runs[column].dropna().unique())
        if len(options) > 1:
            chosen = st.multiselect(
                title, options, key=f"{key}_{column}", bind="query-params", placeholder="all", width=170
            )
            shown = shown[shown[column].isin(chosen)] if chosen else shown
    return shown


def choose_baseline(runs: pd.DataFrame, default: str | None, key: str) -> str | None:
    """The run that the table's ratios refer to; it stands first in the table."""
    labels = data.run_labels(runs[runs["step_ms"].notna()])
    if not labels:
        return None
    return linked.select("Baseline of the ratios", labels, key, "baseline", default=default, width=420)


def with_ratios(runs: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    """The runs with speedup and memory_ratio against the baseline, which comes first."""
    of_one_sweep = runs["sweep_id"].nunique(dropna=False) == 1
    order, newest_first = ("sweep_position", False) if of_one_sweep else ("started_at", True)
    rows = runs.sort_values(order, ascending=not newest_first, kind="stable")
    if baseline is None:
        return rows.assign(**dict.fromkeys((*RATIOS, "verdict")))
    ratios = data.read(frames.comparison, baseline, tuple(rows["run_id"]))
    rows = rows.merge(ratios[["run_id", *RATIOS, "verdict"]], on="run_id", how="left")
    return rows.sort_values("run_id", key=lambda ids: ids != baseline, kind="stable").reset_index(drop=True)


def with_changes(rows: pd.DataFrame, ladder: pd.DataFrame | None) -> pd.DataFrame:
    """The rows with what each one's own change did, for the runs of the ladder."""
    if ladder is None:
        return rows.assign(**dict.fromkeys(CHANGE))
    return rows.merge(ladder[["run_id", *CHANGE]], on="run_id", how="left")


def show_run_table(rows: pd.DataFrame, key: str) -> list[str]:
    """Draw the table; returns the run ids of the selected rows."""
    rows = rows.reset_index(drop=True)
    shown = rows.assign(gpu_waits=readable.gpu_waits(rows))[list(COLUMNS)]
    shown = shown.drop(columns=[name for name in ALIKE if len(shown) > 1 and shown[name].nunique() <= 1])
    shown = shown.drop(columns=[name for name in KNOWN_BY_SOME if shown[name].isna().all()])
    event = st.dataframe(
        shown.style.apply(_row_style, axis=1, verdicts=rows[list(VERDICTS.values())], dark=is_dark()),
        hide_index=True,
        column_config=COLUMNS,
        on_select="rerun",
        selection_mode="multi-row",
        key=key,
        placeholder="—",
        height=tables.fit(shown),
    )
    return [str(rows["run_id"].iloc[row]) for row in event["selection"]["rows"] if row < len(rows)]


def show_actions(selected: list[str], baseline: str | None, key: str) -> None:
    """Where the selected rows lead: Compare, or the page of the one that is selected."""
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Compare with the baseline", disabled=not selected or baseline is None, key=f"{key}_compare"):
            query = {"baseline": baseline, "run": selected}
            st.switch_page("compare.py", query_params=query)
        if st.button("Open the run", disabled=len(selected) != 1, key=f"{key}_open"):
            st.switch_page("run.py", query_params={"run": selected[0]})
        st.caption("Select rows at their left edge; a click on a column's head sorts.")


def _row_style(row: pd.Series, verdicts: pd.DataFrame, dark: bool) -> list[str]:
    """The status in its colour; ratios blue or orange, but grey where the run failed its checks, and plain where
    spread or drift could explain them."""
    styles = dict.fromkeys(row.index, "")
    if row["status"] != "done":
        styles["status"] = f"color: {palette.ink(palette.status(row['status']), dark)}"
        styles |= dict.fromkeys((*VERDICTS, "memory_ratio"), f"color: {palette.ink(palette.EVEN, dark)}")
    else:
        styles["memory_ratio"] = _memory_style(row["memory_ratio"], dark)
        judged = {name: verdicts.loc[row.name, verdict] for name, verdict in VERDICTS.items()}
        colours = {name: palette.VERDICTS[one] for name, one in judged.items() if one in ("faster", "slower")}
        styles |= {name: f"color: {palette.ink(colour, dark)}" for name, colour in colours.items()}
    return [styles[name] for name in row.index]


def _memory_style(value: Any, dark: bool) -> str:
    if value is None or pd.isna(value) or 0.98 < value < 1.02:
        return ""
    return f"color: {palette.ink(palette.BETTER if value < 1 else palette.WORSE, dark)}"
