"""Checkpointing: blocks run again in the backward, and less is kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._functorch.config as functorch

from profiler.combo import Combo
from profiler.optims import checkpointing
from profiler.subject import NotApplicable
from profiler.traces.words import RECOMPUTE
from profiler.verify import verify
from tests.support.unets import FACTORIES, inputs_of, of, subject, trace, workload


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("choice", ["full", "alternate"])
def test_the_backward_runs_convolutions_again(choice: Any, kind: str, tmp_path: Path) -> None:
    made, evidence = subject(workload(kind, mode="train"), Combo(checkpointing=choice))
    traced = trace(made, tmp_path)
    found = verify(of("checkpointing", evidence), traced, made)
    assert found.confirmed, found.finding
    assert found.observed["num_recomputed_convolutions"] >= 0.75 * found.facts["num_convolutions"]
    assert found.facts["num_checkpointed"] == found.facts["num_blocks"] / (2 if choice == "alternate" else 1)
    assert (traced.recompute_ms or 0) > 0


@pytest.mark.parametrize("kind", FACTORIES)
def test_selective_runs_norms_again_and_no_convolution(kind: str, tmp_path: Path) -> None:
    made, evidence = subject(workload(kind, mode="train"), Combo(checkpointing="selective", attention="sdpa"))
    traced = trace(made, tmp_path)
    found = verify(of("checkpointing", evidence), traced, made)
    assert found.confirmed, found.finding
    assert found.observed["num_recomputed_convolutions"] == 0
    again = {op.event.name for op in traced.found.ops if op.phase == RECOMPUTE}
    assert "aten::native_group_norm" in again
    assert again.isdisjoint({"aten::mkldnn_convolution", "aten::_scaled_dot_product_flash_attention_for_cpu_kernel"})


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
    promise = subject(work, Combo(checkpointing=promised))[1][3]
    made, _ = subject(work, Combo(checkpointing="alternate"))
    found = verify(promise, trace(made, tmp_path), made)
    assert found.confirmed is False
    assert "convolutions run again" in found.finding


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
