"""How fast and how small is reading a trace, against the peers, on equal analyses?

Run by hand: python tests/benchmarks/bench_traces.py [SCRATCH_FOLDER] [--hta PYTHON] [--rounds N].
PYTHON is the interpreter of an environment with `pip install HolisticTraceAnalysis "pandas<3"`; without it HTA is left
out. Each tool runs in a process of its own, taking turns, and does the same four things: load, step breakdown, kernel
table, operator table (HTA has no operator table). The file is one recorded H200 trace many times over, each copy later
than the last, about 450 MB and 1.3 million events; a second one has 55 MB, for the time from file to first chart.
CPU seconds stand beside wall time, which other work on the machine stretches.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.benchmarks.big_trace import write_copies  # noqa: E402
from tests.support.traces import EAGER  # noqa: E402

COPIES = (92, 11)  # of 4.9 MB: about 450 MB, and 55 MB

_OURS = """
from pathlib import Path
from profiler.traces.attribute import attribute
from profiler.traces.breakdown import breakdown
from profiler.traces.operators import kernel_summary, operator_table
from profiler.traces.read import read_trace
mark("import")
found = attribute(read_trace(Path(file)))
mark("load")
first = breakdown(found)
mark("breakdown")
kernels, operators = kernel_summary(found), operator_table(found)
mark("tables")
"""
_PLUGIN = """
from torch_tb_profiler.profiler.data import RunProfileData
mark("import")
run = RunProfileData.parse("worker", None, file, scratch)
mark("load")
run.process()  # step breakdown, operator and kernel tables in one
mark("tables")
"""
_HTA = """
from hta.trace_analysis import TraceAnalysis
mark("import")
analysis = TraceAnalysis(trace_files={0: file})
mark("load")
analysis.get_temporal_breakdown(visualize=False)
mark("breakdown")
analysis.get_gpu_kernel_breakdown(visualize=False)
mark("tables")
"""
_FRAME = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
file, scratch = sys.argv[1:3]
start, marks = time.perf_counter(), {}
def mark(name):
    marks[name] = (time.perf_counter() - start, time.process_time())
"""
_END = """
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print("RESULT", json.dumps({"marks": marks, "peak_mb": peak}))
"""


def run(program: str, python: str, file: Path, scratch: Path) -> dict[str, float]:
    """Seconds (wall and CPU, imports left out) and peak memory of one tool."""
    command = [python, "-c", _FRAME + program + _END, str(file), str(scratch)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT")]
    if not lines:
        raise RuntimeError(ran.stderr[-2000:])
    result = json.loads(lines[0].removeprefix("RESULT"))
    begun, done = result["marks"]["import"], result["marks"]["tables"]
    loaded = result["marks"]["load"]
    return {
        "load_s": loaded[0] - begun[0],
        "wall_s": done[0] - begun[0],
        "cpu_s": done[1] - begun[1],
        "chart_s": result["marks"].get("breakdown", done)[0],
        "peak_mb": result["peak_mb"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", nargs="?", type=Path, default=Path(tempfile.gettempdir()) / "steplens-bench")
    parser.add_argument("--hta", help="python of an environment with HolisticTraceAnalysis and pandas<3")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    tools = {"Steplens": (_OURS, sys.executable), "torch-tb-profiler": (_PLUGIN, sys.executable)}
    if options.hta:
        tools["HTA"] = (_HTA, options.hta)
    for num_copies in COPIES:
        file = options.scratch / f"{num_copies}.pt.trace.json"
        if not file.exists():
            write_copies(EAGER, file, num_copies)
        print(f"\n{file.stat().st_size / 1e6:.0f} MB ({num_copies} copies of a recorded H200 trace)")
        best = {name: {} for name in tools}  # type: dict[str, dict[str, float]]
        for _ in range(options.rounds):
            for name, (program, python) in tools.items():
                found = run(program, python, file, options.scratch)
                best[name] = {key: min(value, best[name].get(key, value)) for key, value in found.items()}
        _report(best)


def _report(best: dict[str, dict[str, float]]) -> None:
    ours = best["Steplens"]
    print(f"{'':20}{'load s':>9}{'all s':>9}{'CPU s':>9}{'first chart s':>15}{'peak MB':>9}{'slower':>9}{'by CPU':>9}")
    for name, found in best.items():
        values = [found[key] for key in ("load_s", "wall_s", "cpu_s")]
        row = "".join(f"{value:9.2f}" for value in values)
        ratios = "".join(f"{found[key] / ours[key]:8.1f}x" for key in ("wall_s", "cpu_s"))
        print(f"{name:20}{row}{found['chart_s']:15.2f}{found['peak_mb']:9.0f}{ratios}")


if __name__ == "__main__":
    main()
