"""Evidence in words: facts, verdicts, and what no trace could tell."""

from typing import Any

import pytest

from profiler.combo import FAMILIES, Combo, choices
from profiler.evidence import facts_in_words, verdict, why_no_verdict


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"num_layers": 8, "head_dims": {"16": 6, "32": 2}}, "layers: 8; head dims: 16 (6 times), 32 (2 times)"),
        ({"flash d16": 6, "flash_attn": 0, "flex": 0}, "flash d16: 6; none: flash_attn, flex"),
        ({"num_graph_breaks": 0, "share_compiled": 1.0}, "graph breaks: 0; 100% compiled"),
        ({"weights": "float32", "loss_scaling": False}, "weights: float32; loss scaling: no"),
        ({"gradient_bytes": 3 * 2**20, "memory_budget": 0.5}, "gradient: 3 MiB; memory budget: 0.5"),
        ({"note": "padded: a known bug", "shapes": [[2, 4], [8]]}, "padded: a known bug; shapes: 2, 4, 8"),
        ({"num_shards": [1, 2], "share_compiled": None}, "shards: 1, 2; share compiled: unknown"),
        ({"matmul_input_types": {}}, "matmul input types: none seen"),
        ({}, ""),
    ],
)
def test_evidence_is_told_in_words(facts: dict[str, Any], words: str) -> None:
    assert facts_in_words(facts) == words


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_replayed_graph_hides_is_told_and_is_no_failure(family: str) -> None:
    combo = Combo(cuda_graphs="whole_step")
    choice = choices(family)[1]
    assert verdict(family, choice, None) == "out of sight"
    assert "cannot be seen: a replayed CUDA graph shows kernels" in why_no_verdict(family, choice, None, combo, "cuda")
    for confirmed, word in ((True, "confirmed"), (False, "not confirmed")):
        assert verdict(family, choice, confirmed) == word
        assert why_no_verdict(family, choice, confirmed, combo, "cuda") == ""


def test_a_baseline_choice_has_nothing_to_show() -> None:
    assert verdict("checkpointing", "none", None) == "nothing to show"
    assert why_no_verdict("checkpointing", "none", None, Combo(cuda_graphs="whole_step"), "cuda") == ""


def test_compiled_code_and_a_missing_trace_are_told_apart() -> None:
    for combo, device, why in (
        (Combo(compilation="default"), "cuda", "compiled code puts kernels of its own"),
        (Combo(compilation="reduce_overhead"), "cuda", "a replayed CUDA graph"),
        (Combo(compilation="reduce_overhead"), "cpu", "compiled code puts kernels of its own"),
        (Combo(), "cpu", "no trace that could tell"),
    ):
        told = why_no_verdict("precision", "bf16", None, combo, device)
        assert told.startswith("which types the matmuls take cannot be seen: ")
        assert why in told
