"""A newcomer's first hour, in a real browser with real measurements: look, press the button, compare, take a chart
away, follow a link; the app is killed in the middle, and the rest is done when it comes back."""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from pages.charts.export import find_browser
from runs import job_queue
from store.folders import RECORDED_ROOT
from tests.support.live_app import free_port, local_page, opened, running_app, running_browser

NUM_RUNS = 10  # on a CPU
PATIENCE_S = 900  # beside other work; on two quiet cores it takes less than 4 min

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="no Chrome or Chromium to drive (see the README)"),
]


@pytest.fixture
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


def test_a_newcomer_measures_their_machine_though_the_app_is_killed(browser: Browser, tmp_path: Path) -> None:
    assert any(RECORDED_ROOT.glob("*/*/record.json")), "the recorded study is part of the first page"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running_app(tmp_path, port) as server, local_page(browser, port) as page:
        opened(page, url)
        expect(page.get_by_text("NVIDIA H200").first).to_be_visible()
        expect(page.locator(".js-plotly-plot").first).to_be_visible()
        page.get_by_role("button", name="Measure this machine").click(timeout=90_000)  # after the probe
        _wait_for(lambda: len(_records(tmp_path)) >= 2)
        expect(page.get_by_text(re.compile("tiny inference")).first).to_be_attached()  # it came without a reload
        _save_a_chart(page, tmp_path)
        server.send_signal(signal.SIGKILL)
        server.wait(timeout=20)
    with running_app(tmp_path, port), local_page(browser, port) as page:
        opened(page, f"{url}/job_queue")
        _wait_for(lambda: len(_records(tmp_path)) == NUM_RUNS)
        records = _records(tmp_path)
        assert [r["cause"] for r in records if r["status"] != "done"] == []
        baseline = next(r for r in records if r["sweep"]["role"] == "baseline" and r["workload"]["mode"] == "inference")
        other = next(
            r for r in records if r["combo"]["compilation"] == "default" and r["workload"]["mode"] == "inference"
        )
        query = f"baseline={baseline['run_id']}&run={other['run_id']}"
        opened(page, f"{url}/compare?{query}")
        expect(page.get_by_text("step_ms relative to").first).to_be_visible()
        opened(page, f"{url}/run?run={other['run_id']}")
        expect(page.get_by_role("heading", name="sdpa · compile default").first).to_be_visible()
        expect(page.get_by_text("confirmed").first).to_be_attached()
    assert not job_queue.waiting_jobs(home=tmp_path)


def _records(home: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((home / "runs").glob("*/record.json"))]


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(1)


def _save_a_chart(page: Page, folder: Path) -> None:
    page.locator(".st-key-chart-download-overview_ladder").get_by_role("button").first.click()
    with page.expect_download(timeout=60_000) as saving:
        page.get_by_role("button", name="CSV", exact=True).first.click()
    saving.value.save_as(folder / "ladder.csv")
    assert "step_ms" in pd.read_csv(folder / "ladder.csv").columns
