"""Provenance: Inductor's own word for the modules of its kernels, from a real compilation to a real trace on a CPU."""

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch._inductor.config as inductor
from torch import Tensor, nn
from torch._inductor.utils import run_and_get_code
from torch.profiler import ProfilerActivity, profile

from profiler import provenance
from profiler.traces.attribute import Attribution, attribute
from profiler.traces.read import read_trace
from profiler.traces.words import COMPILED

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor builds C++ on a CPU: install g++")


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.linear = nn.Linear(16, 16)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.linear(self.norm(x)))


class _Model(nn.Module):
    """Two blocks of one class, between which a kernel is fused."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Block(), _Block()])
        self.out = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.out(x)
        return out


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """C++ kernels show in a trace when they say their names, which they do for nobody else."""
    folder = tmp_path_factory.mktemp("inductor")
    with pytest.MonkeyPatch.context() as patch, inductor.patch({"cpp.enable_kernel_profile": True}):
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        torch._dynamo.reset()
        yield folder


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Attribution:
    """A training step of the compiled model, with what was learned in the trace's file."""
    provenance.listen()
    model, x = _Model(), torch.randn(8, 16)
    compiled = torch.compile(model, dynamic=False)
    compiled(x).sum().backward()
    said = json.dumps(provenance.learned(model))
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        compiled(x).sum().backward()
        profiler.add_metadata_json(COMPILED, said)
    file = tmp_path_factory.mktemp("trace") / "a.json"
    profiler.export_chrome_trace(str(file))
    assert provenance.note() == []
    return attribute(read_trace(file))


def _calls(found: Attribution) -> list[tuple[str, str | None]]:
    """Each operator of compiled code that does work, by time, with its module."""
    work, modules = found.work, found.modules
    rows = [row for row in range(len(work)) if work.compiled[row] >= 0]
    names = [found.trace.names[work.name[row]] for row in rows]
    paths = [modules.paths[work.module[row]] if work.module[row] >= 0 else None for row in rows]
    return list(zip(names, paths, strict=True))


def test_every_kernel_and_library_call_of_a_step_has_its_module(traced: Attribution) -> None:
    calls = _calls(traced)
    assert [name for name, path in calls if path is None] == []
    assert {path for name, path in calls if name in ("aten::mm", "aten::addmm")} == {
        "blocks.0.linear",
        "blocks.1.linear",
        "out",
    }
    backward = [path for name, path in calls if name == "aten::mm"]
    assert backward[:1] + backward[-1:] == ["out", "blocks.0.linear"]
    kernels = [path for name, path in calls if "cpp_fused" in name]
    assert kernels[0] == "blocks.0.norm"
    assert "blocks" in kernels  # the sum of the first block is fused with the norm of the second
    assert kernels[-1] == "blocks.0"
    assert traced.modules.source == "provenance"


def test_what_is_learned_is_small_and_names_only_modules_of_the_model(traced: Attribution) -> None:
    said = traced.trace.metadata[COMPILED]
    known = {name for name, _ in _Model().named_modules()}
    assert set(said["modules"]) <= known
    assert [graph["is_whole"] for graph in said["graphs"].values()] == [True, True]
    assert len(json.dumps(said)) < 2000


def test_listening_changes_not_a_letter_of_the_generated_code(
    monkeypatch: pytest.MonkeyPatch, traced: Attribution
) -> None:
    codes = []
    for is_listening in (True, False):
        torch._dynamo.reset()
        if not is_listening:
            for name in ("codegen.cpp", "codegen.triton", "debug"):
                module = importlib.import_module(f"torch._inductor.{name}")
                announced = getattr(module, provenance._ANNOUNCE)
                monkeypatch.setattr(module, provenance._ANNOUNCE, announced.__wrapped__)
        # without the names of kernels, which count the graphs of the process
        with inductor.patch({"fx_graph_cache": False, "cpp.enable_kernel_profile": False}), torch.no_grad():
            torch.manual_seed(0)
            _, (code,) = run_and_get_code(torch.compile(_Block(), dynamic=False), torch.ones(8, 16))
        counted, _, text = code.partition("\n")
        assert counted.startswith("# AOT ID: ")  # which counts them, too
        codes.append(text)
    assert "cpp_fused" in codes[0]
    assert codes[0] == codes[1]


def test_what_goes_wrong_in_the_book_keeping_is_told_and_fails_nothing() -> None:
    provenance.listen()
    provenance._noting(provenance._note_call, object(), "kernel")
    (note,) = provenance.note()
    assert "could not be noted" not in note
    assert note.startswith("not every compiled kernel's module could be noted: ")
    assert provenance.learned(_Model()) == {}
    provenance.listen()
    assert provenance.note() == []


def test_a_torch_that_announces_nothing_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(torch._inductor.debug, provenance._ANNOUNCE)
        provenance.listen()
        assert "announces no kernels" in provenance.note()[0]
    provenance.listen()
    assert provenance.note() == []


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("L['self'].__dict__['_modules']['up_blocks'].0.attentions.1.to_q", "up_blocks.0.attentions.1.to_q"),
        ("L['self'].conv_out", "conv_out"),
        ("L['self']._modules['down'][3].net._modules['0'].proj", "down.3.net.0.proj"),
        ("L['self']._orig_mod.conv_out", "conv_out"),
        ("L['self'].module.conv_out", "conv_out"),
        ("L['attn'].to_q", "to_q"),
        ("", ""),
    ],
)
def test_dynamos_spelling_becomes_the_qualified_name(spelled: str, name: str) -> None:
    assert provenance._qualified(spelled, {"", "conv_out"}) == name
