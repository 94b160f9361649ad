"""torch-tb-profiler's own parser as an oracle: it reads the same traces and finds the same busy GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from profiler.traces.attribute import attribute, busy_ns
from profiler.traces.parse import read_events
from tests.support.traces import CHANNELS_LAST, SDPA

# In a process of its own: the plugin was written for older packages and warns of their deprecations.
_PROGRAM = """
import json, sys
from torch_tb_profiler.profiler.data import RunProfileData
run = RunProfileData.parse("worker", None, sys.argv[1], sys.argv[2])
run.process()
kernels = run.kernel_stat
print(json.dumps({"share": run.gpu_metrics_parser.gpu_utilization[0], "num_kernels": int(kernels["count"].sum()),
                  "kernels_us": float(kernels["sum"].sum())}))
"""


@pytest.mark.parametrize("trace", [SDPA, CHANNELS_LAST], ids=lambda path: path.name.partition(".")[0])
def test_tensorboards_plugin_finds_the_same_busy_gpu(trace: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(trace), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    oracle = json.loads(ran.stdout.splitlines()[-1])
    events = read_events(trace)
    kernels = [kernel for kernel in attribute(events).kernels if kernel.category != "memcpy"]  # as the plugin counts
    spans = [event for event in events if event.category == "user_annotation"]
    step = next(event for event in spans if event.name.startswith("ProfilerStep"))
    assert len(kernels) == oracle["num_kernels"]
    assert sum(kernel.duration_ns for kernel in kernels) / 1e3 == pytest.approx(oracle["kernels_us"], abs=0.1)
    busy = busy_ns((kernel.start_ns, kernel.duration_ns) for kernel in kernels)
    assert busy / step.duration_ns == pytest.approx(oracle["share"], rel=0.01)
