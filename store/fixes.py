"""What to fix first: the parts of a step that could go away, by how much time each could give back at most.

A part is ranked by what its remedy can win, not by its size: convolutions at their roof are large and stay. Where a
run of the same workload, device and boot differs in the remedy alone, its measured gain takes the place of the bound.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from profiler.combo import ATTENTION_KERNELS, Combo, choices
from profiler.record import Record
from profiler.why_not import why_not
from store import db, folders, views
from store.remedies import Candidate, Seen, candidates

LARGER = "a larger batch"
# How far a choice goes in saving time; of the families that are not here the baseline 0, and all others 1. Choices that
# go as far may be exchanged for each other; one that goes less far is a step back.
REACH: Mapping[str, Mapping[str, int]] = {
    "precision": {"fp32": 0, "tf32": 1, "bf16_amp": 2, "fp16_amp": 2, "bf16": 2, "fp16": 2},
    "fusion": {"none": 0, "qkv": 1, "norm_act": 1, "geglu": 1, "all": 2},
    "checkpointing": {"full": 0, "selective": 1, "alternate": 1, "none": 2},
    "optimizer": {name: place for place, name in enumerate(choices("optimizer"))},
    "compilation": {name: place for place, name in enumerate(choices("compilation"))},
}
LEAST_SHARE = 0.01  # of the step: less is not worth a sentence
RUNS_ALREADY, UNTRIED = "its kernel runs already", "untried here"
ELSEWHERE = "measured in other combinations only"
IMPOSSIBLE = "not possible with this combination on the machine of this run"
COLUMNS = {
    "what": "str", "saves_ms": "float64", "share": "float64", "is_measured": "boolean", "why": "str", "remedy": "str",
    "run_id": "str",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What other runs of the same workload tell.

    siblings: by combo_key the fastest run and its step_ms, None where none is done. choices: each family and choice
    that a done run had, in any combo.
    """

    siblings: Mapping[str, tuple[str | None, float | None]]
    choices: frozenset[tuple[str, str]]


def fixes(run_id: str, *, database: Path | None = None) -> pd.DataFrame:
    """One row per thing to fix, the most time first: saves_ms per step is measured or, else, a bound from above."""
    database = db.chosen(database)
    folder = folders.of_run(run_id, database)
    with db.reading(database) as connection:
        tried = Tried(
            siblings={key: (run, ms) for key, run, ms in db.rows(connection, "siblings", run_id=run_id)},
            choices=frozenset(
                (family, name) for family, name in db.rows(connection, "choices_measured", run_id=run_id)
            ),
        )
    summary, parts, products = views.parts_and_roofline(views.place_of(run_id, folder))
    if summary is None:
        return _frame([])
    seen = Seen(
        record=Record.read(folder),
        summary=summary,
        parts=parts.groupby("part")["step_ms"].sum().to_dict(),
        phases=parts.groupby("phase")["step_ms"].sum().to_dict(),
        roofline=products,
    )
    return rank(seen, tried)


def rank(seen: Seen, tried: Tried) -> pd.DataFrame:
    """The candidates that are worth a sentence, by what was tried beside the run."""
    rows = [_row(one, seen, tried) for one in candidates(seen)]
    kept = [row for row in rows if row["share"] >= LEAST_SHARE]
    return _frame(_folded(sorted(kept, key=lambda row: -row["saves_ms"])))


def _folded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each remedy once, with the most that it could win: what else it is good for stands beside it, and may overlap."""
    first: dict[str, dict[str, Any]] = {}
    others: dict[str, list[str]] = {}
    for row in rows:
        if first.setdefault(row["remedy"], row) is not row:
            said = f"{row['what'][0].lower()}{row['what'][1:]} ({row['most_ms']:.3g} ms)"
            others.setdefault(row["remedy"], []).append(said)
    for remedy, words in others.items():
        first[remedy]["why"] += f". The same helps here: {', '.join(words)}"
    return list(first.values())


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _row(one: Candidate, seen: Seen, tried: Tried) -> dict[str, Any]:
    row: dict[str, Any] = {
        "what": one.what,
        "saves_ms": one.most_ms,
        "is_measured": False,
        "why": one.why,
        "run_id": None,
    }
    row |= {"remedy": one.otherwise or LARGER, "most_ms": one.most_ms}
    if seen.record.combo is None and one.choices:  # a foreign trace: nobody knows what has been chosen
        row["remedy"] = _words(one.choices[0])
    allowed = [(choice, combo.key) for choice, combo in _allowed(one, seen.record)]
    helped = [
        (step_ms, run_id, choice)
        for choice, key in allowed
        for run_id, step_ms in [tried.siblings.get(key, (None, None))]
        if step_ms is not None and step_ms < seen.step_ms
    ]
    untried = [choice for choice, key in allowed if key not in tried.siblings]
    if helped:  # a measured gain before any bound
        step_ms, run_id, choice = min(helped, key=lambda found: found[0])
        row |= {"remedy": _words(choice), "saves_ms": seen.step_ms - step_ms, "is_measured": True, "run_id": run_id}
    elif untried:
        row["remedy"] = _words(untried[0])
    else:
        row["remedy"] += _beside(one, seen.record, tried)
    return row | {"share": row["saves_ms"] / seen.step_ms}


def _beside(one: Candidate, record: Record, tried: Tried) -> str:
    """Where no choice is known to help: what is known of the others of its families, and which cannot be, and why.

    Empty where no family bears on it, and for a foreign trace.
    """
    combo, workload, machine = record.combo, record.workload, record.machine
    if combo is None or workload is None or machine is None or not one.choices:
        return ""
    known = {word: defaultdict[str, list[str]](list) for word in (RUNS_ALREADY, ELSEWHERE, UNTRIED)}
    impossible = defaultdict[str, list[str]](list)
    for family, name in _others(one, combo):
        changed = Combo.from_dict(combo.to_dict() | {family: name})
        reason = why_not(changed, workload, machine)
        calls = record.attention_observed.get(ATTENTION_KERNELS.get(name, ""), 0) if family == "attention" else 0
        if calls:  # attention=sdpa chose it, for all layers or some of them
            every = sum(record.attention_observed.values())
            known[RUNS_ALREADY][family].append(name if calls == every else f"{name} ({calls} of {every} calls)")
        elif reason is None and changed.key not in tried.siblings:
            known[ELSEWHERE if (family, name) in tried.choices else UNTRIED][family].append(name)
        elif reason and {family: name} in one.choices:
            impossible[reason].append(f"{family}={name}")
    said = "".join(
        f"; {word}: {family}={', '.join(names)}" for word, own in known.items() for family, names in own.items()
    )
    said += "".join(f"; {IMPOSSIBLE}: {', '.join(names)} ({reason})" for reason, names in impossible.items())
    return said or ("; no choice of Steplens shortens it" if one.otherwise is None else "")


def _others(one: Candidate, combo: Combo) -> Iterator[tuple[str, str]]:
    """All choices of the families that bear on it that go on from the combo."""
    for family in dict.fromkeys(family for choice in one.choices for family in choice):
        for name in choices(family):
            if _goes_on(family, getattr(combo, family), name):
                yield family, name


def _words(choice: Mapping[str, str]) -> str:
    return ", ".join(f"{family}={name}" for family, name in choice.items())


def _allowed(one: Candidate, record: Record) -> Iterator[tuple[dict[str, Any], Combo]]:
    """Choices that go on from the run's combo and can run here, and the combos that they make."""
    combo, machine = record.combo, record.machine
    if combo is None or record.workload is None or machine is None:
        return
    for choice in one.choices:
        changed = replace(combo, **choice)
        goes_on = all(_goes_on(family, getattr(combo, family), name) for family, name in choice.items())
        if goes_on and why_not(changed, record.workload, machine) is None:
            yield choice, changed


def _goes_on(family: str, now: str, then: str) -> bool:
    """Whether another choice goes at least as far as the present one in saving time."""
    return now != then and _reach(family, then) >= _reach(family, now)


def _reach(family: str, choice: str) -> int:
    return REACH[family][choice] if family in REACH else int(choice != choices(family)[0])
