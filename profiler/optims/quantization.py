"""Quantization: linear layers that multiply in 8 bits, by torchao.

Tensor Cores multiply fp8 and int8 twice as fast as bf16, and an 8-bit weight is half the bytes. Weights are rounded
once, activations at every call (dynamic), both with one scale a row. Convolutions stay as they are, so that by Amdahl's
law twice faster linear layers give at most 1.47x for SDXL (64% of its FLOP) and 1.17x for SD1.5 (29%).

- fp8: float8_e4m3fn (3 bits of mantissa). Inference by Float8DynamicActivationFloat8WeightConfig(PerRow), which wants
  bf16 weights; training by torchao.float8's rowwise recipe, where weights stay in high precision and all three products
  of a layer are fp8. It needs compute capability 8.9.
- int8: 127 steps a row, by Int8DynamicActivationInt8WeightConfig; any weights, inference only; on a CPU, too.

The conversion of the activations is element-wise work that only a compiler fuses with what comes before: eager 8-bit
layers launch a dozen kernels each, and torchao's eager int8 on CUDA asks for the repr of every activation, which copies
it to the host. They run, are measured, and carry a note. torchao's own set_inductor_config is left off, since it would
tune every other kernel of the model, too; of it, int8 gets force_fuse_int_mm_with_mul.

torchao skips in silence what it cannot convert; quantization_layers decides instead, and counts. The check counts the
8-bit products of a step, and looks at every 8-bit weight: each row must use the whole range, and still have its norm,
which one wrong scale among thousands changes and the output's error hardly shows. That error has a yardstick of its
own (docs/METHOD.md), since twice plain eager's is out of reach for 8 bits.

Source: torchao 0.18; FP8 formats, arXiv 2209.05433; LLM.int8, arXiv 2208.07339.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from profiler.optims.quantization_layers import choose
from profiler.optims.simulated import LARGEST
from profiler.record import Evidence
from profiler.subject import NotApplicable, Subject, UNet
from profiler.traces.words import PHASE
from profiler.tracing import Trace

# An operator in eager code; where compiled or replayed the kernels' own names: cuBLAS' shapes of int8 Tensor Cores,
# CUTLASS' type names, nvjet's q for 8-bit operands. Inductor's pointwise kernels name what stands around them.
_NOT_POINTWISE = r"^(?!triton_(poi|red|per)).*"
_PRODUCT = {
    "int8": _NOT_POINTWISE + r"(_int_mm|i16832gemm|gemm_i8|i8i32|_imma_)",
    "fp8": _NOT_POINTWISE + r"(_scaled_mm|e4m3|nvjet\w*_qq)",
}
_OPERATOR = {"int8": re.compile(r"^aten::_int_mm$"), "fp8": re.compile(r"^aten::_scaled_mm(_v2)?$")}
_TENSOR = {"int8": "Int8Tensor", "fp8": "Float8Tensor"}
_FULL_RANGE = 0.99  # of the largest number of the format, in each row that is scaled by its own largest
_SAME_NORM = 0.02  # rounding changes a row's norm by well under 1%, a wrong scale by its factor
_EAGER_NOTE = (
    "8-bit layers without a compiler convert their inputs in a dozen kernels each: slow; choose compilation=default"
)


def apply(subject: Subject, choice: str) -> tuple[Subject, Evidence]:
    """Convert the linear layers that 8 bits suit.

    Raises NotApplicable when there is none, or when torchao does not load or leaves one as it was.
    """
    if choice == "none":
        excluded = {f"{name} products": pattern for name, pattern in _PRODUCT.items()}
        return subject, Evidence(family="quantization", choice=choice, must_not_appear=excluded)
    found = choose(subject.unet, subject.workload)
    if not found.chosen:
        reasons = "; ".join(f"{number}: {reason}" for reason, number in found.skipped.items())
        raise NotApplicable(f"quantization={choice} suits no linear layer of this UNet ({reasons}): choose none")
    facts: dict[str, Any] = {
        "num_linear_layers": len(found.chosen) + found.skipped.total(),
        "num_quantized": len(found.chosen),
        "skipped": dict(found.skipped),
        "share_of_linear_flop": _round(found.share_of_linear_flop),
        "share_of_flop": _round(found.share_of_flop),
    }
    is_compiled = subject.combo.compilation != "eager"
    if not is_compiled:
        facts["note"] = _EAGER_NOTE
    if choice == "int8" and is_compiled and subject.workload.device == "cuda":
        torch._inductor.config.force_fuse_int_mm_with_mul = True
        facts["force_fuse_int_mm_with_mul"] = True
    norms = {name: _row_norms(linear.weight) for name, linear in found.chosen.items()}
    is_training = subject.workload.mode == "train"
    convert = _load(choice, is_training=is_training)
    convert(subject.unet, lambda module, name: name in norms)
    left = [name for name in norms if not _is_converted(subject.unet.get_submodule(name), choice)]
    if left:
        raise NotApplicable(f"quantization={choice}: torchao left {len(left)} layers as they were, e.g. {left[0]}")
    return replace(subject, quantized=norms), Evidence(
        family="quantization", choice=choice, facts=facts, must_appear={f"{choice} products": _PRODUCT[choice]}
    )


Filter = Callable[[nn.Module, str], bool]


def _load(choice: str, *, is_training: bool) -> Callable[[UNet, Filter], None]:
    """What converts the layers of a UNet that a filter names."""
    try:
        from torchao import quantization
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError as error:
        raise NotApplicable(
            f"quantization={choice}: torchao does not load ({error}): pip install torchao, a release for this torch"
        ) from error
    if is_training:
        recipe = Float8LinearConfig.from_recipe_name("rowwise")
        return lambda unet, wanted: convert_to_float8_training(unet, config=recipe, module_filter_fn=wanted)
    if choice == "int8":
        config = quantization.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    else:
        config = quantization.Float8DynamicActivationFloat8WeightConfig(
            granularity=quantization.PerRow(), set_inductor_config=False
        )
    return lambda unet, wanted: quantization.quantize_(unet, config, filter_fn=wanted)


def _is_converted(module: nn.Module, choice: str) -> bool:
    return type(module).__name__ == "Float8Linear" or type(module.weight).__name__ == _TENSOR[choice]


def check(evidence: Evidence, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str | None]:
    """As many 8-bit products as layers were promised (three a layer in training), and weights with the right scales."""
    if evidence.choice == "none":
        return {}, None
    promised = evidence.facts["num_quantized"]
    seen, finding = _products(evidence.choice, promised, trace, subject)
    if finding or subject.workload.mode == "train":  # there the weights themselves are not in 8 bits
        return seen, finding
    faults = [fault for name, norms in subject.quantized.items() if (fault := _fault(subject.unet, name, norms))]
    seen["num_weights_with_faults"] = len(faults)
    if len(subject.quantized) != promised:
        return seen, f"{len(subject.quantized)} of the {promised} promised layers hold 8-bit weights"
    return seen, f"{len(faults)} weights are not what was quantized: {faults[0]}" if faults else ""


def _products(choice: str, promised: int, trace: Trace, subject: Subject) -> tuple[dict[str, Any], str]:
    num_forwards = trace.names[PHASE + "forward"] or trace.num_steps
    products = [op for op in trace.found.ops if _OPERATOR[choice].search(op.event.name)]
    if subject.combo.compilation == "eager" and not subject.uses_graphs:
        seen = {"forward": 0, "backward": 0}
        for op in products:
            if op.phase in seen:
                seen[op.phase] += 1
        calls = {f"num_{phase}_products": number // num_forwards for phase, number in seen.items()}
        expected = {"num_forward_products": promised}
        if subject.workload.mode == "train":
            expected["num_backward_products"] = 2 * promised
        for name, number in expected.items():
            if calls[name] != number:
                return calls, f"the {name.split('_')[1]} multiplied {calls[name]} times in 8 bits, not {number} times"
        return calls, ""
    kernels = sum(bool(re.search(_PRODUCT[choice], kernel.name)) for kernel in trace.found.kernels)
    each = max(kernels, len(products)) // num_forwards
    promised *= 3 if subject.workload.mode == "train" else 1
    return {"num_products": each}, "" if each >= promised else f"only {each} of {promised} promised 8-bit products ran"


def _fault(unet: UNet, name: str, norms: Tensor) -> str | None:
    """What is wrong with one layer's 8-bit weight; None for nothing."""
    weight: Any = unet.get_submodule(name).weight
    choice = next((choice for choice, kind in _TENSOR.items() if type(weight).__name__ == kind), None)
    if choice is None:
        return f"{name} holds a plain weight"
    largest = weight.qdata.float().abs().amax(-1)
    if bool(((largest < _FULL_RANGE * LARGEST[choice]) & (largest > 0)).any()):
        return f"{name} has rows that use less than the range of {choice}"
    apart = (_row_norms(weight.dequantize()) - norms).abs()
    if broken := int((~(apart <= _SAME_NORM * norms)).sum()):  # a NaN is a fault, too
        return f"{name} has {broken} of {len(norms)} rows with another norm than before"
    return None


def _row_norms(weight: Tensor) -> Tensor:
    return weight.detach().float().norm(dim=1).cpu() if not weight.is_meta else torch.zeros(len(weight))


def _round(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
