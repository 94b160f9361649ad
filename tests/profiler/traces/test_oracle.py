"""torch-tb-profiler's own parser as an oracle: it reads the same traces and finds the same busy GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from profiler.traces.attribute import attribute
from profiler.traces.classify import CATEGORIES
from profiler.traces.intervals import Union
from profiler.traces.read import read_trace
from profiler.traces.windows import named
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
    found = attribute(read_trace(trace))
    kernels = found.work.take(found.work.category != CATEGORIES.index("memcpy"))  # as the plugin counts
    is_step = named(found.trace, found.trace.ranges, "ProfilerStep#")
    (step,) = found.trace.ranges.duration_ns[is_step].tolist()
    assert len(kernels) == oracle["num_kernels"]
    assert kernels.duration_ns.sum() / 1e3 == pytest.approx(oracle["kernels_us"], abs=0.1)
    busy = Union.of(kernels.start_ns, kernels.end_ns).total_ns
    assert busy / step == pytest.approx(oracle["share"], rel=0.01)
