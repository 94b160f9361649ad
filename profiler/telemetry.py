"""Telemetry: power, clocks and temperature by NVML while the step repeats, in a pass of its own.

A polling thread would compete with launches for the interpreter, so nothing else is timed in this pass. Energy is
the difference of NVML's total-energy counter (Volta and newer) over the whole pass, divided by its steps.
"""

import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pynvml
import torch

from profiler.clock import Clock
from profiler.measure import Agree, alone, repeat_for
from profiler.steps import Step
from profiler.subject import Inputs
from profiler.traces.tables import write_table

PERIOD_S = 0.05
_FIELDS = ("time_ns", "power_w", "sm_clock_mhz", "memory_clock_mhz", "temperature_c", "utilisation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Energy:
    """Figures of one energy pass; None where NVML does not tell."""

    step_energy_j: float | None = None
    mean_power_w: float | None = None
    mean_sm_clock_mhz: float | None = None
    max_temperature_c: float | None = None
    contaminated: bool = False


def measure_energy(
    step: Step,
    inputs: Sequence[Inputs],
    clock: Clock,
    *,
    seconds: float,
    device: str,
    file: Path | None,
    agree: Agree = alone,
) -> Energy:
    """Repeat the step for some seconds under NVML and write telemetry.parquet (file=None: do not); empty on a CPU."""
    if device != "cuda":
        return Energy()
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(
            f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        )
    except pynvml.NVMLError:
        return Energy()
    poller = _Poller(handle)
    poller.start()
    before = _energy_mj(handle)
    started = time.monotonic()
    count = repeat_for(step, inputs, clock, seconds=seconds, agree=agree)
    elapsed_s = time.monotonic() - started
    after = _energy_mj(handle)
    rows = poller.stop()
    if file is not None:
        _write(rows, file)
    step_energy_j = (after - before) / 1e3 / count if before is not None and after is not None else None
    return Energy(
        step_energy_j=step_energy_j,
        mean_power_w=step_energy_j * count / elapsed_s if step_energy_j is not None else _mean(rows, "power_w"),
        mean_sm_clock_mhz=_mean(rows, "sm_clock_mhz"),
        max_temperature_c=max((row["temperature_c"] for row in rows), default=None),
        contaminated=num_processes(handle) > 1,
    )


def num_processes(handle: object) -> int:
    """Processes with a context on the device; one of them is this one."""
    try:
        return len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    except pynvml.NVMLError:
        return 1


class _Poller(threading.Thread):
    def __init__(self, handle: object) -> None:
        super().__init__(daemon=True)
        self._handle, self._done = handle, threading.Event()
        self._rows: list[dict[str, float]] = []

    def run(self) -> None:
        started = time.monotonic_ns()
        while not self._done.wait(PERIOD_S):
            try:
                self._rows.append({"time_ns": time.monotonic_ns() - started, **_sample(self._handle)})
            except pynvml.NVMLError:
                return  # what was read so far stays

    def stop(self) -> list[dict[str, float]]:
        self._done.set()
        self.join()
        return self._rows


def _sample(handle: object) -> dict[str, float]:
    return {
        "power_w": pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        "sm_clock_mhz": float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)),
        "memory_clock_mhz": float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)),
        "temperature_c": float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        "utilisation": pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
    }


def _energy_mj(handle: object) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
    except pynvml.NVMLError:
        return None


def _mean(rows: list[dict[str, float]], name: str) -> float | None:
    return statistics.fmean(row[name] for row in rows) if rows else None


def _write(rows: list[dict[str, float]], file: Path) -> None:
    types = {name: pa.int64() if name == "time_ns" else pa.float64() for name in _FIELDS}
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}
    write_table(pa.table(columns), file)
