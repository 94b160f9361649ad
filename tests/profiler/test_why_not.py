"""Why a combo cannot run here, and that the rest can."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from profiler.combo import FAMILIES, Combo, choices
from profiler.machine import Machine
from profiler.why_not import why_not
from profiler.workload import MODES, Workload
from tests.support.run_folders import FIXTURE_CPU, FIXTURE_GPU

OLD_GPU = replace(FIXTURE_GPU, gpu_name="Fixture Turing", compute_capability=(7, 5))
FULL_GPU = replace(
    FIXTURE_GPU,
    packages=FIXTURE_GPU.packages | {"xformers": "0.0.35", "flash-attn": "2.8.3", "flash-attn-4": "4.0.0b36"},
)
AMPERE_GPU = replace(FULL_GPU, gpu_name="Fixture Ampere", compute_capability=(8, 0))
STALE_GPU = replace(FULL_GPU, packages=FULL_GPU.packages | {"xformers": "0.0.29.post3", "flash-attn-4": "4.0.0b19"})
XFORMERS_GPU = replace(FIXTURE_GPU, packages=FIXTURE_GPU.packages | {"xformers": "0.0.35"})
XFORMERS = {"attention": "xformers", "compilation": "regional"}
BARE_GPU = replace(FIXTURE_GPU, packages={})
AO_GPU = replace(FIXTURE_GPU, packages=FIXTURE_GPU.packages | {"torchao": "0.18.0"})
FSDP = {"parallelism": "fsdp2"}
GRAPH = {"cuda_graphs": "whole_step"}
SELECTIVE, FLASH_4 = {"checkpointing": "selective"}, {"attention": "flash_attn_4", "precision": "bf16"}
INT8, FP8 = {"quantization": "int8"}, {"quantization": "fp8"}
OLD_AO_GPU = replace(FIXTURE_GPU, packages=FIXTURE_GPU.packages | {"torchao": "0.17.0"})
AO_AMPERE_GPU = replace(AO_GPU, gpu_name="Fixture Ampere", compute_capability=(8, 0))
NO_DRIVER = replace(FIXTURE_CPU, cuda="13.0", no_cuda_reason="torch sees no NVIDIA GPU or driver")
NO_COMPILER = replace(FIXTURE_CPU, has_cxx_compiler=False)


@pytest.mark.parametrize(
    ("combo", "mode", "device", "machine", "reason", "remedy"),
    [
        ({}, "inference", "cuda", FIXTURE_CPU, "this is a test fixture", "choose device=cpu"),
        ({}, "inference", "cuda", FIXTURE_CPU, "this is a test fixture", "or install a torch built with CUDA: see"),
        ({}, "inference", "cuda", NO_DRIVER, "sees no NVIDIA GPU", "device=cpu, or see the README"),
        ({"checkpointing": "full"}, "inference", "cpu", FIXTURE_CPU, "without a backward", "choose mode=train"),
        ({"optimizer": "adamw_fused"}, "sample", "cpu", FIXTURE_CPU, "without a backward", "choose mode=train"),
        ({"attention": "sdpa_cudnn"}, "train", "cpu", FIXTURE_CPU, "needs CUDA", "choose math, sdpa or sdpa_flash"),
        ({"attention": "sdpa_efficient"}, "train", "cpu", FIXTURE_CPU, "needs CUDA", "choose math"),
        ({"attention": "xformers"}, "train", "cuda", FIXTURE_GPU, "package xformers", "pip install xformers"),
        ({"attention": "flash_attn_2"}, "train", "cuda", FIXTURE_GPU, "package flash-attn", "requirements-gpu.txt"),
        ({"attention": "flash_attn_4"}, "train", "cuda", FIXTURE_GPU, "package flash-attn-4", "after flash-attn"),
        ({"attention": "flash_attn_4"}, "train", "cuda", STALE_GPU, "here is 4.0.0b19", "install --upgrade --pre"),
        ({"attention": "xformers"}, "train", "cuda", STALE_GPU, "needs xformers 0.0.35 or newer", "--upgrade xformers"),
        (XFORMERS | {"precision": "tf32"}, "train", "cuda", FULL_GPU, "cannot trace", "choose precision bf16_amp"),
        (XFORMERS | {"precision": "bf16"}, "train", "cuda", XFORMERS_GPU, "cannot trace", "trace: install flash-attn"),
        (XFORMERS | {"precision": "tf32"}, "train", "cuda", XFORMERS_GPU, "bf16_amp", "and install flash-attn, or"),
        ({"attention": "flash_attn_4", "precision": "tf32"}, "train", "cuda", FULL_GPU, "16 bits", "bf16"),
        ({"attention": "flash_attn_4", "precision": "bf16"}, "train", "cuda", AMPERE_GPU, "8.0", "choose flash_attn_2"),
        ({"attention": "flex"}, "train", "cpu", FIXTURE_CPU, "no backward on a CPU", "choose sdpa"),
        ({"attention": "flex"}, "inference", "cpu", NO_COMPILER, "C++ compiler", "install g++"),
        ({"attention": "flex"}, "train", "cuda", BARE_GPU, "package triton", "pip install triton"),
        ({"attention": "flex"}, "train", "cuda", OLD_GPU, "this GPU has 7.5", "8.0 (Ampere) or newer"),
        ({"attention": "sdpa_flash"}, "train", "cuda", FIXTURE_GPU, "16 bits only", "choose precision bf16_amp"),
        ({"attention": "sdpa_cudnn", "precision": "tf32"}, "train", "cuda", FIXTURE_GPU, "16 bits", "bf16"),
        ({"attention": "sdpa_flash", "precision": "fp16"}, "train", "cuda", OLD_GPU, "this GPU has 7.5", "Ampere"),
        ({"precision": "tf32"}, "train", "cpu", FIXTURE_CPU, "Tensor Cores", "choose fp32 or bf16"),
        ({"precision": "fp16"}, "train", "cpu", FIXTURE_CPU, "needs CUDA", "choose bf16"),
        ({"precision": "fp16_amp"}, "train", "cpu", FIXTURE_CPU, "needs CUDA", "choose bf16"),
        ({"precision": "bf16"}, "train", "cuda", OLD_GPU, "this GPU has 7.5", "8.0 (Ampere) or newer"),
        ({"precision": "tf32"}, "train", "cuda", OLD_GPU, "this GPU has 7.5", "8.0 (Ampere) or newer"),
        ({"fusion": "norm_act"}, "train", "cpu", FIXTURE_CPU, "need CUDA", "choose none or qkv"),
        ({"fusion": "geglu"}, "train", "cuda", OLD_GPU, "this GPU has 7.5", "8.0 (Ampere) or newer"),
        ({"fusion": "all"}, "inference", "cuda", BARE_GPU, "package triton", "pip install triton"),
        ({"compilation": "reduce_overhead"}, "train", "cpu", FIXTURE_CPU, "CUDA graphs", "choose default"),
        ({"compilation": "default"}, "train", "cpu", NO_COMPILER, "C++ compiler", "install g++"),
        ({"compilation": "default"}, "train", "cuda", BARE_GPU, "package triton", "pip install triton"),
        ({"cuda_graphs": "whole_step"}, "train", "cpu", FIXTURE_CPU, "needs CUDA", "choose off"),
        (
            GRAPH | {"compilation": "reduce_overhead"},
            "train",
            "cuda",
            FULL_GPU,
            "records graphs itself",
            "choose default",
        ),
        ({"parallelism": "ddp"}, "inference", "cpu", FIXTURE_CPU, "not for mode=inference", "choose mode=train"),
        ({"parallelism": "cfg"}, "train", "cpu", FIXTURE_CPU, "not for mode=train", "choose mode=sample"),
        ({"parallelism": "pipeline"}, "train", "cpu", FIXTURE_CPU, "two processes, not 1", "choose world_size=2"),
        (FSDP | {"memory_format": "channels_last"}, "train", "cpu", FIXTURE_CPU, "contiguous", "=contiguous"),
        (FSDP | {"optimizer": "adamw_8bit"}, "train", "cuda", AO_GPU, "8-bit", "choose optimizer=adamw_fused"),
        (FSDP | {"precision": "fp16_amp"}, "train", "cuda", FULL_GPU, "scale the loss", "choose precision=bf16_amp"),
        (FSDP | GRAPH, "train", "cuda", FULL_GPU, "within the step", "choose cuda_graphs=off"),
        ({"parallelism": "tensor", "compilation": "regional"}, "train", "cpu", FIXTURE_CPU, "DTensor", "=eager"),
        (FSDP | {"compilation": "default"}, "train", "cpu", FIXTURE_CPU, "whole UNet", "choose compilation=regional"),
        (GRAPH | {"precision": "fp16_amp"}, "train", "cuda", FULL_GPU, "loss scaling", "choose precision=bf16_amp"),
        (GRAPH | {"optimizer": "adamw_8bit"}, "train", "cuda", AO_GPU, "torchao's optimizer", "adamw_fused"),
        (SELECTIVE | {"attention": "flex"}, "train", "cuda", FULL_GPU, "which is no operator", "compilation=regional"),
        (
            SELECTIVE | {"attention": "flex", "compilation": "default"},
            "train",
            "cuda",
            FULL_GPU,
            "memory budget under a compiler",
            "choose compilation=regional, or full",
        ),
        (SELECTIVE | FLASH_4, "train", "cuda", FULL_GPU, "which is no operator", "choose full or alternate"),
        (
            FLASH_4 | {"checkpointing": "alternate", "compilation": "default"},
            "train",
            "cuda",
            FULL_GPU,
            "without compiled code",
            "choose compilation=regional",
        ),
        (INT8, "train", "cuda", AO_GPU, "no backward in torchao", "choose fp8, or mode=inference"),
        (INT8, "inference", "cpu", FIXTURE_CPU, "needs the package torchao", "pip install 'torchao>=0.18,<0.19'"),
        (INT8, "inference", "cuda", OLD_AO_GPU, "here is 0.17.0", "pip install --upgrade 'torchao"),
        (INT8 | {"precision": "bf16_amp"}, "sample", "cuda", AO_GPU, "not seen by autocast", "choose precision=bf16"),
        (INT8 | GRAPH, "inference", "cuda", AO_GPU, "reads from the GPU", "choose compilation=default"),
        (FP8, "inference", "cpu", FIXTURE_CPU, "no fp8 on a CPU", "choose int8"),
        (FP8 | {"precision": "bf16"}, "inference", "cuda", AO_AMPERE_GPU, "this GPU has 8.0", "8.9 (Ada) or newer"),
        (FP8 | {"precision": "bf16_amp"}, "inference", "cuda", AO_GPU, "into bf16", "choose precision=bf16"),
        (FP8, "train", "cuda", AO_GPU, "into bf16", "choose precision=bf16 or bf16_amp"),
    ],
)
def test_an_impossible_choice_names_its_reason_and_remedy(
    combo: dict[str, Any], mode: Any, device: Any, machine: Machine, reason: str, remedy: str
) -> None:
    said = why_not(Combo.from_dict(combo), Workload(model="tiny", mode=mode, device=device), machine)
    assert said is not None
    assert reason in said
    assert remedy in said


@pytest.mark.parametrize(
    ("parallelism", "workload", "reason"),
    [
        ("none", {"world_size": 2}, "parallelism=none runs one process, not 2: choose world_size=1"),
        ("ddp", {"world_size": 2, "batch": 3}, "cannot split batch 3 evenly over 2 processes: choose a multiple of 2"),
        ("ddp", {"world_size": 2, "device": "cuda"}, "needs a GPU per process, 2, and here are 1: choose a smaller"),
        ("cfg", {"world_size": 2, "mode": "sample", "guidance_scale": 1.0}, "choose another guidance_scale"),
        ("cfg", {"world_size": 3, "mode": "sample"}, "is for two processes, not 3: choose world_size=2"),
    ],
)
def test_what_a_number_of_processes_cannot_do(parallelism: Any, workload: dict[str, Any], reason: str) -> None:
    work = Workload(**{"model": "tiny", "mode": "train", "device": "cpu"} | workload)
    said = why_not(Combo(parallelism=parallelism), work, FIXTURE_GPU)
    assert said is not None
    assert reason in said


@pytest.mark.parametrize(
    ("device", "machine", "possible"),
    [
        ("cpu", FIXTURE_CPU, {"attention": 3, "precision": 3, "compilation": 4, "optimizer": 3, "checkpointing": 4}),
        ("cuda", FULL_GPU, {"attention": 5, "precision": 6, "compilation": 5, "optimizer": 3, "checkpointing": 4}),
        ("cuda", OLD_GPU, {"attention": 3, "precision": 3, "compilation": 5, "optimizer": 3, "checkpointing": 4}),
    ],
)
def test_what_is_possible_in_training(device: Any, machine: Machine, possible: dict[str, int]) -> None:
    work = Workload(model="tiny", mode="train", device=device)
    found = {f: sum(why_not(Combo.from_dict({f: c}), work, machine) is None for c in choices(f)) for f in possible}
    assert found == possible


@pytest.mark.parametrize(
    ("combo", "mode"),
    [
        (INT8, "inference"),
        (INT8 | {"precision": "fp16", "compilation": "reduce_overhead"}, "sample"),
        (INT8 | GRAPH | {"compilation": "default"}, "inference"),
        (FP8 | {"precision": "bf16"}, "inference"),
        (FP8 | GRAPH | {"precision": "bf16"}, "inference"),
        (FP8 | {"precision": "bf16_amp", "compilation": "default", "optimizer": "adamw_8bit"}, "train"),
        (FP8 | {"precision": "bf16", "checkpointing": "full"}, "train"),
    ],
)
def test_8_bits_go_with_the_rest(combo: dict[str, str], mode: Any) -> None:
    assert why_not(Combo.from_dict(combo), Workload(model="tiny", mode=mode), AO_GPU) is None


@pytest.mark.parametrize("attention", choices("attention"))
def test_every_attention_runs_in_16_bits_on_a_full_hopper(attention: Any) -> None:
    assert why_not(Combo(attention=attention, precision="bf16"), Workload(model="tiny"), FULL_GPU) is None


def test_a_pre_release_is_older_than_its_release_and_a_post_release_is_not() -> None:
    def reason(version: str) -> str | None:
        machine = replace(FULL_GPU, packages=FULL_GPU.packages | {"flash-attn-4": version, "flash-attn": "2.8.3.post2"})
        return why_not(Combo(attention="flash_attn_4", precision="bf16"), Workload(model="tiny"), machine)

    assert [reason(version) is None for version in ("4.0.0b35", "4.0.0b36", "4.0.0rc1", "4.0.0", "4.0.1")] == [
        False,
        *[True] * 4,
    ]
    assert why_not(Combo(attention="flash_attn_2", precision="bf16"), Workload(model="tiny"), FULL_GPU) is None


def test_xformers_compiles_where_flash_attn_runs_and_where_nothing_goes_backwards() -> None:
    compiled = Combo(attention="xformers", precision="bf16", compilation="default")
    assert why_not(compiled, Workload(model="tiny", mode="train"), FULL_GPU) is None
    assert why_not(replace(compiled, precision="fp32"), Workload(model="tiny"), FULL_GPU) is None


def test_every_pair_of_choices_gets_an_answer_in_words() -> None:
    singles = [{f: c} for f in FAMILIES for c in choices(f)]
    pairs = itertools.combinations_with_replacement(singles, 2)
    machines = (FIXTURE_CPU, FULL_GPU, OLD_GPU, BARE_GPU, NO_COMPILER, AO_GPU)
    for (first, second), mode, machine in itertools.product(pairs, MODES, machines):
        for device in ("cpu", "cuda"):
            said = why_not(Combo.from_dict(first | second), Workload(mode=mode, device=device), machine)  # type: ignore[arg-type]
            assert said is None or len(said) > 20
