"""Imported runs and broken files, made for tests."""

import gzip
import json
import pickle
from collections.abc import Callable
from pathlib import Path

from profiler.record import Record
from profiler.traces.imported import import_trace
from tests.support.traces import SDPA

MAX_BYTES = 200_000_000


def write_imported(root: Path, source: Path = SDPA, *, run_id: str = "imported-sdpa") -> Record:
    """root/run_id as an import leaves it."""
    folder = root / run_id
    folder.mkdir(parents=True)
    return import_trace(source, folder, run_id=run_id, name=source.name, max_bytes=MAX_BYTES)


class Trap:
    """Writes a file when it is unpickled: an upload that is opened that way would show."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


def _trap(file: Path) -> bytes:
    return pickle.dumps(Trap(file.parent / "unpickled"), protocol=4)


# What is given instead of a trace -> its bytes, and what the one line says.
NO_TRACES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda file: b"", "is empty: .*export it again"),
    "blank": (lambda file: b" \n" * 9000, "is empty: .*export it again"),
    "packed_nothing": (lambda file: gzip.compress(b""), "is empty: .*export it again"),
    "pickle": (_trap, "is a pickle, .*never opened here"),
    "packed_pickle": (lambda file: gzip.compress(_trap(file)), "is a pickle, .*never opened here"),
    "zip": (lambda file: b"PK\x03\x04" + bytes(900), "is a zip archive: unpack it"),
    "sqlite": (lambda file: b"SQLite format 3\0" + bytes(900), "Nsight Systems"),
    "binary": (lambda file: bytes(range(1, 256)) * 40, "no kineto trace: it is not a JSON object; .*export_chrome"),
    "text": (lambda file: b"step 1: loss 0.3\n" * 99, "no kineto trace: it is not a JSON object; .*export_chrome"),
    "other_json": (lambda file: json.dumps({"nodes": [{"name": "a"}]}).encode(), "no traceEvents; .*export_chrome"),
    "no_events": (lambda file: b'{"traceEvents": []}', "has no events"),
    "browser": (
        lambda file: json.dumps({"traceEvents": [{"ph": "X", "cat": "v8", "name": "gc", "ts": 1, "dur": 2}]}).encode(),
        "no operator and no kernel",
    ),
    "nested": (lambda file: b'{"traceEvents": [{"args": ' + b"[" * 10**6, "no kineto trace|no operator|has no events"),
    "zeros": (lambda file: gzip.compress(bytes(60_000_000), 9), "no kineto trace: it is not a JSON object"),
}
