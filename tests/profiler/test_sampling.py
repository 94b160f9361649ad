"""The sampling loop: with text projections kept or not, over schedulers of all kinds, in fp32 latents."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, HeunDiscreteScheduler

from profiler import numerics, schedulers, text
from profiler.combo import Combo
from profiler.flops import step_flop
from profiler.steps import make_step, no_phase
from profiler.subject import ModelError, Subject
from profiler.traces.gaps import phase_gaps_ns
from profiler.traces.phases import PHASES
from tests.support.unets import inputs_of, subject, trace, workload

COMBOS = (
    {},
    {"attention": "sdpa"},
    {"attention": "sdpa", "fusion": "qkv"},
    {"precision": "bf16_amp"},
    {"precision": "bf16", "memory_format": "channels_last"},
)


@pytest.mark.parametrize("choices", COMBOS, ids=str)
def test_kept_text_projections_change_no_bit(choices: dict[str, Any]) -> None:
    work = workload(mode="sample", num_inference_steps=3)
    plain, _ = subject(work, Combo(**choices))
    expected = [make_step(plain, keeps_text=False)(inputs, no_phase) for inputs in inputs_of(plain, draws=2)]
    made, _ = subject(work, Combo(**choices))
    step = make_step(made)
    for inputs, right in zip(inputs_of(made, draws=2), expected, strict=True):  # the second image has another text
        assert torch.equal(step(inputs, no_phase), right)


def test_a_text_projection_runs_once_per_image() -> None:
    made, _ = subject(workload(mode="sample", num_inference_steps=3))
    calls: Counter[str] = Counter()
    for name, module in made.unet.named_modules():
        if name.endswith(("attn1.to_k", "attn2.to_k", "attn2.to_v")):
            module.register_forward_hook(lambda *given, name=name: calls.update([name]))
    step = make_step(made)
    for _ in range(2):
        step(inputs_of(made)[0], no_phase)
    assert {name.rsplit(".", 2)[1]: count for name, count in calls.items()} == {"attn1": 6, "attn2": 2}
    assert text.note(made, 3) == ("8 projections of the text are computed once per image: 16 of 24 spared",)


def test_the_buffers_keep_their_addresses_and_are_no_weights() -> None:
    made, _ = subject(workload(mode="sample"))
    names = set(made.unet.state_dict())
    step, addresses = make_step(made), []
    for inputs in inputs_of(made, draws=2):
        step(inputs, no_phase)
        kept = [module.kept for module in made.unet.modules() if isinstance(module, text.KeptProjection)]
        addresses.append([one.data_ptr() for one in kept if one is not None])
    assert addresses[0] == addresses[1]
    assert len(addresses[0]) == 8
    assert {name.replace(".projection.", ".") for name in made.unet.state_dict()} == names


def test_compiled_code_reads_what_is_kept_without_compiling_again() -> None:
    plain, _ = subject(workload(mode="sample", num_inference_steps=3), Combo(attention="sdpa"))
    made, _ = subject(plain.workload, Combo(attention="sdpa"))
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    made = replace(made, call=torch.compile(made.unet, backend=backend, dynamic=False, fullgraph=True))
    step, right = make_step(made), make_step(plain, keeps_text=False)
    for inputs in inputs_of(made, draws=2):
        assert torch.allclose(step(inputs, no_phase), right(inputs, no_phase), atol=1e-5)
    assert len(graphs) == 1


def test_a_unet_that_changes_its_text_keeps_none_of_it() -> None:
    made, _ = subject(workload(mode="sample"))
    made.unet.encoder_hid_proj = torch.nn.Identity()
    assert text.keep_text(made) == ()
    assert text.note(made, 3) == (
        "text keys and values are computed at every step: this UNet changes the text embeddings inside its forward",
    )
    pixels, _ = subject(workload("pixel_unet", mode="sample"))
    assert text.note(pixels, 3) == ()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_latents_are_fp32_at_every_precision_and_seen_after_every_step(precision: Any) -> None:
    made, _ = subject(workload(mode="sample", num_inference_steps=3), Combo(precision=precision))
    seen: list[torch.Tensor] = []
    out = make_step(made, seen=seen)(inputs_of(made)[0], no_phase)
    assert out.dtype is torch.float32
    assert len(seen) == 3
    assert torch.equal(seen[-1], out)
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("batch", [1, 2])
def test_a_schedulers_noise_is_repeatable_and_depends_on_no_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(EulerAncestralDiscreteScheduler(), monkeypatch)
    first = _sample(batch=2)
    assert torch.allclose(_sample(batch=batch), first[:batch], atol=1e-3 * float(first.abs().max()))
    assert not torch.allclose(_sample(batch=2, seed=1), first, rtol=0.1)


def test_a_scheduler_of_second_order_calls_the_unet_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    _use(HeunDiscreteScheduler(), monkeypatch)
    made, _ = subject(workload("pixel_unet", mode="sample", num_inference_steps=3))
    calls: list[int] = []
    made.unet.register_forward_pre_hook(lambda module, given: calls.append(len(given[0])))
    make_step(made)(inputs_of(made)[0], no_phase)
    assert calls == [2] * schedulers.num_forwards(made.workload) == [2] * 5
    assert step_flop(10, made) == 10 * 5 * 2


def test_a_unet_whose_output_is_no_latent_is_refused() -> None:
    made, _ = subject(workload(mode="sample"))
    made.unet.register_to_config(in_channels=9)
    with pytest.raises(ModelError, match=r"takes 9 channels and returns 4.*choose mode=inference"):
        make_step(made)


def test_the_error_of_the_latents_is_told_step_by_step() -> None:
    work = workload(mode="sample", num_inference_steps=3)
    plain, coarse = (_fidelity(subject(work, Combo(precision=p))[0]) for p in ("fp32", "bf16"))
    assert numerics.latents_errors(plain, plain) == [0.0] * 3
    errors = numerics.latents_errors(coarse, plain)
    assert all(error is not None and 1e-5 < error < 0.2 for error in errors)
    assert errors[-1] == pytest.approx(numerics.compare(coarse, plain, {}).output_error)


def _fidelity(made: Subject) -> numerics.Fidelity:
    seen: list[torch.Tensor] = []
    output, loss = numerics.run_once(made, inputs_of(made)[0], 2, seen)
    return numerics.collect(made, output, loss, 2, seen)


def _use(scheduler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedulers, "DDIMScheduler", lambda **settings: scheduler)


def _sample(**changes: Any) -> torch.Tensor:
    made, _ = subject(workload("pixel_unet", mode="sample", num_inference_steps=3, **changes))
    return make_step(made)(inputs_of(made)[0], no_phase)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
@pytest.mark.parametrize("kind", ["conditional_unet", "pixel_unet"])
def test_no_step_of_the_loop_waits_for_the_gpu(kind: str) -> None:
    made, _ = subject(workload(kind, mode="sample", device="cuda"), Combo(attention="sdpa", precision="bf16"))
    step, inputs = make_step(made), inputs_of(made)[0]
    step(inputs, no_phase)
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        step(inputs, no_phase)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graphs", ["off", "whole_step"])
def test_kept_text_on_a_gpu_follows_the_text(cuda_graphs: Any) -> None:
    combo = Combo(attention="sdpa", precision="bf16")
    work = workload(mode="sample", device="cuda", num_inference_steps=3)
    plain, _ = subject(work, combo)
    made, _ = subject(work, replace(combo, cuda_graphs=cuda_graphs))
    step, right = make_step(made), make_step(plain, keeps_text=False)
    for inputs in inputs_of(made, draws=2):
        found, expected = step(inputs, no_phase), right(inputs, no_phase)
        if cuda_graphs == "off":
            assert torch.equal(found, expected)
        # cuBLAS may choose another algorithm while it is recorded
        assert (found - expected).norm() <= 0.03 * expected.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("cuda_graphs", ["off", "whole_step"])
def test_the_gap_between_two_forwards_is_measured(cuda_graphs: Any, tmp_path: Path) -> None:
    work = workload("pixel_unet", mode="sample", device="cuda", num_inference_steps=4)
    made, _ = subject(work, Combo(attention="sdpa", precision="bf16", cuda_graphs=cuda_graphs))
    traced = trace(made, tmp_path)
    assert len(phase_gaps_ns(traced.attribution.traced, PHASES.index("forward"))) == 3
    assert 0 <= (traced.host_gap_ms or -1) < traced.step_ms
