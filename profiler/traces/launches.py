"""Launches: what it costs to start work on the GPU, and how much of it is too short to be worth it."""

from dataclasses import dataclass

import numpy as np

from profiler.traces.attribute import Attribution
from profiler.traces.columns import Ints

SHORT_NS = 5_000  # a launch costs the host about as much


@dataclass(frozen=True, kw_only=True)
class LaunchStatistics:
    """Of the steps' kernels; None where the trace shows no launches. Times in nanoseconds, medians over kernels."""

    num_kernels: int
    num_launches: int
    num_in_graphs: int
    launch_ns: float | None  # the host's call
    queue_ns: float | None  # from the end of the call to the kernel's start
    num_short: int  # kernels under SHORT_NS
    short_ns: int  # their time
    num_shorter_than_launch: int
    deepest_queue: int  # kernels launched and not yet done, at most (the driver takes 1024)


def launch_statistics(found: Attribution) -> LaunchStatistics | None:
    """None on a CPU."""
    if not found.on_gpu:
        return None
    work, launches = found.traced, found.trace.launches
    launched = work.take(work.launch >= 0)
    called = launches.take(launched.launch)
    own = called.take(launched.in_graph == 0)
    alone = launched.take(launched.in_graph == 0)
    short = work.duration_ns < SHORT_NS
    return LaunchStatistics(
        num_kernels=len(work),
        num_launches=len(np.unique(launched.launch)),
        num_in_graphs=int(work.in_graph.sum()),
        launch_ns=_median(own.duration_ns),
        queue_ns=_median(np.maximum(alone.start_ns - own.end_ns, 0)),
        num_short=int(short.sum()),
        short_ns=int(work.duration_ns[short].sum()),
        num_shorter_than_launch=int((alone.duration_ns < own.duration_ns).sum()),
        deepest_queue=_deepest(called.start_ns, launched.end_ns),
    )


def _median(values: Ints) -> float | None:
    return float(np.median(values)) if len(values) else None


def _deepest(launched: Ints, done: Ints) -> int:
    """The most intervals that are open at once; one that ends as another begins is over."""
    moments = np.concatenate((done, launched))
    change = np.concatenate((np.full(len(done), -1), np.ones(len(launched), np.int64)))
    order = np.lexsort((change, moments))
    return int(np.cumsum(change[order]).max(initial=0))
