"""Studies: which sweep and workload a page shows; and what is worth saying about it before any chart."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.charts import readable
from pages.widgets import data, linked
from profiler.workload import ZOO
from store import frames, labels

FACTS = {  # of a workload, in the order of its label
    **{"models": "model_label", "modes": "mode", "batches": "batch"},
    **{"resolutions": "resolution", "devices": "device"},
}
FEW = 4  # workloads that stand side by side on a narrow page


def choose_study(key: str) -> tuple[pd.Series, pd.DataFrame] | None:
    """A sweep and, where it holds several workloads, one of them; returns the sweep and that workload's runs."""
    sweeps = data.read(frames.sweeps)
    if sweeps.empty:
        return None
    sweeps = best_first(sweeps).set_index("sweep_id", drop=False)
    runs = data.read(frames.runs)
    of_sweep = dict(iter(runs[runs["status"] != "imported"].groupby(runs["sweep_id"].fillna(labels.SINGLE_RUNS))))
    options = {sweep_id: _label(row, of_sweep[sweep_id]) for sweep_id, row in sweeps.iterrows()}
    linked.say_unknown(options, "study", "another")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = linked.select("Study", options, f"{key}_study", "study", default=sweeps.index[0], width=620)
        ladder = data.read(frames.ladder, chosen)
        runs = runs[runs["run_id"].isin(ladder["run_id"])]
        runs = runs.sort_values(["sweep_position", "started_at"], ascending=[True, False], kind="stable")
        workloads = runs["workload_label"].drop_duplicates().tolist()
        workload = workloads[0]
        if len(workloads) > 1:
            place = {"key": f"{key}_workload", "bind": "query-params"}
            if len(workloads) <= FEW:
                workload = st.segmented_control("Workload", workloads, default=workload, required=True, **place)
            else:
                workload = st.selectbox("Workload", workloads, width=320, **place)
    return sweeps.loc[chosen], runs[runs["workload_label"] == workload]


def best_first(sweeps: pd.DataFrame) -> pd.DataFrame:
    """The sweeps of this machine, the newest first, then the recorded ones; last stand the runs of no sweep.

    Of the recorded ones ladders come first, those of inference before those of training: they tell the whole story,
    where other studies ask one question. sweeps: store.frames.sweeps.
    """
    asks_one = sweeps["is_recorded"] & ~sweeps["sweep_name"].str.startswith("ladder_")
    trains = sweeps["is_recorded"] & (sweeps["sweep_name"] == "ladder_train")
    is_single = sweeps["sweep_id"] == labels.SINGLE_RUNS
    sorts = {"is_single": is_single, "is_recorded": sweeps["is_recorded"], "asks_one": asks_one, "trains": trains}
    return sweeps.loc[pd.DataFrame(sorts).sort_values(list(sorts), kind="stable").index]


def study_ladder(sweep: pd.Series, runs: pd.DataFrame) -> pd.DataFrame:
    """The ladder rows of these runs alone (a sweep may hold several workloads)."""
    rows = data.read(frames.ladder, sweep["sweep_id"])
    return rows[rows["run_id"].isin(runs["run_id"])].reset_index(drop=True)


def rows_build_on(sweep: pd.Series) -> str:
    """What the labels of the ladder's rows stand for: whether they add up from row to row, in a sentence."""
    name = sweep["sweep_name"]
    if name in labels.AGAINST_BASELINE:
        return "Rows do not add up: each holds the choices that it names, and the baseline's for all others."
    if name in labels.AGAINST_STACK:
        return "Rows do not add up: each is the whole stack with the one choice changed that it names."
    return (
        "Rows add up: each keeps what the earlier row that is most like it has, and says what it adds (+), in place of "
        "what (for), or takes away (-): its change is that alone. What only a branch adds, later rows lack."
    )


def show_environment(runs: pd.DataFrame) -> None:
    """One line: where these numbers come from and what to keep in mind with them."""
    record = data.read(frames.record, str(runs["run_id"].iloc[0]))
    st.caption(" · ".join(environment(record)))


def environment(record: dict[str, Any]) -> list[str]:
    """The device, the versions that matter, and the two cautions that belong beside every number."""
    machine = record.get("machine") or {}
    on_gpu = record["workload"]["device"] == "cuda"
    if on_gpu:
        gpu = f"{machine.get('gpu_name')} ({readable.number(machine.get('gpu_memory_gib'), 'GiB')})"
        facts = [gpu, f"driver {machine.get('driver')}", f"CUDA {machine.get('cuda')}", f"cuDNN {machine.get('cudnn')}"]
    else:
        facts = [f"{machine.get('cpu_name')}, {machine.get('num_cpus')} cores"]
    facts = [fact for fact in facts if "None" not in fact]
    facts += [f"torch {machine['torch']}"] if machine.get("torch") else []
    facts.append("clocks not locked: judge differences by their intervals")
    if record["workload"]["model"] in ZOO:
        facts.append("random weights: times and memory are the real model's, its images are not")
    return facts


def _label(sweep: pd.Series, runs: pd.DataFrame) -> str:
    when = f"{sweep['started_at']:%d %b %Y %H:%M}" if pd.notna(sweep["started_at"]) else "not started"
    origin = "recorded " if sweep["is_recorded"] else ""
    name = "single runs" if sweep["sweep_id"] == labels.SINGLE_RUNS else sweep["sweep_name"]
    workload, machine = in_common(runs), sweep["machine_label"] or "no machine"
    return f"{origin}{name} · {workload} · {machine} · {when}"


def in_common(runs: pd.DataFrame) -> str:
    """What the workloads of these runs share, and how many of what differs: 'sd15 inference, 7 batches'.

    runs: rows of store.frames.runs.
    """
    facts = {name: runs[column].dropna().drop_duplicates() for name, column in FACTS.items()}
    values = {name: each.astype(str).tolist() for name, each in facts.items()}
    values["batches"] = [f"b{batch}" for batch in values["batches"]]
    values["resolutions"] = [f"{side} px" for side in values["resolutions"]]
    if all(len(each) <= 1 for each in values.values()):
        return str(runs["workload_label"].iloc[0])
    if len(values["models"]) > 1 or len(values["resolutions"]) == 1:
        del values["resolutions"]  # each model has its own, and of one nobody asks
    if len(values["devices"]) == 1:
        del values["devices"]
    shared = " ".join(same[0] for same in values.values() if len(same) == 1)
    counts = [f"{len(each)} {name}" for name, each in values.items() if len(each) > 1]
    return ", ".join([shared, *counts] if shared else counts)


def first_workload(rows: pd.DataFrame) -> pd.DataFrame:
    """The ladder rows of the sweep's first workload."""
    workloads = data.read(frames.runs).set_index("run_id")["workload_label"]
    own = rows["run_id"].map(workloads)
    return rows[own == own.iloc[0]] if len(rows) else rows
