"""The README's commands, its tree and its figures of training are true."""

import re
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from profiler.combo import Combo
from profiler.record import Record

TRAINING = "sd15-train-b16-around-h200"
ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def captioned_paths() -> list[str]:
    """The paths of 'The house', with their folder in front."""
    tree = README.split("## The house")[1].split("```")[1]
    paths, folder = [], ""
    for line in tree.strip().splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            paths.append(name)
        else:
            paths.append(folder + name)
    return paths


@pytest.mark.parametrize("path", captioned_paths())
def test_every_captioned_path_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("folder", ["profiler", "store"])
def test_every_module_a_reader_meets_is_captioned_or_in_a_captioned_folder(folder: str) -> None:
    captioned = set(captioned_paths())
    left_out = {"__init__.py", "__main__.py", "db.py", "folders.py", "labels.py", "plan.py", "ratios.py", "rows.py"}
    modules = {path.name for path in (ROOT / folder).glob("*.py")} - left_out
    assert {f"{folder}/{name}" for name in modules} <= captioned


def test_both_commands_stand_alone_on_a_line() -> None:
    for command in (
        "pip install -r requirements.txt && streamlit run app.py",
        "pip install -r requirements-dev.txt && pytest",
    ):
        assert re.search(rf"^{re.escape(command)}$", README, re.MULTILINE)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-gpu.txt"])
def test_every_requirement_has_its_reason(name: str) -> None:
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith(("#", "-r")):
            assert re.search(r"\s#\s\w", line), f"{name}: {line}"


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)h][^)]*)\)", README))
def test_every_relative_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def recorded(study: str) -> dict[Combo, Record]:
    """The study's finished runs; of a combo that ran twice the first."""
    records = [Record.read(path.parent) for path in (ROOT / "runs/reference" / study).glob("*/record.json")]
    latest_first = sorted(records, key=lambda record: record.started_at, reverse=True)
    return {record.combo: record for record in latest_first if record.combo and record.metrics.step_ms}


def test_the_row_of_training_says_what_was_recorded() -> None:
    step_ms = {combo: record.metrics.step_ms for combo, record in recorded("sd15-train-b16-h200").items()}
    start = Combo(precision="bf16_amp", attention="sdpa")
    fused = replace(start, optimizer="adamw_fused")
    best = replace(fused, memory_format="channels_last", compilation="default")
    [row] = [line for line in README.splitlines() if line.startswith("| one training step, batch 16 ")]
    assert start.optimizer == "adamw"
    assert f"{step_ms[start]:.0f} ms (bf16 autocast; for-loop AdamW" in row
    assert f"{step_ms[best]:.0f} ms: bf16 autocast, SDPA, fused AdamW, channels_last" in row
    assert f"{step_ms[start] / step_ms[best]:.1f}x; {step_ms[fused] / step_ms[best]:.1f}x over" in row
    assert f"fused AdamW ({step_ms[fused]:.0f} ms)" in row


def fourth_loss(combo: Combo) -> float:
    file = ROOT / "runs/reference" / TRAINING / recorded(TRAINING)[combo].run_id / "curves.parquet"
    rows = pq.read_table(file).to_pylist()
    return next(row["y"] for row in rows if (row["name"], row["x"]) == ("loss", 4))


def test_what_it_says_of_exchanged_choices_was_recorded() -> None:
    [said] = [part for part in README.split("\n\n") if part.startswith("Two more studies exchange one choice")]
    stack = Combo(precision="bf16", attention="sdpa", cuda_graphs="whole_step")
    around = recorded("sd15-inference-b8-around-h200")
    for attention in ("flash_attn_4", "flex", "xformers", "flash_attn_2", "sdpa_flash", "sdpa_efficient", "math"):
        assert f"{attention} {around[replace(stack, attention=attention)].metrics.step_ms:.1f} ms" in said
    assert f"sdpa (cuDNN ran) {around[stack].metrics.step_ms:.1f} ms" in said
    assert around[stack].attention_observed == {"cudnn": 32}
    assert f"all fusions {around[replace(stack, fusion='all')].metrics.step_ms:.1f} ms" in said
    assert f"`compilation=regional` {around[replace(stack, compilation='regional')].metrics.step_ms:.1f} ms" in said

    stack, around = Combo(precision="bf16_amp", attention="sdpa", optimizer="adamw_fused"), recorded(TRAINING)
    assert around[stack].attention_observed == {"cudnn": 64}
    told = {
        "fused AdamW: {ms:.0f} ms, {gib:.1f} GiB)": stack,
        "pure bf16 {ms:.0f} ms and {gib:.1f} GiB": replace(stack, precision="bf16"),
        "`compilation=regional` {ms:.0f} ms,": replace(stack, compilation="regional"),
        "all fusions {ms:.0f} ms,": replace(stack, fusion="all"),
        "checkpointing full {ms:.0f} ms and {gib:.1f} GiB": replace(stack, checkpointing="full"),
        "costs time, {ms:.0f} ms": replace(stack, quantization="fp8"),
    }
    assert f"({fourth_loss(replace(stack, precision='bf16')):.3f} at the fourth, where they have" in said
    others = {f"{fourth_loss(combo):.3f}" for combo in around if combo.precision != "bf16"}
    assert others == {"1.207"}
    for words, combo in told.items():
        metrics = around[combo].metrics
        assert words.format(ms=metrics.step_ms, gib=metrics.peak_allocated_gib) in said


def test_the_recorded_runs_that_ship_their_trace_are_named() -> None:
    with_trace = {path.parent.name for path in (ROOT / "runs" / "reference").glob("*/*/*.pt.trace.json.gz")}
    assert set(re.findall(r"`(\d{8}-\d{6}-[\w-]+)`", README)) == with_trace
