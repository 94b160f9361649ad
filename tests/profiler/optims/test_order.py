"""Contract of all families: one file, one name, and the same results as the plain model for every choice."""

import importlib

import pytest

from profiler.combo import FAMILIES, Combo, applies, choices
from profiler.environment import probe
from profiler.optims import FAMILY
from profiler.why_not import why_not
from tests.support.unets import FACTORIES, errors, subject, workload

EAGER = [name for name in FAMILY if name != "compilation"]  # it has slow tests of its own
# Relative L2 errors against the plain fp32 model: rounding order only, or bfloat16's 8 bits of mantissa.
TOLERANCE = {"fp32": (1e-5, 1e-4), "bf16": (3e-2, 6e-2), "bf16_amp": (3e-2, 6e-2)}


def _possible(family: str) -> list[str]:
    """The choices that a CPU can run, in the mode in which every family counts."""
    work, machine = workload(mode="train"), probe()
    return [c for c in choices(family) if why_not(Combo.from_dict({family: c}), work, machine) is None]


def test_the_order_holds_every_family_once() -> None:
    assert sorted(name for name in FAMILY) == sorted(FAMILIES)


@pytest.mark.parametrize("family", FAMILY)
def test_a_family_is_a_file_with_an_essay(family: str) -> None:
    module = importlib.import_module(f"profiler.optims.{family}")
    assert FAMILY[family].apply is module.apply
    assert len((module.__doc__ or "").split()) > 40


@pytest.mark.parametrize("kind", FACTORIES)
def test_evidence_names_each_family_and_choice(kind: str) -> None:
    _, evidence = subject(workload(kind, mode="train"))
    assert [(e.family, e.choice) for e in evidence] == [(name, choices(name)[0]) for name in FAMILY]
    assert all(e.confirmed is None and not e.observed for e in evidence)


@pytest.mark.parametrize("mode", ["inference", "train", "sample"])
@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("family", EAGER)
def test_every_choice_agrees_with_the_plain_model(family: str, kind: str, mode: str) -> None:
    for choice in _possible(family) if applies(family, mode) else ():
        output_tolerance, gradient_tolerance = TOLERANCE.get(choice, TOLERANCE["fp32"])
        found = errors(workload(kind, mode=mode), Combo.from_dict({family: choice}))
        assert found.output_error <= output_tolerance, choice
        assert (found.gradient_error is not None) == (mode == "train")
        assert (found.gradient_error or 0.0) <= gradient_tolerance, choice


@pytest.mark.parametrize("kind", FACTORIES)
def test_all_families_together_agree_with_the_plain_model(kind: str) -> None:
    combo = Combo(
        attention="sdpa",
        precision="bf16_amp",
        memory_format="channels_last",
        checkpointing="full",
        optimizer="adamw_fused",
    )
    found = errors(workload(kind, mode="train"), combo)
    assert found.output_error <= TOLERANCE["bf16_amp"][0]
    assert (found.gradient_error or 1.0) <= TOLERANCE["bf16_amp"][1]
