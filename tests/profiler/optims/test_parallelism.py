"""Parallelism on two real processes (gloo), in one launch of torchrun; and in worlds of one in this process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, HeunDiscreteScheduler

from profiler.combo import Combo
from profiler.optims import parallelism
from profiler.optims.tensor_parallel import _interleaved
from profiler.subject import NotApplicable
from runs.job_queue import ROOT
from tests.support.two_ranks import CASES, Found, launch
from tests.support.unets import SHALLOW, collect, compare, conditional_unet, subject, workload

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each of two ranks finds."""
    return launch(tmp_path_factory.mktemp("ranks"), "cpu")


@pytest.mark.parametrize("case", CASES)
def test_two_processes_agree_with_one(case: str, two_ranks: Found) -> None:
    for found in (rank[case] for rank in two_ranks):
        assert found["errors"]["output_error"] <= 1e-5
        assert (found["errors"]["gradient_error"] or 0.0) <= 1e-5
        assert (found["errors"]["gradient_error"] is None) == (CASES[case][1].mode != "train")
        if CASES[case][1].mode == "train":
            assert found["loss"][0] == pytest.approx(found["loss"][1], rel=1e-5)
        assert found["parameters"], "each parameter of one process has its gradient"


@pytest.mark.parametrize("case", CASES)
def test_the_trace_of_every_rank_bears_out_every_family(case: str, two_ranks: Found) -> None:
    for rank in two_ranks:
        evidence = rank[case]["evidence"]
        assert {family: found for family, (confirmed, found) in evidence.items() if confirmed is False} == {}
        assert evidence["parallelism"] == [True, ""]


@pytest.mark.parametrize("case", CASES)
def test_every_rank_has_figures_of_its_own(case: str, two_ranks: Found) -> None:
    for place, rank in enumerate(two_ranks):
        figures = rank[case]["figures"]
        assert figures["rank"] == place
        assert figures["compute_ms"] > 0
        assert 0 <= figures["wait_ms"] <= figures["exposed_communication_ms"] < figures["step_ms"]
        assert figures["communicated_bytes"] > 0


def test_fsdp2_holds_half_and_sends_half_as_much_again_as_gradients_alone(two_ranks: Found) -> None:
    whole = sum(p.numel() for p in subject(workload(SHALLOW, mode="train"))[0].unet.parameters())
    for rank in two_ranks:
        observed = rank["fsdp2 shallow_conditional_unet train"]["observed"]
        assert observed["num_local_elements"] == pytest.approx(whole / 2, 0.01)


def test_gradients_that_are_not_averaged_fail_the_error_check(two_ranks: Found) -> None:
    assert two_ranks[0]["unaveraged"]["gradient_error"] > 0.1


def test_half_of_the_blocks_sharded_is_found(two_ranks: Found) -> None:
    for rank in two_ranks:
        assert rank["half sharded"]["confirmed"] is False
        assert "groups" in rank["half sharded"]["finding"]


@pytest.mark.parametrize("choice", ["ddp", "fsdp2", "tensor"])
def test_a_world_of_one_agrees_with_the_plain_model(choice: Any) -> None:
    work = workload(mode="train")
    made, _ = subject(work, Combo(parallelism=choice, optimizer="adamw_foreach"))
    errors = compare(collect(made), work)
    assert errors.output_error <= 1e-5
    assert errors.gradient_error is not None
    assert errors.gradient_error <= 1e-5


def test_each_slice_of_geglu_has_both_halves_of_its_columns() -> None:
    assert _interleaved(8, 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert torch.equal(_interleaved(12, 3).argsort()[_interleaved(12, 3)], torch.arange(12))


def test_a_unet_that_the_pipeline_does_not_know_is_refused() -> None:
    work = workload("tests.support.unets:one_level_unet", world_size=1)
    with pytest.raises(NotApplicable, match="UNets with no mid_block: choose ddp or tensor"):
        subject(work, Combo(parallelism="pipeline"))


def test_guidance_is_exchanged_at_every_forward_of_the_scheduler(tmp_path: Path) -> None:
    """Heun's second order asks the UNet twice in all steps but the last."""
    DDPMPipeline(unet=conditional_unet(), scheduler=HeunDiscreteScheduler()).save_pretrained(tmp_path)
    made, _ = subject(workload(str(tmp_path), mode="sample", num_inference_steps=3))
    assert parallelism._cfg(made)[1] == {"num_exchanges": 5}


def test_more_processes_than_were_started_are_an_error(tmp_path: Path) -> None:
    code = (
        "from profiler import ranks; from profiler.workload import Workload;"
        "ranks.join(Workload(model='tiny', device='cpu', world_size=2))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert "world_size=2, but 1 processes were started: submit the run by python -m runs" in done.stderr
