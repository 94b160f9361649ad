"""A record's numbers: the headlines, and all of them in groups, each unknown one with the reason why."""

from dataclasses import fields
from typing import Any

import pandas as pd
import streamlit as st

from pages.charts import readable
from pages.widgets import tables
from profiler.record import Metrics

META = {field.name: field.metadata for field in fields(Metrics)}
GROUPS: dict[str, tuple[str, ...]] = {
    "Time": (
        "step_ms", "step_iqr_ms", "step_p95_ms", "num_samples", "forward_ms", "backward_ms", "optimizer_ms",
        "samples_per_s", "epoch_s", "image_s", "first_call_s", "compile_s", "warm_compile_s", "build_s",
        "host_enqueue_ms", "profiler_overhead", "gpu_busy_ms", "gpu_busy_share", "num_kernels", "recompute_ms",
        "host_gap_ms",
    ),
    "Memory": (
        "peak_allocated_gib", "peak_reserved_gib", "peak_device_gib", "host_peak_gib", "weights_gib", "gradients_gib",
        "optimizer_state_gib", "activations_gib", "activation_mib_per_sample", "samples_per_s_per_gib",
    ),
    "Compute": ("step_tflop", "achieved_tflops", "datasheet_tflops", "mfu", "ceiling_tflops", "ceiling_share"),
    "Energy": ("step_energy_j", "sample_energy_j", "mean_power_w", "mean_sm_clock_mhz", "max_temperature_c"),
    "Fidelity": (
        "output_error", "output_cosine", "output_error_eager", "output_error_ratio", "gradient_error",
        "gradient_error_eager", "gradient_error_ratio", "loss", "loss_scale", "num_skipped_steps",
    ),
}  # fmt: skip
TRAIN_ONLY = (
    "forward_ms", "backward_ms", "optimizer_ms", "epoch_s", "gradients_gib", "optimizer_state_gib", "gradient_error",
    "gradient_error_eager", "gradient_error_ratio", "loss", "recompute_ms",
)  # fmt: skip
OF_PHASES = ("forward_ms", "backward_ms", "optimizer_ms", "gradients_gib")
# What a CPU run cannot give, and why.
GPU_ONLY = {
    "host_enqueue_ms": "a CPU launches nothing: it computes itself",
    "gpu_busy_ms": "there is no GPU to be busy",
    "gpu_busy_share": "there is no GPU to be busy",
    "host_gap_ms": "there is no GPU to be idle",
    "peak_reserved_gib": "PyTorch has no caching allocator for CPU memory",
    "peak_device_gib": "there is no device memory",
    "datasheet_tflops": "no datasheet states one peak for this CPU",
    "mfu": "no datasheet states one peak for this CPU",
    "step_energy_j": "energy comes from NVML",
    "sample_energy_j": "energy comes from NVML",
    "mean_power_w": "power comes from NVML",
    "mean_sm_clock_mhz": "clocks come from NVML",
    "max_temperature_c": "temperature comes from NVML",
}
HEADLINES = {
    "step_ms": "Step time",
    "samples_per_s": "Samples per second",
    "peak_allocated_gib": "Peak memory",
    "mfu": "MFU",
    "sample_energy_j": "Energy per sample",
    "output_error_ratio": "Output error ratio",
    "compile_s": "Compile time",
}


def has_numbers(record: dict[str, Any]) -> bool:
    """Whether the run got as far as timing its steps, or is a trace of others."""
    return record["metrics"].get("step_ms") is not None or record["imported"] is not None


def why_unknown(name: str, record: dict[str, Any]) -> str:
    """Why a run does not have this number, in words; empty when it does."""
    if record["metrics"].get(name) is not None:
        return ""
    if record["imported"]:
        return _why_not_in_trace(name)
    workload, status = record["workload"], record["status"]
    if workload["device"] == "cpu" and name in GPU_ONLY:
        return f"not measurable on a CPU: {GPU_ONLY[name]}"
    if workload["mode"] != "train" and name in TRAIN_ONLY:
        return "only in mode=train"
    if workload["mode"] != "sample" and name in ("image_s", "host_gap_ms"):
        return "only in mode=sample"
    if record["combo"]["compilation"] == "eager" and name in ("compile_s", "warm_compile_s"):
        return "nothing is compiled in eager mode"
    if name == "warm_compile_s" and record["combo"]["compilation"] == "max_autotune":
        return "not measured with max_autotune: it would take minutes"
    if record["combo"].get("cuda_graphs", "off") != "off" and name in OF_PHASES:
        return "the whole step is one CUDA graph"
    if record["combo"]["precision"] != "fp16_amp" and name in ("loss_scale", "num_skipped_steps"):
        return "only with precision=fp16_amp"
    if status not in ("done", "wrong", "ineffective"):
        return f"not measured: the run ended as {status}"
    return "not recorded by this run"


def _why_not_in_trace(name: str) -> str:
    """Why an imported trace does not give a number."""
    if name in ("step_ms", "step_iqr_ms", "step_p95_ms", "num_samples", "num_kernels"):
        return "the trace marks no steps, or one alone: profiler.step() marks them"
    if name == "gpu_busy_ms":
        return "the trace has no marked steps, or no GPU events"
    if name == "recompute_ms":
        return "nothing was recomputed, or the trace does not mark it"
    return "not in a trace: it takes a run that Steplens measures"


def text(name: str, record: dict[str, Any]) -> str:
    """The number as a reader wants it, without its unit."""
    return readable.metric(name, record["metrics"].get(name))


def unit(name: str) -> str:
    return "" if name in readable.SHARES else str(META[name]["unit"])


def show_headlines(record: dict[str, Any]) -> None:
    """The numbers that a reader looks for first, as cards."""
    with st.grid(7, min_column_width=165):
        for name, title in HEADLINES.items():
            why, symbol = why_unknown(name, record), unit(name)
            value = text(name, record) if why else f"{text(name, record)} {symbol}".replace(" x", "×").strip()
            value = readable.gib(record["metrics"].get(name)) if symbol == "GiB" else value
            with st.container(border=True, height="stretch", gap="xsmall"):
                st.metric(title, value, help=f"{META[name]['help']} {why}".strip())
                st.caption(why.partition(":")[0] or _beside(name, record))


def _beside(name: str, record: dict[str, Any]) -> str:
    """The second figure of a card."""
    known = {name: readable.metric(name, value) for name, value in record["metrics"].items()}
    workload = record["workload"] or {}
    is_sampled = workload.get("mode") == "sample"
    image = f", {known['image_s']} s per image of {workload['num_inference_steps']} steps" if is_sampled else ""
    return {
        "step_ms": f"IQR {known['step_iqr_ms']}, p95 {known['step_p95_ms']}",
        "samples_per_s": f"batch {workload.get('batch')}{image}",
        "peak_allocated_gib": f"weights {readable.gib(record['metrics']['weights_gib'])}",
        "mfu": f"{known['achieved_tflops']} TFLOP/s",
        "sample_energy_j": f"{known['mean_power_w']} W mean",
        "output_error_ratio": f"relative error {known['output_error']}",
        "compile_s": f"first call {known['first_call_s']} s",
    }[name]


def show_all(record: dict[str, Any]) -> None:
    """Every number of the record in its group, with what it means or why it is unknown."""
    tabs = st.tabs(list(GROUPS))
    for tab, names in zip(tabs, GROUPS.values(), strict=True):
        rows = pd.DataFrame(
            {
                "metric": list(names),
                "value": [text(name, record) for name in names],
                "unit": [unit(name) for name in names],
                "meaning": [why_unknown(name, record) or META[name]["help"] for name in names],
            }
        )
        config = {
            "metric": st.column_config.TextColumn("Metric", width=190),
            "value": st.column_config.TextColumn("Value", alignment="right", width=90),
            "unit": st.column_config.TextColumn("Unit", width=80),
            "meaning": st.column_config.TextColumn("Meaning, or why it is unknown", width="large"),
        }
        tab.dataframe(rows, hide_index=True, column_config=config, height=tables.fit(rows, most=24))
