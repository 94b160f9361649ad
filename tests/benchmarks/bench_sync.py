"""How long a sync of many run folders takes. By hand: PYTHONPATH=. python tests/benchmarks/bench_sync.py [folders]"""

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[2]))

from profiler.combo import Combo
from profiler.record import SweepPlace
from store import frames
from store.ingest import sync
from tests.support.run_folders import FIRST_START, GPU_WORKLOAD, KERNEL_SCHEMA, step_samples, write_run

NUM_FOLDERS = 1000
NUM_KERNELS = 5000  # rows of kernels.parquet, about three traced steps of SD1.5


def main(num_folders: int = NUM_FOLDERS) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, database = Path(folder) / "runs", Path(folder) / "steplens.duckdb"
        _write_folders(root, num_folders)
        timed(f"sync of {num_folders} new folders", lambda: sync([root], database))
        timed("sync without news", lambda: sync([root], database))
        write_run(root, run_id="one-more")
        timed("sync of one new folder", lambda: sync([root], database))
        timed("frames.runs", lambda: frames.runs(database=database))
        timed("frames.sweeps", lambda: frames.sweeps(database=database))
        timed("frames.ladder", lambda: frames.ladder("sweep-0", database=database))
        ids = [f"run-{index:05d}" for index in range(10)]
        timed("frames.comparison of 10", lambda: frames.comparison(ids[0], ids, database=database))
        timed("frames.metric_ratios of 10", lambda: frames.metric_ratios(ids[0], ids, database=database))
        timed("frames.kernel_categories of 10", lambda: frames.kernel_categories(ids, database=database))
        timed("frames.kernels", lambda: frames.kernels(ids[0], database=database))
        timed("frames.memory_timeline", lambda: frames.memory_timeline(ids[0], database=database))
        timed("rebuild", lambda: sync([root], database, rebuild=True))
        print(f"index: {database.stat().st_size / 2**20:.1f} MiB")


def timed(what: str, work: Callable[[], object]) -> None:
    start = time.perf_counter()
    work()
    print(f"{what}: {(time.perf_counter() - start) * 1000:.0f} ms")


def _write_folders(root: Path, num_folders: int) -> None:
    kernels = _kernels()
    for index in range(num_folders):
        sweep, position = divmod(index, 10)
        role = "baseline" if position == 0 else "baseline_repeat" if position == 9 else "candidate"
        folder = write_run(
            root,
            run_id=f"run-{index:05d}",
            combo=Combo(precision="bf16") if role == "candidate" else Combo(),
            workload=GPU_WORKLOAD,
            step_ms=step_samples(10.0, num=100, seed=index),
            sweep=SweepPlace(sweep_id=f"sweep-{sweep}", name="grid", position=position, num_jobs=10, role=role),
            started_at=FIRST_START + timedelta(minutes=index),
        )
        (folder / "kernels.parquet").write_bytes(kernels)


def _kernels() -> bytes:
    """One kernels.parquet of a realistic size: 200 different kernels."""
    rows = [
        {
            "step": index * 3 // NUM_KERNELS,
            "start_ns": index * 2000,
            "duration_ns": 1000 + index % 700,
            "name": f"void fixture_kernel_{index % 200}<float, {'long_template_argument, ' * 4}>",
            "category": ("conv", "gemm", "attention", "norm")[index % 4],
            "stream": 7,
            "correlation": index,
            "op": f"aten::op_{index % 50}",
            "phase": None,
            "module": f"down_blocks.{index % 4}.resnets.{index % 3}",
        }
        for index in range(NUM_KERNELS)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=KERNEL_SCHEMA), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
