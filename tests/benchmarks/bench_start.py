"""How long until the first page is painted? Run by hand: python tests/benchmarks/bench_start.py.

A new server on an empty home, and a page of a running Chromium, five times; median and range. The aim is under 4 s.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.live_app import free_port, local_page, running_app, running_browser


def main() -> None:
    cards, charts = list[float](), list[float]()
    for _ in range(5):
        port = free_port()
        # The browser is there already, as a user's is.
        with tempfile.TemporaryDirectory() as home, running_browser() as browser, local_page(browser, port) as page:
            started = time.monotonic()
            with running_app(Path(home), port):
                page.goto(f"http://127.0.0.1:{port}")
                page.get_by_text("Fastest").first.wait_for()
                cards.append(time.monotonic() - started)
                page.locator(".js-plotly-plot .main-svg").first.wait_for()
                charts.append(time.monotonic() - started)
    for what, seconds in (("headline cards", cards), ("first chart", charts)):
        median = statistics.median(seconds)
        print(f"server start to {what}: median {median:.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
