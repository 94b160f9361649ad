"""Waits on a GPU: kineto's rows of streams and events are what we take them for (hand-made ones: test_views.py)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from profiler.traces.attribute import attribute
from profiler.traces.read import read_trace
from profiler.traces.waits import EVENT_WAITED, STREAM_WAITS, find_waits


@pytest.mark.gpu
@pytest.mark.filterwarnings(
    "ignore:Warning. Profiler clears events:UserWarning"
)  # torch 2.11: of cycles, and it has one
def test_a_kernel_waits_for_the_event_of_another_stream_and_the_host_for_its_end(tmp_path: Path) -> None:
    square, side = torch.randn(4096, 4096, device="cuda"), torch.cuda.Stream()
    made, done = torch.cuda.Event(), torch.cuda.Event()

    def work() -> None:
        first = square @ square
        made.record()
        beside = square + 1
        with torch.cuda.stream(side):
            side.wait_event(made)
            first @ square
            done.record()
        beside.exp_()
        done.synchronize()

    work()
    torch.cuda.synchronize()
    config = torch._C._profiler._ExperimentalConfig(enable_cuda_sync_events=True)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], experimental_config=config) as profiler:
        work()
        torch.cuda.synchronize()
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    found = attribute(read_trace(tmp_path / "trace.json"))
    names = {found.trace.names[code] for code in found.trace.syncs.name}
    assert {STREAM_WAITS, EVENT_WAITED} <= names
    waits, streams, ops = find_waits(found), found.work.stream, found.trace.ops.name[found.work.op]
    product = ops == found.trace.name_code("aten::mm")
    on_main = np.flatnonzero(product & (streams == streams[0]))
    on_side = np.flatnonzero(product & (streams != streams[0]))
    place = {row: number for number, row in enumerate(waits.order.tolist())}
    asked, columns = (
        found.trace.syncs,
        ("name", "stream", "correlation", "event", "wait_event", "wait_stream", "wait_correlation"),
    )
    told = f"{ {name: getattr(asked, name).tolist() for name in columns} }"  # of a trace one cannot look at
    assert waits.before[place[on_side[0]]] == place[on_main[-1]], told
    assert place[on_side[-1]] in waits.waited_for
