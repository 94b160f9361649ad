"""One function per question about the runs; each returns a DataFrame with the same columns when it is empty.

They read what the last store.ingest.sync() indexed. Ratios pair only runs of one device, boot and workload; where
they must not be formed they are null, and why_not_comparable says why. Raises StoreError when there is no index.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from profiler.combo import FAMILIES
from profiler.record import BUSY, DROPOUT, Record
from store import db, fits, folders, labels, learning, ratios, studies
from store.db import Connection, StoreError
from store.run_files import (
    alive,
    allocator,
    curves,
    losses,
    memory_timeline,
    peak_parts,
    recompute_ledger,
    telemetry,
    trace_modules,
)

__all__ = [
    "alive",
    "allocator",
    "comparison",
    "contributions",
    "covering",
    "curves",
    "departures",
    "disturbed_runs",
    "durations",
    "evidence",
    "interactions",
    "kernel_categories",
    "kernels",
    "ladder",
    "largest_batch",
    "memory_timeline",
    "metric_ratios",
    "peak_parts",
    "recompute_ledger",
    "record",
    "runs",
    "samples",
    "scaling",
    "sweeps",
    "telemetry",
    "trace_modules",
    "without_tables",
]

_UNKNOWN = "no run {} in the index: see python -m store runs"


def runs(*, database: Path | None = None) -> pd.DataFrame:
    """One row per run, the newest first."""
    return _query("runs", database)


def sweeps(*, database: Path | None = None) -> pd.DataFrame:
    """One row per sweep, the newest first, then one of the runs that belong to none (labels.SINGLE_RUNS).

    is_recorded marks the studies that ship with Steplens.
    """
    return _query("sweeps", database, recorded_root=str(folders.RECORDED_ROOT), single_runs=labels.SINGLE_RUNS)


def ladder(sweep_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per run of a sweep, in its order, against the sweep's baseline of the same device, boot and workload.

    speedup is the baseline's median over the run's, with its 95% interval; memory_ratio the run's peak over the
    baseline's; drift how far the baseline's own repetitions are apart (0.02: 2%). change_speedup and
    change_memory_ratio are the same against builds_on, the run that step_label builds on: the stack, or the earlier
    rung most like it (null where store.labels.bases knows none). Of labels.SINGLE_RUNS each is set against the nearest
    run of the baseline, whose row stands among them.
    """
    with db.reading(db.chosen(database)) as connection:
        return _ladder(connection, sweep_id)[0]


def interactions(sweep_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per two choices that a sweep ran together and each alone (the study pairs).

    interaction is speedup(both) / (speedup(first) x speedup(second)) with its 95% interval: 1 is none. verdict: help,
    overlap, independent, or unknown with why_unknown. why_doubtful names runs of the pair that wait for launches.
    """
    with db.reading(db.chosen(database)) as connection:
        rows, runs = _ladder(connection, sweep_id)
        return studies.interactions(rows, runs, _samples_of(connection, _with_baselines(rows)))


def contributions(sweep_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per choice: what it buys alone (one_at_a_time), or what the stack loses without it (leave_one_out).

    gain is a ratio of step times with its 95% interval, memory_gain one of peaks: above 1 the choice pays.
    """
    with db.reading(db.chosen(database)) as connection:
        rows, runs = _ladder(connection, sweep_id)
    takes_away = (runs["sweep_name"] == "leave_one_out").any()
    return studies.without(rows, runs) if takes_away else studies.alone(rows, runs)


def scaling(sweep_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per size and series (baseline, stack) of a scaling study: x is batch, pixels or million parameters.

    samples_per_s has its 95% interval; step_ms, step_iqr_ms and launch_verdict are the run's own. A run that did not
    fit keeps its row, with status and cause.
    """
    with db.reading(db.chosen(database)) as connection:
        rows, runs = _ladder(connection, sweep_id)
        return studies.scaling(rows, runs, _samples_of(connection, rows["run_id"].tolist()))


def covering(sweep_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per two choices of different families in a sweep: how many runs hold both, and the best of their ends."""
    with db.reading(db.chosen(database)) as connection:
        return studies.covering(*_ladder(connection, sweep_id))


def comparison(baseline_run_id: str, run_ids: Sequence[str], *, database: Path | None = None) -> pd.DataFrame:
    """One row per run, the baseline first, as in ladder; then comparable, and a column for each family that differs."""
    run_ids = list(dict.fromkeys([baseline_run_id, *run_ids]))
    with db.reading(db.chosen(database)) as connection:
        frame = _against(connection, run_ids, [baseline_run_id] * len(run_ids))
        choices = _by_id(connection, frame["run_id"])
    frame["comparable"] = frame["why_not_comparable"].isna()
    for family in FAMILIES:
        if choices[family].nunique() > 1:
            frame[family] = choices[family]
    return frame


def metric_ratios(baseline_run_id: str, run_ids: Sequence[str], *, database: Path | None = None) -> pd.DataFrame:
    """One row per run and metric that either of the two knows: value, the baseline's, and their ratio.

    The ratio is value / baseline_value whichever way is better ('lower', 'higher' or ''); the sampled metrics
    have a 95% interval.
    """
    run_ids = list(dict.fromkeys(run_ids))
    with db.reading(db.chosen(database)) as connection:
        pairs = _against(connection, run_ids, [baseline_run_id] * len(run_ids))
        values = _by_id(connection, [*run_ids, baseline_run_id])
        sampled = _samples_of(connection, [*run_ids, baseline_run_id])
    if baseline_run_id not in set(values["run_id"]):
        raise StoreError(_UNKNOWN.format(baseline_run_id))
    return ratios.metric_ratios(pairs, values.assign(label=labels.runs(values)), sampled)


def kernel_categories(run_ids: Sequence[str], *, database: Path | None = None) -> pd.DataFrame:
    """One row per run and kernel category: its time per step, and its share of all kernel time.

    idle_ms is what is left of the run's timed step (null on a CPU); of_whole_trace marks a trace without steps.
    """
    return _query("kernel_categories", database, run_ids=list(run_ids))


def kernels(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per kernel, operator and phase, the longest first; calls and times per step."""
    return _query("kernels", database, run_id=run_id)


def largest_batch(run_ids: Sequence[str], *, database: Path | None = None) -> pd.DataFrame:
    """One row per run and batch measured of the same combo on the same kind of device (or out of memory there).

    predicted_gib is the peak as a line through the two batches below has it, error how far that was off. line_batch,
    largest_batch, verdict and the earlier prediction are as store.fits.largest_batch says; unknown is null.
    """
    return fits.largest_batch(_query("same_but_batch", database, run_ids=list(dict.fromkeys(run_ids))))


def departures(run_ids: Sequence[str], *, database: Path | None = None) -> pd.DataFrame:
    """One row per training run of run_ids whose loss in the first steps leaves that of the other runs of its study.

    How far, and from whom, store.learning.departures says. Not judged are runs of no study, those that
    same_training.sql leaves out, and those of a UNet with dropout, where no two runs draw the same masks.
    """
    rows = _query("same_training", database, run_ids=list(run_ids))
    found = [learning.departures(rows.head(0), {})]
    for _, study in rows.groupby("study"):
        if not _has_dropout(study["run_id"].iloc[0], database):
            by_run = {run_id: losses(run_id, database=database) for run_id in study["run_id"]}
            found.append(learning.departures(study, by_run))
    left = pd.concat(found, ignore_index=True)
    return left[left["run_id"].isin(list(run_ids))].reset_index(drop=True)


def samples(run_ids: Sequence[str], *, database: Path | None = None) -> pd.DataFrame:
    """One row per sample behind the runs' medians, in the order measured."""
    return _query("samples", database, run_ids=list(run_ids))


def evidence(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per family that the run applied: what was asked and done, and what the trace says of it."""
    return _query("evidence", database, run_id=run_id)


def record(run_id: str, *, database: Path | None = None) -> dict[str, Any]:
    """All of record.json. Raises StoreError when the run is not indexed or its folder has gone."""
    try:
        return Record.read(folders.of_run(run_id, db.chosen(database))).to_dict()
    except (OSError, ValueError) as error:
        raise StoreError(f"the record of run {run_id} cannot be read ({error}): python -m store sync") from error


def disturbed_runs(run_ids: Sequence[str], *, database: Path | None = None) -> tuple[str, ...]:
    """Those of the runs that were timed while other programs kept the machine's cores busy, or used its GPU."""
    records = [record(run_id, database=database) for run_id in run_ids]
    return tuple(
        str(one["run_id"])
        for one in records
        if one["contaminated"] or any(note.startswith(BUSY) for note in one["notes"])
    )


def without_tables(run_ids: Sequence[str], *, database: Path | None = None) -> tuple[str, ...]:
    """Those of the runs that were traced, but whose folders were packed without the tables of the traced step."""
    with db.reading(db.chosen(database)) as connection:
        return tuple(str(run_id) for (run_id,) in db.rows(connection, "without_tables", run_ids=list(run_ids)))


def durations(*, database: Path | None = None) -> pd.DataFrame:
    """One row per measured run of this home: its kind, as runs.estimate tells them apart, and the seconds it took."""
    return _query("durations", database, root=str(folders.own_root()))


def _query(name: str, database: Path | None, **parameters: Any) -> pd.DataFrame:
    with db.reading(db.chosen(database)) as connection:
        return db.query(connection, name, **parameters)


def _has_dropout(run_id: str, database: Path | None) -> bool:
    return any(note.startswith(DROPOUT) for note in record(run_id, database=database)["notes"])


def _ladder(connection: Connection, sweep_id: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The ladder's rows, and every scalar of the same runs in the same order."""
    is_single = sweep_id == labels.SINGLE_RUNS
    pairs = db.rows(connection, "single_pairs") if is_single else db.rows(connection, "sweep_pairs", sweep_id=sweep_id)
    run_ids, baselines = [run for run, _ in pairs], [baseline for _, baseline in pairs]
    scalars = _by_id(connection, run_ids)
    if is_single:
        scalars = labels.as_study(scalars)
    bases = [None if place is None else run_ids[place] for place in labels.bases(scalars)]
    # in one query: to plan it takes longer than to run it
    both = _against(connection, run_ids * 2, baselines + bases)
    frame, changes = both[: len(run_ids)].copy(), both[len(run_ids) :].reset_index(drop=True)
    if is_single:
        frame[["sweep_position", "sweep_role"]] = scalars[["sweep_position", "sweep_role"]]
    frame.insert(4, "step_label", pd.Series(labels.steps(scalars), dtype="str"))
    return ratios.with_changes(frame, changes), scalars


def _with_baselines(rows: pd.DataFrame) -> list[str]:
    return [*rows["run_id"], *rows["baseline_run_id"].dropna()]


def _against(connection: Connection, run_ids: list[str], baseline_run_ids: list[str | None]) -> pd.DataFrame:
    frame = db.query(connection, "paired", run_ids=run_ids, baseline_run_ids=baseline_run_ids)
    baselines = [run_id for run_id in baseline_run_ids if run_id is not None]
    return ratios.with_verdicts(frame, _samples_of(connection, [*run_ids, *baselines]))


def _by_id(connection: Connection, run_ids: Sequence[str]) -> pd.DataFrame:
    return db.query(connection, "runs_by_id", run_ids=list(run_ids))


def _samples_of(connection: Connection, run_ids: list[str]) -> dict[tuple[str, str], Any]:
    """Sample values by run and metric."""
    frame = db.query(connection, "samples", run_ids=list(dict.fromkeys(run_ids)))
    return {key: group.to_numpy() for key, group in frame.groupby(["run_id", "metric"])["value"]}
