"""Quantization: which layers torchao makes 8-bit, what it costs in accuracy, and which faults of a scale are found."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchao.float8 import Float8LinearConfig
from torchao.quantization import quant_api

from profiler import memory, numerics, tracing
from profiler.combo import Combo
from profiler.optimize import optimize
from profiler.optims import quantization
from profiler.optims.quantization_layers import choose
from profiler.optims.simulated import rounded, simulate
from profiler.record import Evidence
from profiler.subject import NotApplicable, Subject
from profiler.verify import verify
from profiler.workload import Workload
from profiler.zoo import build
from tests.support.unets import collect, compare, conditional_unet, inputs_of, of, subject, trace, workload

WORK = workload("tiny", resolution=64)  # 64 rows a sample above, 16 in the middle
INT8 = Combo(quantization="int8", precision="bf16")
Made = tuple[Subject, Evidence]


def made_int8(combo: Combo = INT8) -> Made:
    made, evidence = subject(WORK, combo)
    return made, of("quantization", evidence)


@pytest.fixture(scope="module")
def int8() -> Made:
    return made_int8()


@pytest.fixture(scope="module")
def traced(int8: Made, tmp_path_factory: pytest.TempPathFactory) -> tracing.Trace:
    return trace(int8[0], tmp_path_factory.mktemp("int8"))


def test_small_and_unsuitable_layers_are_left_and_counted(int8: Made) -> None:
    facts = int8[1].facts
    assert facts["skipped"] == {
        "embedding, one row a sample": 10,
        "keys and values of the text, 77 rows a sample": 8,
        "fewer than 17 rows a sample": 8,
    }
    assert facts["num_linear_layers"] == facts["num_quantized"] + sum(facts["skipped"].values()) == 50
    names = {type(m.weight).__name__ for m in int8[0].unet.modules() if isinstance(m, nn.Linear)}
    assert names == {"Int8Tensor", "Parameter"}


def test_the_share_of_the_work_is_counted(int8: Made) -> None:
    """By hand: per level-0 block (64 wide, 64 rows) q, k, v, out, q, out are 64x64, the GEGLU 64x512, then 256x64."""
    block = 2 * 64 * (6 * 64 * 64 + 64 * 512 + 256 * 64)
    unet = build(WORK)
    total = sum(2 * linear.weight.numel() * _rows(name) for name, linear in unet.named_modules() if _is_linear(linear))
    assert int8[1].facts["share_of_linear_flop"] == pytest.approx(3 * block / total, abs=1e-4)
    assert 0 < int8[1].facts["share_of_flop"] < int8[1].facts["share_of_linear_flop"]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _rows(name: str) -> int:
    if "time_emb" in name:
        return 1
    if "attn2.to_k" in name or "attn2.to_v" in name:
        return 77
    return 16 if name.startswith("mid_block") else 64


@pytest.mark.parametrize(
    ("linear", "name", "reason"),
    [
        (nn.Linear(72, 64), "block.proj", "a size is no multiple of 16"),
        (nn.Linear(64, 24), "block.proj", "a size is no multiple of 16"),
        (nn.Linear(48, 640), "block.proj", "fewer than 64 features"),
        (nn.Linear(64, 64), "time_embedding.linear_1", "embedding, one row a sample"),
        (nn.Linear(64, 64), "block.proj", None),
    ],
)
def test_a_layer_is_skipped_with_its_reason(linear: nn.Linear, name: str, reason: str | None) -> None:
    unet = conditional_unet()
    *parents, own = name.split(".")
    holder: nn.Module = unet
    for parent in parents:
        if not hasattr(holder, parent):
            holder.add_module(parent, nn.Module())
        holder = getattr(holder, parent)
    setattr(holder, own, linear)
    found = choose(unet, workload())
    assert (name in found.chosen) is (reason is None)
    assert reason is None or reason in found.skipped


def test_every_8_bit_product_is_seen_and_every_weight_is_right(int8: Made, traced: tracing.Trace) -> None:
    found = verify(int8[1], traced, int8[0])
    assert found.confirmed, found.finding
    assert found.observed["num_forward_products"] == found.facts["num_quantized"] == 24
    assert found.observed["num_weights_with_faults"] == 0
    gemms = {kernel.category for kernel in traced.found.kernels if kernel.name == "aten::_int_mm"}
    assert gemms == {"gemm"}


def test_precision_is_judged_by_what_is_not_in_8_bits(int8: Made, traced: tracing.Trace) -> None:
    promised = of("precision", subject(WORK, Combo(precision="bf16"))[1])
    assert verify(promised, traced, int8[0]).confirmed


def test_8_bits_unasked_are_found(int8: Made, traced: tracing.Trace) -> None:
    plain = quantization.apply(int8[0], "none")[1]
    assert "the trace shows int8 products" in verify(plain, traced, int8[0]).finding


def _double(weight: Any) -> None:
    weight.scale = weight.scale * 2


def _vanish(weight: Any) -> None:
    weight.scale = torch.zeros_like(weight.scale)


def _double_one_row(weight: Any) -> None:
    weight.scale[5] *= 2


def _share_one_scale(weight: Any) -> None:
    rows = weight.dequantize().float()
    weight.scale = torch.full_like(weight.scale, float(rows.abs().max()) / 100)
    weight.qdata = (rows / weight.scale).round().to(torch.int8)


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        (_double, "64 of 64 rows with another norm"),
        (_vanish, "64 of 64 rows with another norm"),
        (_double_one_row, "1 of 64 rows with another norm"),
        (_share_one_scale, "rows that use less than the range of int8"),
    ],
)
def test_a_wrong_scale_of_one_layer_is_found(fault: Any, finding: str, traced: tracing.Trace) -> None:
    made, evidence = made_int8()
    fault(made.unet.get_submodule(list(made.quantized)[4]).weight)
    found = verify(evidence, traced, made)
    assert found.confirmed is False
    assert finding in found.finding


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_error_is_that_of_the_simulation(precision: Any) -> None:
    found = compare(collect(made_int8(Combo(quantization="int8", precision=precision))[0]), WORK).output_error
    simulated = _simulated(WORK, precision, "int8").output_error
    assert found == pytest.approx(simulated, rel=0.2)
    assert not numerics.is_wrong_in_8_bits(found, simulated)
    assert numerics.is_wrong_in_8_bits(found * 2.5, simulated)


def test_fp8_on_torchs_cpu_kernel_has_the_error_of_the_simulation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torchao asks for a GPU of 8.9 before it calls torch._scaled_mm, which a CPU has, too."""
    monkeypatch.setattr(quant_api, "_check_hardware_support", lambda granularity: None)
    made, evidence = subject(WORK, Combo(quantization="fp8", precision="bf16"))
    found = verify(of("quantization", evidence), trace(made, tmp_path), made)
    assert (found.confirmed, found.finding) == (True, "")
    assert found.observed["num_forward_products"] == 24
    assert compare(collect(made), WORK).output_error == pytest.approx(_simulated(WORK, "bf16").output_error, rel=0.2)


def test_fp8_training_has_the_gradients_of_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchao emulates the three products of a layer where there is no GPU."""
    rowwise = Float8LinearConfig.from_recipe_name("rowwise")
    monkeypatch.setattr(Float8LinearConfig, "from_recipe_name", lambda name: replace(rowwise, emulate=True))
    work = replace(WORK, mode="train")
    made, evidence = subject(work, Combo(quantization="fp8", precision="bf16"))
    assert sum(type(m).__name__ == "Float8Linear" for m in made.unet.modules()) == 24
    assert of("quantization", evidence).facts["num_quantized"] == 24
    found, simulated = compare(collect(made), work), _simulated(work, "bf16")
    assert found.gradient_error == pytest.approx(simulated.gradient_error, rel=0.2)
    assert found.output_error == pytest.approx(simulated.output_error, rel=0.2)


def _simulated(work: Workload, precision: Any, choice: str = "fp8") -> numerics.Errors:
    plain, _ = subject(work, Combo(precision=precision))
    simulate(choose(plain.unet, work).chosen.values(), choice)
    return compare(collect(plain), work)


@pytest.mark.parametrize(("choice", "error"), [("int8", 0.01), ("fp8", 0.04)])
def test_simulated_products_and_their_gradients_are_near_the_exact_ones(choice: str, error: float) -> None:
    torch.manual_seed(0)
    linear, hidden = nn.Linear(128, 96), torch.randn(2, 40, 128, requires_grad=True)
    weights = torch.randn(2, 40, 96)

    def results() -> list[torch.Tensor]:
        linear.zero_grad()
        hidden.grad = None
        out = linear(hidden)
        (out * weights).sum().backward()
        gradients = (hidden.grad, linear.weight.grad, linear.bias.grad)
        return [out.detach(), *(gradient for gradient in gradients if gradient is not None)]

    exact = results()
    simulate([linear], choice)
    for found, expected in zip(results(), exact, strict=True):
        assert (found - expected).norm() <= 1.5 * error * expected.norm()
    assert (linear(hidden) - exact[0]).norm() >= 0.3 * error * exact[0].norm()  # it does round


@pytest.mark.parametrize("choice", ["int8", "fp8"])
def test_a_row_keeps_its_largest_number_and_zeros_stay(choice: str) -> None:
    rows = torch.tensor([[1000.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1e-4, -5e-5, 0.0]])
    found = rounded(rows, choice, -1)
    assert torch.allclose(found.abs().amax(-1), rows.abs().amax(-1))
    assert torch.equal(found[1], rows[1])


def test_a_missing_yardstick_leaves_the_hard_limit() -> None:
    assert not numerics.is_wrong_in_8_bits(0.29, None)
    assert numerics.is_wrong_in_8_bits(0.31, None)
    assert numerics.is_wrong_in_8_bits(0.31, 0.2)
    assert numerics.is_wrong_in_8_bits(float("nan"), None)
    assert not numerics.is_wrong_in_8_bits(None, 0.1)


def test_the_weights_take_half_of_the_bytes(int8: Made) -> None:
    plain, _ = subject(WORK, Combo(precision="bf16"))
    before, after = (sum(memory.held(one, inputs_of(one)).parameters.values()) for one in (plain, int8[0]))
    weights = [plain.unet.get_submodule(name).weight for name in int8[0].quantized]
    saved = sum(weight.numel() for weight in weights)  # one of two bytes
    scales = sum(weight.shape[0] * (4 + 1) for weight in weights)  # fp32 scale, int8 zero point
    assert before - after == saved - scales


def test_a_unet_without_a_suitable_layer_is_rejected() -> None:
    with pytest.raises(NotApplicable, match=r"suits no linear layer .*fewer than 64 features.*choose none"):
        subject(workload(), Combo(quantization="int8"))


def test_eager_8_bits_carry_a_note_with_the_remedy(int8: Made) -> None:
    assert "choose compilation=default" in int8[1].facts["note"]
    compiled = replace(int8[0], unet=build(WORK), combo=replace(INT8, compilation="default"))
    assert "note" not in quantization.apply(compiled, "int8")[1].facts


def test_optimize_serves_int8_and_rehearses_it_without_data() -> None:
    unet = build(WORK).eval()
    sample, text = torch.randn(1, 4, 8, 8), torch.randn(1, 77, 128)
    with torch.no_grad():
        plain = unet(sample, 10, encoder_hidden_states=text).sample
        _, evidence = optimize(unet, INT8)
        made = unet(sample, 10, encoder_hidden_states=text).sample
    assert of("quantization", evidence).facts["num_quantized"] == 32  # at the configuration's own size
    assert (made - plain).norm() / plain.norm() < 0.05
