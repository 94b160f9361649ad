"""The buttons in the queue's tables do what they say."""

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.widgets import queue_tables
from profiler.combo import BASELINE
from profiler.record import SweepPlace
from runs import job_queue
from runs.budget import Budget, set_budget
from runs.job import measure_job
from tests.support.run_folders import CPU_WORKLOAD, GPU_WORKLOAD


def test_retry_starts_though_the_budget_of_the_sweep_ran_out(
    make_home: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home("empty")
    place = SweepPlace(sweep_id="spent", name="grid", position=0, num_jobs=2)
    ended, rest = (measure_job(BASELINE, CPU_WORKLOAD, place) for _ in range(2))
    job_queue.submit([ended, rest])
    job_queue.cancel(ended.job_id)
    set_budget("spent", Budget(deadline=0.0), home)
    states = [state for state in job_queue.list_jobs() if state.state == "ended"]
    monkeypatch.setattr(queue_tables.st, "session_state", {"queue_retry_row": {"row": 0}})
    queue_tables._retry(states, "queue")
    waiting = [state for state in job_queue.list_jobs() if state.state == "queued"]
    assert [(state.job.retry_of, state.is_held) for state in waiting] == [(None, True), (ended.job_id, False)]


def test_retry_is_not_offered_for_what_this_machine_cannot_run(
    make_home: Callable[[str], Path], open_page: Callable[..., AppTest]
) -> None:
    make_home("empty")
    jobs = [measure_job(BASELINE, workload) for workload in (CPU_WORKLOAD, GPU_WORKLOAD, GPU_WORKLOAD)]
    for job in job_queue.submit(jobs):
        job_queue.cancel(job.job_id)
    app = open_page("job_queue")
    table = app.dataframe[0].value
    offered = dict(zip(table["workload"], table["retry"].notna(), strict=True))
    assert offered == {CPU_WORKLOAD.label: True, GPU_WORKLOAD.label: False}
    assert any("2 without Retry: device=cuda needs CUDA" in caption.value for caption in app.caption)
