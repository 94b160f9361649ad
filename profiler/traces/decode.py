"""Decode: a piece of a trace's text to typed events, and the ladder of repairs for text that is no valid JSON.

1. as it is; 2. with characters and numbers mended that JSON forbids; 3. fields of unexpected types converted; 4. event
by event, with stray quotes escaped. What no rung can read is dropped, counted and shown.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

import msgspec

from profiler.traces.columns import Notes
from profiler.traces.pieces import ANY_BOUNDARY, BOUNDARY
from profiler.traces.raw import Exact, Loose, Raw, tighten

_EVENTS = msgspec.json.Decoder(list[Raw])
_EXACT = msgspec.json.Decoder(list[Exact])
_LOOSE = msgspec.json.Decoder(list[Loose])
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")
_LARGEST_EXACT_US = 2**43  # beyond it a double holds less than nanoseconds
_EVENT_KEY = b'"ph"'  # every event has it
_LONGEST_EVENT = 8  # cuts that may lie inside of one event
Event = Raw | Exact
Item = TypeVar("Item")

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_BREAKS = bytes.maketrans(b"\n\r\t", b"   ")  # blanks between tokens, forbidden inside of strings
_COMMA = re.compile(rb",(\s*[\]}])")
_NO_NUMBER = re.compile(rb"(?<=[:\[,])(\s*)(?:[+-]?(?:nan|inf|infinity)|N/A|undefined)(?=\s*[,}\]])", re.I)
_ESCAPE = re.compile(rb'\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})|\\')
_STRING = re.compile(rb'(:\s*")(.*?)("\s*(?=,\s*"[^"]{1,60}"\s*:|\}))', re.S)


class Decoder:
    """Decodes pieces; remembers whether the file's times need more digits than a double has."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes
        self.is_exact = False

    def __call__(self, data: bytes | memoryview) -> tuple[list[Event], bytes | None]:
        """The events of a piece, and the text behind their list where it ends in the piece."""
        try:
            return self._strict(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        mended = mend(bytes(data).strip(b" \t\r\n,"), self.notes)
        for decode in (self._strict, self._loose):
            try:
                return decode(mended)
            except msgspec.DecodeError:
                continue
        return self._one_by_one(mended)

    def _strict(self, data: bytes | memoryview) -> tuple[list[Event], bytes | None]:
        if not self.is_exact:
            events, rest = up_to_end(data, _EVENTS.decode)
            if not any(event.ts > _LARGEST_EXACT_US for event in events[:1] + events[-1:]):
                return list(events), rest
            self.is_exact = True  # microseconds since 1970, as torch wrote before 2.4
        exact, rest = up_to_end(data, _EXACT.decode)
        return list(exact), rest

    def _loose(self, data: bytes) -> tuple[list[Event], bytes | None]:
        events, rest = up_to_end(data, _LOOSE.decode)
        return [self._tightened(event) for event in events], rest

    def _tightened(self, event: Loose) -> Event:
        return tighten(event, self.notes, Decimal if self.is_exact else float)

    def _one_by_one(self, data: bytes) -> tuple[list[Event], bytes | None]:
        events: list[Event] = []
        starts = [0, *(cut.end() for cut in BOUNDARY.finditer(data)), len(data)]
        last, index = len(starts) - 1, 0
        while index < last:
            for reach in range(index + 1, min(index + _LONGEST_EVENT, last) + 1):
                found, rest = self._one(data[starts[index] : starts[reach]].rstrip(b" ,"), is_whole=reach > index + 1)
                if found or rest is not None:
                    break
            else:
                reach = index + 1
                found = self._dropped(data[starts[index] : starts[reach]], is_last=reach == last)
            events += found
            if rest is not None:
                return events, rest + b"," + data[starts[reach] :]
            index = reach
        return events, None

    def _dropped(self, text: bytes, *, is_last: bool) -> list[Event]:
        """Note what cannot be read. Where the file ends within an event, a whole one may stand before it."""
        shown = text.decode(errors="replace")
        if not is_last:
            self.notes.add("dropped: an unreadable event", shown, max(1, text.count(_EVENT_KEY)))
            return []
        found: list[Event] = []
        cut = len(text)
        for _ in range(_LONGEST_EVENT):
            cut = text.rfind(b"}", 0, cut)
            if cut < 0 or found:
                break
            found, _ = self._one(text[: cut + 1])
        self.notes.add("dropped: an event that the file's end cuts off", shown)
        return found

    def _one(self, text: bytes, *, is_whole: bool = False) -> tuple[list[Event], bytes | None]:
        """One event, or none where it cannot be read. Quotes are not mended across what looks like two events."""
        is_several = is_whole or text.count(_EVENT_KEY) > 1 or ANY_BOUNDARY.search(text)
        quoted = text if is_several else _STRING.sub(_escape_quotes, text)
        for decode, candidate in ((self._strict, text), (self._loose, text), (self._loose, quoted)):
            try:
                found = decode(candidate)
            except msgspec.DecodeError:
                continue
            if candidate is not text:
                self.notes.add("repaired: quotes inside of a text", text.decode(errors="replace"))
            return found
        return [], None


def up_to_end(data: bytes | memoryview, decode: Callable[[bytes], list[Item]]) -> tuple[list[Item], bytes | None]:
    text = b"".join((b"[", data, b"]"))
    try:
        return decode(text), None
    except msgspec.DecodeError as error:
        found = _TRAILING.search(str(error))
        if not found:
            raise
        end = text.rindex(b"]", 0, int(found[1])) + 1
        return decode(text[:end]), text[end:-1]


def mend(data: bytes, notes: Notes) -> bytes:
    """Text in which only what JSON allows is left of characters, numbers and escapes."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        notes.add("repaired: bytes that are not UTF-8", error)
        data = data.decode(errors="replace").encode()
    for kind, pattern, replacement in (
        ("repaired: control characters", _CONTROL, b" "),
        ("repaired: numbers that are none, as NaN", _NO_NUMBER, rb"\1null"),
        ("repaired: commas before a closing bracket", _COMMA, rb"\1"),
    ):
        data, count = pattern.subn(replacement, data)
        if count:
            notes.add(kind, count=count)
    mended = _ESCAPE.sub(_mend_escape, data.translate(_BREAKS))
    if len(mended) != len(data):
        notes.add("repaired: escapes that JSON does not know", count=abs(len(mended) - len(data)))
    return mended


def _mend_escape(found: re.Match[bytes]) -> bytes:
    escape = found[0]
    if escape == b"\\":
        return b"\\\\"
    return b"?" if escape[1:3].lower() == b"ud" and escape[3:4].lower() in b"89ab" else escape


def _escape_quotes(found: re.Match[bytes]) -> bytes:
    return found[1] + re.sub(rb'(?<!\\)"', rb'\\"', found[2]) + found[3]
