"""Big trace: one recorded trace written many times over, each copy later than the last and with ids of its own."""

import gzip
import re
from pathlib import Path

_TIME = re.compile(r'"ts": (\d+)(\.\d+)?')
_ID = re.compile(r'"(External id|correlation|Ev Idx|id)": (\d+)')
_STEP = re.compile(r"ProfilerStep#(\d+)")


def write_copies(source: Path, target: Path, num_copies: int) -> None:
    """Write `num_copies` of a trace's events as one trace."""
    text = gzip.decompress(source.read_bytes()).decode()
    head, _, rest = text.partition('"traceEvents": [')
    events, _, tail = rest.rpartition("\n  ],")
    times = [int(found[1]) for found in _TIME.finditer(events)]
    span = max(times) - min(times) + 1000
    most = max(int(found[2]) for found in _ID.finditer(events)) + 1
    with target.open("w", encoding="utf-8") as file:
        file.write(head + '"traceEvents": [')
        for copy in range(num_copies):
            file.write(("," if copy else "") + _shifted(events, copy, span, most))
        file.write("\n  ]," + tail)


def _shifted(events: str, copy: int, span_us: int, most_ids: int) -> str:
    events = _TIME.sub(lambda at: f'"ts": {int(at[1]) + copy * span_us}{at[2] or ""}', events)
    events = _ID.sub(lambda at: f'"{at[1]}": {int(at[2]) + copy * most_ids if int(at[2]) else 0}', events)
    return _STEP.sub(lambda at: f"ProfilerStep#{int(at[1]) + copy}", events)
