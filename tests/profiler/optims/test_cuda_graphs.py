"""CUDA graphs, as far as a CPU can tell: what is promised, what a trace must show, what cannot be recorded."""

from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from profiler.combo import Combo
from profiler.optims import cuda_graphs
from profiler.subject import NotApplicable, Subject
from profiler.traces.objects import Found
from profiler.tracing import Trace
from profiler.verify import verify
from tests.support.unets import subject, trace, workload

RECORDED = Combo(cuda_graphs="whole_step")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, Trace]:
    made, _ = subject(workload())
    return made, trace(made, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(("mode", "launches"), [("inference", 1), ("train", 1), ("sample", 2)])
def test_a_recorded_step_promises_its_launches(mode: str, launches: int) -> None:
    made, evidence = subject(workload(mode=mode), RECORDED)
    assert (made.records_steps, made.uses_graphs) == (True, True)
    assert evidence[-1].facts["num_graph_launches"] == launches


def test_an_optimizer_to_be_recorded_keeps_its_step_on_the_device() -> None:
    for combo in (Combo(), RECORDED):
        made, _ = subject(workload(mode="train"), combo)
        assert made.optimizer is not None
        assert made.optimizer.param_groups[0]["capturable"] is (combo == RECORDED)


@pytest.mark.parametrize(
    ("calls", "finding"),
    [
        (["cudaGraphLaunch"], ""),
        (["cudaGraphLaunch", "cudaMemcpyAsync"], ""),
        (["cudaGraphLaunch"] * 2, "2 graph launches per step, not 1"),
        (["cudaGraphLaunch", *["cudaLaunchKernelExC"] * 5000], "5000 of "),
        ([], "the trace shows no graph launches"),
    ],
)
def test_launches_are_counted(plain: tuple[Subject, Trace], calls: list[str], finding: str) -> None:
    made, traced = plain
    evidence = cuda_graphs.apply(made, "whole_step")[1]
    objects = Found(traced.attribution)
    vars(objects)["launches"] = tuple(calls)  # in the place of what it would read from the columns
    found = verify(evidence, replace(traced, found=objects), made)
    assert found.confirmed is (finding == "")
    assert finding in found.finding


def test_off_excludes_graphs_unless_the_compiler_makes_them() -> None:
    made, _ = subject(workload())
    by_compiler = replace(made, combo=Combo(compilation="reduce_overhead"))
    assert "graph launches" in cuda_graphs.apply(made, "off")[1].must_not_appear
    assert not cuda_graphs.apply(by_compiler, "off")[1].must_not_appear


def test_dropout_in_checkpointed_blocks_cannot_be_recorded() -> None:
    made, _ = subject(workload(mode="train"), Combo(checkpointing="full"))
    cuda_graphs.apply(made, "whole_step")
    next(module for module in made.unet.modules() if isinstance(module, nn.Dropout)).p = 0.1
    with pytest.raises(NotApplicable, match="choose checkpointing=none"):
        cuda_graphs.apply(made, "whole_step")


def test_without_a_gpu_nothing_is_recorded(tmp_path: Path) -> None:
    made, _ = subject(workload(), RECORDED)
    with pytest.raises((AssertionError, RuntimeError)):
        trace(made, tmp_path)


def test_a_sampler_may_launch_its_own_arithmetic(plain: tuple[Subject, Trace]) -> None:
    """A fifth of the kernels: a whole forward beside its graph would be half of them."""
    made, traced = plain
    sampling = replace(made, workload=replace(made.workload, mode="sample", num_inference_steps=1))
    objects = Found(traced.attribution)
    vars(objects)["launches"] = ("cudaGraphLaunch", *["cudaLaunchKernel"] * int(0.2 * traced.num_kernels))
    evidence = cuda_graphs.apply(sampling, "whole_step")[1]
    for subject_of, confirmed in ((sampling, True), (made, False)):
        assert verify(evidence, replace(traced, found=objects), subject_of).confirmed is confirmed
