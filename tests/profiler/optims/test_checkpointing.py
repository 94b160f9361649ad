"""Checkpointing: blocks run again in the backward, and less is kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._functorch.config as functorch

from profiler.combo import Combo
from profiler.optims import attention, checkpointing
from profiler.subject import NotApplicable
from profiler.traces.words import RECOMPUTE
from profiler.verify import verify
from tests.support import unets
from tests.support.unets import FACTORIES, inputs_of, of, subject, trace, workload


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("choice", ["full", "alternate"])
def test_the_backward_runs_convolutions_again(choice: Any, kind: str, tmp_path: Path) -> None:
    made, evidence = subject(workload(kind, mode="train"), Combo(checkpointing=choice))
    traced = trace(made, tmp_path)
    found = verify(of("checkpointing", evidence), traced, made)
    assert found.confirmed, found.finding
    assert found.observed["num_recomputed_convolutions"] >= 0.75 * found.facts["num_convolutions"]
    assert found.observed["num_recomputed_attention_calls"] == found.facts["num_attention_layers"]
    assert found.facts["num_checkpointed"] == found.facts["num_blocks"] / (2 if choice == "alternate" else 1)
    assert (traced.recompute_ms or 0) > 0


@pytest.mark.parametrize("kind", FACTORIES)
def test_selective_runs_norms_again_and_no_convolution(kind: str, tmp_path: Path) -> None:
    made, evidence = subject(workload(kind, mode="train"), Combo(checkpointing="selective", attention="sdpa"))
    traced = trace(made, tmp_path)
    found = verify(of("checkpointing", evidence), traced, made)
    assert found.confirmed, found.finding
    assert found.observed["num_recomputed_convolutions"] == found.observed["num_recomputed_attention_calls"] == 0
    again = {op.event.name for op in traced.found.ops if op.phase == RECOMPUTE}
    assert "aten::native_group_norm" in again
    assert again.isdisjoint({"aten::mkldnn_convolution", "aten::_scaled_dot_product_flash_attention_for_cpu_kernel"})


@pytest.mark.parametrize("choice", ["full", "alternate"])
def test_a_compiler_takes_in_the_blocks_that_run_again(choice: Any) -> None:
    """The whole graph; without Inductor, whose part is the same for any graph."""
    work = workload(f"{unets.__name__}:one_level_unet", mode="train")
    plain, _ = subject(work)
    combo = Combo(checkpointing=choice, compilation="default")
    made, _ = checkpointing.apply(replace(plain, combo=combo), choice)
    errors = unets.compare(unets.collect(replace(made, call=torch.compile(made.unet, backend="aot_eager"))), work)
    assert errors.output_error <= 1e-5
    assert errors.gradient_error is not None
    assert errors.gradient_error <= 1e-4


def test_attention_that_selective_does_not_know_by_name_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tuple(name for name in checkpointing._KEPT if "flash" not in name[1])
    monkeypatch.setattr(checkpointing, "_KEPT", known)
    made, evidence = subject(workload(mode="train"), Combo(checkpointing="selective", attention="sdpa"))
    found = verify(of("checkpointing", evidence), trace(made, tmp_path), made)
    assert found.finding == "8 attention calls run again, their results were to be kept"


def test_selective_lets_math_attention_run_again(tmp_path: Path) -> None:
    made, evidence = subject(workload(mode="train"), Combo(checkpointing="selective"))
    found = verify(of("checkpointing", evidence), trace(made, tmp_path), made)
    assert found.confirmed, found.finding
    assert found.observed["num_recomputed_attention_calls"] == 8


@torch.library.custom_op("steplens_test::attend", mutates_args=())
def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(query, key, value)


class _Attends(torch.autograd.Function):
    """What flash-attn and xFormers are made of: an autograd.Function round an operator of their own."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(query, key, value)
        out: torch.Tensor = torch.ops.steplens_test.attend(query, key, value)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        with torch.enable_grad():
            out = torch.nn.functional.scaled_dot_product_attention(*inputs)
        return torch.autograd.grad(out, inputs, gradients)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_packages_operator_is_kept_by_its_name(
    is_known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operators that only a GPU has, by one of our own that is called in the same way."""
    name = ("steplens_test", "attend")
    monkeypatch.setattr(checkpointing, "_KEPT", (*checkpointing._KEPT, name) if is_known else checkpointing._KEPT)
    monkeypatch.setitem(attention._CALLS, "flash_attn", "^steplens_test::attend$")
    made, evidence = subject(workload(mode="train"), Combo(checkpointing="selective", attention="sdpa"))
    for processor in [module for module in made.unet.modules() if isinstance(module, attention.KernelProcessor)]:
        processor.kernel = lambda q, k, v: _Attends.apply(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)
    found = verify(of("checkpointing", evidence), trace(made, tmp_path), made)
    assert found.observed["num_recomputed_attention_calls"] == (0 if is_known else 8)
    assert found.confirmed is is_known


@pytest.mark.parametrize("kind", FACTORIES)
def test_plain_training_runs_none_again(kind: str, tmp_path: Path) -> None:
    made, evidence = subject(workload(kind, mode="train"))
    traced = trace(made, tmp_path)
    found = verify(of("checkpointing", evidence), traced, made)
    assert found.confirmed, found.finding
    assert found.observed == {"num_recomputed_ops": 0, "num_recomputed_convolutions": 0}
    assert traced.recompute_ms is None


@pytest.mark.parametrize("promised", ["full", "selective"])
def test_half_of_the_blocks_is_not_what_was_promised(promised: Any, tmp_path: Path) -> None:
    work = workload(mode="train")
    promise = of("checkpointing", subject(work, Combo(checkpointing=promised))[1])
    made, _ = subject(work, Combo(checkpointing="alternate"))
    found = verify(promise, trace(made, tmp_path), made)
    assert found.confirmed is False
    assert "run again" in found.finding


def test_compiled_selective_is_a_memory_budget() -> None:
    made = replace(subject(workload(mode="train"))[0], combo=Combo(compilation="default"))
    with functorch.patch(activation_memory_budget=1.0):
        _, evidence = checkpointing.apply(made, "selective")
        assert functorch.activation_memory_budget == evidence.facts["memory_budget"] == 0.5
    assert evidence.facts["num_checkpointed"] == 0


# UNet2DModel's attention layers stand beside the checkpointed ResNet blocks in diffusers, so theirs is kept.
@pytest.mark.parametrize(("kind", "share"), [("conditional_unet", 0.5), ("pixel_unet", 0.65)])
def test_the_forward_keeps_less_for_the_backward(kind: str, share: float) -> None:
    def saved_bytes(combo: Combo) -> int:
        made, _ = subject(workload(kind, mode="train"), combo)
        batch, storages = inputs_of(made)[0], dict[int, int]()
        parameters = {p.untyped_storage().data_ptr() for p in made.unet.parameters()}
        kept = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor)  # alive until the count, so that no address is used twice
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            made.call(batch.sample, batch.timestep, **batch.condition, return_dict=False)
        return sum(size for address, size in storages.items() if address not in parameters)

    plain, full = saved_bytes(Combo()), saved_bytes(Combo(checkpointing="full"))
    assert full < share * plain
    assert full < saved_bytes(Combo(checkpointing="alternate")) < plain


def test_a_class_without_checkpointing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = subject(workload(mode="train"))
    monkeypatch.setattr(type(made.unet), "_supports_gradient_checkpointing", False)
    with pytest.raises(NotApplicable, match="UNet2DConditionModel has no gradient checkpointing; choose none"):
        checkpointing.apply(made, "full")
