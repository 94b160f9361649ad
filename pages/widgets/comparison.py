"""Compare's parts: which runs, what differs between them, and the table of all metrics."""

import pandas as pd
import streamlit as st

from pages.charts import palette, readable
from pages.charts.ratios import colour_of
from pages.widgets import data, linked, studies, tables, winners
from pages.widgets.chart import is_dark
from profiler.combo import BASELINE, FAMILIES, Combo
from profiler.evidence import replays_graphs
from store import frames

WORKLOAD_FIELDS = ("model", "mode", "batch", "resolution", "device", "machine_label", "torch")
HEADLINES = (
    *("step_ms", "samples_per_s", "peak_allocated_gib", "sample_energy_j", "mfu"),
    *("output_error", "output_error_ratio", "gradient_error", "gradient_error_ratio"),
)
MAX_RUNS = 8


def choose_runs(runs: pd.DataFrame, key: str) -> tuple[str, tuple[str, ...]] | None:
    """The baseline and the runs against it; by default those of the newest study."""
    timed = runs[runs["step_ms"].notna() | (runs["status"] == "imported")]
    if len(timed) < 2:
        return None
    labels = data.run_labels(timed)
    baseline, candidates = _default_choice(list(labels))
    with st.grid(2, min_column_width=420):
        baseline = linked.select("Baseline", labels, f"{key}_baseline", "baseline", default=baseline)
        chosen = linked.select_several(
            "Runs", labels, f"{key}_runs", "run", default=candidates, max_selections=MAX_RUNS, wrap=True
        )
    chosen = [run_id for run_id in chosen if run_id != baseline]
    if not chosen:
        st.info("Choose at least one run besides the baseline.", icon=":material/info:")
        st.stop()
    return baseline, tuple(chosen)


def _default_choice(run_ids: list[str]) -> tuple[str, list[str]]:
    """The baseline and the three fastest runs of Overview's first study; else any two."""
    for sweep_id in studies.best_first(data.read(frames.sweeps))["sweep_id"]:
        first, *rest = winners.why_run_ids(studies.first_workload(data.read(frames.ladder, sweep_id))) or ("",)
        if first in run_ids and rest:
            return first, rest
    return run_ids[0], run_ids[1:2]


def show_differences(runs: pd.DataFrame, against: pd.DataFrame) -> None:
    """Only the choices and conditions in which the runs differ; and the pairs that must not be divided."""
    rows = runs.set_index("run_id").loc[against["run_id"]]  # the baseline is the first of them
    columns = [*FAMILIES, *(name for name in WORKLOAD_FIELDS if name in rows)]
    differing = [name for name in columns if rows[name].nunique(dropna=False) > 1]
    table = rows[["combo_label", *differing, "status"]].rename(columns={"combo_label": "combo"})
    table.insert(0, "role", ["baseline", *(f"run {number}" for number in range(1, len(table)))])
    st.dataframe(table, hide_index=True, placeholder="—", height=tables.fit(table))
    for row in against[~against["comparable"].astype(bool)].itertuples(index=False):
        st.warning(f"{row.combo_label} has no ratio: {row.why_not_comparable}.", icon=":material/block:")


def say_replayed(runs: pd.DataFrame, run_ids: tuple[str, ...]) -> None:
    """What the charts of traces cannot tell of the runs that replay CUDA graphs."""
    rows = runs.set_index("run_id").loc[list(run_ids)]
    rows = rows[rows["combo_key"].notna()]
    replayed = [
        row["combo_label"]
        for _, row in rows.iterrows()
        if replays_graphs(Combo.from_dict(row[list(FAMILIES)].dropna().to_dict()), row["device"])
    ]
    if replayed:
        st.caption(
            f":material/info: A replayed CUDA graph ({', '.join(dict.fromkeys(replayed))}) runs kernels without "
            "operators, in memory that was set aside at its recording: its trace knows no modules, and most of its "
            "peak is untraced. That is no failure; times and peaks of the timed steps are as true as any."
        )


def choose_metric(rows: pd.DataFrame, key: str) -> str:
    """The metric that the chart shows, of those that two of the runs have."""
    known = rows.loc[rows["ratio"].notna(), "metric"].unique().tolist()
    options = [name for name in HEADLINES if name in known] or known or ["step_ms"]
    return st.segmented_control("Metric", options, default=options[0], required=True, key=key, bind="query-params")


def say_what_differs(rows: pd.DataFrame, metric: str, drift: float | None) -> None:
    """Under the chart: which dots are no difference, and of a metric that is itself a ratio what each run's is of."""
    own = rows[(rows["metric"] == metric) & rows["ratio"].notna()]
    signs = ["a dot inside the grey band"] if drift and own["is_timed"].any() else []
    signs += ["a whisker across 1×"] if own["ratio_low"].notna().any() else []
    if signs:
        st.caption(f"{' or '.join(signs).capitalize()} is no difference.")
    divided = own[own["divisor"].notna()]
    if len(divided):
        st.caption(_divisors_in_words(divided, metric))


def _divisors_in_words(rows: pd.DataFrame, metric: str) -> str:
    baseline = readable.number(rows["baseline_divisor"].iloc[0])
    each = ", ".join(f"{row.label} {readable.number(row.divisor)}" for row in rows.itertuples(index=False))
    if metric.endswith("error_ratio"):
        return (
            f"Each error is over that of plain eager at its own run's precision: baseline {baseline}, {each}. Between "
            f"precisions such ratios are not judged: {metric.removesuffix('_ratio')} itself tells the runs apart."
        )
    return (
        f"Each share is of its own run's ceiling, in TFLOP/s: baseline {baseline}, {each}. Shares of different "
        "ceilings (a precision has its own) are neither better nor worse than one another."
    )


def pinned(runs: pd.DataFrame, baseline: str) -> str:
    """What heads the first column: the combo that all others are compared with."""
    label = str(runs.set_index("run_id").loc[baseline, "combo_label"])
    return label if label == BASELINE.label else f"against {label}"


def show_metric_table(rows: pd.DataFrame, key: str, *, baseline: str, drift: float | None) -> None:
    """One row per metric: the value of the run called baseline, then each run's value and ratio, coloured as in the
    chart."""
    names = [f"{row.metric} ({row.unit})" if row.unit else row.metric for row in rows.itertuples(index=False)]
    cells = [
        f"{readable.metric(r.metric, r.value)}  {readable.times(r.ratio):>8}" for r in rows.itertuples(index=False)
    ]
    long = rows.assign(name=names, cell=cells, style=[_style(row, drift) for _, row in rows.iterrows()])
    order, runs = long["name"].drop_duplicates(), long["label"].drop_duplicates()
    shown = long.pivot(index="name", columns="label", values="cell").reindex(index=order, columns=runs)
    colours = long.pivot(index="name", columns="label", values="style").reindex(index=order, columns=runs).fillna("")
    plain = long.drop_duplicates("name").set_index("name")
    # Two runs may have one label: the space keeps the columns apart.
    pinned = [readable.metric(row.metric, row.baseline_value) for row in plain.loc[order].itertuples()]
    shown.insert(0, f"{baseline} ", pinned)
    shown.insert(0, "metric", shown.index)
    config = {name: st.column_config.TextColumn(alignment="right", width=170) for name in shown.columns[1:]}
    for name, heading in zip(runs, headings(list(runs)), strict=True):
        config[name] = st.column_config.TextColumn(heading, help=name, alignment="right", width=170)
    config["metric"] = st.column_config.TextColumn("Metric", pinned=True, width=230)
    shown, colours = (
        shown.reset_index(drop=True),
        colours.reset_index(drop=True).reindex(columns=shown.columns, fill_value=""),
    )
    styled = shown.style.apply(lambda _: colours, axis=None)
    st.dataframe(
        styled, hide_index=True, column_config=config, key=key, height=tables.fit(shown, most=18), placeholder="—"
    )


def headings(labels: list[str]) -> list[str]:
    """Numbers of runs, as in the table of differences, and what only some of them chose: a column is too narrow for
    more."""
    chosen = [label.split(" · ") for label in labels]
    shared = set(chosen[0]).intersection(*chosen[1:]) if len(labels) > 1 else set()
    every = list(dict.fromkeys(choice for choices in chosen for choice in choices))
    own = [" · ".join(choice for choice in choices if choice not in shared) for choices in chosen]
    lacks = ["without " + ", ".join(choice for choice in every if choice not in choices) for choices in chosen]
    return [f"{number}: {has or lack}" for number, (has, lack) in enumerate(zip(own, lacks, strict=True), start=1)]


def _style(row: pd.Series, drift: float | None) -> str:
    """The colour of a ratio: better, worse, or none."""
    if pd.isna(row["ratio"]) or row["ratio"] <= 0:
        return ""
    low, high = row["ratio_low"], row["ratio_high"]
    drift = drift if row["is_timed"] else None
    colour = colour_of(row["ratio"], low, high, better=str(row["better"] or ""), drift=drift)
    return "" if colour == palette.EVEN else f"color: {palette.ink(colour, is_dark())}"
