"""Combos: choices, labels and keys."""

from dataclasses import fields

import pytest

from profiler.combo import BASELINE, FAMILIES, Combo, applies, choices, name_run
from profiler.workload import Workload


def test_the_first_choice_of_every_family_is_the_baseline() -> None:
    assert {family: choices(family)[0] for family in FAMILIES} == BASELINE.to_dict()


def test_every_family_explains_itself() -> None:
    assert all(field.metadata["help"] for field in fields(Combo))


def test_the_label_names_what_differs_from_the_baseline() -> None:
    assert BASELINE.label == "baseline"
    assert Combo(precision="bf16", attention="sdpa").label == "sdpa · bf16"
    assert Combo(checkpointing="full", compilation="default").label == "checkpointing full · compile default"


def test_the_difference_holds_the_own_choices() -> None:
    mine, theirs = Combo(attention="sdpa", precision="bf16"), Combo(precision="fp16")
    assert mine.difference(theirs) == {"attention": "sdpa", "precision": "bf16"}
    assert mine.difference(mine) == {}


def test_equal_combos_have_equal_keys_and_others_do_not() -> None:
    singles = {Combo.from_dict({f: c}) for f in FAMILIES for c in choices(f)}
    assert len({combo.key for combo in singles}) == len(singles)
    assert Combo(attention="sdpa").key == Combo.from_dict({"attention": "sdpa"}).key


def test_a_combo_survives_its_json_form() -> None:
    combo = Combo(attention="sdpa_flash", compilation="default")
    assert Combo.from_dict(combo.to_dict()) == combo


def test_an_unknown_choice_is_answered_with_the_choices() -> None:
    with pytest.raises(ValueError, match="unknown attention 'warp': choose one of math, sdpa"):
        Combo.from_dict({"attention": "warp"})


def test_an_unknown_family_is_answered_with_the_families() -> None:
    with pytest.raises(ValueError, match="unknown family quantum: the families are attention"):
        Combo.from_dict({"quantum": "yes"})


def test_the_name_of_a_run_counts_its_processes() -> None:
    combo = Combo(precision="bf16", parallelism="ddp")
    assert name_run(combo, Workload()) == "bf16 · ddp"
    assert name_run(combo, Workload(world_size=2)) == "bf16 · ddp x2"


def test_an_attention_that_compiles_counts_as_compiling() -> None:
    assert Combo(attention="flex").compiles
    assert not Combo(attention="flash_attn_2").compiles


def test_families_of_the_backward_apply_to_training_only() -> None:
    assert {f for f in FAMILIES if not applies(f, "inference")} == {"checkpointing", "optimizer"}
    assert all(applies(family, "train") for family in FAMILIES)
