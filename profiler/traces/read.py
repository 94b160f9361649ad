"""Read: a kineto trace file to columns. No torch here.

Nothing is lost in silence: what was repaired, dropped or left out stands in the trace's notes.
"""

from pathlib import Path
from typing import Any

import msgspec

from profiler.traces.columns import Notes, Trace
from profiler.traces.cycles import no_cycles
from profiler.traces.decode import Decoder
from profiler.traces.gather import Gatherer
from profiler.traces.pieces import NoTraceError, decode_stream
from profiler.traces.source import read_pieces


def read_trace(path: Path, *, max_bytes: int | None = None) -> Trace:
    """All events of a trace, plain or gzip; memory stays far below the file's size.

    Raises ValueError naming the file when it is no kineto trace, or unpacks to more than max_bytes.
    """
    notes = Notes()
    decoder, gatherer = Decoder(notes), Gatherer(notes)

    def decode(data: bytes | memoryview) -> bytes | None:
        events, rest = decoder(data)
        gatherer.add(events)
        return rest

    with no_cycles():
        try:
            head, tail = decode_stream(read_pieces(path, notes, max_bytes=max_bytes), decode, notes)
        except NoTraceError as error:
            raise ValueError(f"{path.name} is no kineto trace: {error}") from error
    if not gatherer.num_events and any(kind.startswith("dropped") for kind in notes):
        raise ValueError(f"{path.name} is no kineto trace: none of its events can be read")
    return gatherer.trace(_metadata(head, tail, notes))


def _metadata(head: bytes, tail: bytes, notes: Notes) -> dict[str, Any]:
    """The file's keys beside traceEvents, whether they stand before or after it."""
    before, after = head.strip(b"\xef\xbb\xbf \t\r\n,{"), tail.strip(b" \t\r\n,")
    found: dict[str, Any] = {}
    for text in (b"{" + before + b"}", b"{" + after):
        if text in (b"{}", b"{"):
            continue
        try:
            found |= msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
            notes.add("dropped: metadata that cannot be read", error)
    return found
