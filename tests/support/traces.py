"""Hand-made trace events: a small language for tests of profiler/traces."""

from pathlib import Path

from profiler.traces.attribute import PHASE, STEP
from profiler.traces.parse import Args, Event

GOLDEN = Path(__file__).parents[1] / "golden"
SDPA = GOLDEN / "sd15_inference_bf16_sdpa.pt.trace.json.gz"
CHANNELS_LAST = GOLDEN / "sd15_inference_bf16_sdpa_channels_last.pt.trace.json.gz"


def event(category: str, name: str, start: int, end: int, *, thread: int | str = 1, args: Args | None = None) -> Event:
    return Event(category, name, start, end - start, thread, args or Args())


def step(start: int, end: int) -> Event:
    return event("user_annotation", STEP, start, end)


def phase(name: str, start: int, end: int) -> Event:
    return event("user_annotation", PHASE + name, start, end)


def op(name: str, start: int, end: int, *, thread: int = 1, external: int | None = None) -> Event:
    return event("cpu_op", name, start, end, thread=thread, args=Args(external_id=external))


def launch(correlation: int, at: int, *, thread: int = 1, name: str = "cudaLaunchKernel") -> Event:
    return event("cuda_runtime", name, at, at + 1, thread=thread, args=Args(correlation=correlation))


def kernel(
    name: str,
    start: int,
    end: int,
    *,
    correlation: int | None = None,
    external: int | None = None,
    kind: str = "kernel",
) -> Event:
    return event(kind, name, start, end, thread=7, args=Args(correlation=correlation, stream=7, external_id=external))


def allocation(address: int, num_bytes: int, at: int, *, device: int = 1, reserved: int = 0) -> Event:
    """Bytes asked for, or given back where they are negative."""
    args = Args(address=address, num_bytes=num_bytes, device_type=device, total_reserved=reserved)
    return event("cpu_instant_event", "[memory]", at, at, args=args)


def in_order(*events: Event) -> list[Event]:
    """As read_events gives them: by start, outer before inner."""
    return sorted(events, key=lambda one: (one.start_ns, -one.duration_ns))
