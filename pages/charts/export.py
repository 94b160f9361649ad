"""Charts as files: PNG and SVG through a headless browser, HTML with Plotly inside, data as CSV.

kaleido's own synchronous server answers concurrent callers with each other's pictures and waits for ever
when its browser does not start (kaleido 1.5), and each Streamlit session is a thread. So one browser runs
on an event loop of its own here, behind one lock, with a time limit; it starts with the first export.
"""

import asyncio
import atexit
import html
import os
import shutil
from concurrent.futures import Future, wait
from threading import Lock, Thread

import pandas as pd
from kaleido import Kaleido
from plotly.graph_objects import Figure

WIDTH, SCALE, LIMIT_S = 1200, 2, 60
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
REMEDY = (
    "PNG and SVG need Chrome or Chromium: install it (Debian: apt-get install chromium) or set BROWSER_PATH to its "
    "program. HTML and CSV work without."
)


class ExportError(RuntimeError):
    """A picture could not be drawn; the message says what to do."""


def find_browser() -> str | None:
    """The browser that draws pictures: BROWSER_PATH, or the first known one on the PATH."""
    named = os.environ.get("BROWSER_PATH")
    if named:
        return shutil.which(named)
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


def to_image(figure: Figure, kind: str, of: str) -> bytes:
    """The figure of a run or study as PNG or SVG, as wide as a page. Raises ExportError naming the remedy."""
    browser = find_browser()
    if browser is None:
        raise ExportError(REMEDY)
    options = {
        "format": kind,
        "width": WIDTH,
        "height": figure.layout.height or 500,
        "scale": SCALE if kind == "png" else 1,
    }
    with _LOCK:
        try:
            return _renderer(browser).render(_titled(figure, of).to_dict(), options)
        except Exception as error:  # whatever broke, the next export starts with a fresh browser
            close()
            raise ExportError(
                f"{browser} did not draw the chart ({type(error).__name__}: {error}). {REMEDY}"
            ) from error


def to_html(figure: Figure, of: str) -> bytes:
    """The interactive figure of a run or study as one file that needs no network."""
    return _titled(figure, of).to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False}).encode()


def _titled(figure: Figure, of: str) -> Figure:
    """A copy whose title says what it is of: nothing around the file does."""
    return Figure(figure).update_layout(title_text=f"{figure.layout.title.text} · {html.escape(of)}")


def to_csv(rows: pd.DataFrame) -> bytes:
    return rows.to_csv(index=False).encode()


class _Renderer:
    """One headless browser on its own event loop and thread. Raises what kept the browser from starting."""

    def __init__(self, browser: str) -> None:
        self.browser = browser
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = Thread(target=self._run, name="chart-export", daemon=True)
        self._thread.start()
        started: Future[Kaleido] = Future()
        self._serving = asyncio.run_coroutine_threadsafe(self._serve(started), self._loop)
        try:
            self._kaleido = started.result(LIMIT_S)
        except BaseException:
            self.close()
            raise

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    async def _serve(self, started: "Future[Kaleido]") -> None:
        try:
            async with Kaleido(n=1, timeout=LIMIT_S, mathjax=False, path=self.browser) as kaleido:
                started.set_result(kaleido)
                await self._stop.wait()
        except Exception as error:
            if not started.done():
                started.set_exception(error)

    @property
    def is_alive(self) -> bool:
        return not self._serving.done()

    def render(self, figure: dict[str, object], options: dict[str, object]) -> bytes:
        drawing = self._kaleido.calc_fig(figure, opts=options)
        return bytes(asyncio.run_coroutine_threadsafe(drawing, self._loop).result(LIMIT_S))

    def close(self) -> None:
        """End the browser, then the loop; a browser that does not end in time is left to end with its pipe."""
        self._loop.call_soon_threadsafe(self._stop.set)
        wait([self._serving], timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)


_LOCK = Lock()
_current: list[_Renderer] = []


def _renderer(browser: str) -> _Renderer:
    if not (_current and _current[0].is_alive and _current[0].browser == browser):
        close()
        _current.append(_Renderer(browser))
    return _current[0]


def close() -> None:
    """End the browser, if one was started."""
    while _current:
        _current.pop().close()


atexit.register(close)
