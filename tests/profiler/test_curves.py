"""Curves: loss, loss scale, overflow and underflow over training; the latents' error over sampling."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from profiler.clock import clock_for
from profiler.combo import Combo
from profiler.curves import FP16_SMALLEST, Curves, TrainingWatch, divergence, record_training, training_note
from profiler.session import profile
from profiler.steps import make_step
from profiler.subject import Subject
from tests.support.unets import inputs_of, subject, workload

SMALLEST = "tests.support.unets:one_level_unet"


def train(made: Subject, num_steps: int, **more: Any) -> Curves:
    made = replace(made, workload=replace(made.workload, curve_steps=num_steps, min_seconds=60.0))
    curves = Curves()
    watch, step = TrainingWatch(made, curves), make_step(made)
    record_training(made, watch, step, inputs_of(made, draws=3), clock_for("cpu"), first=0, **more)
    return curves


def fp16(scale: float) -> Subject:
    """The UNet under fp16 autocast with a loss scale of its own; a CPU runs it, though why_not advises against it."""
    made, _ = subject(workload(SMALLEST, mode="train"), Combo(precision="fp16_amp"))
    return replace(made, scaler=torch.amp.GradScaler("cpu", init_scale=scale))


def test_every_precision_learns_the_same_few_batches() -> None:
    losses = {}
    for precision in ("fp32", "bf16_amp"):
        made, _ = subject(workload(SMALLEST, mode="train"), Combo(precision=precision))
        losses[precision] = [y for _, y in train(made, 9).points["loss"]]
    for values in losses.values():
        assert len(values) == 9
        assert sum(values[-3:]) < sum(values[:3])
    assert losses["fp32"] != losses["bf16_amp"]
    assert losses["fp32"] == pytest.approx(losses["bf16_amp"], rel=0.05)


def test_the_scale_falls_where_gradients_overflow_and_the_steps_are_skipped() -> None:
    made = fp16(2.0**24)
    points = train(made, 12).points
    scales = [y for _, y in points["loss_scale"]]
    skipped = [int(y) for _, y in points["skipped_steps"]]
    assert scales[0] == 2.0**24
    assert skipped[0] == 1
    assert 1 < skipped[-1] < 12  # in the end it fits
    assert scales == [2.0 ** (24 - number) for number in [0, *skipped[:-1]]]
    overflows = [y for _, y in points["nonfinite_gradients"]]
    assert [count > 0 for count in overflows] == [a < b for a, b in itertools.pairwise([0, *skipped])]
    assert training_note(Curves(points)) == (
        f"loss scaling: {skipped[-1]} of the first 12 steps overflowed and were skipped",
    )


def test_a_scale_that_stands_still_is_said_to() -> None:
    curves = train(fp16(1024.0), 2)
    assert {y for _, y in curves.points["skipped_steps"]} == {0}
    assert training_note(curves) == ("loss scaling: no gradient overflowed in the first 2 steps at a scale of 1024",)
    assert training_note(Curves({"loss": [(1, 0.5)]})) == ()


def test_scaling_saves_gradients_from_underflow() -> None:
    """The share below fp16's smallest number, counted here by hand on known gradients."""
    made = fp16(4.0)
    curves = Curves()
    watch = TrainingWatch(made, curves)
    for parameter in made.unet.parameters():
        parameter.grad = torch.full_like(parameter, 2 * FP16_SMALLEST)
    first = next(made.unet.parameters())
    assert first.grad is not None
    first.grad.view(-1)[:3] = torch.tensor([0.0, float("inf"), float("nan")])
    with watch.phase("optimizer"):
        pass
    total = sum(p.numel() for p in made.unet.parameters())
    assert curves.points["nonfinite_gradients"] == [(1, 2)]
    assert curves.points["underflow_share"][0][1] == pytest.approx((total - 2) / total)
    assert curves.points["underflow_share_scaled"][0][1] == pytest.approx(1 / total)


def test_wide_formats_have_no_scale_and_no_shares() -> None:
    assert set(train(subject(workload(SMALLEST, mode="train"))[0], 1).points) == {"loss"}


def test_the_curve_ends_with_its_time() -> None:
    made, _ = subject(workload(SMALLEST, mode="train"))
    moments = iter([0.0, 1.0, 179.0, 180.0])
    assert len(train(made, 50, now=lambda: next(moments)).points["loss"]) == 2  # 3 times min_seconds of 60


def test_a_point_that_is_not_finite_is_a_gap(tmp_path: Path) -> None:
    curves = Curves({"loss": [(1, 0.5), (2, float("nan"))], "loss_scale": [(1, 65536.0)]})
    curves.write(tmp_path / "curves.parquet")
    assert pq.read_table(tmp_path / "curves.parquet").to_pylist() == [
        {"name": "loss", "x": 1.0, "y": 0.5},
        {"name": "loss", "x": 2.0, "y": None},
        {"name": "loss_scale", "x": 1.0, "y": 65536.0},
    ]
    Curves().write(tmp_path / "none.parquet")
    assert not (tmp_path / "none.parquet").exists()


def test_training_that_diverges_is_told_by_its_step() -> None:
    assert divergence(Curves({"loss": [(1, 0.5), (2, 0.4)]})) == ""
    assert divergence(Curves()) == ""
    lost = Curves({"loss": [(1, 0.5), (2, float("nan")), (3, float("inf"))]})
    assert divergence(lost) == "training diverges: the loss is not finite in step 2"


@pytest.mark.gpu
def test_fp16_training_on_a_gpu_leaves_its_scale_and_what_it_lost(tmp_path: Path) -> None:
    work = workload("pixel_unet", mode="train", device="cuda", curve_steps=12, min_seconds=1.0)
    record = profile(
        Combo(precision="fp16_amp", optimizer="adamw_fused"), work, tmp_path, run_id="run", references=tmp_path
    )
    assert record.status == "done", record.cause
    rows = pq.read_table(tmp_path / "curves.parquet").to_pylist()
    curves = {name: [row["y"] for row in rows if row["name"] == name] for name in {row["name"] for row in rows}}
    assert set(curves) == {
        "loss", "loss_scale", "skipped_steps", "nonfinite_gradients", "underflow_share", "underflow_share_scaled",
    }  # fmt: skip
    assert {len(line) for line in curves.values()} == {12}
    assert curves["loss_scale"][0] == 65536
    assert curves["underflow_share_scaled"][-1] <= curves["underflow_share"][-1]
    assert sum("loss scaling:" in note for note in record.notes) == 1
