"""Products: FLOP and least bytes of an operator's call, from the shapes that the trace has of its inputs.

One multiply-accumulate is 2 FLOP. Matmuls, convolutions and attention count; a backward of attention counts five
products for the forward's two, since it forms the scores again. Bytes are each input and the output once, as a perfect
cache would move them.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

Shape = list[int]

_ITEM_BYTES = {
    "float": 4, "double": 8, "c10::BFloat16": 2, "c10::Half": 2, "long int": 8, "int": 4, "short": 2, "bool": 1,
    "signed char": 1, "unsigned char": 1, "c10::complex<float>": 8, "c10::complex<double>": 16,
    # as NCCL's events say it
    "Float": 4, "Double": 8, "BFloat16": 2, "Half": 2, "Long": 8, "Int": 4, "Short": 2, "Bool": 1, "Char": 1, "Byte": 1,
}  # fmt: skip
_FLOAT8 = ("c10::Float8", "Float8")
_MOST = 2**62
_ATTENTION = re.compile(r"^aten::_scaled_dot_product_(?!attention_math)\w*attention\w*$")
_ATTENTION_BTHD = re.compile(r"^(flash_attn\w*::|xformers\w*::)\w*(fwd|forward)")
_MATMULS = {
    "aten::mm": 0, "aten::bmm": 0, "aten::addmm": 1, "aten::baddbmm": 1, "aten::_scaled_mm": 0, "aten::_int_mm": 0,
    "aten::addmm_": 1, "aten::_addmm_activation": 1,
}  # fmt: skip
_LINEARS = ("aten::linear", "aten::mkldnn_linear", "mkl::_mkl_linear", "mkldnn::_linear_pointwise")


@dataclass(frozen=True)
class Work:
    """What one call must do. flop is None where nothing is counted for the operator."""

    flop: int | None
    num_bytes: int | None
    dtype: str  # of the first tensor


def is_product(name: str) -> bool:
    """Whether FLOP are counted for an operator."""
    return (
        name in _MATMULS
        or name in _LINEARS
        or name in ("aten::convolution", "aten::convolution_backward")
        or bool(_ATTENTION.match(name) or _ATTENTION_BTHD.match(name))
    )


def work_of(name: str, dims: bytes, types: bytes, concrete: bytes) -> Work:
    """From the trace's own JSON texts; unknown parts are None."""
    shapes, kinds, values = (_decoded(text) for text in (dims, types, concrete))
    pairs = zip(shapes, kinds, strict=False)
    tensors = [(shape, kind) for shape, kind in pairs if _is_shape(shape) and shape and isinstance(kind, str)]
    dtype = next((kind for _, kind in tensors), "")
    try:
        flop, output = _count(name, shapes, values)
    except (AttributeError, LookupError, TypeError, ValueError, ZeroDivisionError):
        flop, output = None, None
    if flop is not None and not 0 <= flop < _MOST:
        flop, output = None, None  # a corrupt file's shapes
    sizes = [math.prod(shape) * item_bytes(kind) for shape, kind in tensors]
    if not sizes or not all(sizes):
        return Work(flop, None, dtype)
    result = math.prod(output) * item_bytes(dtype) if output is not None else max(sizes)
    total = sum(sizes) + result
    return Work(flop, total if 0 <= total < _MOST else None, dtype)


def item_bytes(kind: str) -> int:
    """0 for what is no tensor."""
    return 1 if kind.startswith(_FLOAT8) else _ITEM_BYTES.get(kind, 0)


def _count(name: str, shapes: Sequence[Any], values: Sequence[Any]) -> tuple[int | None, Shape | None]:
    """FLOP, and the output's shape."""
    if name in _MATMULS:
        left, right = shapes[_MATMULS[name]], shapes[_MATMULS[name] + 1]
        output = [*left[:-1], right[-1]]
        return 2 * math.prod(output) * left[-1], output
    if name in _LINEARS:
        output = [*shapes[0][:-1], shapes[1][0]]
        return 2 * math.prod(output) * shapes[0][-1], output
    if name == "aten::convolution":
        output = _convolved(shapes[0], shapes[1], values)
        return 2 * math.prod(output) * math.prod(shapes[1][1:]), output
    if name == "aten::convolution_backward":
        wanted = str(values[-1]).count("True") if values else 2
        products = min(wanted, 2)  # the third, the bias's, is a sum
        return products * 2 * math.prod(shapes[0]) * math.prod(shapes[2][1:]), shapes[1]
    if _ATTENTION.match(name) or _ATTENTION_BTHD.match(name):
        return _attend(name, shapes)
    return None, None


def _attend(name: str, shapes: Sequence[Any]) -> tuple[int, Shape]:
    is_backward = name.endswith("_backward")
    query, key, value = shapes[1:4] if is_backward else shapes[:3]
    tokens, heads = (1, 2) if _ATTENTION_BTHD.match(name) else (2, 1)
    scores = query[0] * query[heads] * query[tokens] * key[tokens]
    forward = 2 * scores * (query[3] + value[3])
    return (forward * 5 // 2 if is_backward else forward), query


def _convolved(image: Shape, weight: Shape, values: Sequence[Any]) -> Shape:
    if values[6] == "True":
        raise ValueError("transposed")
    stride, padding, dilation = (_numbers(values[index], len(image) - 2) for index in (3, 4, 5))
    sizes = zip(image[2:], weight[2:], stride, padding, dilation, strict=True)
    return [image[0], weight[0], *((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes)]


def _numbers(text: str, count: int) -> list[int]:
    found = [int(number) for number in re.findall(r"-?\d+", text)]
    return found * count if len(found) == 1 else found


def _decoded(text: bytes) -> list[Any]:
    found = msgspec.json.decode(text) if text else []
    return found if isinstance(found, list) else []


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(size, int) for size in value)
