"""Source: the bytes of a trace file, plain or gzip, a piece at a time and one piece ahead.

zlib works without Python's lock, so that the next piece unpacks while the last one is decoded.
"""

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from profiler.traces.columns import Notes

PIECE = 4 * 2**20  # bytes; the events of one piece are Python objects for a moment, and stay in the cache
GZIP_MAGIC = b"\x1f\x8b"


class TooLargeError(ValueError):
    """The file holds more than its reader was allowed to take."""


def read_pieces(path: Path, notes: Notes, *, max_bytes: int | None = None, piece: int = PIECE) -> Iterator[bytes]:
    """Unpacked bytes in order. Raises TooLargeError beyond max_bytes of them (a gzip bomb, for one)."""
    total = 0
    with path.open("rb") as file, ThreadPoolExecutor(1) as ahead:
        is_gzip = file.read(2) == GZIP_MAGIC
        file.seek(0)
        pieces = _unpacked(file, notes, piece) if is_gzip else iter(lambda: file.read(piece), b"")
        waiting = ahead.submit(next, pieces, b"")
        while data := waiting.result():
            waiting = ahead.submit(next, pieces, b"")
            total += len(data)
            if max_bytes is not None and total > max_bytes:
                raise TooLargeError(f"{path.name} unpacks to more than {max_bytes / 1e9:.1f} GB")
            yield data


def _unpacked(file: BinaryIO, notes: Notes, piece: int) -> Iterator[bytes]:
    """Every member of a gzip file; one that is cut short or damaged gives what comes before the damage."""
    unpack = zlib.decompressobj(wbits=31)
    packed = b""
    while True:
        packed = unpack.unconsumed_tail or packed or file.read(2**20)
        if unpack.eof:
            packed = unpack.unused_data + file.read(2**20)
            if not packed.startswith(GZIP_MAGIC):
                if packed.strip(b"\0"):
                    notes.add("bytes after the gzip stream left out", count=len(packed))
                return
            unpack = zlib.decompressobj(wbits=31)
        if not packed:
            notes.add("the gzip stream is cut off")
            yield unpack.flush()
            return
        try:
            data, packed = unpack.decompress(packed, piece), b""
        except zlib.error as error:
            notes.add("the gzip stream is damaged", error)
            return
        if data:
            yield data
