"""Incompatibilities are data: every pair of choices has an answer, and form, sweep and worker give the same one."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pages.widgets import form
from profiler import session
from profiler.combo import FAMILIES, Combo, applies, choices
from profiler.machine import Machine
from profiler.why_not import why_not
from profiler.workload import DEVICES, MODES, Workload
from runs.machine_file import OPTIONAL_PACKAGES
from runs.sweep import Options, expand
from tests.support.run_folders import FIXTURE_CPU, FIXTURE_GPU
from tests.support.unets import workload

H200 = replace(
    FIXTURE_GPU,
    gpu_name="NVIDIA H200",
    gpu_memory_gib=139.8,
    compute_capability=(9, 0),
    packages=FIXTURE_GPU.packages | dict.fromkeys(OPTIONAL_PACKAGES, "99.0"),
)
BARE_GPU = replace(H200, packages={})
MACHINES = {
    "H200": H200,
    "H200 without packages": BARE_GPU,
    "CPU": replace(FIXTURE_CPU, packages=H200.packages),
    "CPU without packages": replace(FIXTURE_CPU, packages={}, has_cxx_compiler=False),
}
SINGLES = [(family, choice) for family in FAMILIES for choice in choices(family)]
PAIRS = [dict(two) for two in itertools.combinations(SINGLES, 2) if two[0][0] != two[1][0]]
REMEDY = re.compile(r"\b(choose|install|needs|leave)\b")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_pair_of_choices_is_allowed_or_answered_with_a_remedy(machine: str, mode: Any, device: Any) -> None:
    work = Workload(model="tiny", mode=mode, device=device)
    for pair in PAIRS:
        said = why_not(Combo.from_dict(pair), work, MACHINES[machine])
        assert said is None or _is_one_sentence(said), f"{pair}: {said}"


def _is_one_sentence(said: str) -> bool:
    names_a_choice = any(f"{family}={choice}" in said for family, choice in SINGLES) or said.startswith("device=")
    return "\n" not in said and ". " not in said and names_a_choice and bool(REMEDY.search(said))


def test_every_choice_can_run_somewhere() -> None:
    """In some mode and precision, on two H200 with all packages; a choice that nothing allows would be no choice."""
    two = replace(H200, num_gpus=2)
    for family, choice in SINGLES:
        precisions = (choice,) if family == "precision" else choices("precision")
        answers = [
            why_not(Combo.from_dict({"precision": p} | {family: choice}), Workload(mode=mode, **size), two)  # type: ignore[arg-type]
            for p in precisions
            for mode in MODES
            for size in _sizes()
        ]
        assert None in answers, f"{family}={choice}: {answers[0]}"


def _sizes() -> list[dict[str, Any]]:
    """One process, and where the workload knows of more, two."""
    return [{}, {"world_size": 2}] if hasattr(Workload(), "world_size") else [{}]


def _impossible(machine: Machine, mode: Any, device: Any) -> list[tuple[str, str]]:
    """The single choices that cannot run, of those that matter in this mode."""
    work = workload("tiny", mode=mode, device=device)
    alone = [single for single in SINGLES if applies(single[0], mode)]
    return [single for single in alone if why_not(Combo.from_dict(dict([single])), work, machine)]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("mode", ["train", "inference"])
def test_form_sweep_and_worker_say_the_same(
    machine: str, mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = MACHINES[machine]
    device = "cuda" if there.has_cuda else "cpu"
    work = workload("tiny", mode=mode, device=device)
    monkeypatch.setattr(session, "probe", lambda: there)
    shown = form.impossible_choices(work, there)
    found = _impossible(there, mode, device)
    assert found
    for family, choice in found:
        combo = Combo.from_dict({family: choice})
        said = why_not(combo, work, there)
        grid = expand("grid", work, there, options=Options(families={family: [choice]}))
        assert {reason for _, reason in grid.rejected} == {said}
        record = session.profile(combo, work, tmp_path / f"{family}-{choice}", run_id="run", references=tmp_path)
        assert (record.status, record.cause) == ("rejected", said)
        if (family, choice) in shown and family == "precision":
            assert shown[family, choice] == said
        elif (family, choice) in shown:  # the form names what holds in every precision
            every = {
                why_not(Combo.from_dict({family: choice, "precision": p}), work, there) for p in choices("precision")
            }
            assert shown[family, choice] in every
