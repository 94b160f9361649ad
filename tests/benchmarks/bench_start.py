"""How long until the first page is painted? Run by hand: python tests/benchmarks/bench_start.py.

A new server on an empty home and a new Chromium, five times; median and range. The aim is under 4 s.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.live_app import local_page, running_app

PORT = 8597


def main() -> None:
    seconds = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as home:
            started = time.monotonic()
            with running_app(Path(home), PORT), local_page(PORT) as page:
                page.goto(f"http://127.0.0.1:{PORT}")
                page.get_by_text("Speedup over the baseline").first.wait_for()
                seconds.append(time.monotonic() - started)
    median = statistics.median(seconds)
    print(f"first chart title painted: median {median:.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
