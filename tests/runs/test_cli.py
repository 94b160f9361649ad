"""The command line, with a real scheduler and fake workers behind it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from profiler.combo import FAMILIES
from profiler.record import Record, SweepPlace
from profiler.workload import Workload
from runs import job_queue, queue_folder, watch
from runs.__main__ import app
from runs.budget import Budget, read_budget, set_budget
from runs.cli_options import parse_duration
from runs.job import Job
from runs.machine_file import write_machine
from runs.sweep import Options, expand
from tests.runs.conftest import StartScheduler, fake_job, ran, running, wait_until
from tests.runs.fake_worker import machine
from tests.support.run_folders import write_run

GRID = ("sweep", "grid", "--model", "fake:ok", "--device", "cpu", "--attention", "math,sdpa")


@pytest.fixture(autouse=True)
def _known_machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_machine(machine(), home)
    monkeypatch.setattr(watch, "POLL_S", 0.05)


TWO = {"attention": ["math", "sdpa"]}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def spawn(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "runs", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=job_queue.ROOT, env=dict(os.environ), start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )  # fmt: skip


def read(result: Result) -> Any:
    return json.loads(result.stdout)


def test_a_sweep_runs_to_its_end_and_is_listed_and_shown(start_scheduler: StartScheduler) -> None:
    start_scheduler()
    result = call(*GRID, "--wait", "--json")
    assert result.exit_code == 0, result.output
    answer = read(result)
    assert answer["state"] == "finished"
    assert [run["role"] for run in answer["runs"]] == ["baseline", "candidate", "baseline_repeat"]
    assert {run["status"] for run in answer["runs"]} == {"done"}
    listed = read(call("list", "--sweep", answer["sweep_id"], "--json"))
    assert [run["run_id"] for run in listed["runs"]] == [run["run_id"] for run in answer["runs"]]
    shown = read(call("show", answer["runs"][1]["run_id"][-6:], "--json"))
    assert Record.from_dict(shown).combo.attention == "sdpa"
    assert "sdpa" in call("show", answer["runs"][1]["run_id"]).output


def test_progress_without_a_terminal_is_a_line_per_event(start_scheduler: StartScheduler) -> None:
    start_scheduler()
    result = call(*GRID, "--wait")
    assert result.exit_code == 0
    assert result.output.count("done       ") == 4
    assert " min" in result.output


def test_a_dry_run_queues_nothing(home: Path) -> None:
    answer = read(call(*GRID, "--dry-run", "--json"))
    assert (answer["state"], answer["num_runs"], len(answer["jobs"])) == ("planned", 3, 4)
    assert job_queue.waiting_jobs(home=home) == []
    assert "sdpa" in call(*GRID, "--dry-run").output


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",), ("--wait",)])
def test_a_sweep_of_which_nothing_can_run_here_says_why_and_queues_nothing(dry_run: tuple[str], home: Path) -> None:
    result = call("sweep", "quick", "--device", "cuda", *dry_run)
    assert result.exit_code == 2
    assert "none of these 11 runs can run here, so nothing is queued: device=cuda needs CUDA" in result.stderr
    assert "no time" not in result.output
    answer = call("sweep", "quick", "--device", "cuda", *dry_run, "--json")
    assert (answer.exit_code, read(answer)["state"], read(answer)["num_rejected"]) == (2, "impossible", 11)
    assert job_queue.waiting_jobs(home=home) == []


def test_one_run_takes_an_option_for_every_family_and_field(start_scheduler: StartScheduler) -> None:
    start_scheduler()
    result = call(
        "run", "--model", "fake:ok", "--mode", "train", "--optimizer", "adamw_fused", "--batch", "3", "--json"
    )
    assert result.exit_code == 0, result.output
    (run,) = read(result)["runs"]
    assert (run["combo"], run["workload"]) == ("adamw_fused", "fake:ok train b3 cpu")
    (like,) = read(call("run", "--like", run["run_id"], "--batch", "4", "--json"))["runs"]
    assert (like["combo"], like["workload"]) == ("adamw_fused", "fake:ok train b4 cpu")
    help_text = call("run", "--help").output
    assert all(f"--{family.replace('_', '-')}" in help_text for family in FAMILIES)


def test_a_failed_run_gives_exit_code_1_and_retry_runs_it_again(home: Path, start_scheduler: StartScheduler) -> None:
    start_scheduler()
    flaky = ("sweep", "grid", "--model", "fake:flaky", "--device", "cpu", "--wait", "--json")
    result = call(*flaky)
    assert result.exit_code == 1
    answer = read(result)
    assert {run["status"] for run in answer["runs"]} == {"failed"}
    (home / "mended").touch()
    again = call("retry", answer["sweep_id"], "--wait", "--json")
    assert again.exit_code == 0, again.output
    assert [run["status"] for run in read(again)["runs"]] == ["done", "done"]
    listed = read(call("list", "--sweep", answer["sweep_id"], "--json"))["runs"]
    assert len(listed) == 4, "the failed records stay"
    one = call("retry", answer["runs"][0]["run_id"], "--json")
    assert len(read(one)["jobs"]) == 1


def test_one_run_is_retried_though_the_budget_of_its_sweep_ran_out(home: Path, start_scheduler: StartScheduler) -> None:
    start_scheduler()
    answer = read(call("sweep", "grid", "--model", "fake:flaky", "--device", "cpu", "--wait", "--json"))
    (home / "mended").touch()
    shutil.rmtree(home / "references")  # the reference that it needs first must not be held either
    set_budget(answer["sweep_id"], Budget(deadline=0.0), home)
    result = call("retry", answer["runs"][0]["run_id"], "--wait", "--json")
    assert result.exit_code == 0, result.output
    assert [run["status"] for run in read(result)["runs"]] == ["done"]
    assert (home / "references").exists()
    place = SweepPlace(sweep_id=answer["sweep_id"], name="grid", position=0, num_jobs=1)
    assert read_budget(fake_job(sweep=place), home), "it still holds for the rest"


def test_a_run_that_cannot_be_here_is_not_queued(home: Path, start_scheduler: StartScheduler) -> None:
    start_scheduler()
    result = call("run", "--model", "fake:ok", "--device", "cpu", "--attention", "xformers", "--json")
    assert result.exit_code == 2, result.output
    assert "cannot run here, so nothing is queued: attention=xformers needs CUDA" in result.stderr
    assert not job_queue.list_jobs(home=home)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("no_such_module:make_unet", "there is no module 'no_such_module'"),
        ("my_unets:make_unett", "has no 'make_unett': did you mean my_unets:make_unet?"),
        ("sd51", "unknown model 'sd51'"),
    ],
)
@pytest.mark.parametrize("command", [("run",), ("sweep", "quick", "--dry-run"), ("sweep", "ladder_train")])
def test_a_misspelt_model_is_told_before_any_worker_starts(
    command: tuple[str, ...], model: str, says: str, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (home / "machine.json").unlink(missing_ok=True)  # so that a worker would be asked what this machine is
    (tmp_path / "my_unets.py").write_text("import torch\ndef make_unet(): ...\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    result = call(*command, "--model", model)
    assert (result.exit_code, says in result.stderr) == (2, True), result.output
    assert not job_queue.list_jobs(home=home)


def test_a_dry_run_names_no_sweep_that_will_not_exist(home: Path) -> None:
    sweep_id = read(call(*GRID, "--dry-run", "--json"))["sweep_id"]
    said = call(*GRID, "--dry-run").output
    assert "a dry run: nothing is queued" in said
    assert sweep_id[:11] not in said


def test_a_run_that_its_worker_rejects_was_not_measured(start_scheduler: StartScheduler) -> None:
    start_scheduler()
    result = call("run", "--model", "fake:rejected", "--device", "cpu", "--json")
    assert [run["status"] for run in read(result)["runs"]] == ["rejected"]
    assert result.exit_code == 1, "nothing of what was asked for is there"


def test_a_run_that_takes_longer_than_it_may_is_ended_and_on_record(
    home: Path, start_scheduler: StartScheduler
) -> None:
    assert "is no duration" in call("run", "--model", "fake:ok", "--device", "cpu", "--timeout", "soon").output
    start_scheduler()
    result = call("run", "--model", "fake:sleep100", "--device", "cpu", "--timeout", "1s", "--json")
    assert result.exit_code == 1, result.output
    record = Record.read(home / "runs" / read(result)["runs"][0]["run_id"])
    assert record.status == "timeout"
    assert record.cause.startswith("did not finish within 1 s, it was ended")


def test_a_budget_that_runs_out_gives_exit_code_3_and_resume_finishes(
    home: Path, start_scheduler: StartScheduler
) -> None:
    start_scheduler()
    sweep = ("sweep", "grid", "--model", "fake:sleep0.3", "--device", "cpu", "--attention", "math,sdpa")
    result = call(*sweep, "--wait", "--budget", "1s", "--json")
    assert result.exit_code == 3, result.output
    answer = read(result)
    assert answer["state"] == "unfinished"
    assert "the next needs 3 to 10 min" in result.stderr
    assert f"--resume {answer['sweep_id']}" in answer["resume"]
    assert ran(home) == []
    time.sleep(0.5)
    assert ran(home) == [], "nothing starts behind our back"
    again = call("sweep", "--resume", answer["sweep_id"], "--wait", "--budget", "1h", "--json")
    assert again.exit_code == 0, again.output
    assert [run["status"] for run in read(again)["runs"]] == ["done"] * 3
    assert len(ran(home)) == 3


def test_a_sweep_goes_on_after_everything_was_killed(home: Path, start_scheduler: StartScheduler) -> None:
    scheduler = start_scheduler()
    sweep = ("sweep", "grid", "--model", "fake:sleep0.5", "--device", "cpu", "--attention", "math,sdpa")
    watcher = spawn(*sweep, "--wait")
    wait_until(lambda: len(ran(home)) == 2)
    (lost,) = running(home)
    for process in (scheduler, watcher):  # at once: the run under way takes half a second
        os.killpg(process.pid, signal.SIGKILL)
    watcher.communicate()
    scheduler.communicate()
    (sweep_id,) = [path.name for path in (home / "sweeps").iterdir()]
    start_scheduler()
    result = call("sweep", "--resume", sweep_id, "--wait", "--json")
    assert result.exit_code == 0, result.output
    runs = read(result)["runs"]
    assert [run["status"] for run in runs] == ["done"] * 3
    assert Record.read(home / "runs" / lost).status == "failed", "the interrupted attempt is on record"
    assert len(ran(home)) == 4


def test_ctrl_c_says_what_goes_on_and_how_to_cancel(home: Path, start_scheduler: StartScheduler) -> None:
    start_scheduler()
    watcher = spawn("run", "--model", "fake:sleep100", "--device", "cpu")
    wait_until(lambda: len(ran(home)) == 1)
    watcher.send_signal(signal.SIGINT)
    says, errors = watcher.communicate(timeout=15)
    assert watcher.returncode == 130, errors
    (job_id,) = ran(home)
    assert "the jobs go on in the background" in says
    assert f"python -m runs cancel {job_id}" in says
    assert running(home) == [job_id]
    cancelled = call("cancel", job_id)
    assert "is being ended" in cancelled.output
    wait_until(lambda: (home / "runs" / job_id / "record.json").exists())
    assert Record.read(home / "runs" / job_id).status == "cancelled"


def test_a_damaged_job_file_is_named_with_what_brings_its_job_back(home: Path) -> None:
    planned = expand("grid", Workload(model="fake:ok", device="cpu"), machine(), options=Options(families=TWO))
    job_queue.submit(planned.jobs, home=home, start_scheduler=False)
    for path in (home / "queue" / "queued").glob("*.json"):
        path.write_text("{")
    sweep_id = next((home / "sweeps").iterdir()).name
    queue_folder.claim(home=home, log=lambda line: None)  # what a scheduler does
    assert not list((home / "queue" / "queued").glob("*.json"))
    result = call("list")
    lines = [line for line in result.stderr.splitlines() if line.startswith("warning: the job file")]
    assert len(lines) == len(list((home / "queue" / "bad").glob("*.json"))) == 4
    assert all("python -m runs sweep --resume " + sweep_id in line for line in lines)
    assert read(call("list", "--json"))["damaged"]
    resumed = read(call("sweep", "--resume", sweep_id, "--dry-run", "--json"))
    assert len(resumed["added"]) == len(lines)


def test_list_and_show_see_the_runs_of_all_roots(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "elsewhere" / "study", run_id="far-away")
    write_run(tmp_path / "elsewhere" / "study", run_id="twice")
    write_run(home / "runs", run_id="twice")
    monkeypatch.setenv("STEPLENS_ROOTS", str(tmp_path / "elsewhere"))
    folders = {run["run_id"]: run["folder"] for run in read(call("list", "--last", "1000", "--json"))["runs"]}
    assert folders["far-away"] == str(tmp_path / "elsewhere" / "study" / "far-away")
    assert folders["twice"] == str(home / "runs" / "twice")
    assert any("runs/reference" in folder for folder in folders.values())
    assert read(call("show", "far-aw", "--json"))["run_id"] == "far-away"
    num_runs = len(read(call("list", "--all", "--json"))["runs"])
    assert num_runs > 30
    assert f"the newest 30 of {num_runs} runs: --last N" in call("list").stdout
    assert "the newest" not in call("list", "--all").stdout
    assert f"none of the {num_runs} runs has status timeout: there are " in call("list", "--status", "timeout").stdout


def test_cancel_takes_a_whole_sweep(home: Path) -> None:
    answer = read(call(*GRID, "--dry-run", "--json"))
    job_queue.submit(_jobs(answer), home=home, start_scheduler=False)
    assert call("cancel", "--all").output.count(": cancelled") == 4
    assert job_queue.waiting_jobs(home=home) == []
    assert call("cancel", "--all").exit_code == 0


def test_a_sweep_packed_unfinished_goes_on_in_another_home(
    home: Path, tmp_path: Path, start_scheduler: StartScheduler
) -> None:
    start_scheduler()
    answer = read(call(*GRID, "--wait", "--json"))
    packed = call("pack", answer["sweep_id"], "-o", str(tmp_path / "a.tar"))
    assert packed.exit_code == 0, packed.output
    assert "3 runs in" in packed.output
    there = str(tmp_path / "there")
    assert "3 runs unpacked" in call("--home", there, "unpack", str(tmp_path / "a.tar")).output
    listed = read(call("--home", there, "list", "--sweep", answer["sweep_id"], "--json"))
    assert len(listed["runs"]) == 3
    assert "3 were there already" in call("--home", there, "unpack", str(tmp_path / "a.tar")).output


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("sweep",), 2, "name a sweep (quick, ladder_inference, ladder_train, single_combo, grid, one_at_a_time"),
        (("sweep", "nonsense"), 2, "unknown sweep 'nonsense': choose one of quick"),
        (("sweep", "quick", "--model", "sd15"), 2, "only --device can be chosen"),
        (
            ("sweep", "quick", "--attention", "sdpa"),
            2,
            "quick takes no choices of attention, it has its own; these do: single_combo, grid, around, leave_one_out",
        ),
        (("sweep", "grid", "--attention", "sdp"), 2, "unknown attention sdp: choose from math, sdpa"),
        (("sweep", "quick", "--wait", "--budget", "soon"), 2, "write 9m, 90s, 1h30m"),
        (("sweep", "--resume", "no-such"), 2, "no sweep 'no-such'"),
        (("run", "--attention", "magic"), 2, "magic"),
        (("run", "--batch", "0"), 2, "batch must be at least 1"),
        (("show", "no-such"), 2, "see python -m runs list"),
        (("cancel", "no-such"), 2, "nothing that waits or runs is called no-such"),
        (("cancel",), 2, "or --all"),
        (("retry", "no-such"), 2, "no sweep 'no-such'"),
        (("pack", "no-such", "-o", "x.tar"), 2, "no sweep 'no-such'"),
    ],
)
def test_what_the_user_did_wrong_gets_one_line_and_exit_code_2(
    home: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    result = call(*arguments)
    assert (result.exit_code, says in result.output) == (code, True), result.output
    assert job_queue.waiting_jobs(home=home) == []


def test_a_home_that_cannot_be_written_gives_exit_code_4(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for arguments in (("sweep", "quick"), ("run",), ("probe",)):
        result = call("--home", str(tmp_path / "file"), *arguments)
        assert result.exit_code == 4, result.output
        assert "choose another with STEPLENS_HOME=" in result.output


def test_the_first_command_on_a_machine_probes_it(home: Path, start_scheduler: StartScheduler) -> None:
    (home / "machine.json").unlink()
    start_scheduler()
    result = call("probe", "--json")
    assert result.exit_code == 0, result.output
    assert read(result)["cpu_name"] == "fake cpu"
    assert "probing this machine" in result.stderr


def test_help_teaches_with_examples_and_names_the_exit_codes() -> None:
    general = call("--help").output
    assert "3: the budget ran out" in " ".join(general.split())
    for command in ("sweep", "run", "list", "cancel", "retry", "pack", "unpack"):
        assert f"python -m runs {command}" in call(command, "--help").output, command


@pytest.mark.parametrize(("text", "seconds"), [("9m", 540), ("90s", 90), ("1h30m", 5400), ("45", 45), ("0.5m", 30)])
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def _jobs(answer: dict[str, Any]) -> list[Job]:
    return [
        Job.from_dict({name: job[name] for name in ("job_id", "kind", "combo", "workload")}) for job in answer["jobs"]
    ]
