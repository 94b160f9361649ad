"""What the CLI prints of records, sweeps and machines: rich tables, and the same as plain data for --json."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from rich.markup import escape
from rich.table import Table

from profiler.combo import BASELINE
from profiler.evidence import facts_in_words, verdict, why_no_verdict
from profiler.machine import Machine
from profiler.record import Imported, Metrics, Record
from runs.job_queue import JobState
from runs.sweep import Sweep

STYLES = {"done": "green", "rejected": "yellow", "ineffective": "magenta", "wrong": "magenta", "imported": "cyan"}
_BESIDE_NAMES = 90  # characters that the other columns of a table of runs need
_SUMMARY_METRICS = ("step_ms", "step_iqr_ms", "samples_per_s", "peak_allocated_gib")


def why_none(records: Sequence[Record], sweep_id: str | None, status: str | None) -> str:
    """Why a list of runs is empty: there are none at all, or how many there are and what they lack."""
    if not records:
        return "no run yet: python -m runs sweep quick"
    asked = [f"is of sweep {sweep_id}"] if sweep_id else []
    asked += [f"has status {status}"] if status else []
    statuses = Counter(record.status for record in records).most_common()
    told = ", ".join(f"{num} {name}" for name, num in statuses)
    return f"none of the {len(records)} runs {' and '.join(asked)}: there are {told}"


def run_row(record: Record) -> dict[str, Any]:
    """One run in a few words."""
    place = record.sweep
    return {
        "run_id": record.run_id,
        "status": record.status,
        "cause": record.cause,
        "combo": record.label,
        "workload": record.workload_label,
        "sweep_id": place.sweep_id if place else None,
        "position": place.position if place else None,
        "role": place.role if place else None,
        "started_at": record.started_at,
        "duration_s": record.duration_s,
        "machine": record.device_name or None,
        **{name: getattr(record.metrics, name) for name in _SUMMARY_METRICS},
    }


def state_row(state: JobState) -> dict[str, Any]:
    """One queued or running job in a few words."""
    return {
        "job_id": state.job.job_id,
        "kind": state.job.kind,
        "state": "held" if state.is_held else state.state,
        "combo": state.job.run_label,
        "workload": state.job.workload.label,
        "sweep_id": state.job.sweep.sweep_id if state.job.sweep else None,
        "stage": state.stage,
        "elapsed_s": state.elapsed_s,
        "place": state.place,
    }


def sweep_row(sweep: Sweep) -> dict[str, Any]:
    """A sweep and its jobs."""
    rejected = {job.job_id: reason for job, reason in sweep.rejected}
    return {
        "sweep_id": sweep.sweep_id,
        "name": sweep.name,
        "num_runs": sweep.num_runs,
        "num_rejected": len(sweep.rejected),
        "estimate_s": round(sweep.estimate.likely_s),
        "estimate_low_s": round(sweep.estimate.low_s),
        "estimate_high_s": round(sweep.estimate.high_s),
        "is_estimate_rough": sweep.estimate.is_rough,
        "jobs": [
            {
                "job_id": job.job_id,
                "kind": job.kind,
                "combo": job.combo.to_dict(),
                "workload": job.workload.to_dict(),
                "role": job.sweep.role if job.sweep else None,
                "reason": sweep.reasons[job.job_id],
                "rejected": rejected.get(job.job_id),
            }
            for job in sweep.jobs
        ],
    }


def runs_table(records: Sequence[Record], title: str, width: int) -> Table:
    """One run a row, its name never broken; in a console that is too narrow for that, what it is stands below it."""
    is_wide = width >= max((len(record.run_id) for record in records), default=0) + _BESIDE_NAMES
    table = Table(title=title, title_justify="left", show_lines=not is_wide)
    table.add_column("run", no_wrap=is_wide, overflow="fold")
    beside = ("status", "workload", "combo", "ms", "samples/s", "peak GiB", "cause") if is_wide else ("status", "ms")
    for name in beside:
        table.add_column(name, justify="right" if name in ("ms", "samples/s", "peak GiB") else "left", overflow="fold")
    for record in records:
        metrics, status = record.metrics, f"[{STYLES.get(record.status, 'red')}]{record.status}[/]"
        repeat = " (repeated)" if record.sweep and record.sweep.role == "baseline_repeat" else ""
        combo, cause = escape(record.label) + repeat, escape(record.cause)
        step, *others = map(number, (metrics.step_ms, metrics.samples_per_s, metrics.peak_allocated_gib))
        if is_wide:
            table.add_row(record.run_id, status, record.workload_label, combo, step, *others, cause)
        else:
            below = filter(None, (record.run_id, f"{record.workload_label} · {combo}", cause))
            table.add_row("\n".join(below), status, step)
    return table


def plan_table(sweep: Sweep) -> Table:
    rejected = {job.job_id: reason for job, reason in sweep.rejected}
    table = Table(title=f"{sweep.name}: {sweep.description}", title_justify="left")
    for name in ("", "workload", "combo", "why it is in the sweep"):
        table.add_column(name, overflow="fold")
    for job in sweep.jobs:
        reason = rejected.get(job.job_id)
        why = f"[yellow]rejected: {reason}[/]" if reason else sweep.reasons[job.job_id]
        if job.kind == "measure":
            table.add_row(str(job.sweep.position if job.sweep else ""), job.workload.label, job.run_label, why)
        else:
            table.add_row("", job.workload.label, "(reference)", why)
    return table


def jobs_table(states: Iterable[JobState]) -> Table:
    table = Table(title="In the queue", title_justify="left")
    for name in ("job", "state", "what", "stage", "since"):
        table.add_column(name, overflow="fold", no_wrap=name == "job")
    for state in states:
        where: str = "held: the sweep's budget ran out" if state.is_held else state.state
        if state.place and not state.is_held:
            where += f", place {state.place}"
        table.add_row(state.job.job_id, where, state.job.label, state.stage, clock(state.elapsed_s))
    return table


def metrics_table(metrics: Metrics) -> Table:
    table = Table(title="Metrics (what is missing could not be measured here)", title_justify="left")
    for name in ("metric", "value", "unit", "meaning"):
        table.add_column(name, justify="right" if name == "value" else "left", overflow="fold")
    for field in fields(metrics):
        value = getattr(metrics, field.name)
        if value is not None:
            table.add_row(field.name, number(value), field.metadata["unit"], field.metadata["help"])
    return table


def evidence_table(record: Record) -> Table:
    table = Table(title="Requested and observed (counts per step)", title_justify="left")
    for name in ("family", "choice", "in the trace", "finding"):
        table.add_column(name, overflow="fold")
    styles = {"confirmed": "[green]confirmed[/]", "not confirmed": "[red]not confirmed[/]"}
    of_run = (record.combo or BASELINE, record.workload.device if record.workload else "cpu")
    for evidence in record.evidence:
        judged = (evidence.family, evidence.choice, evidence.confirmed)
        word, why = verdict(*judged), why_no_verdict(*judged, *of_run)
        facts = facts_in_words({**evidence.facts, **evidence.observed})
        said = ". ".join(filter(None, (evidence.finding or facts, why)))
        table.add_row(evidence.family, evidence.choice, styles.get(word, word), said)
    return table


def imported_table(imported: Imported) -> Table:
    """What the file says, and which views of it are empty."""
    table = Table(title="Imported trace (its choices are unknown)", title_justify="left", show_header=False)
    for name, value in asdict(imported).items():
        if name != "why_empty":
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            table.add_row(name, "not said in the file" if shown in (None, "") else str(shown))
    for view, reason in imported.why_empty.items():
        table.add_row(f"no {view}", reason)
    return table


def machine_table(machine: Machine) -> Table:
    table = Table(title="This machine", title_justify="left", show_header=False)
    for name, value in machine.to_dict().items():
        if value not in (None, "", {}):
            shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(name, shown)
    return table


def number(value: float | int | None) -> str:
    """Four significant digits; nothing for what is unknown."""
    if value is None:
        return ""
    return f"{value:.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


def clock(seconds: float | None) -> str:
    """E.g. '45 s' or '3 min 05 s'."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
