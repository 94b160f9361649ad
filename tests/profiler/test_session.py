"""A run from beginning to end on a CPU, and what becomes of it when something goes wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from profiler import numerics, session
from profiler.combo import FAMILIES, Combo
from profiler.optims.attention import KernelProcessor
from profiler.record import Metrics, Record, SweepPlace
from profiler.session import profile
from profiler.subject import Subject
from profiler.workload import Workload
from tests.support.sessions import measure_once
from tests.support.unets import workload

FILES = {"record.json", "kernels.parquet", "ops.parquet", "memory.parquet", "alive.parquet", "views"}
ON_A_GPU_ONLY = {
    "host_enqueue_ms", "gpu_busy_ms", "gpu_busy_share", "peak_reserved_gib", "peak_device_gib", "datasheet_tflops",
    "mfu", "step_energy_j", "sample_energy_j", "mean_power_w", "mean_sm_clock_mhz", "max_temperature_c", "loss_scale",
    "num_skipped_steps", "host_gap_ms", "compile_s", "warm_compile_s", "recompute_ms",
}  # fmt: skip
OF_TRAINING = {
    "forward_ms", "backward_ms", "optimizer_ms", "gradients_gib", "optimizer_state_gib", "loss", "gradient_error",
    "gradient_error_eager", "gradient_error_ratio",
}  # fmt: skip
ABSENT = {
    "inference": ON_A_GPU_ONLY | OF_TRAINING | {"image_s"},
    "train": ON_A_GPU_ONLY | {"image_s"},
    "sample": ON_A_GPU_ONLY | OF_TRAINING,
}
# A baseline that leaves no mark in a trace is neither confirmed nor refuted.
UNCHECKED: dict[str, dict[str, None]] = {
    "inference": {"memory_format": None, "fusion": None, "checkpointing": None, "optimizer": None},
    "train": {"memory_format": None, "fusion": None},
    "sample": {"memory_format": None, "fusion": None, "checkpointing": None, "optimizer": None},
}


@pytest.fixture(autouse=True)
def _measured_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.function not in (test_a_run_on_a_cpu_is_done_and_complete, test_metrics_agree_with_one_another):
        measure_once(monkeypatch)


def run(folder: Path, work: Workload, combo: Combo | None = None, **more: Any) -> Record:
    return profile(combo or Combo(), work, folder / "run", run_id="run", references=folder / "references", **more)


def make_reference(folder: Path, work: Workload) -> None:
    numerics.make_reference(work, folder / "references" / work.reference_key, lambda stage, detail: None)


@pytest.mark.parametrize("mode", ["inference", "train", "sample"])
def test_a_run_on_a_cpu_is_done_and_complete(tmp_path: Path, mode: str) -> None:
    work, stages = workload("tiny", mode=mode, batch=1, resolution=64), list[str]()
    make_reference(tmp_path, work)
    place = SweepPlace(sweep_id="s", name="quick", position=2, num_jobs=8)
    record = run(tmp_path, work, sweep=place, progress=lambda stage, detail: stages.append(stage))
    assert (record.status, record.cause, record.traceback) == ("done", "", "")
    curve = ["curve"] if mode == "train" else []
    assert stages == [
        "build", "apply", "first_call", "fidelity", *curve, "warm_up", "time", "energy", "memory", "trace", "verify",
        "write",
    ]  # fmt: skip
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == FILES | {record.trace_file} | (set() if mode == "inference" else {"curves.parquet"})
    assert Record.read(tmp_path / "run") == record
    assert record.sweep == place
    assert {e.family: e.confirmed for e in record.evidence} == dict.fromkeys(FAMILIES, True) | UNCHECKED[mode]
    missing = {name for name in Metrics.__dataclass_fields__ if getattr(record.metrics, name) is None}
    assert missing == ABSENT[mode]


def test_metrics_agree_with_one_another(tmp_path: Path) -> None:
    work = workload("tiny", mode="train", batch=2, resolution=64, min_samples=5)
    make_reference(tmp_path, work)
    m = run(tmp_path, work).metrics
    record = Record.read(tmp_path / "run")
    assert m.num_samples == len(record.samples["step_ms"]) == len(record.samples["backward_ms"]) == 5
    assert m.step_ms is not None
    assert m.samples_per_s == pytest.approx(2e3 / m.step_ms)
    assert m.epoch_s == pytest.approx(work.dataset_size / 2 * m.step_ms / 1e3)
    parts = [m.forward_ms, m.backward_ms, m.optimizer_ms]
    assert sum(part or 0 for part in parts) == pytest.approx(m.step_ms, rel=0.25)
    assert m.achieved_tflops == pytest.approx((m.step_tflop or 0) / m.step_ms * 1e3)
    assert m.gradients_gib == pytest.approx(m.weights_gib, rel=0.02)
    assert m.optimizer_state_gib == pytest.approx(2 * (m.weights_gib or 0), rel=0.01)
    assert m.output_error_ratio == pytest.approx(1.0, rel=0.5)
    assert record.attention_observed == {"math": 2 * 8}
    assert any("random weights" in note for note in record.notes)


def test_a_run_without_a_reference_says_so(tmp_path: Path) -> None:
    record = run(tmp_path, workload())
    assert record.status == "done"
    assert record.metrics.output_error is None
    assert "no reference was made" in " ".join(record.notes)


def test_the_models_own_resolution_is_recorded(tmp_path: Path) -> None:
    assert run(tmp_path, workload()).workload.resolution == 64


@pytest.mark.parametrize(
    ("combo", "changes", "cause"),
    [
        ({"attention": "sdpa_cudnn"}, {}, "needs CUDA: on a CPU choose math, sdpa or sdpa_flash"),
        ({"precision": "fp16"}, {}, "choose bf16"),
        ({"optimizer": "adamw_fused"}, {}, "choose mode=train"),
        ({}, {"kind": "sd99"}, "unknown model 'sd99': choose tiny"),
        ({}, {"resolution": 72}, "choose a multiple of 16 px"),
        ({}, {"kind": "tests.support.unets:not_a_unet"}, "must return a UNet2DModel or UNet2DConditionModel"),
    ],
)
def test_what_cannot_run_is_rejected_with_the_remedy(
    tmp_path: Path, combo: dict[str, str], changes: dict[str, Any], cause: str
) -> None:
    record = run(tmp_path, workload(**changes), Combo.from_dict(combo))
    assert record.status == "rejected"
    assert cause in record.cause
    assert Record.read(tmp_path / "run") == record


def test_a_failed_run_keeps_its_traceback_without_this_machines_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError(f"cannot read {tmp_path}/weights.bin")

    monkeypatch.setattr(session, "forward_flop_per_sample", broken)
    record = run(tmp_path, workload())
    assert record.status == "failed"
    assert record.cause == "RuntimeError: cannot read weights.bin"
    assert "profiler/session.py" in record.traceback
    assert "in broken" in record.traceback
    written = (tmp_path / "run" / "record.json").read_text()
    for folder in (
        str(tmp_path),
        str(Path(__file__).parents[2]),
        str(Path.home()) + "/",
        str(Path(torch.__file__).parent),
    ):
        assert folder not in written


def test_what_was_found_before_a_failure_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the profiler is gone")

    monkeypatch.setattr(session.tracing, "trace_steps", broken)
    record = run(tmp_path, workload())
    assert (record.status, record.cause) == ("failed", "RuntimeError: the profiler is gone")
    assert record.metrics.step_ms is not None
    assert record.samples["step_ms"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        MemoryError("no host memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1099511627776 bytes."),
    ],
)
def test_a_batch_that_does_not_fit_is_an_oom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(session.measure, "time_steps", full)
    record = run(tmp_path, workload())
    assert record.status == "oom"
    assert str(error)[:20] in record.cause
    assert record.metrics.first_call_s is not None


def _break_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    right = KernelProcessor.forward

    def scaled(self: KernelProcessor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return right(self, *args, **kwargs) * 1.05

    monkeypatch.setattr(KernelProcessor, "forward", scaled)


@pytest.mark.parametrize("mode", ["inference", "train"])
def test_a_broken_attention_kernel_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    work = workload(mode=mode)
    make_reference(tmp_path, work)
    _break_attention(monkeypatch)
    record = run(tmp_path, work, Combo(attention="sdpa"))
    assert record.status == "wrong"
    assert "plain eager in fp32 has" in record.cause
    assert record.metrics.step_ms is not None


def test_nan_is_wrong_even_without_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KernelProcessor, "forward", lambda self, attn, hidden, *args, **more: hidden * float("nan"))
    record = run(tmp_path, workload(), Combo(attention="sdpa"))
    assert (record.status, record.cause) == ("wrong", "the output holds NaN or infinity")


def test_a_choice_that_does_not_show_in_the_trace_is_ineffective(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_all = session.apply_all

    def forgetful(subject: Subject, combo: Combo) -> Any:
        _, evidence = apply_all(subject, combo)
        return apply_all(subject, Combo())[0], evidence

    monkeypatch.setattr(session, "apply_all", forgetful)
    record = run(tmp_path, workload(), Combo(attention="sdpa_flash"))
    assert record.status == "ineffective"
    assert record.cause.startswith("attention=sdpa_flash: the trace shows no flash; the trace shows math")


def test_the_record_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    write = Record.write

    def watched(self: Record, folder: Path) -> None:
        seen.append({path.name for path in folder.iterdir()})
        write(self, folder)

    monkeypatch.setattr(Record, "write", watched)
    record = run(tmp_path, workload())
    assert seen == [(FILES - {"record.json"}) | {record.trace_file}]
    assert json.loads((tmp_path / "run" / "record.json").read_text())["status"] == "done"


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file stands in the way")
    with pytest.raises(OSError, match="run"):
        run(tmp_path, workload())
