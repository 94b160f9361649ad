"""Attention kernels: padding is exact, a backend is held for the call only, and what does not load says why."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn.attention import _cur_sdpa_kernel_backends
from torch.nn.functional import scaled_dot_product_attention

from profiler.combo import Combo
from profiler.optims import attention_kernels
from profiler.optims.attention_kernels import Kernel, load, padded, padded_dim, safe_dim_sm90
from profiler.subject import NotApplicable
from tests.support.unets import subject, workload


def _scaled_sdpa(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2)


def _leaves(dim: int) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = ((2, 24, 3, dim), (2, 17, 3, dim), (2, 17, 3, dim))
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def _output_and_gradients(kernel: Kernel, dim: int) -> list[Tensor]:
    leaves = _leaves(dim)
    out = kernel(*leaves)
    (out * torch.linspace(-1, 1, dim, dtype=torch.float64)).sum().backward()
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("dim", [40, 80, 8])
def test_padding_changes_neither_output_nor_gradients(dim: int) -> None:
    widths = []

    def seen(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        widths.append({tensor.shape[-1] for tensor in (query, key, value)})
        return _scaled_sdpa(query, key, value, scale)

    width = safe_dim_sm90(dim)
    found = _output_and_gradients(padded(seen, dim, width), dim)
    plain = _output_and_gradients(load("sdpa", dim, subject(workload())[0]) or pytest.fail("no kernel"), dim)
    assert widths == [{width}]
    assert width > dim
    assert [tuple(one.shape) for one in found] == [tuple(one.shape) for one in plain]
    for one, other in zip(found, plain, strict=True):
        assert (one - other).norm() <= 1e-14 * other.norm()


def test_padding_under_the_padded_scale_would_be_wrong() -> None:
    def own_scale(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return _scaled_sdpa(query, key, value, query.shape[-1] ** -0.5)

    right, wrong = (_output_and_gradients(padded(kernel, 40, 64), 40)[0] for kernel in (_scaled_sdpa, own_scale))
    assert (wrong - right).norm() > 1e-2 * right.norm()


def test_a_kernel_that_needs_no_padding_gets_the_tensors_themselves() -> None:
    given: list[Tensor] = []

    def seen(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        given.extend((query, key, value))
        return query

    leaves = _leaves(64)
    padded(seen, 64, 64)(*leaves)
    assert all(one is other for one, other in zip(given, leaves, strict=True))


@pytest.mark.parametrize(
    ("dim", "width"), [(8, 32), (16, 32), (32, 32), (40, 64), (64, 64), (72, 96), (80, 96), (104, 128), (160, 160)]
)
def test_head_dims_that_round_to_16_but_not_to_32_are_padded_on_sm90(dim: int, width: int) -> None:
    assert safe_dim_sm90(dim) == width


@pytest.mark.parametrize(
    ("choice", "mode", "capability", "width"),
    [
        ("flash_attn_4", "train", (9, 0), 64),
        ("flash_attn_4", "inference", (9, 0), 40),
        ("flash_attn_4", "train", (10, 0), 40),
        ("flash_attn_2", "train", (9, 0), 40),
        ("flex", "train", (9, 0), 40),
    ],
)
def test_padding_is_for_the_backward_on_sm90_only(
    choice: str, mode: str, capability: tuple[int, int], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = subject(workload(mode=mode))
    on_gpu = SimpleNamespace(workload=workload(mode=mode, device="cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert padded_dim(choice, 40, on_gpu) == width  # type: ignore[arg-type]
    assert padded_dim(choice, 40, made) == 40


@pytest.mark.parametrize("choice", attention_kernels.BACKENDS)
def test_a_backend_is_held_during_the_call_and_given_back(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    during = []

    def seen(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        during.append(_cur_sdpa_kernel_backends())
        raise RuntimeError("a failing kernel")

    monkeypatch.setattr(attention_kernels, "scaled_dot_product_attention", seen)
    before = _cur_sdpa_kernel_backends()
    kernel = load(choice, 40, subject(workload())[0])
    assert kernel is not None
    with pytest.raises(RuntimeError, match="a failing kernel"):
        kernel(*_leaves(40))
    overrideable = torch.nn.attention.SDPBackend.OVERRIDEABLE
    assert [[one for one in held if one != overrideable] for held in during] == [[attention_kernels.BACKENDS[choice]]]
    assert _cur_sdpa_kernel_backends() == before


def test_an_old_cute_is_answered_with_the_order_of_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "flash_attn":
                raise AttributeError("module 'cutlass.cute.core' has no attribute 'ThrMma'")

    for name in [name for name in sys.modules if name.partition(".")[0] == "flash_attn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(
        NotApplicable, match=r"ThrMma.*install it after flash-attn.*pip install --pre --force-reinstall"
    ):
        load("flash_attn_4", 40, subject(workload())[0])


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        ("libcudart.so.12: cannot open shared object file", "pip install nvidia-cuda-runtime-cu12"),
        ("undefined symbol: _ZN3c105Error", "undefined symbol.*pip install --upgrade xformers"),
    ],
)
def test_an_extension_that_does_not_load_names_what_is_missing(cause: str, remedy: str) -> None:
    failure = RuntimeError("xFormers can't load C++/CUDA extensions.")
    failure.__cause__ = OSError("Could not load this library: _C.so")
    failure.__cause__.__cause__ = OSError(cause)
    with pytest.raises(NotApplicable, match=remedy):
        raise NotApplicable(attention_kernels.why_no_extension(failure))


def test_flex_without_vector_instructions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(NotApplicable, match="needs AVX2"):
        load("flex", 40, subject(workload(), Combo())[0])
