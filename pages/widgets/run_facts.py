"""One run in words and tables: what it is, how it ended, its kernels, its evidence, where it ran."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.charts import readable
from pages.charts.curves import THIS
from pages.widgets import data, imported, linked, tables
from pages.widgets.jobs import status_badge
from profiler.combo import Combo
from profiler.evidence import NO_MARK, verdict, why_no_verdict
from profiler.record import CONTAMINATED, Record
from store import frames

Column = st.column_config
SEVERITY = {
    "rejected": st.info,
    "cancelled": st.info,
    "oom": st.warning,
    "ineffective": st.warning,
    "wrong": st.warning,
}
PER_STEP = 2  # the record schema since which a Triton kernel and the operator that launches it count once
VERDICTS = {
    "confirmed": ":blue[confirmed]",
    "not confirmed": ":orange[**not confirmed**]",
    "out of sight": ":gray[out of sight]",
    "nothing to show": ":gray[nothing to show]",
}


def choose_run(runs: pd.DataFrame) -> str | None:
    """The run of the page's address, or one from the list."""
    if runs.empty:
        return None
    labels = data.run_labels(runs.sort_values("started_at", ascending=False))
    linked.say_unknown(labels, "run", "the newest one")
    return linked.select("Run", labels, "run_run", "run", width=720)


def show_title(record: dict[str, Any]) -> None:
    """Name and status, then where the run stands and what can be followed from it."""
    run, sweep = Record.from_dict(record), record.get("sweep")
    label = readable.escaped(run.label) if run.imported else run.label
    st.header(f"{label} {status_badge(record['status'])}", anchor=False)
    facts = [run.workload_label, readable.escaped(run.device_name)]
    facts += [record["started_at"][:19].replace("T", " ") + " UTC" if record["started_at"] else None]
    facts += [f"took {readable.duration(record['duration_s'])}" if record["duration_s"] else None]
    facts += [
        f"{sweep['name']} {sweep['position'] + 1}/{sweep['num_jobs']}" if sweep else None,
        _pace(record),
    ]
    facts.append(record["run_id"])
    st.caption(" · ".join(fact for fact in facts if fact))


def _pace(record: dict[str, Any]) -> str | None:
    """Who sets the pace, by which share: e.g. 'partly launch-bound (GPU busy 88%)'; None where nobody can tell."""
    verdict, share = record["launch_verdict"], record["metrics"]["gpu_busy_share"]
    return verdict if share is None else verdict and f"{verdict} (GPU busy {readable.percent(min(1.0, share))})"


def show_outcome(record: dict[str, Any]) -> None:
    """Why the run is not done, its traceback, and what the reader of its numbers must know."""
    if record["status"] not in ("done", "imported"):
        SEVERITY.get(record["status"], st.error)(record["cause"] or f"{record['status']}, no cause was recorded")
    if record["traceback"]:
        with st.expander("Traceback"):
            st.code(record["traceback"], language="python")
    if record["contaminated"]:
        st.warning(f"{CONTAMINATED.capitalize()}.")
    for note in () if record["imported"] else record["notes"]:  # those of a trace stand with its other facts
        st.caption(f":material/info: {readable.escaped(note)}")


def show_kernels(rows: pd.DataFrame, record: dict[str, Any]) -> None:
    """The kernels, the longest first. On a CPU each row is an operator, with its self time."""
    if rows.empty:
        st.caption("This run has no trace with kernels.")
        return
    columns = {
        "name": Column.TextColumn("Kernel" if _has_kernels(record) else "Operator", width="large"),
        "category": Column.TextColumn("Category", width=110),
        "total_ms": Column.NumberColumn(f"{per(record)} (ms)", format="%.3f"),
        "share": Column.ProgressColumn("Share", format="percent", max_value=float(rows["share"].max() or 1)),
        "num_calls": Column.NumberColumn("Calls", format="%.0f"),
        "mean_us": Column.NumberColumn("Mean (µs)", format="%.1f"),
        "op": Column.TextColumn("Launched by"),
        "phase": Column.TextColumn("Phase", width=90),
    }
    shown = rows[[name for name in columns if name in rows and rows[name].notna().any()]]
    st.dataframe(shown, hide_index=True, column_config=columns, placeholder="—", height=tables.fit(shown, most=10))


def per(record: dict[str, Any]) -> str:
    """What a trace's sums are of."""
    return "Whole trace" if Record.from_dict(record).of_whole_trace else "Per step"


def _has_kernels(record: dict[str, Any]) -> bool:
    """Whether its trace is of a GPU."""
    if record["imported"]:
        return "gpu" not in record["imported"]["why_empty"]
    return bool(record["workload"]["device"] == "cuda")


def baseline_of(record: dict[str, Any]) -> str | None:
    """The baseline of the run's sweep; None for the baseline itself, and where there is none."""
    if not record["sweep"]:
        return None
    rows = data.read(frames.ladder, record["sweep"]["sweep_id"]).set_index("run_id")
    baseline = rows["baseline_run_id"].get(record["run_id"])
    return baseline if isinstance(baseline, str) and baseline != record["run_id"] else None


def curves(record: dict[str, Any]) -> pd.DataFrame:
    """The run's curves, and the loss of its sweep's baseline beside them."""
    own = data.read(frames.curves, record["run_id"]).assign(run=THIS)
    baseline = baseline_of(record)
    if baseline is None or own.empty:
        return own
    other = data.read(frames.curves, baseline)
    return pd.concat([own, other[other["name"] == "loss"].assign(run="the baseline")], ignore_index=True)


def link_comparison(record: dict[str, Any]) -> None:
    """The way to Compare, against the baseline of the run's sweep."""
    baseline = baseline_of(record)
    if baseline:
        query = {"baseline": baseline, "run": record["run_id"]}
        st.page_link(
            "compare.py", label="Compare with its baseline", icon=":material/compare_arrows:", query_params=query
        )


def show_evidence(rows: pd.DataFrame, record: dict[str, Any]) -> None:
    """What each family was asked to do, what it did, and what the trace says of it."""
    attention = ", ".join(f"{name} {calls}" for name, calls in record["attention_observed"].items())
    if attention:
        asked = record["combo"]["attention"]
        st.markdown(
            f"Attention asked for: **{asked}**. Calls per step observed, forward and backward: **{attention}**."
        )
    if record["imported"]:
        st.caption("Nothing was requested: a foreign trace does not say with which choices it was made.")
        return
    if rows.empty:
        st.caption("This run changed nothing, or ended before its trace could be checked.")
        return
    of_run = Combo.from_dict(record["combo"]), record["workload"]["device"]
    judged = list(zip(rows["family"], rows["choice"], rows["confirmed"].astype(object).map(_known), strict=True))
    unseen = [why_no_verdict(*one, *of_run) for one in judged]
    found = rows["finding"].fillna("").map(readable.escaped)
    table = pd.DataFrame(
        {
            "Family": rows["family"],
            "Requested": rows["choice"],
            "Verdict": [VERDICTS[verdict(*one)] for one in judged],
            "What was done": rows["facts"].fillna("").map(readable.escaped),
            "Observed in the trace, per step": rows["observed"].fillna("").map(readable.escaped),
            "Finding": [_grey(why) if why else said for why, said in zip(unseen, found, strict=True)],
        }
    )
    # A table of text wraps where a data frame would cut.
    st.table(table if table["Finding"].any() else table.drop(columns="Finding"), hide_index=True)
    told = {
        "out of sight": "What is out of sight was applied, and is no failure: nothing in the trace could show it.",
        "nothing to show": f"Nothing to show: {NO_MARK}.",
    }
    if said := [why for word, why in told.items() if word in {verdict(*one) for one in judged}]:
        st.caption(" ".join(said))
    if record["schema_version"] < PER_STEP:
        st.caption("This run was recorded before compiled kernels counted once: its Triton kernels are twice as many.")


def _known(value: Any) -> bool | None:
    return None if pd.isna(value) else bool(value)


def _grey(text: str) -> str:
    return f":gray[{readable.escaped(text)}]"


def show_environment(record: dict[str, Any]) -> None:
    """Where the run ran, and what was asked in full."""
    with st.expander("Environment and full specification"):
        machine = record.get("machine") or {}
        left, middle, right = st.columns(3)
        left.markdown("**Machine**")
        left.json(machine, expanded=1)
        middle.markdown("**Combo and workload**")
        middle.json((record["combo"] or {}) | (record["workload"] or {}) or {"unknown": imported.UNSAID}, expanded=1)
        right.markdown("**Reference, variables, code**")
        more = ("reference", "variables", "git_commit", "trace_file", "schema_version")
        right.json({name: record.get(name) for name in more}, expanded=2)
