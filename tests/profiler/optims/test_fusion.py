"""Fusion: joined projections under every attention kernel, with the plain model's names, gradients and bytes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from profiler import memory
from profiler.combo import Combo
from profiler.environment import probe
from profiler.joined import is_joined
from profiler.optimize import optimize
from profiler.optims import fusion
from profiler.subject import NotApplicable, Subject, UNet
from profiler.verify import verify
from profiler.why_not import why_not
from profiler.zoo import build
from tests.support.unets import (
    FACTORIES,
    compare,
    conditional_unet,
    fidelity,
    inputs_of,
    of,
    pixel_unet,
    subject,
    trace,
    workload,
)

QKV = Combo(fusion="qkv")


def _fuse(unet: UNet, choice: str = "qkv") -> Subject:
    work = workload(mode="train")
    return fusion.apply(Subject(unet=unet, workload=work, call=unet), choice)[0]


def _attention(unet: UNet) -> list[Attention]:
    return [module for module in unet.modules() if isinstance(module, Attention)]


@pytest.mark.parametrize("kind", FACTORIES)
def test_every_attention_kernel_keeps_its_results_and_gradients(kind: str) -> None:
    work = workload(kind, mode="train")
    plain = fidelity(work)
    for attention in ("math", "sdpa", "sdpa_flash"):
        found = fidelity(work, Combo(fusion="qkv", attention=attention))
        assert sorted(found.gradients) == sorted(plain.gradients)  # under the plain names
        errors = compare(found, work)
        assert errors.output_error <= 1e-5
        assert (errors.gradient_error or 1.0) <= 1e-4
        for name, expected in plain.gradients.items():  # two swapped parts of one layer would not show in the whole
            if not name.endswith("to_k.bias"):  # whose gradient is 0 but for rounding: softmax forgets it
                assert (found.gradients[name] - expected).norm() <= 1e-3 * expected.norm(), name


@pytest.mark.parametrize("kind", FACTORIES)
def test_joined_projections_take_no_memory_and_all_learn(kind: str) -> None:
    work = workload(kind, mode="train")
    plain, (made, _) = build(work), subject(work, QKV)
    held = memory.held(made, []).parameters
    assert sum(held.values()) == sum(p.untyped_storage().nbytes() for p in (*plain.parameters(), *plain.buffers()))
    output = made.call(inputs_of(made)[0].sample, 1, **inputs_of(made)[0].condition, return_dict=False)[0]
    output.square().mean().backward()
    assert all(parameter.grad is not None for parameter in made.unet.parameters())
    assert made.optimizer is not None
    updated = made.optimizer.param_groups[0]["params"]
    assert sum(p.numel() for p in updated) == sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("make", [conditional_unet, pixel_unet])
def test_state_dicts_keep_the_plain_names(make: Any, tmp_path: Path) -> None:
    plain, other = make(), make()
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    _fuse(plain)
    assert plain.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())
    joined = _fuse(other).unet
    joined.load_state_dict(before)  # strict: an unexpected or missing name would raise
    assert all(torch.equal(one, two) for one, two in zip(plain.parameters(), joined.parameters(), strict=True))
    plain.save_pretrained(tmp_path)
    read = make().from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in read.items())


@pytest.mark.parametrize(
    ("kind", "mode", "combo"),
    [
        ("conditional_unet", "train", Combo(fusion="qkv", checkpointing="full", precision="bf16_amp")),
        ("conditional_unet", "sample", Combo(fusion="qkv", attention="sdpa")),
        ("pixel_unet", "train", Combo(fusion="qkv", attention="sdpa")),
        ("pixel_unet", "inference", Combo(fusion="qkv", precision="bf16")),
    ],
)
def test_the_trace_shows_each_joined_matmul_once_a_forward(kind: str, mode: str, combo: Combo, tmp_path: Path) -> None:
    made, evidence = subject(workload(kind, mode=mode), combo)
    traced = trace(made, tmp_path)
    found = verify(of("fusion", evidence), traced, made)
    assert found.confirmed, found.finding
    facts = found.facts
    crosses = sum(layer.is_cross_attention for layer in _attention(made.unet))
    assert facts["num_joined_to_kv"] == crosses == (4 if kind == "conditional_unet" else 0)
    assert facts["num_joined_to_qkv"] + facts["num_joined_to_kv"] == len(_attention(made.unet))
    assert found.observed["joined_shapes"] == facts["joined_shapes"]
    attention = verify(of("attention", evidence), traced, made)
    assert attention.confirmed is not False, attention.finding


def test_a_users_unet_is_fused_in_place() -> None:
    made, _ = subject(workload())
    batch = inputs_of(made)[0]
    unet = build(workload()).eval()
    arguments: dict[str, Any] = {"sample": batch.sample, "timestep": 1, **batch.condition}
    with torch.no_grad():
        expected = unet(**arguments).sample
        fused, evidence = optimize(unet, Combo(fusion="qkv", attention="sdpa"))
        assert torch.allclose(fused(**arguments).sample, expected, atol=1e-5)
    assert fused is unet
    assert all(map(is_joined, _attention(unet)))
    assert of("fusion", evidence).facts["num_joined_to_qkv"] == 4


def _fused_by_diffusers() -> UNet:
    unet = conditional_unet()
    unet.fuse_qkv_projections()
    return unet


def _half_frozen() -> UNet:
    unet = conditional_unet()
    _attention(unet)[-1].to_k.requires_grad_(False)
    return unet


def _without_attention() -> UNet:
    return UNet2DConditionModel(
        block_out_channels=(8,),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
    )


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_fused_by_diffusers, "fused already"),
        (_half_frozen, "some are frozen"),
        (_without_attention, "has no attention layer; choose none"),
    ],
)
def test_what_cannot_be_joined_is_refused_and_left_whole(make: Any, reason: str) -> None:
    unet = make()
    before = [name for name, _ in unet.named_parameters()]
    with pytest.raises(NotApplicable, match=reason):
        _fuse(unet)
    assert [name for name, _ in unet.named_parameters()] == before


def test_a_joined_self_attention_refuses_another_context() -> None:
    made, _ = subject(workload("pixel_unet"), QKV)
    layer = _attention(made.unet)[0]
    hidden = torch.zeros(1, 16, 64)
    with pytest.raises(ValueError, match="another context"):
        layer(hidden, encoder_hidden_states=torch.zeros(1, 4, 64))


@pytest.mark.parametrize("choice", ["norm_act", "geglu", "all"])
def test_triton_kernels_are_refused_on_a_cpu(choice: Any) -> None:
    said = why_not(Combo(fusion=choice), workload(), probe())
    assert said == f"fusion={choice} is Triton kernels, which need CUDA: on a CPU choose none or qkv"
