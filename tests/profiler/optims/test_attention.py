"""Attention: every layer gets the kernel, and the trace shows it."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor

from profiler.combo import Combo
from profiler.optims import attention
from profiler.optims.attention import KernelProcessor
from profiler.subject import NotApplicable, Subject
from profiler.verify import observed_attention, verify
from tests.support.unets import FACTORIES, SMALL, inputs_of, subject, trace, workload

ON_A_CPU = {"math": "math", "sdpa": "flash", "sdpa_flash": "flash"}  # choice -> what a CPU's trace shows


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("mode", ["inference", "train"])
@pytest.mark.parametrize("choice", ON_A_CPU)
def test_the_trace_bears_the_choice_out(kind: str, mode: str, choice: Any, tmp_path: Path) -> None:
    made, evidence = subject(workload(kind, mode=mode), Combo(attention=choice))
    traced = trace(made, tmp_path)
    found = verify(next(e for e in evidence if e.family == "attention"), traced, made)
    layers = found.facts["num_layers"]
    assert found.confirmed, found.finding
    assert found.facts["num_layers_served"] == layers
    assert observed_attention(traced) == {ON_A_CPU[choice]: layers * (2 if mode == "train" else 1)}


def test_layers_and_head_dims_are_counted() -> None:
    _, evidence = attention.apply(subject(workload())[0], "sdpa")
    assert evidence.facts == {"num_layers": 8, "num_layers_served": 8, "head_dims": {"8": 6, "16": 2}}


def test_math_is_diffusers_own_processor() -> None:
    made, _ = subject(workload(), Combo(attention="math"))
    processors = {type(m.processor) for m in made.unet.modules() if isinstance(m, Attention)}
    assert processors == {AttnProcessor}


@pytest.mark.parametrize("kind", FACTORIES)
def test_a_wrong_kernel_shows_in_the_output(kind: str) -> None:
    made, _ = subject(workload(kind), Combo(attention="sdpa"))
    batch = inputs_of(made)[0]

    def output() -> torch.Tensor:
        with torch.no_grad():
            out: torch.Tensor = made.call(batch.sample, batch.timestep, **batch.condition, return_dict=False)[0]
        return out

    right = output()
    for module in made.unet.modules():
        if isinstance(module, KernelProcessor):
            module.kernel = lambda query, key, value: value.mean(1, keepdim=True).expand_as(query)
    assert (output() - right).norm() > 1e-3 * right.norm()


def _plain(unet: Any) -> Subject:
    return Subject(unet=unet, workload=workload("pixel_unet"), call=unet)


def test_a_model_without_attention_is_refused() -> None:
    unet = UNet2DModel(
        **SMALL,
        sample_size=16,
        add_attention=False,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    with pytest.raises(NotApplicable, match="has no attention layer; choose attention=math"):
        attention.apply(_plain(unet), "sdpa")


def test_head_dims_that_nothing_serves_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_serves", lambda choice, dim, made: False)
    with pytest.raises(NotApplicable, match=r"serves none of this model's head dims \[8, 16\]: choose sdpa"):
        attention.apply(subject(workload())[0], "sdpa_flash")


def test_layers_that_the_kernel_cannot_serve_keep_sdpa_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_serves", lambda choice, dim, made: dim == 8)
    made, evidence = attention.apply(subject(workload())[0], "sdpa_flash")
    kernels = [m.processor.kernel for m in made.unet.modules() if isinstance(m, Attention)]
    assert (evidence.facts["num_layers"], evidence.facts["num_layers_served"]) == (8, 6)
    assert sorted(kernels.count(kernel) for kernel in set(kernels)) == [2, 6]
    assert evidence.must_not_appear == {}


@pytest.mark.parametrize(("choice", "package"), [("xformers", "pip install xformers"), ("flash_attn_2", "flash-attn")])
def test_a_missing_package_names_its_remedy(choice: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("xformers", "xformers.ops", "flash_attn"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NotApplicable, match=package):
        attention.apply(subject(workload())[0], choice)


def test_a_mask_is_refused() -> None:
    made, _ = subject(workload(), Combo(attention="sdpa"))
    batch = inputs_of(made)[0]
    with pytest.raises(NotApplicable, match="takes no mask: choose attention=math"):
        made.call(batch.sample, batch.timestep, **batch.condition, encoder_attention_mask=torch.zeros(2, 77))


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7", "cudnn"),
        ("void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128>>", "flash"),
        ("void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4>>", "flash_attn"),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention::AttentionKernel)", "efficient"),
        ("void (anonymous namespace)::softmax_warp_forward<float, float, float, 10>", "math"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32", None),
    ],
)
def test_a_kernels_name_tells_its_family(name: str, family: str | None) -> None:
    found = next((f for f, pattern in attention.OBSERVED.items() if re.search(pattern, name)), None)
    assert found == family


@pytest.mark.parametrize(("device", "must"), [("cpu", set()), ("cuda", {"math"})])
def test_compiled_math_has_no_name_of_its_own_on_a_cpu(device: str, must: set[str]) -> None:
    made, _ = subject(workload())
    compiled = replace(made, workload=workload(device=device), combo=Combo(compilation="default"))
    _, evidence = attention.apply(compiled, "math")
    assert set(evidence.must_appear) == must
    assert set(evidence.must_not_appear) == set(attention.OBSERVED) - {"math"}
