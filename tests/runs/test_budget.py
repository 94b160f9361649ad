"""A budget holds until a new one is set; only a sweep that has none is without limit."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from profiler.record import SweepPlace
from runs.budget import Budget, fits, read_budget, set_budget, stop_after
from tests.runs.conftest import fake_job

JOB = fake_job(sweep=SweepPlace(sweep_id="a-sweep", name="grid", position=0, num_jobs=1))


def test_a_budget_is_read_as_it_was_set_and_none_is_no_limit(home: Path) -> None:
    assert read_budget(JOB, home) is None
    budget = Budget(deadline=time.time() + 3600, grace_s=5.0)
    set_budget("a-sweep", budget, home)
    assert read_budget(JOB, home) == budget
    assert fits(JOB, home, None)
    set_budget("a-sweep", None, home)
    assert read_budget(JOB, home) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"deadline": "soon", "grace_s": 1}'])
def test_a_damaged_budget_has_run_out(home: Path, text: str) -> None:
    set_budget("a-sweep", Budget(deadline=time.time() + 3600), home)
    (home / "queue/budgets/a-sweep.json").write_text(text)
    assert not fits(JOB, home, None)


def test_a_job_beyond_the_budget_is_neither_held_nor_stopped(home: Path) -> None:
    set_budget("a-sweep", Budget(deadline=0.0), home)
    alone = replace(JOB, beyond_budget=True)
    assert fits(alone, home, None)
    assert stop_after(alone, home) is None
