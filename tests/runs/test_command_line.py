"""The command line of a form plans what the form plans."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from profiler.workload import Workload
from runs import sweep
from runs.__main__ import app
from runs.command_line import sweep_command
from runs.machine_file import write_machine
from runs.sweep import Options
from tests.runs.fake_worker import machine

HERE = machine()
TINY = Workload(device="cpu")
# The stack that a study on a CPU takes by itself.
STACK = {"attention": ["sdpa"], "memory_format": ["channels_last"], "compilation": ["default"], "precision": ["fp32"]}
# Each field of a workload, set to what no sweep takes by itself.
OTHERWISE: dict[str, Any] = {
    **{"model": "my folder/unet's", "mode": "train", "batch": 3, "resolution": 64, "device": "cuda", "world_size": 2},
    **{"num_inference_steps": 7, "guidance_scale": 1.0, "dataset_size": 9, "min_samples": 5, "min_seconds": 0.5},
    **{"curve_steps": 0, "seed": 3},
}


def jobs_of(command: str, home: Path) -> list[dict[str, Any]]:
    """What the command would queue."""
    write_machine(HERE, home)
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "runs"]
    result = CliRunner().invoke(app, [*words[3:], "--dry-run", "--json"])
    assert result.exit_code in (0, 2), result.output  # 2: none of them can run here
    return [_told(job["kind"], job["combo"], job["workload"]) for job in json.loads(result.stdout)["jobs"]]


def jobs_planned(name: str, workload: Workload, options: Options) -> list[dict[str, Any]]:
    planned = sweep.expand(name, workload, HERE, options=options)
    return [_told(job.kind, job.combo.to_dict(), job.workload.to_dict()) for job in planned.jobs]


def _told(kind: str, combo: dict[str, Any], workload: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "combo": combo, "workload": workload}


@pytest.mark.parametrize("name", sweep.SWEEPS)
def test_a_sweep_as_it_is_needs_its_name_alone(name: str, home: Path) -> None:
    workload = Workload(**sweep.defaults(name, HERE))
    command = sweep_command(name, workload, HERE, Options())
    assert command == f"python -m runs sweep {name}"
    assert jobs_of(command, home) == jobs_planned(name, workload, Options())


@pytest.mark.parametrize("field", OTHERWISE)
def test_a_field_that_differs_from_its_default_is_an_option(
    field: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / OTHERWISE["model"]).mkdir(parents=True)
    (tmp_path / OTHERWISE["model"] / "config.json").write_text("{}", encoding="utf-8")
    workload = Workload(**{"device": "cpu"} | {field: OTHERWISE[field]})
    command = sweep_command("one_at_a_time", workload, HERE, Options())
    assert command.count("--") == 1
    assert jobs_of(command, home) == jobs_planned("one_at_a_time", workload, Options())


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("ladder_inference", Options(sdpa_kernels=True, max_autotune=True), " --max-autotune --sdpa-kernels"),
        ("scaling_batch", Options(max_batch=4, families=STACK), " --max-batch 4"),
        ("scaling_model", Options(models="variants"), " --models variants"),
        ("around", Options(vary="attention, precision=bf16"), " --vary 'attention, precision=bf16'"),
        ("single_combo", Options(families=STACK), ""),
        (
            "single_combo",
            Options(families=STACK | {"fusion": ["qkv"]}),
            "--attention sdpa --memory-format channels_last",
        ),
        ("leave_one_out", Options(families={"attention": ["sdpa"], "precision": ["bf16"]}), "sdpa --precision bf16"),
        ("grid", Options(families={"attention": ["sdpa", "math"], "precision": ["fp32"]}), " --attention sdpa,math"),
    ],
    ids=str,
)
def test_options_and_choices_are_told(name: str, options: Options, told: str, home: Path) -> None:
    command = sweep_command(name, TINY, HERE, options)
    assert told in command
    assert command.count("--") == 0 or told
    assert jobs_of(command, home) == jobs_planned(name, TINY, options)


def test_of_a_sweep_with_its_own_workloads_the_device_alone_is_told(home: Path) -> None:
    workload = Workload(device="cuda", batch=9)
    assert sweep_command("quick", workload, HERE, Options()) == "python -m runs sweep quick --device cuda"
