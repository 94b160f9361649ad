"""How long does each query take that Run and Compare make of an imported trace of a million events?

Run by hand: python tests/benchmarks/bench_views.py [SCRATCH_FOLDER] [--rounds N] [--trace FILE]
The file is one recorded H200 trace 92 times over (see bench_traces.py), or the one that is named. Wall milliseconds:
median, quartiles and the longest of the rounds, taking turns; other work on the machine stretches them, so CPU
milliseconds (of all threads) stand beside.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from runs.imports import import_file  # noqa: E402
from store import fixes, frames, views  # noqa: E402
from store.ingest import sync  # noqa: E402
from tests.benchmarks.big_trace import write_copies  # noqa: E402
from tests.support.traces import EAGER  # noqa: E402

OF_A_RUN = (
    *(frames.record, frames.kernels, frames.memory_timeline, frames.alive, frames.allocator, frames.recompute_ledger),
    *(frames.telemetry, frames.curves, frames.evidence, frames.trace_modules, fixes.fixes),
    *(views.summary, views.step_parts, views.phase_parts, views.modules, views.blocks, views.attention, views.forwards),
    *(views.kernel_kinds, views.tensor_cores, views.operators, views.roofline, views.critical_path, views.collectives),
)
OF_RUNS = (frames.largest_batch, frames.samples, frames.kernel_categories, views.part_matrix)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--trace", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as folder:
        os.environ["STEPLENS_HOME"] = folder
        file = chosen.trace or Path(folder, "copies.json")
        if chosen.trace is None:
            write_copies(EAGER, file, 92)
        run_id = import_file(file).run_id
        sync()
        report(queries(run_id), chosen.rounds)


def queries(run_id: str) -> dict[str, Callable[[], object]]:
    asked: dict[str, Callable[[], object]] = {one.__name__: lambda one=one: one(run_id) for one in OF_A_RUN}
    asked |= {one.__name__: lambda one=one: one((run_id,)) for one in OF_RUNS}
    return asked | {"runs": frames.runs, "waterfall": lambda: views.waterfall(run_id, run_id, "class")}


def report(asked: dict[str, Callable[[], object]], rounds: int) -> None:
    wall, cpu = {name: [] for name in asked}, {name: [] for name in asked}
    for _ in range(rounds + 1):
        for name, query in asked.items():
            began, used = time.perf_counter(), time.process_time()
            query()
            wall[name].append((time.perf_counter() - began) * 1e3)
            cpu[name].append((time.process_time() - used) * 1e3)
    for name in sorted(asked, key=lambda name: -statistics.median(wall[name][1:])):
        low, middle, high = statistics.quantiles(wall[name][1:], n=4)  # the first round warms up
        longest, used = max(wall[name][1:]), statistics.median(cpu[name][1:])
        print(f"{name:20} {middle:6.1f} ms ({low:.1f} to {high:.1f}, longest {longest:.1f}), CPU {used:.1f}")


if __name__ == "__main__":
    main()
