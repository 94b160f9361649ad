"""The real app as a process, and a page of the system's Chromium that talks to nobody else."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from pages.charts.export import find_browser

expect.set_options(timeout=20_000)  # ms; shared machines are slow at times

ROOT = Path(__file__).parents[2]
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def free_port() -> int:
    """A port that nobody listens on: other checkouts may run the same tests at the same time."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def running_app(home: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`streamlit run app.py` on a home, healthy; ended at the end."""
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    environment = os.environ | {"STEPLENS_HOME": str(home), "BROWSER_PATH": str(find_browser())}
    with (home / "app.log").open("ab") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_healthy(server, home / "app.log", port)
            yield server
        finally:
            server.terminate()
            server.wait(timeout=20)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """The system's Chromium; each page of it has cookies, storage and a cache of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=SWITCHES)
        yield browser
        browser.close()


@contextmanager
def local_page(browser: Browser, port: int) -> Iterator[Page]:
    """A page that fails the test when the app raises or asks anyone else than this machine for anything."""
    own = (f"http://127.0.0.1:{port}/", f"ws://127.0.0.1:{port}/", "data:", "blob:")
    outside: list[str] = []
    # Without motion: fades and a turning wheel, drawn without a GPU, keep Chromium's compositor busy.
    with browser.new_page(viewport={"width": 1440, "height": 1000}, reduced_motion="reduce") as page:
        page.set_default_timeout(30_000)
        page.on("request", lambda request: None if request.url.startswith(own) else outside.append(request.url))
        yield page
        expect(page.get_by_test_id("stException")).to_have_count(0)
    assert outside == []


def opened(page: Page, url: str) -> Page:
    """The page when its script has ended."""
    page.goto(url)
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    return page


def _wait_until_healthy(server: subprocess.Popen[bytes], log: Path, port: int) -> None:
    for _ in range(200):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(log.read_text())
