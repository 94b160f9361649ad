"""What a resumed sweep still has to do: nothing twice, nothing forgotten, a baseline on every machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from profiler.machine import Machine
from profiler.record import Record, Status
from runs import job_queue
from runs.job import Job, run_folder
from runs.outcome import INTERRUPTED
from runs.resume import Remainder, latest, read_plan, read_records, remainder, retries, used_ids
from runs.sweep import Options, expand
from tests.runs.conftest import submit
from tests.runs.fake_worker import machine

HERE = machine()
ELSEWHERE = replace(HERE, boot_id="another boot")


@pytest.fixture
def plan(home: Path) -> list[Job]:
    """A baseline, two candidates and the baseline again; submitted."""
    families = {"attention": ["sdpa"], "precision": ["fp32", "bf16"]}
    sweep = expand("grid", None, HERE, options=Options(families=families), sweep_id="a-grid")
    submit(home, *sweep.jobs)
    return read_plan("a-grid", home)


def write_record(job: Job, home: Path, status: Status = "done", cause: str = "", there: Machine = HERE) -> None:
    folder = run_folder(job.job_id, home)
    folder.mkdir(exist_ok=True)
    Record(
        run_id=job.job_id, status=status, cause=cause, combo=job.combo, workload=job.workload, machine=there,
        sweep=job.sweep,
    ).write(folder)  # fmt: skip


def left(plan: list[Job], home: Path, waiting: list[Job] | None = None, there: Machine = HERE) -> Remainder:
    key = plan[0].workload.reference_key
    return remainder(plan, read_records(plan, home), {job.job_id for job in waiting or []}, there, {key})


def runs(plan: list[Job]) -> list[Job]:
    return [job for job in plan if job.kind == "measure"]


def test_the_plan_is_kept_in_the_order_of_the_sweep(plan: list[Job]) -> None:
    assert [job.kind for job in plan] == ["reference", "measure", "measure", "measure", "measure"]
    assert [job.sweep.position for job in runs(plan) if job.sweep] == [0, 1, 2, 3]


def test_what_waits_or_is_done_is_not_submitted_again(plan: list[Job], home: Path) -> None:
    baseline, *others = runs(plan)
    write_record(baseline, home)
    assert left(plan, home, waiting=others).jobs == ()


def test_what_is_nowhere_is_submitted_as_it_was(plan: list[Job], home: Path) -> None:
    for job in runs(plan)[:2]:
        write_record(job, home)
    again = left(
        [replace(job, directory="/gone", environment={"CUDA_VISIBLE_DEVICES": "3"}) for job in plan], home
    ).jobs
    assert [job.job_id for job in again] == [job.job_id for job in runs(plan)[2:]]
    assert {(job.directory, job.environment) for job in again} == {(None, None)}, (
        "from where it is resumed, maybe elsewhere"
    )


def test_what_ended_without_a_readable_record_gets_another_attempt(plan: list[Job], home: Path) -> None:
    baseline, gone, damaged, repeat = runs(plan)
    for job in runs(plan)[:2]:
        while (claimed := job_queue.claim(home=home)) and claimed.job_id != job.job_id:
            job_queue.finish(claimed.job_id, home=home)
        job_queue.finish(job.job_id, home=home)
    for job in (baseline, damaged, repeat):
        write_record(job, home)
    (run_folder(damaged.job_id, home) / "record.json").write_text("{")
    used = used_ids(plan, home)
    rest = remainder(plan, read_records(plan, home), set(), HERE, {plan[0].workload.reference_key}, used)
    assert [job.retry_of for job in rest.jobs] == [gone.job_id, damaged.job_id]
    added = job_queue.submit(rest.jobs, home=home, start_scheduler=False)
    assert [job.job_id for job in added] == [job.job_id for job in rest.jobs], "what is announced is queued"


def test_an_interrupted_run_is_tried_again_and_another_failure_is_a_finding(plan: list[Job], home: Path) -> None:
    baseline, interrupted, broken, repeat = runs(plan)
    write_record(baseline, home)
    write_record(interrupted, home, "failed", INTERRUPTED)
    write_record(broken, home, "failed", "it broke")
    write_record(repeat, home)
    (again,) = left(plan, home).jobs
    assert (again.retry_of, again.combo, again.sweep) == (interrupted.job_id, interrupted.combo, interrupted.sweep)
    assert [job.job_id for job in latest([*plan, again])].count(interrupted.job_id) == 0


def test_on_another_machine_the_baseline_is_measured_again_before_the_rest(plan: list[Job], home: Path) -> None:
    baseline, done, *others = runs(plan)
    write_record(baseline, home)
    write_record(done, home)
    rest = left(plan, home, waiting=others, there=ELSEWHERE)
    (again,) = rest.first
    assert again.combo == baseline.combo
    assert again.sweep == baseline.sweep
    assert again.job_id != baseline.job_id
    assert rest.then == ()
    write_record(again, home, there=ELSEWHERE)
    assert left([*plan, again], home, waiting=others, there=ELSEWHERE).jobs == ()


def test_a_finished_sweep_needs_no_baseline_anywhere(plan: list[Job], home: Path) -> None:
    for job in runs(plan):
        write_record(job, home)
    assert left(plan, home, there=ELSEWHERE).jobs == ()


def test_a_baseline_still_to_come_is_not_doubled(plan: list[Job], home: Path) -> None:
    assert left(plan, home, waiting=runs(plan), there=ELSEWHERE).jobs == ()


def test_a_reference_that_is_not_here_is_made_first(plan: list[Job], home: Path) -> None:
    for job in runs(plan)[:3]:
        write_record(job, home)
    rest = remainder(plan, read_records(plan, home), set(), HERE, known_references=set())
    assert [job.kind for job in rest.jobs] == ["reference", "measure"]


def test_retry_takes_the_last_attempt_of_what_failed(plan: list[Job], home: Path) -> None:
    baseline, one, two, repeat = runs(plan)
    for job in (baseline, repeat):
        write_record(job, home)
    write_record(one, home, "oom", "too large")
    write_record(two, home, "rejected", "no package")
    records = read_records(plan, home)
    (again,) = retries(plan, records)
    assert again.retry_of == one.job_id
    assert retries([*plan, again], records) == []
    assert [job.retry_of for job in retries(plan, records, ["rejected"])] == [two.job_id]


def test_an_unknown_sweep_is_named_with_those_that_are_there(plan: list[Job], home: Path) -> None:
    with pytest.raises(ValueError, match=r"no sweep 'other'.*there is a-grid"):
        read_plan("other", home)
