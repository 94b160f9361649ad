"""Broken on purpose: an apply that does nothing, half of the work, or wrong work never ends as done.

Each replaces one family's apply, keeps the evidence that the real one gives, and goes through a whole run on a CPU.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from profiler import numerics, session
from profiler.combo import Combo, choices
from profiler.environment import probe
from profiler.joined import join
from profiler.optims import FAMILY
from profiler.optims.attention import KernelProcessor
from profiler.optims.optimizer import LEARNING_RATE
from profiler.record import Record
from profiler.session import profile
from profiler.subject import NotApplicable, Subject
from profiler.why_not import why_not
from profiler.workload import Workload
from tests.support.run_folders import FIXTURE_CPU
from tests.support.sessions import measure_once
from tests.support.unets import SHALLOW, WIDE, subject, workload
from tests.support.vectors import vector_types

pytestmark = [
    pytest.mark.slow,
    # the compiler's own, at block inputs
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]
TRAIN = workload(SHALLOW, mode="train")
INFERENCE = workload(WIDE)  # for what has no backward, and needs wide layers
LARGER = workload("tiny", resolution=64)  # where one fault of many layers hardly shows in the output
SMALLEST = workload("tests.support.unets:smallest_unet")  # the compiler is slow, and slower for a backward
Apply = Callable[[str], Subject]  # the real apply of the family, on this subject
Broken = Callable[[Subject, Apply], Subject]

# Choices that compile for long are left out of what is tried for every choice.
CHEAP = [(family, choice) for family in FAMILY for choice in choices(family)[1:] if choice != "max_autotune"]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("references")


@pytest.fixture
def run(tmp_path: Path, references: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Record]:
    monkeypatch.setattr(session, "_cold_compile_cache", nullcontext)  # how long g++ takes is not the question here
    measure_once(monkeypatch)

    def run(family: str, choice: str, broken: Broken, work: Workload | None = None) -> Record:
        combo, real = Combo.from_dict({family: choice}), FAMILY[family].apply
        chosen_work = work or _fitting(combo)
        if isinstance(chosen_work, str):
            pytest.skip(chosen_work)

        if not (references / chosen_work.reference_key).exists():
            numerics.make_reference(chosen_work, references / chosen_work.reference_key, lambda stage, detail: None)

        def apply(subject: Subject, chosen: str) -> Any:
            _, evidence = real(replace(subject, unet=copy.deepcopy(subject.unet)), chosen)
            return broken(subject, lambda other: real(subject, other)[0]), evidence

        monkeypatch.setitem(FAMILY, family, replace(FAMILY[family], apply=apply))
        # the compiler's kernels are those of test_compilation.py, built once for both
        with vector_types() if choice == "flex" or family == "compilation" else nullcontext():
            return profile(combo, chosen_work, tmp_path / "run", run_id="run", references=references)

    return run


@cache
def _fitting(combo: Combo) -> Workload | str:
    """The first workload that the real apply serves on a CPU, or the reason why none is."""
    reasons = []
    for work in (TRAIN, INFERENCE):
        reason = why_not(combo, work, probe())
        try:
            if reason is None:
                subject(work, combo)
                return work
        except NotApplicable as error:
            reason = str(error)
        reasons.append(reason)
    return "; ".join(dict.fromkeys(filter(None, reasons)))


@pytest.mark.parametrize(("family", "choice"), CHEAP)
def test_a_silent_no_op_is_ineffective(family: str, choice: str, run: Callable[..., Record]) -> None:
    record = run(family, choice, lambda subject, real: real(choices(family)[0]))
    assert record.status == "ineffective", record.cause or record.traceback
    assert record.cause.startswith(f"{family}={choice}: ")


def _attends_by_half(subject: Subject, real: Apply) -> Subject:
    made = real("sdpa_flash")
    layers = [module for module in made.unet.modules() if isinstance(module, Attention)]
    for layer in layers[::2]:
        layer.set_processor(AttnProcessor())
    return made


def _skips_half_of_attention(subject: Subject, real: Apply) -> Subject:
    made = real("sdpa_flash")
    for processor in [module for module in made.unet.modules() if isinstance(module, KernelProcessor)][::2]:
        processor.kernel = lambda query, key, value: query
    return made


def _computing(subject: Subject) -> list[nn.Module]:
    return [module for module in subject.unet.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _in_fp32(module: nn.Module) -> None:
    """Compute this layer in fp32, and hand its output on in the type that came in."""
    right = module.float().forward

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            output: torch.Tensor = right(hidden.float())
        return output.to(hidden.dtype)

    module.forward = forward  # type: ignore[method-assign]


def _half_in_fp32(choice: str) -> Broken:
    def broken(subject: Subject, real: Apply) -> Subject:
        made = real(choice)
        for module in _computing(made)[::2]:
            _in_fp32(module)
        return made

    return broken


def _half_of_the_layout(subject: Subject, real: Apply) -> Subject:
    made = real("channels_last")
    for convolution in [module for module in made.unet.modules() if isinstance(module, nn.Conv2d)][::2]:
        convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.contiguous_format)
    return made


def _joins_half(subject: Subject, real: Apply) -> Subject:
    for layer in [module for module in subject.unet.modules() if isinstance(module, Attention)][::2]:
        join(layer)
    return subject


def _joins_in_the_wrong_order(subject: Subject, real: Apply) -> Subject:
    made = real("qkv")
    layer = next(m for m in made.unet.modules() if isinstance(m, Attention) and not m.is_cross_attention)
    with torch.no_grad():
        query, key, value = layer.to_qkv.weight.chunk(3)
        layer.to_qkv.weight.copy_(torch.cat([query, value, key]))
    return made


def _half_of_the_parameters(subject: Subject, real: Apply) -> Subject:
    half = list(subject.unet.parameters())[::2]
    return replace(subject, optimizer=torch.optim.AdamW(half, lr=LEARNING_RATE, fused=True))


def _half_of_the_network(subject: Subject, real: Apply) -> Subject:
    for block in subject.unet.up_blocks:
        block.compile(mode="default", dynamic=False)
    return subject


def _half_of_the_regions(subject: Subject, real: Apply) -> Subject:
    made = real("regional")
    compiled = [module for module in made.unet.modules() if module._compiled_call_impl is not None]
    for module in compiled[::2]:
        module._compiled_call_impl = None
    return made


def _half_in_8_bits(subject: Subject, real: Apply) -> Subject:
    """torchao converts every second layer of those that were promised, without a word."""
    plain = copy.deepcopy(subject.unet)
    made = real("int8")
    for name in list(made.quantized)[::2]:
        parent, _, own = name.rpartition(".")
        setattr(made.unet.get_submodule(parent), own, plain.get_submodule(name))
    return made


HALVES: dict[str, tuple[str, str, Broken, Workload]] = {
    "attention": ("attention", "sdpa_flash", _attends_by_half, TRAIN),
    "attention is skipped": ("attention", "sdpa_flash", _skips_half_of_attention, TRAIN),
    "precision": ("precision", "bf16", _half_in_fp32("bf16"), TRAIN),
    "autocast": ("precision", "bf16_amp", _half_in_fp32("bf16_amp"), TRAIN),
    "memory_format": ("memory_format", "channels_last", _half_of_the_layout, TRAIN),
    "fusion": ("fusion", "qkv", _joins_half, TRAIN),
    "checkpointing": ("checkpointing", "full", lambda subject, real: real("alternate"), TRAIN),
    "checkpointing keeps nothing": ("checkpointing", "selective", lambda subject, real: real("full"), TRAIN),
    "quantization": ("quantization", "int8", _half_in_8_bits, INFERENCE),
    "optimizer": ("optimizer", "adamw_fused", _half_of_the_parameters, TRAIN),
    "compilation": ("compilation", "default", _half_of_the_network, SMALLEST),
    "regional": ("compilation", "regional", _half_of_the_regions, SMALLEST),
}


@pytest.mark.parametrize("half", HALVES)
def test_half_of_the_work_is_not_done(half: str, run: Callable[..., Record]) -> None:
    family, choice, broken, work = HALVES[half]
    record = run(family, choice, broken, work)
    assert record.status in ("ineffective", "wrong"), record.cause or record.traceback
    assert record.cause


def _scaled(choice: str) -> Broken:
    """5% too much out of the whole network."""

    def broken(subject: Subject, real: Apply) -> Subject:
        made = real(choice)
        right = made.call

        def call(*args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
            return (right(*args, **kwargs)[0] * 1.05,)

        return replace(made, call=call)

    return broken


def _wrong_softmax_scale(subject: Subject, real: Apply) -> Subject:
    made = real("sdpa")
    for processor in [module for module in made.unet.modules() if isinstance(module, KernelProcessor)]:
        right = processor.kernel
        processor.kernel = lambda query, key, value, right=right: right(query * 1.5, key, value)
    return made


def _with_scales(change: Callable[[torch.Tensor], torch.Tensor], layers: slice) -> Broken:
    """Scales of 8-bit weights that are not those that their numbers were made with."""

    def broken(subject: Subject, real: Apply) -> Subject:
        made = real("int8")
        for name in list(made.quantized)[layers]:
            weight: Any = made.unet.get_submodule(name).weight
            weight.scale = change(weight.scale)
        return made

    return broken


def _wrong_learning_rate(subject: Subject, real: Apply) -> Subject:
    made = real("adamw_fused")
    assert made.optimizer is not None
    made.optimizer.param_groups[0]["lr"] *= 2
    return made


def _wrong_recomputation(subject: Subject, real: Apply) -> Subject:
    """The forward is right; what runs again in the backward is not."""
    made = real("full")
    first, seen = next(module for module in made.unet.modules() if isinstance(module, ResnetBlock2D)).norm1, [0]
    forward = first.forward

    def uneven(hidden: torch.Tensor) -> torch.Tensor:
        seen[0] += 1
        return forward(hidden) * (1.0 if seen[0] % 2 else 1.3)

    first.forward = uneven  # type: ignore[method-assign]
    return made


def _first_on_a_cpu(family: str) -> str | None:
    """The first choice beyond the baseline that a CPU may run: one is enough for what does not depend on it."""
    for choice in choices(family)[1:]:
        if any(why_not(Combo.from_dict({family: choice}), work, FIXTURE_CPU) is None for work in (TRAIN, INFERENCE)):
            return choice
    return None


SCALES: dict[str, Broken] = {
    "twice the scale in one layer": _with_scales(lambda scale: scale * 2, slice(3, 4)),
    "the mean of all rows' scales": _with_scales(lambda scale: scale.mean() * torch.ones_like(scale), slice(None)),
}
WRONG: dict[str, tuple[str, str, Broken, Workload | None]] = {
    "softmax scale": ("attention", "sdpa", _wrong_softmax_scale, TRAIN),
    "joined in the wrong order": ("fusion", "qkv", _joins_in_the_wrong_order, TRAIN),
    "recomputation": ("checkpointing", "full", _wrong_recomputation, TRAIN),
    "learning rate": ("optimizer", "adamw_fused", _wrong_learning_rate, TRAIN),
    "compiled": ("compilation", "default", _scaled("default"), SMALLEST),
}
WRONG |= {f"8-bit weights have {fault}": ("quantization", "int8", broken, LARGER) for fault, broken in SCALES.items()}
WRONG |= {
    f"output scale {family}": (family, choice, _scaled(choice), None)
    for family in FAMILY
    if family not in ("compilation", "optimizer") and (choice := _first_on_a_cpu(family))
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_work_is_not_done(wrong: str, run: Callable[..., Record]) -> None:
    family, choice, broken, work = WRONG[wrong]
    record = run(family, choice, broken, work)
    assert record.status in ("ineffective", "wrong"), record.cause or record.traceback
    assert record.cause


# Compilers take minutes: test_compilation.py has compiled runs, test_optimizer.py the real 8-bit update, which is one
# compilation for every shape of parameter.
REAL = [pair for pair in CHEAP if pair[0] != "compilation" and pair[1] != "adamw_8bit"]


@pytest.mark.parametrize(("family", "choice"), REAL)
def test_the_real_apply_is_done_in_the_same_run(family: str, choice: str, run: Callable[..., Record]) -> None:
    record = run(family, choice, lambda subject, real: real(choice))
    assert (record.status, record.cause) == ("done", "")
