"""On a GPU: kernels against strict fp32, and that what was asked for is what ran."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from profiler import numerics, tracing
from profiler.combo import Combo, choices
from profiler.environment import probe
from profiler.optims import attention
from profiler.optims.attention_kernels import Kernel, load
from profiler.optims.precision import TF32_KERNELS
from profiler.session import profile
from profiler.steps import make_step, no_phase
from profiler.verify import count, verify
from profiler.why_not import why_not
from profiler.workload import Workload
from tests.support.unets import collect, errors, inputs_of, of, subject, trace, workload

pytestmark = pytest.mark.gpu

# Relative L2 error of a 16-bit kernel against math in fp32: bfloat16 keeps 8 bits, fp16 11, and a sum of 64 products
# rounds a little more than one.
TOLERANCE = {torch.bfloat16: 1.5e-2, torch.float16: 2e-3}
# Of a whole UNet in strict fp32: cuDNN's algorithms for other layouts sum in another order, or by Winograd's transform.
FP32_OUTPUT, FP32_GRADIENT = 1e-4, 1e-3


def _skip_if_impossible(combo: Combo, work: Workload) -> None:
    if reason := why_not(combo, work, probe()):
        pytest.skip(reason)


def _math(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    scores = torch.einsum("bthd,bshd->bhts", query, key) / query.shape[-1] ** 0.5
    return torch.einsum("bhts,bshd->bthd", scores.softmax(-1), value)


def _forward_and_gradients(kernel: Kernel, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    out = kernel(*leaves)
    weights = torch.linspace(-1, 1, out.shape[1], device="cuda").view(1, -1, 1, 1)
    (out.float() * weights).sum().backward()
    return [out.detach().double(), *(leaf.grad.double() for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["bf16", "fp16"])
@pytest.mark.parametrize("head_dim", [40, 64, 80, 160])
@pytest.mark.parametrize("choice", [name for name in choices("attention") if name != "math"])
def test_a_kernel_agrees_with_math_in_fp32(choice: Any, head_dim: int, dtype: torch.dtype) -> None:
    precision: Any = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    work = workload("tiny", mode="train", device="cuda")
    combo = Combo(attention=choice, precision=precision)
    _skip_if_impossible(combo, work)
    made, _ = subject(work, Combo(precision=precision))
    made = replace(made, combo=combo)
    if not attention._serves(choice, head_dim, made):
        pytest.skip(f"{choice} does not serve head dim {head_dim} here; such layers keep sdpa")
    torch.manual_seed(0)
    shapes = ((2, 256, 4, head_dim), (2, 77, 4, head_dim), (2, 77, 4, head_dim))
    tensors = [torch.randn(shape, device="cuda").to(dtype) for shape in shapes]
    kernel = load(choice, head_dim, made)
    assert kernel is not None
    expected = _forward_and_gradients(_math, [tensor.float() for tensor in tensors])
    for found, exact in zip(_forward_and_gradients(kernel, tensors), expected, strict=True):
        assert (found - exact).norm() <= TOLERANCE[dtype] * exact.norm()


@pytest.mark.parametrize("kind", ["conditional_unet", "pixel_unet"])
@pytest.mark.parametrize("choice", ["sdpa", "sdpa_efficient", "xformers"])
def test_attention_in_a_unet_agrees_with_the_plain_model_in_fp32(kind: str, choice: Any) -> None:
    work = workload(kind, mode="train", device="cuda")
    _skip_if_impossible(Combo(attention=choice), work)
    found = errors(work, Combo(attention=choice))
    assert found.output_error <= FP32_OUTPUT
    assert (found.gradient_error or 1.0) <= FP32_GRADIENT


@pytest.mark.parametrize(
    ("choice", "kernel"),
    [
        ("sdpa_flash", "flash"),
        ("sdpa_efficient", "efficient"),
        ("sdpa_cudnn", "cudnn"),
        ("flash_attn_2", "flash_attn"),
        ("flash_attn_4", "flash_attn_4"),
        ("flex", "flex"),
    ],
)
def test_a_chosen_kernel_is_the_one_that_runs_in_every_layer(choice: Any, kernel: str, tmp_path: Path) -> None:
    work, combo = workload("tiny", mode="train", device="cuda"), Combo(attention=choice, precision="bf16")
    _skip_if_impossible(combo, work)
    made, evidence = subject(work, combo)
    traced = trace(made, tmp_path)
    found = next(verify(one, traced, made) for one in evidence if one.family == "attention")
    assert found.confirmed, found.finding
    assert set(attention.observed_calls(traced)) == {kernel}
    per_layer = {what: n for what, n in found.observed.items() if what.startswith(f"{kernel} d")}
    assert sum(per_layer.values()) == found.facts["num_layers"]


@pytest.mark.parametrize(("precision", "runs_tf32"), [("fp32", False), ("tf32", True)])
def test_tf32_kernels_run_when_asked_for_and_only_then(precision: Any, runs_tf32: bool, tmp_path: Path) -> None:
    work = workload("sd15", mode="inference", device="cuda", batch=1)
    _skip_if_impossible(Combo(precision=precision), work)
    made, evidence = subject(work, Combo(precision=precision))
    traced = trace(made, tmp_path)
    found = next(verify(one, traced, made) for one in evidence if one.family == "precision")
    assert (count(TF32_KERNELS, traced.names) > 0) is runs_tf32
    assert found.confirmed, found.finding


@pytest.mark.parametrize("choice", choices("optimizer"))
def test_the_optimizer_is_launched_as_asked(choice: Any, tmp_path: Path) -> None:
    made, evidence = subject(workload("tiny", mode="train", device="cuda"), Combo(optimizer=choice))
    traced = trace(made, tmp_path)
    found = next(verify(one, traced, made) for one in evidence if one.family == "optimizer")
    assert found.confirmed, found.finding
    launched = sum(kernel.phase == "optimizer" for kernel in traced.found.kernels)
    tensors = found.facts["num_tensors"]
    least, most = {"adamw": (5, 20), "adamw_8bit": (1, 5)}.get(choice, (0, 1))  # torchao updates tensor by tensor
    assert least * tensors <= launched < most * tensors


@pytest.mark.parametrize("kind", ["conditional_unet", "pixel_unet"])
@pytest.mark.parametrize("choice", ["channels_last", "full"])
def test_layout_and_recomputation_change_no_result(kind: str, choice: str) -> None:
    family = "memory_format" if choice == "channels_last" else "checkpointing"
    found = errors(workload(kind, mode="train", device="cuda"), Combo.from_dict({family: choice}))
    assert found.output_error <= FP32_OUTPUT
    assert (found.gradient_error or 1.0) <= FP32_GRADIENT


@pytest.mark.parametrize(
    ("choice", "precision"),
    [
        ("xformers", "fp32"),
        ("xformers", "bf16"),
        ("flash_attn_2", "bf16"),
        ("sdpa_efficient", "fp32"),
        ("sdpa_flash", "bf16"),
        ("sdpa_cudnn", "bf16"),
    ],
)
def test_selective_keeps_what_the_kernel_computed(choice: Any, precision: Any, tmp_path: Path) -> None:
    work = workload("tiny", mode="train", device="cuda")
    combo = Combo(attention=choice, precision=precision, checkpointing="selective")
    _skip_if_impossible(combo, work)
    made, evidence = subject(work, combo)
    found = verify(of("checkpointing", evidence), trace(made, tmp_path), made)
    assert found.confirmed, found.finding
    assert found.observed["num_recomputed_attention_calls"] == 0


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_foreach", "adamw_fused"])
@pytest.mark.parametrize("kind", ["conditional_unet", "pixel_unet"])
def test_a_recorded_training_step_trains_like_an_eager_one(kind: str, optimizer: Any, tmp_path: Path) -> None:
    work = workload(kind, mode="train", device="cuda")
    plain, _ = subject(work, Combo(optimizer=optimizer))
    graphed, evidence = subject(work, Combo(optimizer=optimizer, cuda_graphs="whole_step"))
    before = [parameter.detach().clone() for parameter in plain.unet.parameters()]
    losses = []
    for made in (plain, graphed):
        step = make_step(made)
        losses.append([float(step(batch, no_phase)) for batch in inputs_of(made, draws=3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    # The change, not the weights: three steps at 1e-4 hardly show in them. AdamW's first steps are near sign(gradient),
    # so that a gradient that rounds to either side of 0 counts fully.
    changes = [
        [p.detach() - b for p, b in zip(made.unet.parameters(), before, strict=True)] for made in (plain, graphed)
    ]
    error = sum(float((one - other).norm() ** 2) for one, other in zip(*changes, strict=True)) ** 0.5
    assert error <= 1e-2 * sum(float(one.norm() ** 2) for one in changes[0]) ** 0.5
    traced = trace(graphed, tmp_path)
    for one in evidence:
        found = verify(one, traced, graphed)
        assert found.confirmed is not False, found.finding
    assert found.family == "cuda_graphs"
    assert found.confirmed
    assert found.observed["num_graph_launches"] == 1


@pytest.mark.parametrize("kind", ["conditional_unet", "pixel_unet"])
@pytest.mark.parametrize("mode", ["inference", "sample", "train"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_amp"])
def test_a_recorded_step_gives_the_eager_results(kind: str, mode: str, precision: Any, tmp_path: Path) -> None:
    work = workload(kind, mode=mode, device="cuda")
    plain, _ = subject(work, Combo(precision=precision))
    graphed, evidence = subject(work, Combo(precision=precision, cuda_graphs="whole_step"))
    expected, found = collect(plain), collect(graphed)
    sizes = {name: parameter.numel() for name, parameter in plain.unet.named_parameters()}
    errors = numerics.compare(found, expected, sizes)
    assert errors.output_error <= 1e-5
    assert (errors.gradient_error or 0.0) <= (FP32_GRADIENT if precision == "fp32" else 1e-2)
    assert len(found.gradients) == len(expected.gradients)
    proven = verify(evidence[-1], trace(graphed, tmp_path), graphed)
    assert proven.confirmed, proven.finding
    assert proven.observed["num_graph_launches"] == (work.num_inference_steps if mode == "sample" else 1)


# A worker shows the compiler's warnings; as errors they would fail inside Dynamo.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("compilation", ["eager", "regional", "default"])
def test_a_run_of_a_recorded_step_is_done(compilation: Any, tmp_path: Path) -> None:
    work = Workload(model="ddpm-cifar10", mode="train", batch=16, device="cuda", min_samples=10, min_seconds=0.5)
    combo = Combo(
        attention="sdpa",
        precision="bf16_amp",
        optimizer="adamw_fused",
        compilation=compilation,
        cuda_graphs="whole_step",
    )
    _skip_if_impossible(combo, work)
    numerics.make_reference(work, tmp_path / "references" / work.reference_key, lambda stage, detail: None)
    record = profile(combo, work, tmp_path / "run", run_id="run", references=tmp_path / "references")
    assert record.status == "done", f"{record.cause}\n{record.traceback}"
    assert record.metrics.backward_ms is None
    assert any("told apart" in note for note in record.notes)
    assert {e.family for e in record.evidence if e.confirmed} >= {"attention", "optimizer", "cuda_graphs"}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("mode", "combo"),
    [
        ("inference", Combo(quantization="fp8", precision="bf16")),
        ("inference", Combo(quantization="int8", precision="bf16")),
        ("inference", Combo(quantization="fp8", precision="bf16", cuda_graphs="whole_step")),
        ("inference", Combo(quantization="fp8", precision="bf16", compilation="default")),
        ("inference", Combo(quantization="int8", precision="bf16", compilation="default")),
        ("train", Combo(quantization="fp8", precision="bf16_amp", compilation="default")),
    ],
    ids=lambda value: value if isinstance(value, str) else value.label.replace(" · ", "-"),
)
def test_a_run_in_8_bits_is_done(mode: Any, combo: Combo, tmp_path: Path) -> None:
    """tiny at 128 px: 256 rows a sample above, 64 in the middle."""
    work = Workload(model="tiny", mode=mode, batch=4, device="cuda", min_samples=5, min_seconds=0.1)
    _skip_if_impossible(combo, work)
    numerics.make_reference(work, tmp_path / "references" / work.reference_key, lambda stage, detail: None)
    record = profile(combo, work, tmp_path / "run", run_id="run", references=tmp_path / "references")
    assert record.status == "done", f"{record.cause}\n{record.traceback}"
    found = next(one for one in record.evidence if one.family == "quantization")
    assert found.confirmed, found.finding
    assert found.facts["num_quantized"] == 32
    assert (record.metrics.output_error or 1) <= 2 * record.reference["simulated_output_error"]
    assert any("compilation=default" in note for note in record.notes) is (combo.compilation == "eager")


def test_every_kernel_of_a_training_step_is_attributed(tmp_path: Path) -> None:
    made, _ = subject(workload("tiny", mode="train", device="cuda"), Combo(precision="bf16_amp", attention="sdpa"))
    traced: tracing.Trace = trace(made, tmp_path)
    kernels = traced.found.kernels
    assert {kernel.phase for kernel in kernels} >= {"forward", "backward", "optimizer"}
    assert [kernel.name for kernel in kernels if kernel.op is None and kernel.category != "memcpy"] == []
    other = sum(kernel.duration_ns for kernel in kernels if kernel.category == "other")
    assert other <= 0.02 * sum(kernel.duration_ns for kernel in kernels)


def test_a_run_of_ddpm_is_done_with_everything_that_a_gpu_can_tell(tmp_path: Path) -> None:
    work = Workload(model="ddpm-cifar10", mode="train", batch=16, device="cuda", min_samples=10, min_seconds=0.5)
    combo = Combo(attention="sdpa", precision="bf16", optimizer="adamw_fused")
    _skip_if_impossible(combo, work)
    numerics.make_reference(work, tmp_path / "references" / work.reference_key, lambda stage, detail: None)
    record = profile(combo, work, tmp_path / "run", run_id="run", references=tmp_path / "references")
    assert record.status == "done", f"{record.cause}\n{record.traceback}"
    assert {e.family for e in record.evidence if e.confirmed} >= {"attention", "precision", "optimizer", "compilation"}
    m = record.metrics
    known = (
        m.step_energy_j,
        m.mean_power_w,
        m.gpu_busy_share,
        m.peak_reserved_gib,
        m.peak_device_gib,
        m.host_enqueue_ms,
    )
    assert all(value is not None and value > 0 for value in known)
    assert (m.peak_allocated_gib or 0) <= (m.peak_reserved_gib or 0) <= (m.peak_device_gib or 0)
    assert record.launch_verdict in ("gpu-bound", "partly launch-bound", "launch-bound")
    assert (tmp_path / "run" / "telemetry.parquet").is_file()


def test_skipped_steps_of_loss_scaling_are_counted(tmp_path: Path) -> None:
    work = Workload(model="ddpm-cifar10", mode="train", batch=4, device="cuda", min_samples=5, min_seconds=0.1)
    record = profile(Combo(precision="fp16_amp"), work, tmp_path / "run", run_id="run", references=tmp_path)
    assert record.status == "done"
    assert record.metrics.loss_scale == 65536 / 2 ** (record.metrics.num_skipped_steps or 0)


def test_a_batch_that_does_not_fit_is_an_oom(tmp_path: Path) -> None:
    work = Workload(model="ddpm-cifar10", mode="train", batch=2, resolution=2048, device="cuda")  # scores of 4 TB
    record = profile(Combo(), work, tmp_path / "run", run_id="run", references=tmp_path)
    assert record.status == "oom"
    assert "out of memory" in record.cause
