"""Attention: every layer gets the kernel, and the trace shows it."""

import logging
import re
import shutil
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
from profiler.record import Evidence
from profiler.steps import make_step, no_phase
from profiler.subject import NotApplicable, Subject
from profiler.traces.objects import Found
from profiler.verify import verify
from tests.support.traces import attributed, kernel, step
from tests.support.unets import FACTORIES, SMALL, collect, compare, inputs_of, subject, trace, workload
from tests.support.vectors import vector_types

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor builds C++ on a CPU: install g++")
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
    ran = {f"{ON_A_CPU[choice]} d{dim}": count for dim, count in found.facts["head_dims"].items()}
    assert {what: count for what, count in found.observed.items() if " d" in what} == ran
    assert attention.observed_calls(traced) == {ON_A_CPU[choice]: layers * (2 if mode == "train" else 1)}


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


@pytest.mark.parametrize(("precision", "serves"), [("fp32", False), ("bf16", True)])
def test_flex_on_a_gpu_leaves_large_fp32_heads_to_sdpa(precision: Any, serves: bool) -> None:
    made, _ = subject(workload(), Combo(precision=precision))
    on_gpu = replace(made, workload=workload(device="cuda"))
    assert attention._serves("flex", 160, on_gpu) is serves
    assert attention._serves("flex", 128, on_gpu)


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


def test_a_sampling_loop_is_counted_per_forward(tmp_path: Path) -> None:
    made, evidence = subject(workload(mode="sample"), Combo(attention="sdpa_flash"))
    seen, finding = attention.check(_of(evidence), trace(made, tmp_path), made)
    assert (seen, finding) == ({"flash d8": 6, "flash d16": 2}, "")


def test_recomputed_layers_are_not_counted_twice(tmp_path: Path) -> None:
    made, evidence = subject(workload(mode="train"), Combo(attention="sdpa_flash", checkpointing="full"))
    assert attention.check(_of(evidence), trace(made, tmp_path), made) == ({"flash d8": 6, "flash d16": 2}, "")


def test_layers_kept_on_sdpa_are_named_and_may_run_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(attention, "_serves", lambda choice, dim, made: dim == 8)
    made, evidence = subject(workload(), Combo(attention="sdpa_flash"))
    for name in _of(evidence).facts["layers_on_sdpa"]:
        assert name.startswith("mid_block.")
        made.unet.get_submodule(name).set_processor(AttnProcessor())
    seen, finding = attention.check(_of(evidence), trace(made, tmp_path), made)
    assert (seen, finding) == ({"flash d8": 6, "math d16": 2}, "")


@pytest.mark.parametrize("where", ["down_blocks.0.attentions.0", "mid_block"])
def test_layers_that_lost_their_kernel_are_found(where: str, tmp_path: Path) -> None:
    made, evidence = subject(workload(mode="train"), Combo(attention="sdpa_flash"))
    for module in made.unet.get_submodule(where).modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
    found = verify(_of(evidence), trace(made, tmp_path), made)
    dim = 16 if where == "mid_block" else 8
    assert found.confirmed is False
    assert f"layers that were promised flash ran math d{dim} in 2" in found.finding
    assert found.observed[f"math d{dim}"] == 2


def test_attention_that_was_left_out_of_some_layers_is_found(tmp_path: Path) -> None:
    made, evidence = subject(workload(), Combo(attention="sdpa_flash"))
    layer = next(iter(attention.layers_in_order(made.unet).values()))
    layer.processor.kernel = lambda query, key, value: query
    _, finding = attention.check(_of(evidence), trace(made, tmp_path), made)
    assert finding == "the forward shows 7 attention calls for 8 layers"


@pytest.mark.parametrize("kind", FACTORIES)
def test_layers_are_in_the_order_in_which_a_forward_calls_them(kind: str) -> None:
    made, _ = subject(workload(kind), Combo(attention="sdpa"))
    called: list[str] = []
    layers = attention.layers_in_order(made.unet)
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda module, given, name=name: called.append(name))
    batch = inputs_of(made)[0]
    with torch.no_grad():
        made.call(batch.sample, batch.timestep, **batch.condition)
    assert called == list(layers)


def _of(evidence: tuple[Evidence, ...]) -> Evidence:
    return next(one for one in evidence if one.family == "attention")


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("unet", ["one_level_conditional_unet", "pixel_unet", "dropout_unet"])
@vector_types()
def test_flex_agrees_with_the_plain_model_and_its_calls_are_counted(unet: str, tmp_path: Path) -> None:
    """Head dim 8, of self-attention and of text; 16 is in the next test. Each of two shapes costs g++ three seconds."""
    work = workload(f"tests.support.unets:{unet}")
    made, evidence = subject(work, Combo(attention="flex"))
    error = compare(collect(made), work).output_error
    assert 0 < error <= 1e-5
    traced = trace(made, tmp_path)
    found = verify(_of(evidence), traced, made)
    assert found.confirmed, found.finding
    assert sum(n for what, n in found.observed.items() if " d" in what) == found.facts["num_layers"]
    assert verify(next(one for one in evidence if one.family == "compilation"), traced, made).confirmed is not False


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("choice", ["flex", "sdpa_flash"])
@vector_types()
def test_a_kernel_inside_a_compiled_model_stays_in_one_graph(choice: Any, tmp_path: Path) -> None:
    work = workload("tests.support.unets:smallest_unet")
    made, evidence = subject(work, Combo(attention=choice, compilation="default"))
    assert compare(collect(made), work).output_error <= 1e-5
    traced = trace(made, tmp_path)
    found = {one.family: verify(one, traced, made) for one in evidence}
    assert found["attention"].confirmed, found["attention"].finding
    assert found["compilation"].confirmed, found["compilation"].finding
    assert found["compilation"].observed["num_graph_breaks"] == 0


@pytest.mark.parametrize(
    ("choice", "package"),
    [("xformers", "pip install xformers"), ("flash_attn_2", "flash-attn"), ("flash_attn_4", "flash-attn-4")],
)
def test_a_missing_package_names_its_remedy(choice: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("xformers", "xformers.ops", "flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(attention, "_serves", lambda choice, dim, made: True)
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
        ("kernel_cutlass_kernel_flash_attncuteflash_fwd_sm90FlashAttentionForwardSm90_object_at__0", "flash_attn_4"),
        ("kernel_cutlass_kernel_flash_attncuteflash_bwd_preprocessFlashAttentionBackwardPreprocess_0", "flash_attn_4"),
        ("triton_tem_fused_flex_attention_0", "flex"),
        ("triton_tem_fused_flex_attention_backward_zeros_1", "flex"),
        ("triton_poi_fused_clone_flex_attention_2", None),
        ("sm90_xmma_gemm_bf16bf16_bf16f32", None),
    ],
)
def test_a_kernels_name_tells_its_family(name: str, family: str | None) -> None:
    found = next((f for f, pattern in attention.OBSERVED.items() if re.search(pattern, name)), None)
    assert found == family


def test_a_call_is_its_main_kernel_however_many_it_launches(tmp_path: Path) -> None:
    made, _ = subject(workload())
    split = ("flash_fwd_splitkv_kernel", "flash_fwd_splitkv_combine_kernel")
    back = ("flash_bwd_dot_do_o_kernel", "flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel", "flash_bwd_convert_dq_kernel")
    rows = [kernel(f"void flash::{name}<Flash_traits>", 10 * n, 10 * n + 5) for n, name in enumerate((*split, *back))]
    traced = replace(trace(made, tmp_path), found=Found(attributed(step(0, 100), *rows)))
    assert attention.observed_calls(traced) == {"flash_attn": 2}
    promised = Evidence(
        family="attention",
        choice="flash_attn_2",
        facts={"num_layers_served": 2},
        must_appear={"flash_attn": attention.OBSERVED["flash_attn"]},
    )
    compiled = replace(made, combo=Combo(attention="flash_attn_2", compilation="default"))
    facts, finding = attention.check(promised, traced, compiled)
    assert facts == {"num_forward_kernels": 1}
    assert finding == "only 1 of the 2 promised layers ran the kernel"


@pytest.mark.parametrize(("device", "must"), [("cpu", set()), ("cuda", {"math"})])
def test_compiled_math_has_no_name_of_its_own_on_a_cpu(device: str, must: set[str]) -> None:
    made, _ = subject(workload())
    compiled = replace(made, workload=workload(device=device), combo=Combo(compilation="default"))
    _, evidence = attention.apply(compiled, "math")
    assert set(evidence.must_appear) == must
    assert set(evidence.must_not_appear) == set(attention.OBSERVED) - {"math"}


def test_diffusers_drops_nothing_that_it_passes_to_the_processor() -> None:
    """UNetMidBlock2D passes temb; Attention warns once for each name that the processor's signature lacks."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    made, _ = subject(workload("pixel_unet"), Combo(attention="sdpa"))
    logger, listener = logging.getLogger("diffusers.models.attention_processor"), Listener()
    logger.addHandler(listener)
    try:
        make_step(made)(inputs_of(made)[0], no_phase)
    finally:
        logger.removeHandler(listener)
    assert said == []


def test_no_layer_of_a_pixel_unet_breaks_the_compilers_graph() -> None:
    made, _ = subject(workload("pixel_unet"), Combo(attention="sdpa"))
    batch = inputs_of(made)[0]
    whole = torch.compile(made.unet, fullgraph=True, backend="eager", dynamic=False)  # traced, not compiled
    with torch.no_grad():
        whole(batch.sample, batch.timestep, **batch.condition, return_dict=False)
