"""The real app in a real browser: it starts, every page draws, links open what they name, charts can be saved."""

import gzip
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from pages.charts.export import find_browser
from profiler.machine import Machine
from profiler.traces.read import read_trace
from runs.machine_file import OPTIONAL_PACKAGES, write_machine
from runs.processes import boot_id
from tests.support.live_app import free_port, local_page, opened, running_app, running_browser
from tests.support.run_folders import FIXTURE_CPU, write_ladder
from tests.support.traces import SDPA

PAGES = Path(__file__).parents[2] / "pages"
MAGIC = {"PNG": b"\x89PNG", "SVG": b"<svg", "HTML": b"<!doctype html>", "CSV": b"run_id,"}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no Chrome or Chromium to drive (see the README)"),
]


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def app(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app on a home with one ladder and a machine that needs no probe."""
    home = tmp_path_factory.mktemp("home")
    write_machine(_this_machine(), home)
    write_ladder(home / "runs", sweep_id="ladder")
    with running_app(home, port):
        yield f"http://127.0.0.1:{port}"


def _this_machine() -> Machine:
    """The fixture with what machine_file compares: this boot, this torch, these optional packages."""
    installed = {str(found.name): found.version for found in metadata.distributions()}
    packages = {name: installed[name] for name in OPTIONAL_PACKAGES if name in installed}
    return replace(FIXTURE_CPU, boot_id=boot_id(), torch=installed["torch"], packages=packages)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def page(app: str, port: int, browser: Browser) -> Iterator[Page]:
    with local_page(browser, port) as page:
        yield page


def test_navigation_reaches_every_page(app: str, page: Page) -> None:
    opened(page, f"{app}/launch")  # Overview, which costs a browser most, is drawn once
    for name, landmark in {
        "Queue": "One job runs at a time",
        "Import": "Imported so far",
        "Compare": "All metrics",
        "Run": "All numbers",
        "Overview": "Fastest as exact as eager",
        "Launch": "What to run",
    }.items():
        page.get_by_test_id("stTopNavLink").filter(has_text=re.compile(rf"{name}$")).click()
        expect(page.get_by_text(landmark).first).to_be_visible()


def test_a_page_may_be_the_first_that_a_server_is_asked_for(browser: Browser, tmp_path: Path) -> None:
    write_machine(_this_machine(), tmp_path)
    port = free_port()
    with running_app(tmp_path, port), local_page(browser, port) as page:
        opened(page, f"http://127.0.0.1:{port}/job_queue")
        expect(page.get_by_text("One job runs at a time")).to_be_visible()
        expect(page.get_by_role("dialog")).to_have_count(0)  # "Page not found", over the right page
        links = [link.get_attribute("href") for link in page.get_by_test_id("stTopNavLink").all()]
    files = {path.stem for path in PAGES.glob("*.py")} - {"__init__", "navigation"}
    assert {str(link).rpartition("/")[2] or "overview" for link in links} == files


def test_a_deep_link_opens_its_run_and_the_next_choice_stands_in_the_address(app: str, page: Page) -> None:
    opened(page, f"{app}/run?run=ladder-05")
    expect(page.get_by_text("ladder-05").first).to_be_visible()
    expect(page.get_by_role("heading", name="sdpa · bf16 · channels_last").first).to_be_visible()
    page.get_by_role("combobox").first.fill("max_autotune")  # the list is long: type to find it, as one does
    page.get_by_role("option").filter(has_text=re.compile("max_autotune.* oom")).first.click()
    expect(page.get_by_text("CUDA out of memory").first).to_be_visible()
    page.wait_for_url("**/run?run=ladder-07")


def test_a_deep_link_opens_its_comparison(app: str, page: Page) -> None:
    opened(page, f"{app}/compare?baseline=ladder-00&run=ladder-02&run=ladder-05")
    expect(page.get_by_text("step_ms relative to baseline").first).to_be_visible()
    expect(page.locator(".js-plotly-plot").first).to_be_visible()


def test_a_chart_follows_the_theme_and_can_be_saved_in_every_form(app: str, page: Page, tmp_path: Path) -> None:
    page.emulate_media(color_scheme="dark")
    opened(page, app)
    background = page.locator(".js-plotly-plot .main-svg").first
    expect(background).to_have_css("background-color", "rgb(18, 22, 28)")
    box = page.locator(".st-key-chart-download-overview_ladder")
    for kind, magic in MAGIC.items():
        if not page.get_by_role("button", name=kind, exact=True).first.is_visible():
            box.get_by_role("button").first.click()
        with page.expect_download(timeout=60_000) as saving:
            page.get_by_role("button", name=kind, exact=True).first.click()
        path = tmp_path / f"saved.{kind.lower()}"
        assert saving.value.suggested_filename == f"speedup-ladder-ladder.{kind.lower()}"  # the study is called ladder
        saving.value.save_as(path)
        assert path.read_bytes().lstrip().startswith(magic)
    assert len(pd.read_csv(tmp_path / "saved.csv")) == 10


def test_a_dropped_trace_becomes_a_run_and_gives_a_slice(app: str, page: Page, tmp_path: Path) -> None:
    plain = tmp_path / "plain.json"
    plain.write_bytes(gzip.decompress(SDPA.read_bytes()))  # more than the server's own limit of 1 MB
    opened(page, f"{app}/imports")
    page.set_input_files("input[type=file]", plain)
    page.get_by_role("link", name="Open it").click()
    expect(page.get_by_text("An imported trace").first).to_be_visible()
    page.get_by_role("button", name="Download a slice").click()
    page.get_by_role("button", name="Make the slice").click()
    with page.expect_download() as saving:
        page.get_by_role("button", name="Save it").click()
    saving.value.save_as(tmp_path / "slice.json.gz")
    assert len(read_trace(tmp_path / "slice.json.gz").device) == 1176
