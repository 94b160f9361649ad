"""Fused kernels on a GPU: against plain modules in fp64, in both layouts, alone and in whole runs.

Without a GPU, Triton's interpreter runs the kernels' arithmetic (not its rounding to bf16, which it cuts off):

    pip install triton; TRITON_INTERPRET=1 pytest tests/profiler/optims/test_fused_kernels.py -k arithmetic
"""

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from profiler import numerics
from profiler.combo import Combo
from profiler.environment import probe
from profiler.optims import FAMILY, fusion
from profiler.record import Record
from profiler.session import profile
from profiler.subject import Subject
from profiler.verify import verify
from profiler.why_not import why_not
from profiler.workload import Workload
from tests.support.unets import conditional_unet, errors, inputs_of, of, subject, trace, workload

triton = pytest.importorskip("triton", reason="needs the package triton")
from profiler.optims import fused_operators  # noqa: E402, needs triton

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
gpu = pytest.mark.gpu
gpu_or_interpreter = pytest.mark.filterwarnings("default") if IS_INTERPRETED else pytest.mark.gpu

MAX_RATIO = 4 if IS_INTERPRETED else 2  # of the error over the plain modules' own; the interpreter cuts bits off

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
# Channels per group 1, 10, 20, 40, 60 and 80, from 8x8 to 64x64, odd sizes, one pixel, few groups.
SHAPES = [
    ((2, 32, 8, 8), 32),
    ((2, 320, 64, 64), 32),
    ((2, 640, 32, 32), 32),
    ((3, 1280, 16, 16), 32),
    ((2, 1920, 16, 16), 32),
    ((2, 2560, 8, 8), 32),
    ((1, 40, 33, 5), 4),
    ((2, 16, 1, 1), 4),
]
SMALL = [SHAPES[0], *SHAPES[-2:], ((1, 8, 96, 90), 2)]  # for the interpreter, the last beyond one program's registers


def _results(function: Callable[..., Tensor], leaves: list[Tensor], slope: Tensor) -> list[Tensor]:
    """Output and gradients."""
    leaves = [leaf.detach().clone(memory_format=torch.preserve_format).requires_grad_() for leaf in leaves]
    out = function(*leaves)
    out.backward(slope.to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def _norm_inputs(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    image, slope = (torch.randn(shape, generator=generator) for _ in range(2))
    weight, bias = (torch.randn(shape[1], generator=generator) for _ in range(2))
    image = (2 * image + 3).to(DEVICE, dtype).to(memory_format=LAYOUTS[layout])  # a mean that is not 0
    return [image, weight.to(DEVICE, dtype), bias.to(DEVICE, dtype)], slope.to(DEVICE, dtype)


def _assert_as_good_as_plain(
    fused: Callable[..., Tensor], plain: Callable[..., Tensor], leaves: list[Tensor], slope: Tensor
) -> list[Tensor]:
    """Not much further from fp64 than the plain modules are, for the output and each gradient."""
    found = _results(fused, leaves, slope)
    beside = _results(plain, leaves, slope)
    exact = _results(plain, [leaf.double() for leaf in leaves], slope.double())
    for one, other, truth in zip(found, beside, exact, strict=True):
        error, allowed = ((tensor.double() - truth).norm() / truth.norm() for tensor in (one, other))
        assert error <= MAX_RATIO * allowed + 1e-6, (tuple(one.shape), float(error), float(allowed))
    return found


@gpu_or_interpreter
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", DTYPES)
def test_group_norm_silu_arithmetic(name: str, layout: str) -> None:
    dtype = DTYPES[name]
    for shape, groups in SMALL if IS_INTERPRETED else SHAPES:

        def fused(x: Tensor, weight: Tensor, bias: Tensor, groups: int = groups) -> Tensor:
            out: Tensor = torch.ops.steplens.group_norm_silu(x, weight, bias, groups, 1e-5, dtype)[0]
            return out

        def plain(x: Tensor, weight: Tensor, bias: Tensor, groups: int = groups) -> Tensor:
            return F.silu(F.group_norm(x, groups, weight, bias, 1e-5))

        leaves, slope = _norm_inputs(shape, dtype, layout)
        output, d_input, *_ = _assert_as_good_as_plain(fused, plain, leaves, slope)
        assert output.stride() == d_input.stride() == leaves[0].stride()  # the layout is kept
        again = _results(fused, leaves, slope)
        assert all(torch.equal(*pair) for pair in zip((output, d_input), again, strict=False))  # bit by bit


@gpu_or_interpreter
@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(2, 7, 2 * 37), (2, 64, 2 * 1280)])
def test_geglu_arithmetic(shape: tuple[int, ...], name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x = (3 * torch.randn(shape, generator=generator)).to(DEVICE, DTYPES[name])
    slope = torch.randn((*shape[:-1], shape[-1] // 2), generator=generator).to(DEVICE, DTYPES[name])

    def plain(x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return value * F.gelu(gate)

    _assert_as_good_as_plain(lambda x: torch.ops.steplens.geglu(x), plain, [x], slope)


@gpu_or_interpreter
def test_the_operators_arithmetic_is_registered_as_it_runs() -> None:
    """Shapes and strides for the compiler, and the derivative, by PyTorch's own checks."""
    (x, weight, bias), _ = _norm_inputs((1, 16, 4, 4), torch.float32, "nhwc")
    leaves = [leaf.requires_grad_() for leaf in (x, weight, bias)]
    torch.library.opcheck(torch.ops.steplens.group_norm_silu.default, (*leaves, 4, 1e-5, torch.float32))
    torch.library.opcheck(torch.ops.steplens.geglu.default, (torch.randn(3, 8, device=DEVICE, requires_grad=True),))


@gpu_or_interpreter
@pytest.mark.parametrize("kind", ["conditional_unet", "pixel_unet"])
def test_the_arithmetic_of_a_whole_unet_traces_without_a_graph_break(kind: str) -> None:
    made, _ = subject(workload(kind, mode="train", device=DEVICE), Combo(fusion="all", memory_format="channels_last"))
    batch = inputs_of(made)[0]
    whole = torch.compile(made.unet, fullgraph=True, backend="aot_eager", dynamic=False)
    plain, traced = (
        call(batch.sample, batch.timestep, **batch.condition, return_dict=False)[0] for call in (made.unet, whole)
    )
    traced.sum().backward()
    assert torch.allclose(plain, traced, atol=1e-4)


@gpu
def test_inductor_compiles_the_operators_with_what_stands_around_them() -> None:
    made, _ = subject(workload(mode="train", device="cuda"), Combo(fusion="norm_act", memory_format="channels_last"))
    block = made.unet.mid_block.resnets[0]
    hidden = torch.randn(2, 64, 8, 8, device="cuda").to(memory_format=torch.channels_last)
    time = torch.randn(2, 128, device="cuda")
    expected, found = (
        _results(call, [hidden, time], torch.ones_like(hidden))
        for call in (block, torch.compile(block, fullgraph=True, dynamic=False))
    )
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-3)


@gpu
@pytest.mark.parametrize("kind", ["conditional_unet", "pixel_unet"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("choice", ["norm_act", "geglu", "all"])
def test_a_fused_unet_agrees_with_the_plain_one_in_fp32(kind: str, layout: Any, choice: Any) -> None:
    if choice == "geglu" and kind == "pixel_unet":
        pytest.skip("UNet2DModel has no GEGLU")
    work = workload(kind, mode="train", device="cuda")
    found = errors(work, Combo(fusion=choice, memory_format=layout))
    assert found.output_error <= 1e-4  # cuDNN's algorithms differ by layout
    assert (found.gradient_error or 1.0) <= 1e-3


COMBOS = {
    "eager": {"attention": "sdpa", "precision": "bf16_amp", "memory_format": "channels_last"},
    "recomputed": {"attention": "sdpa", "precision": "bf16", "checkpointing": "selective"},
    "recorded": {"attention": "sdpa", "precision": "bf16", "cuda_graphs": "whole_step"},
}


@gpu
@pytest.mark.parametrize("mode", ["train", "inference", "sample"])
@pytest.mark.parametrize("combo", COMBOS)
def test_the_trace_shows_the_fused_kernels(combo: str, mode: str, tmp_path: Path) -> None:
    families, work = COMBOS[combo] | {"fusion": "all"}, workload("tiny", mode=mode, device="cuda")
    if reason := why_not(Combo.from_dict(families), work, probe()):
        pytest.skip(reason)
    made, evidence = subject(work, Combo.from_dict(families))
    traced = trace(made, tmp_path)
    found = verify(of("fusion", evidence), traced, made)
    assert found.confirmed, found.finding
    assert found.observed["num_group_norm_silu"] > 0
    assert found.observed["num_geglu"] > 0
    ours = [kernel for kernel in traced.found.kernels if kernel.name.startswith(("group_norm_silu", "geglu"))]
    assert {kernel.category for kernel in ours} == {"norm", "elementwise"}
    if combo != "recorded":
        # a backward's is autograd's node: GeneratedBackwardFor_steplens_geglu_default
        assert {kernel.op for kernel in ours if "steplens" not in (kernel.op or "")} == set()


@gpu
def test_blocks_that_scale_by_the_time_embedding_are_left_out_and_counted() -> None:
    unet = conditional_unet().cuda()
    block = unet.mid_block.resnets[0]
    block.time_embedding_norm = "scale_shift"
    made, evidence = fusion.apply(Subject(unet=unet, workload=workload(device="cuda"), call=unet), "norm_act")
    assert evidence.facts["num_blocks_left_out"] == 1
    assert type(block.norm1) is nn.GroupNorm
    assert type(block.nonlinearity) is nn.SiLU
    assert isinstance(made.unet.mid_block.resnets[1].norm1, fusion.GroupNormSiLU)


TINY = {mode: workload("tiny", mode=mode, device="cuda", batch=4) for mode in ("train", "inference")}


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("references")
    for work in TINY.values():
        numerics.make_reference(work, folder / work.reference_key, lambda stage, detail: None)
    return folder


@pytest.fixture
def plain_apply() -> Iterator[None]:
    kept = FAMILY["fusion"]
    yield
    FAMILY["fusion"] = kept


def _profile(work: Workload, combo: Combo, folder: Path, references: Path) -> Record:
    return profile(combo, work, folder / "run", run_id="run", references=references)


@gpu
@pytest.mark.parametrize("mode", TINY)
@pytest.mark.parametrize("precision", ["fp32", "bf16_amp", "bf16"])
def test_a_run_is_done(mode: str, precision: Any, tmp_path: Path, references: Path) -> None:
    combo = Combo(fusion="all", precision=precision, attention="sdpa", memory_format="channels_last")
    record = _profile(TINY[mode], combo, tmp_path, references)
    assert record.status == "done", f"{record.cause}\n{record.traceback}"
    assert of("fusion", record.evidence).confirmed


def _of_half(kind: type[nn.Module], plain: type[nn.Module]) -> Callable[[Subject], Subject]:
    """Every second fused module goes back; the activation of such a norm is done by a hook of ours."""

    def broken(made: Subject) -> Subject:
        for module in [m for m in made.unet.modules() if isinstance(m, kind)][::2]:
            module.__class__ = plain
            if plain is nn.GroupNorm:
                module.register_forward_hook(lambda module, given, out: F.silu(out))
        return made

    return broken


def _scales_norms(made: Subject) -> Subject:
    for module in made.unet.modules():
        if isinstance(module, fusion.GroupNormSiLU):
            module.eps = 0.5
    return made


def _scales_gates(made: Subject) -> Subject:
    for module in made.unet.modules():
        if isinstance(module, fusion.FusedGEGLU):
            module.register_forward_hook(lambda module, given, out: out * 1.1)
    return made


BROKEN: dict[str, tuple[Any, Callable[[Subject], Subject]]] = {
    "half of the norms": ("norm_act", _of_half(fusion.GroupNormSiLU, nn.GroupNorm)),
    "half of the gates": ("geglu", _of_half(fusion.FusedGEGLU, fusion.GEGLU)),
    "wrong epsilon": ("norm_act", _scales_norms),
    "wrong scale": ("geglu", _scales_gates),
}


@gpu
@pytest.mark.usefixtures("plain_apply")
@pytest.mark.parametrize("broken", [*BROKEN, "nothing"])
def test_a_broken_apply_is_not_done(broken: str, tmp_path: Path, references: Path) -> None:
    choice, change = BROKEN.get(broken, ("all", lambda made: made))
    real = FAMILY["fusion"].apply

    def apply(subject: Subject, chosen: str) -> Any:
        untouched = copy.deepcopy(subject.unet)
        made, evidence = real(subject, chosen)
        return (replace(made, unet=untouched, call=untouched) if broken == "nothing" else change(made)), evidence

    FAMILY["fusion"] = replace(FAMILY["fusion"], apply=apply)
    record = _profile(TINY["train"], Combo(fusion=choice), tmp_path, references)
    assert record.status in ("ineffective", "wrong"), record.cause or record.traceback


def test_the_plan_covers_every_pixel_and_channel() -> None:
    for shape, groups in SHAPES:
        for is_nhwc in (False, True):
            plan = fused_operators._plan(shape, is_nhwc, groups)
            channels, pixels = plan.size
            assert plan.chunk % plan.tile["block_p"] == 0
            assert (plan.num_chunks - 1) * plan.chunk < pixels <= plan.num_chunks * plan.chunk
            assert plan.chunk_grid[0] * plan.tile["block_c"] >= channels
            assert plan.tile_grid[1] * plan.tile["block_p"] >= pixels
