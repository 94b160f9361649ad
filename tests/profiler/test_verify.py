"""Verification: what was promised and did not happen is found, for every family."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from profiler import tracing
from profiler.combo import FAMILIES, Combo
from profiler.optims import FAMILY, attention
from profiler.record import Evidence
from profiler.subject import Subject
from profiler.traces.objects import Found
from profiler.verify import count, verify
from tests.support.traces import attributed, kernel, launch, op, step
from tests.support.unets import of, subject, trace, workload

TRAIN = workload(mode="train")
NO_MARK = ("memory_format", "fusion")  # whose baseline leaves nothing to look for


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, tracing.Trace]:
    """A training step in which nothing was switched on."""
    made, _ = subject(TRAIN)
    return made, trace(made, tmp_path_factory.mktemp("plain"))


def _promised(family: str, choice: str) -> Evidence:
    """The evidence that the family's apply gives, of a subject that is never run."""
    made, _ = subject(TRAIN if choice != "int8" else workload("tiny", resolution=64))
    return FAMILY[family].apply(made, choice)[1]


@pytest.mark.parametrize(
    ("family", "choice", "finding"),
    [
        ("attention", "sdpa_flash", "the trace shows no flash; the trace shows math: aten::"),
        ("attention", "sdpa", "the trace shows math: aten::"),
        ("precision", "bf16", "only 0% of the matmuls and convolutions take c10::BFloat16"),
        ("precision", "bf16_amp", "only 0% of the matmuls and convolutions take c10::BFloat16"),
        ("memory_format", "channels_last", "no convolution was given a channels_last image"),
        ("checkpointing", "full", "nothing runs again in the backward"),
        ("optimizer", "adamw_fused", "the trace shows no fused update; the trace shows for-loop update"),
        ("optimizer", "adamw_foreach", "the trace shows no foreach update"),
        ("compilation", "default", "the trace shows no compiled regions"),
        ("quantization", "int8", "the trace shows no int8 products; the forward multiplied 0 times in 8 bits, not 24"),
        ("cuda_graphs", "whole_step", "the trace shows no graph launches; 0 graph launches per step, not 1"),
    ],
)
def test_a_choice_that_did_not_happen_is_found(
    plain: tuple[Subject, tracing.Trace], family: str, choice: str, finding: str
) -> None:
    made, traced = plain
    found = verify(_promised(family, choice), traced, made)
    assert found.confirmed is False
    assert finding in found.finding


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in NO_MARK])
def test_the_baseline_is_confirmed(plain: tuple[Subject, tracing.Trace], family: str) -> None:
    made, traced = plain
    found = verify(_promised(family, getattr(Combo(), family)), traced, made)
    assert found.confirmed is True
    assert found.finding == ""


@pytest.mark.parametrize("family", NO_MARK)
def test_a_baseline_that_leaves_no_mark_is_not_judged(plain: tuple[Subject, tracing.Trace], family: str) -> None:
    made, traced = plain
    found = verify(_promised(family, getattr(Combo(), family)), traced, made)
    assert (found.confirmed, found.observed, found.finding) == (None, {}, "")


def test_math_that_runs_as_flash_is_found(tmp_path: Path) -> None:
    made, _ = subject(TRAIN, Combo(attention="sdpa"))
    found = verify(_promised("attention", "math"), trace(made, tmp_path), made)
    assert found.confirmed is False
    assert found.finding.startswith("the trace shows no math; the trace shows flash")


def test_fp32_that_runs_in_16_bits_is_found(tmp_path: Path) -> None:
    made, _ = subject(TRAIN, Combo(precision="bf16"))
    found = verify(_promised("precision", "fp32"), trace(made, tmp_path), made)
    assert found.confirmed is False
    assert "take float" in found.finding


def test_a_checkpointing_flag_that_was_taken_back_is_found(tmp_path: Path) -> None:
    made, evidence = subject(TRAIN, Combo(checkpointing="full"))
    made.unet.disable_gradient_checkpointing()
    assert verify(of("checkpointing", evidence), trace(made, tmp_path), made).confirmed is False


def test_blocks_that_run_again_unasked_are_found(tmp_path: Path) -> None:
    made, evidence = subject(TRAIN)
    made.unet.enable_gradient_checkpointing()
    found = verify(of("checkpointing", evidence), trace(made, tmp_path), made)
    assert found.finding == "forward convolutions run again in the backward"


def test_an_optimizer_that_lost_its_flag_is_found(tmp_path: Path) -> None:
    made, evidence = subject(TRAIN, Combo(optimizer="adamw_fused"))
    loop = torch.optim.AdamW(made.unet.parameters(), foreach=False, fused=False)
    found = verify(of("optimizer", evidence), trace(replace(made, optimizer=loop), tmp_path), made)
    assert found.confirmed is False
    assert "no fused update" in found.finding


def test_an_unconverted_call_under_a_compiled_name_is_found(plain: tuple[Subject, tracing.Trace]) -> None:
    _, traced = plain
    compiled, promised = FAMILY["compilation"].apply(subject(TRAIN)[0], "default")
    assert verify(promised, traced, compiled).confirmed is False


def test_attention_is_counted_once_a_layer(plain: tuple[Subject, tracing.Trace]) -> None:
    assert attention.observed_calls(plain[1]) == {"math": 2 * 8}  # forward and backward


def test_what_is_observed_counts_per_step_and_a_triton_kernel_once(plain: tuple[Subject, tracing.Trace]) -> None:
    found = attributed(
        *(step(0, 50), step(50, 100), launch(1, 10), launch(2, 30), launch(3, 60)),
        *(op("triton_poi_add", 5, 15, external=1), op("triton_poi_add", 25, 35, external=2)),
        op("triton_red_sum", 55, 65, external=3),
        kernel("triton_poi_add", 12, 20, correlation=1, external=1),
        kernel("triton_poi_add", 32, 40, correlation=2, external=2),
        kernel("triton_red_sum", 62, 70, correlation=3, external=3),
    )
    patterns = {
        "kernels": "^triton_(poi|red)",
        "additions": "^triton_poi",
        "sums": "^triton_red",
        "none": "^triton_tem",
    }
    promised = Evidence(family="compilation", choice="eager", must_appear=patterns)
    seen = verify(promised, replace(plain[1], found=Found(found)), plain[0])
    assert seen.observed == {"kernels": 1.5, "additions": 1, "sums": 0.5, "none": 0}
    assert (seen.confirmed, seen.finding) == (False, "the trace shows no none")


def test_a_kernel_is_not_counted_again_as_the_operators_that_launch_it(plain: tuple[Subject, tracing.Trace]) -> None:
    softmax = (
        *(step(0, 50), op("aten::softmax", 5, 15, external=1), op("aten::_softmax", 6, 14, external=2)),
        *(launch(1, 10), kernel("softmax_warp_forward", 12, 20, correlation=1, external=2)),
    )
    math = Evidence(family="attention", choice="math", must_appear={"math": "[Ss]oft[Mm]ax"})
    seen = verify(math, replace(plain[1], found=Found(attributed(*softmax))), plain[0])
    assert seen.observed["math"] == 1


def test_patterns_count_calls(plain: tuple[Subject, tracing.Trace]) -> None:
    names = plain[1].names
    assert count(r"^steplens\.phase\.", names) == 3
    assert count(r"no such kernel", names) == 0
