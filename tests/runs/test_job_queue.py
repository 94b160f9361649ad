"""The queue's promises: order, exactly one claim, atomic states, and nothing that blocks it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from profiler.combo import Combo
from profiler.record import Record, SweepPlace
from profiler.workload import Workload
from runs import job_queue, queue_folder
from runs.job import Job, measure_job, probe_job, retry_job, run_folder
from tests.runs.conftest import fake_job, submit


def test_jobs_come_out_in_the_order_in_which_they_went_in_urgent_ones_first(home: Path) -> None:
    first, second, third = (fake_job() for _ in range(3))
    submit(home, first, second)
    submit(home, third)
    urgent = probe_job()
    job_queue.submit([urgent], home=home, start_scheduler=False, priority=job_queue.URGENT)
    claimed = [job_queue.claim(home=home) for _ in range(5)]
    assert [job.job_id if job else None for job in claimed] == [
        urgent.job_id, first.job_id, second.job_id, third.job_id, None,
    ]  # fmt: skip


def test_a_job_that_is_submitted_twice_is_queued_once(home: Path) -> None:
    job = fake_job()
    submit(home, job)
    submit(home, job)
    job_queue.claim(home=home)
    submit(home, job)
    assert job_queue.waiting_jobs(home=home) == []


def test_a_job_survives_its_file(home: Path) -> None:
    place = SweepPlace(sweep_id="s", name="grid", position=2, num_jobs=7, role="baseline_repeat")
    job = replace(fake_job(sweep=place), timeout_s=12.5, retry_of="an-older-one")
    assert Job.from_dict(job.to_dict()) == job


@pytest.mark.parametrize(
    "values", [[], {}, {"job_id": "../../etc", "kind": "measure", "combo": {}, "workload": {}}, {"job_id": "x"}]
)
def test_what_is_no_job_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="job"):
        Job.from_dict(values)  # type: ignore[arg-type]


def test_four_processes_claim_every_job_exactly_once(home: Path) -> None:
    jobs = [fake_job() for _ in range(60)]
    submit(home, *jobs)
    code = "from runs.job_queue import claim\nwhile (job := claim()) is not None:\n    print(job.job_id)"

    def claim_all(_: int) -> list[str]:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_env())
        return done.stdout.split()

    with ThreadPoolExecutor(4) as pool:
        claimed = [job_id for ids in pool.map(claim_all, range(4)) for job_id in ids]
    assert sorted(claimed) == sorted(job.job_id for job in jobs)


def test_a_corrupt_job_file_is_set_aside_with_one_line_and_does_not_block(home: Path) -> None:
    (home / "queue/queued/100-000000000000-broken.json").write_text('{"job_id": "broken", "kind":')
    good, lines = fake_job(), []
    submit(home, good)
    claimed = job_queue.claim(home=home, log=lines.append)
    assert claimed is not None
    assert claimed.job_id == good.job_id
    assert [path.name for path in (home / "queue/bad").iterdir()] == ["100-000000000000-broken.json"]
    assert len(lines) == 1
    assert "submit it again" in lines[0]


def test_looking_at_the_queue_leaves_a_corrupt_file_where_it_is(home: Path) -> None:
    path = home / "queue/queued/100-000000000000-broken.json"
    path.write_text("not json")
    assert job_queue.list_jobs(home=home) == []
    assert path.exists()


def test_cancelling_a_waiting_job_leaves_a_record_at_once(home: Path) -> None:
    job, other = fake_job(), fake_job()
    submit(home, job, other)
    assert job_queue.cancel(job.job_id, home=home) == "cancelled"
    assert Record.read(run_folder(job.job_id, home)).status == "cancelled"
    assert [waiting.job_id for waiting in job_queue.waiting_jobs(home=home)] == [other.job_id]
    assert job_queue.cancel(job.job_id, home=home) == "ended"
    assert job_queue.cancel("never-heard-of", home=home) == "unknown"


def test_the_list_shows_what_runs_what_waits_and_what_ended(home: Path) -> None:
    one, two, three = (fake_job() for _ in range(3))
    submit(home, one, two, three)
    job_queue.cancel(one.job_id, home=home)
    job_queue.claim(home=home)
    states = job_queue.list_jobs(home=home)
    assert [(state.job.job_id, state.state) for state in states] == [
        (two.job_id, "running"), (three.job_id, "queued"), (one.job_id, "ended"),
    ]  # fmt: skip
    assert states[1].place == 1
    assert states[2].status == "cancelled"


def test_a_home_that_cannot_be_written_gives_one_line_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(job_queue.HomeError, match=r"cannot write to .*STEPLENS_HOME=") as error:
        job_queue.submit([fake_job()], home=tmp_path / "file")
    assert "\n" not in str(error.value)


def test_a_job_remembers_the_folder_from_which_it_was_submitted(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    submit(home, fake_job())
    claimed = job_queue.claim(home=home)
    assert claimed is not None
    assert claimed.directory == str(tmp_path)


def test_a_line_of_events_under_way_is_left_out(home: Path) -> None:
    folder = run_folder("some-run", home)
    folder.mkdir()
    (folder / "events.jsonl").write_text('{"time": 1.0, "stage": "time", "detail": ""}\n{"time": 2.0, "sta')
    assert [event["stage"] for event in job_queue.events("some-run", home=home)] == ["time"]


def test_the_log_tail_is_short_however_long_the_log(home: Path) -> None:
    folder = run_folder("some-run", home)
    folder.mkdir()
    (folder / "log.txt").write_text("".join(f"line {number}\n" for number in range(50_000)))
    assert job_queue.log_tail("some-run", home=home, num_lines=2) == "line 49998\nline 49999"
    assert job_queue.log_tail("no-run", home=home) == ""


def test_a_probe_is_asked_for_once(home: Path) -> None:
    assert job_queue.ensure_probe(home, start_scheduler=False)
    assert job_queue.ensure_probe(home, start_scheduler=False)
    assert [job.kind for job in job_queue.waiting_jobs(home=home)] == ["probe"]


def test_max_autotune_gets_more_time_and_a_retry_names_what_it_repeats() -> None:
    job = fake_job()
    slow = measure_job(replace(job.combo, compilation="max_autotune"), job.workload)
    assert slow.timeout_s > job.timeout_s
    again = retry_job(job)
    assert again.retry_of == job.job_id != again.job_id


def test_what_pages_import_is_light() -> None:
    code = (
        "import sys, runs.job, runs.job_queue, runs.sweep\n"
        "heavy = {'torch', 'typer', 'rich', 'duckdb', 'pandas', 'profiler.session', 'store'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_env())
    assert done.stdout.strip() == "[]"


def test_a_finished_job_and_one_put_back_change_folders_only(home: Path) -> None:
    job = fake_job()
    submit(home, job)
    job_queue.claim(home=home)
    queue_folder.put_back(job.job_id, home=home)
    assert [waiting.job_id for waiting in job_queue.waiting_jobs(home=home)] == [job.job_id]
    job_queue.claim(home=home)
    job_queue.finish(job.job_id, home=home)
    assert queue_folder.find(job.job_id, "ended", home) is not None


def _env() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(job_queue.ROOT)}


@pytest.mark.parametrize(
    ("model", "says"), [("sd51", "unknown model 'sd51'"), ("./nowhere", "existing local diffusers folder")]
)
def test_a_model_that_is_not_there_is_refused_before_it_waits(tmp_path: Path, model: str, says: str) -> None:
    job = measure_job(Combo(), Workload(model=model, device="cpu"))
    with pytest.raises(ValueError, match=says):
        job_queue.submit([job], home=tmp_path, start_scheduler=False)
    assert not job_queue.waiting_jobs(home=tmp_path)


def test_a_folder_without_a_configuration_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    job = measure_job(Combo(), Workload(model=str(tmp_path / "empty"), device="cpu"))
    with pytest.raises(ValueError, match=r"neither config\.json nor"):
        job_queue.submit([job], home=tmp_path, start_scheduler=False)


def test_a_folder_may_have_a_colon_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "sd:mine").mkdir()
    (tmp_path / "sd:mine" / "config.json").write_text("{}", encoding="utf-8")
    job = measure_job(Combo(), Workload(model=str(tmp_path / "sd:mine"), device="cpu"))
    assert job_queue.submit([job], home=tmp_path, start_scheduler=False)


def test_a_new_attempt_is_queued_though_its_model_is_gone_for_the_worker_will_say_so(tmp_path: Path) -> None:
    job = retry_job(measure_job(Combo(), Workload(model="./gone", device="cpu")))
    assert job_queue.submit([job], home=tmp_path, start_scheduler=False)
    assert [waiting.job_id for waiting in job_queue.waiting_jobs(home=tmp_path)] == [job.job_id]
