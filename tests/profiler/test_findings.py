"""Findings: how what the passes found becomes metrics and a verdict."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from profiler import findings, numerics
from profiler.combo import Combo
from profiler.findings import Findings
from profiler.measure import Timing
from profiler.memory import Held, Peaks
from profiler.record import Evidence, Rank
from profiler.telemetry import Energy
from tests.support.unets import inputs_of, subject, workload

GPU = workload("tiny", mode="train", device="cuda", batch=4)


def _found(**metrics: Any) -> Findings:
    return Findings(workload=GPU, metrics={"step_ms": 10.0, "samples_per_s": 400.0, **metrics})


def test_times_become_median_spread_and_rates() -> None:
    found = Findings(workload=GPU)
    times = tuple(float(ms) for ms in range(1, 102))
    timing = Timing(step_ms=times, phase_ms={"forward": (1.0, 3.0), "backward": (5.0,)}, host_enqueue_ms=(2.0, 4.0))
    findings.note_times(timing, GPU, found)
    m = findings.metrics(found)
    assert (m.step_ms, m.step_iqr_ms, m.step_p95_ms, m.num_samples) == (51.0, 50.0, 96.0, 101)
    assert (m.forward_ms, m.backward_ms, m.host_enqueue_ms) == (2.0, 5.0, 3.0)
    assert m.samples_per_s == pytest.approx(4 / 0.051)
    assert m.epoch_s == pytest.approx(GPU.dataset_size / 4 * 0.051)
    assert found.samples["step_ms"] == times


def test_one_sample_has_no_spread() -> None:
    found = Findings(workload=GPU)
    findings.note_times(Timing(step_ms=(7.0,), phase_ms={}, host_enqueue_ms=(1.0,)), GPU, found)
    m = findings.metrics(found)
    assert (m.step_ms, m.step_iqr_ms, m.step_p95_ms) == (7.0, None, None)


@pytest.mark.parametrize(
    ("busy_ms", "verdict"),
    [
        *((10.2, "gpu-bound"), (9.0, "gpu-bound"), (8.9, "partly launch-bound")),
        *((7.5, "partly launch-bound"), (7.4, "launch-bound")),
    ],
)
def test_the_busy_share_of_the_untraced_step_tells_who_sets_the_pace(busy_ms: float, verdict: str) -> None:
    found, made = _found(), SimpleNamespace(workload=GPU)
    trace: Any = SimpleNamespace(step_ms=20.0, num_kernels=5.0, busy_ms=busy_ms, recompute_ms=None, host_gap_ms=None)
    trace.warnings = ["dropped: an unreadable event (1)"]
    findings.note_trace(trace, made, found)  # type: ignore[arg-type]
    assert found.notes == ["the trace has dropped: an unreadable event (1)"]
    assert found.launch_verdict == verdict
    assert found.metrics["gpu_busy_share"] == pytest.approx(busy_ms / 10)
    assert found.metrics["profiler_overhead"] == 2.0


# compute, exposed communication, waiting: two H200s, SD1.5; rank 0 spins for 335 ms of the traced step
FSDP2 = ((127.9, 349.7, 334.6), (105.6, 15.4, 0.0))
STAGES = ((15.6, 136.0, 135.3), (33.6, 74.6, 74.0))


@pytest.mark.parametrize(
    ("parallelism", "step_ms", "ranks", "busy_ms", "verdict"),
    [
        ("fsdp2", 314.7, FSDP2, 143.0, "launch-bound"),
        ("fsdp2", 150.0, FSDP2, 143.0, "gpu-bound"),
        ("fsdp2", 314.7, tuple((*times, None) for *times, _ in FSDP2), None, None),
        ("pipeline", 70.0, STAGES, 34.2, None),
        ("pipeline", 40.0, STAGES, 34.2, None),
        ("pipeline", 36.0, STAGES, 34.2, "gpu-bound"),
    ],
)
def test_of_several_gpus_the_busiest_sets_the_pace_and_waiting_is_no_work(
    parallelism: str, step_ms: float, ranks: Any, busy_ms: float | None, verdict: str | None
) -> None:
    found = Findings(workload=GPU)
    found.metrics["step_ms"] = step_ms
    figures = {"step_ms": step_ms, "communicated_bytes": 1, "peak_allocated_gib": 1.0}
    found.ranks = tuple(
        Rank(rank=rank, compute_ms=compute, exposed_communication_ms=exposed, wait_ms=wait, **figures)
        for rank, (compute, exposed, wait) in enumerate(ranks)
    )
    findings.note_pace_of_ranks(parallelism, found)
    assert found.metrics["gpu_busy_ms"] == (None if busy_ms is None else pytest.approx(busy_ms))
    assert found.metrics["gpu_busy_share"] == (None if busy_ms is None else pytest.approx(busy_ms / step_ms))
    assert found.launch_verdict == verdict


@pytest.mark.parametrize(("device", "gap"), [("cuda", 0.5), ("cpu", None)])
def test_only_a_gpu_can_be_idle_between_forwards(device: Any, gap: float | None) -> None:
    work = workload("tiny", mode="sample", device=device)
    found = _found()
    trace: Any = SimpleNamespace(
        step_ms=20.0, num_kernels=5.0, busy_ms=9.0, recompute_ms=None, host_gap_ms=0.5, warnings=[]
    )
    findings.note_trace(trace, SimpleNamespace(workload=work), found)  # type: ignore[arg-type]
    assert found.metrics.get("host_gap_ms") == gap


def test_memory_of_a_gpu_is_what_its_allocator_counted() -> None:
    found, gib = _found(), 2**30
    made: Any = SimpleNamespace(workload=GPU, uses_graphs=False)
    peaks = Peaks(allocated=8 * gib, reserved=9 * gib, device=10 * gib, activations=4 * gib, gradients=gib)
    held = Held(parameters={1: gib}, optimizer_state={2: gib, 3: gib}, other={})
    findings.note_memory(peaks, held, SimpleNamespace(timeline=[]), made, found)  # type: ignore[arg-type]
    m = findings.metrics(found)
    assert (m.peak_allocated_gib, m.peak_reserved_gib, m.peak_device_gib) == (8, 9, 10)
    assert (m.weights_gib, m.gradients_gib, m.optimizer_state_gib, m.activations_gib) == (1, 1, 2, 4)
    assert (m.activation_mib_per_sample, m.samples_per_s_per_gib) == (1024, 50)


def test_energy_of_a_step_is_shared_by_its_samples() -> None:
    found = _found()
    findings.note_energy(Energy(step_energy_j=8.0, mean_power_w=400.0), GPU, found)
    m = findings.metrics(found)
    assert (m.step_energy_j, m.sample_energy_j, m.mean_power_w, m.max_temperature_c) == (8.0, 2.0, 400.0, None)


def test_utilisation_stands_beside_its_ceilings() -> None:
    found = _found()
    findings.note_compute(10**12, 200.0, 500.0, found)
    m = findings.metrics(found)
    assert (m.step_tflop, m.achieved_tflops, m.mfu, m.ceiling_share) == (1.0, 100.0, 0.2, 0.5)
    findings.note_compute(10**12, 200.0, None, found)
    assert findings.metrics(found).mfu is None


def test_skipped_steps_are_those_that_the_optimizer_did_not_take() -> None:
    made, _ = subject(workload(mode="train"))
    assert made.optimizer is not None
    for parameter in made.unet.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.optimizer.step()
    found = _found()
    findings.note_scaling(replace(made, scaler=torch.amp.GradScaler("cpu")), 3, found)
    assert found.metrics["num_skipped_steps"] == 2
    plain = _found()
    findings.note_scaling(made, 3, plain)
    assert "num_skipped_steps" not in plain.metrics


def test_what_is_not_finite_is_unknown() -> None:
    assert findings.metrics(_found(output_error=float("nan"), loss=float("inf"))).output_error is None


@pytest.mark.parametrize(
    ("wrong", "confirmed", "verdict"),
    [
        ("", (True, None), ("done", "")),
        ("", (True, False), ("ineffective", "attention=sdpa: no kernel")),
        ("output_error is 1", (False, False), ("wrong", "output_error is 1")),
    ],
)
def test_the_verdict(wrong: str, confirmed: tuple[bool | None, ...], verdict: tuple[str, str]) -> None:
    found = _found()
    found.wrong = wrong
    found.evidence = tuple(
        Evidence(family="attention", choice="sdpa", confirmed=state, finding="no kernel") for state in confirmed
    )
    assert findings.judge(found)[0] == verdict[0]
    assert findings.judge(found)[1].startswith(verdict[1])


def test_a_run_in_which_nothing_is_finite_is_wrong() -> None:
    found, made = _found(), subject(workload())[0]
    output = torch.full_like(inputs_of(made)[0].sample, float("nan")).double()
    findings.note_fidelity(numerics.Fidelity(output=output, loss=None, gradients={}), None, Combo(), found)
    assert found.wrong == "the output holds NaN or infinity"
