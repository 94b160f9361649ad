"""The probe of this machine, and what a record keeps of its environment."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from profiler import environment
from profiler.environment import git_commit, probe, result_variables
from profiler.machine import Machine


def test_the_probe_finds_this_machine() -> None:
    machine = probe()
    assert machine.torch == torch.__version__
    assert machine.num_cpus == len(os.sched_getaffinity(0))
    assert machine.memory_gib > 0.5
    assert machine.cpu_name
    assert machine.boot_id
    assert {"torch", "diffusers", "numpy"} <= set(machine.packages)
    assert machine.has_cuda == torch.cuda.is_available()
    assert (machine.no_cuda_reason is None) == machine.has_cuda


def test_the_probe_survives_json() -> None:
    machine = probe()
    assert Machine.from_dict(json.loads(json.dumps(machine.to_dict()))) == machine


def test_two_probes_of_one_boot_agree() -> None:
    assert probe() == probe()


def test_variables_that_change_results_are_kept_without_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"CUDA_VISIBLE_DEVICES": "0", "PYTORCH_ALLOC_CONF": "expandable_segments:True", "OMP_NUM_THREADS": "7"}
    left_out = {"CUDA_HOME": "/usr/local/cuda", "TORCHINDUCTOR_CACHE_DIR": "/tmp/x", "EDITOR": "vi", "STEPLENS_X": "1"}
    for name, value in (kept | left_out).items():
        monkeypatch.setenv(name, value)
    found = result_variables()
    assert kept.items() <= found.items()
    assert not set(left_out) & set(found)
    assert not any("/" in value for value in found.values())


def _checkout(folder: Path) -> None:
    (folder / "profiler").mkdir()
    (folder / "profiler" / "environment.py").write_text("# one\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)


def test_the_commit_tells_of_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _checkout(tmp_path)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "profiler" / "environment.py"))
    clean = git_commit()
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "profiler" / "environment.py").write_text("# two\n")
    assert git_commit() == f"{clean}+"


def test_outside_a_checkout_the_commit_is_the_given_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "profiler" / "environment.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("STEPLENS_COMMIT", raising=False)
    assert git_commit() is None
    monkeypatch.setenv("STEPLENS_COMMIT", "abc")
    assert git_commit() == "abc"
