"""Waits: which kernel each kernel, and each waiting call of the host, had to wait for.

Where a trace has kineto's cuda_sync rows (`_ExperimentalConfig(enable_cuda_sync_events=True)`), a kernel waits for the
one before it on its stream, and for the last one that was launched on another stream before the event was recorded
which its own stream waits for; a host waits for the stream or the event that it names. Without such rows, and where
one does not tell who recorded its event, streams are taken for one: whatever ended last before.
"""

from dataclasses import dataclass, replace

import numpy as np

from profiler.traces.attribute import Attribution, Work, row_of
from profiler.traces.columns import Bools, Ints, Launches, Syncs, Trace
from profiler.traces.idle import waits_for_gpu

STREAM_WAITS, EVENT_WAITED, STREAM_WAITED = "Stream Wait Event", "Event Sync", "Stream Sync"
_LATEST = np.iinfo(np.int64).max
_CALLS = 2**32  # correlations are 32 bits wide


@dataclass(frozen=True)
class Waits:
    """Kernels by their end; numbers are places in that order, -1 is none."""

    order: Ints  # rows of the work
    launch_ns: Ints  # when the launching call began, -1 where nobody knows
    before: Ints  # the kernel that each had to wait for: always an earlier place
    start_ns: Ints  # of the host's waiting calls, by their end
    end_ns: Ints
    waited_for: Ints  # the kernel that each call waited for


def find_waits(found: Attribution) -> Waits:
    """What every kernel and every waiting call had to wait for."""
    work, launches = found.work, found.trace.launches
    order = np.argsort(work.end_ns, kind="stable")
    start, end = work.start_ns[order], work.end_ns[order]
    launch = np.where(work.launch >= 0, launches.start_ns[work.launch], -1) if len(launches) else work.launch
    calls = launches.take(waits_for_gpu(found.trace)[launches.name]) if len(launches) else launches
    calls = calls.take(np.argsort(calls.end_ns, kind="stable"))
    places = np.arange(len(order))
    before = np.minimum(np.searchsorted(end, start, side="right"), places) - 1
    waited_for = np.searchsorted(end, calls.end_ns, side="right") - 1
    if len(found.trace.syncs):
        streams, syncs = _Streams(work, order, launch), _with_records(found.trace.syncs)
        of_streams = streams.before(found.trace, syncs, before)
        before = np.where(of_streams < places, of_streams, before)
        waited_for = streams.waited_for(found.trace, syncs, calls, waited_for)
    return Waits(order, launch[order], before, calls.start_ns, calls.end_ns, waited_for)


class _Streams:
    """The kernels of each stream in the order in which they were launched."""

    def __init__(self, work: Work, order: Ints, launch: Ints) -> None:
        """launch: by row of the work; of a kernel without one its start stands for it."""
        self.num_kernels = len(order)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        launched = np.where(launch >= 0, launch, work.start_ns)
        rows = np.lexsort((work.start_ns, launched, work.stream, work.device))
        key = np.stack((work.device[rows], work.stream[rows]))
        begins = np.flatnonzero(np.append(True, (key[:, 1:] != key[:, :-1]).any(axis=0))) if len(rows) else rows
        self._of: dict[tuple[int, int], tuple[Ints, Ints]] = {}  # (device, stream) -> places, launches
        for own in np.split(rows, begins[1:]):
            if len(own):
                stream = int(work.device[own[0]]), int(work.stream[own[0]])
                self._of[stream] = place[own], launched[own]

    def before(self, trace: Trace, syncs: Syncs, otherwise: Ints) -> Ints:
        """The kernel that each waits for, by stream order and events: of several the one that ended last.

        otherwise: of a kernel that waits for an event of which no row says where it was recorded.
        """
        before = np.full(self.num_kernels, -1)
        for places, _ in self._of.values():
            before[places[1:]] = places[:-1]
        waits = syncs.take(_are(trace, syncs, STREAM_WAITS))
        producer = self._last_before(waits.device, waits.wait_stream, _called(trace, waits.wait_correlation, -1))
        asked = _called(trace, waits.correlation, _LATEST)
        asked = np.where(asked == _LATEST, waits.start_ns, asked)
        consumer = self._first_from(waits.device, waits.stream, asked)
        producer = np.where(waits.wait_stream >= 0, producer, np.append(otherwise, -1)[consumer])
        known = (producer >= 0) & (consumer >= 0)
        np.maximum.at(before, consumer[known], producer[known])
        return before

    def waited_for(self, trace: Trace, syncs: Syncs, calls: Launches, otherwise: Ints) -> Ints:
        """The kernel that each waiting call names by its stream or event; `otherwise` where it names none."""
        is_event, is_stream = _are(trace, syncs, EVENT_WAITED), _are(trace, syncs, STREAM_WAITED)
        stream = np.where(is_event, syncs.wait_stream, syncs.stream)
        until = np.where(is_event, _called(trace, syncs.wait_correlation, -1), _called(trace, syncs.correlation, -1))
        kernel = self._last_before(syncs.device, stream, until)
        kept = (is_event | is_stream) & (stream >= 0)
        row = row_of(syncs.correlation[kept], calls.correlation)
        return np.where(row >= 0, np.append(kernel[kept], -1)[row], otherwise)

    def _last_before(self, device: Ints, stream: Ints, moment: Ints) -> Ints:
        return self._near(device, stream, moment, 1)

    def _first_from(self, device: Ints, stream: Ints, moment: Ints) -> Ints:
        return self._near(device, stream, moment, 0)

    def _near(self, device: Ints, stream: Ints, moment: Ints, back: int) -> Ints:
        """The stream's kernel launched last before (back=1) or first at or after (back=0) each moment, else -1."""
        found = np.full(len(moment), -1)
        for (own_device, own_stream), (places, launched) in self._of.items():
            rows = np.flatnonzero((device == own_device) & (stream == own_stream))
            index = np.searchsorted(launched, moment[rows], side="left") - back
            there = (index >= 0) & (index < len(places))
            found[rows[there]] = places[index[there]]
        return found


def _with_records(syncs: Syncs) -> Syncs:
    """The rows with the stream and the call that recorded the event which each waits for, by the cuda_event rows.

    Kineto (until 2026) names them itself, but as they stand when it comes to the row: -1 where the record comes later
    in CUPTI's buffers, a later record where an event is used twice. The one that counts is the last before the wait;
    correlations number the calls in their order.
    """
    records = syncs.take(syncs.event >= 0)
    both = np.concatenate(([records.device, records.event], [syncs.device, syncs.wait_event]), axis=1)
    event, wanted = np.split(np.unique(both, axis=1, return_inverse=True)[1], [len(records)])
    calls = _CALLS * event + records.correlation
    order = np.argsort(calls, kind="stable")
    index = np.searchsorted(calls[order], _CALLS * wanted + syncs.correlation) - 1
    known = (index >= 0) & (syncs.wait_event >= 0)
    known[known] = event[order[index[known]]] == wanted[known]
    row = order[index[known]]
    stream, correlation = syncs.wait_stream.copy(), syncs.wait_correlation.copy()
    stream[known], correlation[known] = records.stream[row], records.correlation[row]
    return replace(syncs, wait_stream=stream, wait_correlation=correlation)


def _called(trace: Trace, correlation: Ints, otherwise: int) -> Ints:
    """When the call of each correlation began."""
    row = row_of(trace.launches.correlation, correlation)
    return np.where(row >= 0, np.append(trace.launches.start_ns, 0)[row], otherwise)


def _are(trace: Trace, syncs: Syncs, name: str) -> Bools:
    is_named: Bools = syncs.name == trace.name_code(name)
    return is_named
