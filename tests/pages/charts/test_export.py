"""Charts as files: the right kind, the right picture for each caller, one line where there is no browser."""

import io
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from pages.charts import export, theme

needs_browser = pytest.mark.skipif(export.find_browser() is None, reason="no Chrome or Chromium to draw with")


def test_html_needs_no_network() -> None:
    figure = theme.titled("A title", "below it", dark=False, height=200)
    page = export.to_html(figure, "run-1")
    assert b"A title \\u00b7 run-1" in page
    assert b"below it" in page
    assert figure.layout.title.text == "A title"
    assert len(page) > 1_000_000  # Plotly itself is inside
    assert b'src="https://' not in page


def test_csv_holds_the_rows() -> None:
    rows = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(export.to_csv(rows))), rows, check_dtype=False)


def test_without_a_browser_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chromium")
    with pytest.raises(export.ExportError, match="BROWSER_PATH"):
        export.to_image(theme.titled("A title", dark=False, height=200), "png", "run-1")


def test_a_program_that_is_no_browser_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/bin/false")
    monkeypatch.setattr(export, "LIMIT_S", 5)
    with pytest.raises(export.ExportError, match="/bin/false did not draw"):
        export.to_image(theme.titled("A title", dark=False, height=200), "png", "run-1")


@pytest.mark.browser
@needs_browser
def test_each_caller_gets_its_own_picture() -> None:
    def draw(number: int) -> tuple[int, str]:
        figure = theme.titled(f"chart-{number}", dark=bool(number % 2), height=200)
        return number, export.to_image(figure, "svg", "a run").decode()

    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(draw, range(8)))
    export.close()
    assert all(f">chart-{number} · a run<" in picture for number, picture in drawn)


@pytest.mark.browser
@needs_browser
def test_png_is_a_png() -> None:
    picture = export.to_image(theme.titled("A title", dark=True, height=200), "png", "run-1")
    export.close()
    assert picture.startswith(b"\x89PNG")
