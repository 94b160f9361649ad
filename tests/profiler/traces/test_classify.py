"""Classes of kernels: real names from eager and compiled traces of NVIDIA and AMD GPUs, and a CPU's operators."""

import pytest

from profiler.traces.classify import CATEGORIES, classify
from tests.support.traces import GOLDEN


@pytest.mark.parametrize(
    ("name", "operator", "category"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", None, "attention"),
        ("void pytorch_flash::flash_fwd_splitkv_kernel<...>", "aten::_flash_attention_forward", "attention"),
        ("fmha_cutlassB_bf16_aligned_128x64_k64_sm80", "aten::_efficient_attention_backward", "attention"),
        ("void cunn_SoftMaxForward<8, float, float>", "aten::_softmax", "attention"),
        ("kernel_cutlass_kernel_flash_attncuteflash_fwd_sm90FlashAttentionForwardSm90_0", "FlashAttnFunc", "attention"),
        ("triton_tem_fused_flex_attention_0", None, "attention"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32", "aten::cudnn_convolution", "conv"),
        # as a graph replays them, with no operator: cuDNN's convolutions by Fourier transform, and what serves them
        ("void fft2d_r2c_64x64<float>(float2*, float const*, int)", None, "conv"),
        ("void fft2d_c2r_64x64<float, false>(float*, float2*, int)", None, "conv"),
        ("void flip_filter<float, float>(float*, float const*, int)", None, "conv"),
        ("void convolve_common_engine_float_NHWC<float, float, 1024, 5, 5, 3, 3, 3, true>(int)", None, "conv"),
        (
            "void tensorTransformGeneric<__nv_bfloat16, __nv_bfloat16, float, true>(cudnnTensorTransformStruct)",
            None,
            "layout",
        ),
        ("at::native::detail::split_with_sizes_copy_out_contiguous_no_cast_kernel(char**)", "fsdp::split", "layout"),
        ("cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816dgrad>", "aten::convolution_backward", "conv"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_TNT", "aten::addmm", "gemm"),
        ("ampere_sgemm_128x64_tn", "aten::mm", "gemm"),
        ("Cijk_Ailk_Bljk_HHS_BH_MT128x128x16_SE_K1", "aten::addmm", "gemm"),
        ("void at::native::(anonymous namespace)::RowwiseMomentsCUDAKernel<float>", "aten::native_group_norm", "norm"),
        ("void at::native::vectorized_layer_norm_kernel<float>", "aten::native_layer_norm", "norm"),
        ("void at::native::vectorized_elementwise_kernel<4, silu_kernel>", "aten::silu", "elementwise"),
        ("void at::native::reduce_kernel<512, 1, MeanOps>", "aten::mean", "reduction"),
        ("void cudnn::engines_precompiled::nchwToNhwcKernel<bf16>", "aten::cudnn_convolution", "layout"),
        ("void at::native::CatArrayBatchedCopy<float>", "aten::cat", "layout"),
        ("void at::native::detail::chunk_cat_cuda_kernel<float, c10::BFloat16>", "aten::_chunk_cat", "layout"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", None, "communication"),
        ("void multi_tensor_apply_kernel<FusedAdamMathFunctor>", "aten::_fused_adamw_", "optimizer"),
        ("triton_poi_fused_convolution_silu_3", None, "elementwise"),
        ("triton_poi_fused_clone_12", None, "layout"),
        ("triton_red_fused_native_group_norm_silu_4", None, "norm"),
        ("triton_per_fused__softmax_9", None, "attention"),
        ("triton_red_fused_sum_2", None, "reduction"),
        ("triton_tem_fused_addmm_gelu_7", None, "gemm"),
        ("triton_tem_fused_convolution_1", None, "conv"),
        ("aten::mkldnn_convolution", "aten::_convolution", "conv"),
        ("aten::addmm", "aten::linear", "gemm"),
        ("aten::native_group_norm", "aten::group_norm", "norm"),
        ("aten::silu", None, "elementwise"),
        ("aten::copy_", "aten::clone", "layout"),
        ("group_norm_silu_forward_small", "steplens::group_norm_silu", "norm"),
        ("group_norm_silu_backward_sums", None, "norm"),
        ("geglu_forward", "steplens::geglu", "elementwise"),
        ("geglu_backward", None, "elementwise"),
        ("mystery_kernel", None, "other"),
    ],
)
def test_a_kernel_has_its_category(name: str, operator: str | None, category: str) -> None:
    assert classify(name, operator) == category
    assert category in CATEGORIES


def test_the_200_largest_kernels_of_runs_on_an_h200_have_their_class() -> None:
    """87% of the kernels' time of 70 runs (sd15 and sdxl, training and inference, eager, compiled, as CUDA graphs).

    Labelled by hand from name, operator and phase alone, in random order, by somebody who saw neither this classifier
    nor what it said. Names are cut after 180 characters.
    """
    lines = (GOLDEN / "kernel_classes.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    wrong = {
        kernel: (label, float(share))
        for label, share, operator, phase, kernel in rows
        if classify(kernel, operator.strip("-") or None, phase.strip("-") or None, kind=_kind(kernel)) != label
    }
    assert len(rows) == 200
    assert sum(share for _, share in wrong.values()) <= 0.01 * sum(float(row[1]) for row in rows), wrong


def _kind(kernel: str) -> str:
    """The trace's own category."""
    return "gpu_memcpy" if kernel.startswith("Memcpy") else "gpu_memset" if kernel.startswith("Memset") else "kernel"


@pytest.mark.parametrize("kind", ["gpu_memcpy", "gpu_memset"])
def test_copies_are_told_by_the_traces_own_category(kind: str) -> None:
    assert classify("Memcpy DtoD (Device -> Device)", "aten::convolution", kind=kind) == "memcpy"


def test_everything_in_the_optimizers_phase_is_the_optimizers() -> None:
    assert classify("void at::native::vectorized_elementwise_kernel", "aten::mul_", "optimizer") == "optimizer"
    assert classify("ncclDevKernel_AllGather", None, "optimizer") == "communication"
