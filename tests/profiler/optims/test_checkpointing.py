"""Checkpointing: blocks run again in the backward, and less is kept."""

from pathlib import Path

import pytest
import torch

from profiler.combo import Combo
from profiler.optims import checkpointing
from profiler.subject import NotApplicable
from profiler.verify import verify
from tests.support.unets import FACTORIES, inputs_of, subject, trace, workload

FULL = Combo(checkpointing="full")


@pytest.mark.parametrize("kind", FACTORIES)
def test_the_backward_runs_convolutions_again(kind: str, tmp_path: Path) -> None:
    made, evidence = subject(workload(kind, mode="train"), FULL)
    found = verify(evidence[3], trace(made, tmp_path), made)
    assert found.confirmed, found.finding
    assert found.observed["num_recomputed_convolutions"] > 4
    assert found.facts["num_modules"] > 0


@pytest.mark.parametrize("kind", FACTORIES)
def test_plain_training_runs_none_again(kind: str, tmp_path: Path) -> None:
    made, evidence = subject(workload(kind, mode="train"))
    found = verify(evidence[3], trace(made, tmp_path), made)
    assert found.confirmed, found.finding
    assert found.observed == {"num_recomputed_convolutions": 0}


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

    assert saved_bytes(FULL) < share * saved_bytes(Combo())


def test_a_class_without_checkpointing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = subject(workload(mode="train"))
    monkeypatch.setattr(type(made.unet), "_supports_gradient_checkpointing", False)
    with pytest.raises(NotApplicable, match="UNet2DConditionModel has no gradient checkpointing; choose none"):
        checkpointing.apply(made, "full")
