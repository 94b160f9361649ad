"""Compilation on a CPU: the same results as the plain model, and a compiled region in the trace."""

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch._dynamo.utils import counters

from profiler import provenance
from profiler.combo import Combo
from profiler.optims import compilation
from profiler.record import Evidence
from profiler.steps import make_step, no_phase
from profiler.subject import Subject
from profiler.traces.objects import Found
from profiler.traces.timeline import Timeline
from profiler.tracing import Trace
from profiler.verify import verify
from profiler.workload import Workload
from tests.support import unets
from tests.support.traces import attributed, kernel, launch, op, step
from tests.support.unets import FACTORIES, of, subject, trace, workload
from tests.support.vectors import vector_types

_CONVOLUTIONS = ("aten::convolution", "aten::convolution_backward")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor builds C++ on a CPU: install g++")


@pytest.fixture(autouse=True, scope="module")
def _own_graphs() -> Iterator[None]:
    """What comes from a graph that another test compiled says nothing of its modules; g++'s kernels are shared."""
    with torch.compiler.config.patch(cache_key_tag=uuid4().hex):
        yield


@pytest.mark.slow
@needs_compiler
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")  # Inductor's own, in max-autotune
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # Dynamo's own, at block inputs
@pytest.mark.parametrize(
    ("mode", "choice"),
    [("inference", "default"), ("inference", "max_autotune"), ("train", "default"), ("train", "regional")],
)
def test_a_compiled_model_agrees_with_the_plain_one_and_shows_in_the_trace(
    mode: str, choice: Any, tmp_path: Path
) -> None:
    # Of blocks, two must share their code and be told apart; a whole UNet may be the smallest, at half the kernels.
    unet = "one_level_unet" if choice == "regional" else "smallest_unet"
    work = workload(f"{unets.__name__}:{unet}", mode=mode)
    # As users have it in inference; those kernels cost g++ twice as much.
    with vector_types() if mode == "inference" else nullcontext():
        _check_compiled(work, choice, tmp_path)


def _check_compiled(work: Workload, choice: str, tmp_path: Path) -> None:
    provenance.listen()
    made, evidence = subject(work, Combo.from_dict({"compilation": choice}))
    errors = unets.compare(unets.collect(made), work)
    assert errors.output_error <= 1e-5
    assert (errors.gradient_error or 0.0) <= 1e-4
    num_graphs = compilation.num_graphs()
    traced = trace(made, tmp_path)
    assert compilation.num_graphs() == num_graphs  # the ranges round compiled blocks make nothing compile again
    found = verify(of("compilation", evidence), traced, made)
    assert found.confirmed, found.finding
    assert found.observed["compiled regions"] > 0
    _check_modules(traced, made, choice)
    assert found.observed["num_graphs"] > 0
    assert found.observed["num_graph_breaks"] == 0
    if choice != "default":  # a compiler's caches know nothing of our choices: one of each mode is enough
        return
    hits = counters["inductor"]["fxgraph_cache_hit"]
    compilation.forget()
    unets.collect(made)
    assert counters["inductor"]["fxgraph_cache_hit"] > hits  # what warm_compile_s measures


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty:UserWarning")  # Inductor's own, at its first graph
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("left_out", [slice(0, 0), slice(None, None, 2)], ids=["whole", "half of the ResNet blocks"])
def test_what_a_recorded_graph_leaves_out_is_found(left_out: slice, tmp_path: Path) -> None:
    """A replay shows no operator: those that are seen are the part that was not compiled."""
    made, _ = subject(workload(mode="train", device="cuda"))
    for block in [module for module in made.unet.modules() if isinstance(module, ResnetBlock2D)][left_out]:
        block.forward = torch.compiler.disable(block.forward)
    compiled, evidence = compilation.apply(made, "reduce_overhead")
    step, inputs = make_step(compiled), unets.inputs_of(compiled)
    for _ in range(3):  # compiled, warmed up, recorded
        step(inputs[0], no_phase)
    found = verify(evidence, trace(compiled, tmp_path), compiled)
    assert found.confirmed is (left_out == slice(0, 0)), found
    assert ("ran in compiled code" in found.finding) is not found.confirmed


def _check_modules(traced: Trace, made: Subject, choice: str) -> None:
    """Every convolution of the UNet is found at its own module, forward and backward."""
    assert provenance.note() == []
    convolutions = [name for name, part in made.unet.named_modules() if isinstance(part, torch.nn.Conv2d)]
    found = Counter((op.event.name, op.module) for op in traced.found.ops if op.event.name in _CONVOLUTIONS)
    if choice == "max_autotune":  # it has templates of its own for some, which are no operators
        assert {path for _, path in found} <= set(convolutions)
        return
    calls = _CONVOLUTIONS[: 2 if made.workload.mode == "train" else 1]
    assert found == dict.fromkeys(itertools.product(calls, convolutions), 1)


def test_what_a_replay_leaves_out_counts_by_its_time() -> None:
    """One call of a backward launches several kernels: counted by calls, a third of the work looked like a tenth."""
    made, _ = subject(workload(mode="train"))
    launched = [launch(number, start) for number, start in enumerate((2, 10, 11, 12))]
    kernels = [kernel("sm90_gemm", 20 + 10 * n, 30 + 10 * n, correlation=n) for n in range(4)]
    by_hand = (op("aten::convolution_backward", 9, 14), op("aten::cudnn_convolution_backward", 10, 13))
    found = Found(attributed(step(0, 100), op("CompiledFunction", 1, 5), *by_hand, *launched, *kernels))
    traced = Trace(found=found, timeline=Timeline(), step_ms=1.0)
    replayed = replace(made, uses_graphs=True)
    seen, finding = compilation.check(Evidence(family="compilation", choice="reduce_overhead"), traced, replayed)
    assert seen["share_compiled"] == 0.25
    assert finding == "only 25% of the matmuls and convolutions ran in compiled code"
    kernels[1:2] = [kernel("nchwToNhwcKernel", 30, 40, correlation=1)]  # no convolution by its class
    found = Found(attributed(step(0, 100), *by_hand, *launched, *kernels[1:]))
    seen, _ = compilation.check(
        Evidence(family="compilation", choice="reduce_overhead"), replace(traced, found=found), replayed
    )
    assert seen["share_compiled"] == 0


def test_of_a_recorded_step_nobody_knows_what_was_compiled(tmp_path: Path) -> None:
    """Its replay shows no operator of the UNet, compiled or not: what the trace does show decides nothing."""
    made, _ = subject(workload())
    recorded = replace(made, uses_graphs=True, records_steps=True)
    evidence = Evidence(family="compilation", choice="default")
    seen, finding = compilation.check(evidence, trace(made, tmp_path), recorded)
    assert (seen["share_compiled"], finding) == (None, None)


@pytest.mark.parametrize("kind", FACTORIES)
def test_an_eager_trace_shows_none(kind: str, tmp_path: Path) -> None:
    made, evidence = subject(workload(kind, mode="train"))
    found = verify(of("compilation", evidence), trace(made, tmp_path), made)
    assert found.confirmed, found.finding
    assert set(found.observed.values()) == {0}


@pytest.mark.parametrize(
    ("choice", "device", "graphs"),
    [("default", "cuda", False), ("reduce_overhead", "cuda", True), ("max_autotune", "cuda", True)],
)
def test_what_a_gpus_trace_must_show(choice: str, device: str, graphs: bool) -> None:
    made, _ = subject(workload())
    on_gpu = type(made)(unet=made.unet, workload=workload(device=device), call=made.call)
    compiled, evidence = compilation.apply(on_gpu, choice)
    assert compiled.uses_graphs is graphs
    assert ("graph launches" in evidence.must_appear) is graphs
    assert "Triton kernels" in evidence.must_appear
    assert compiled.call is not made.unet


def test_every_shape_of_a_block_may_be_compiled() -> None:
    """Where a kernel breaks the graph, blocks are compiled one by one, and Dynamo would give up after eight shapes."""
    with torch._dynamo.config.patch(recompile_limit=8):
        compilation.apply(subject(workload())[0], "default")
        assert torch._dynamo.config.recompile_limit >= 64


def test_compiling_a_cpus_training_step_keeps_its_gradients() -> None:
    with torch._inductor.config.patch(layout_optimization=True):  # pytest's monkeypatch would delete it at the end
        _, evidence = compilation.apply(subject(workload(mode="train"))[0], "default")
        assert evidence.facts["layout_optimization"] is False
        assert torch._inductor.config.layout_optimization is False
