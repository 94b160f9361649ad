"""Pieces: cuts a trace's text at event boundaries, so that a file of any size is decoded a piece at a time.

The list of events may stand anywhere in the file, with keys before and after it. A cut is a guess by the text around
it; whoever decodes the piece finds out, since a piece cut elsewhere is no list of events.
"""

import re
from collections.abc import Callable, Iterator

from profiler.traces.columns import Notes

BOUNDARY = re.compile(rb'\}\s*,\s*(?=\{\s*"(?:ph|name|cat|ts|dur|pid|tid|id|args|bp|s)"\s*:)')
ANY_BOUNDARY = re.compile(rb"\}\s*,\s*(?=\{)")
_EVENTS = re.compile(rb'"traceEvents"\s*:\s*\[')
_OBJECT = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*["}]')
_BLANK = b"\xef\xbb\xbf \t\r\n"  # the first three: a byte order mark
_LARGEST = 64 * 2**20  # bytes of one event, or of what stands before the first


class NoTraceError(ValueError):
    """The file is no kineto trace."""


def decode_stream(
    pieces: Iterator[bytes], decode: Callable[[bytes | memoryview], bytes | None], notes: Notes
) -> tuple[bytes, bytes]:
    """Hand all events to `decode`, a piece at a time; returns the text before and after the list of events.

    `decode` returns None while the list goes on, and the text behind its end where that lies in the piece.
    """
    head, data = _split_header(pieces)
    for piece in pieces:
        if cut := _last_boundary(data):
            rest = decode(memoryview(data)[: cut[0]])
            if rest is not None:
                return head, b"".join([rest, data[cut[0] :], piece, *pieces])
            data = data[cut[1] :] + piece
            continue
        if len(data) > _LARGEST:
            notes.add("dropped: 64 MiB in which no event ends", data[:80])
            data = b""
        data += piece
    rest = decode(data)
    if rest is None:
        notes.add("the file ends before its list of events does")
    return head, rest or b""


def _split_header(pieces: Iterator[bytes]) -> tuple[bytes, bytes]:
    """The text before the list of events, and the rest of the piece in which the list begins."""
    head = b""
    for piece in pieces:
        head += piece
        if found := _EVENTS.search(head):
            return head[: found.start()], head[found.end() :]
        if (start := head.lstrip(_BLANK)).startswith(b"["):  # the old autograd profiler wrote a bare list
            return b"", start[1:]
        if len(head) > _LARGEST:
            break
    raise NoTraceError("it has no traceEvents" if _OBJECT.match(head) else "it is not a JSON object")


def _last_boundary(data: bytes) -> tuple[int, int] | None:
    """Where the last whole event ends, and where the next one begins; None where nothing looks like it."""
    reach = 2**16
    while True:
        start = max(0, len(data) - reach)
        found = list(BOUNDARY.finditer(data, start))
        if found:
            return found[-1].start() + 1, found[-1].end()
        if start == 0:
            return _any_boundary(data)
        reach *= 16


def _any_boundary(data: bytes) -> tuple[int, int] | None:
    """Where events begin with a key that nobody has seen yet."""
    found = list(ANY_BOUNDARY.finditer(data))
    return (found[-1].start() + 1, found[-1].end()) if found else None
