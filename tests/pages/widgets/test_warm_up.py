"""What the server makes ready while the first browser loads the page, and that the page finds it."""

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.widgets.warm_up import warm_up
from store import frames
from tests.support.live_app import free_port, running_app

Make = Callable[[str], Path]
Open = Callable[..., AppTest]

CARDS_ASK = ("runs", "sweeps", "ladder", "departures", "comparison")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[object, ...]]]:
    """What was asked of the store, past all caches."""
    asked: list[tuple[str, tuple[object, ...]]] = []

    def noted(name: str, query: Callable[..., object]) -> Callable[..., object]:
        @wraps(query)
        def ask(*arguments: object) -> object:
            asked.append((name, arguments))
            return query(*arguments)

        return ask

    for name in CARDS_ASK:
        monkeypatch.setattr(frames, name, noted(name, getattr(frames, name)))
    return asked


def test_the_first_page_asks_nothing_again(make_home: Make, open_page: Open, asked: list) -> None:
    make_home("full")
    warm_up()
    before = asked.copy()
    assert [name for name, _ in before] == list(CARDS_ASK)
    assert not open_page("overview").exception
    assert [name for name, _ in asked[len(before) :]] == ["comparison"], "the table of runs, against the baseline"
    assert asked[-1] not in before


def test_an_empty_home_has_nothing_to_make_ready(make_home: Make, asked: list) -> None:
    make_home("empty")
    warm_up()
    assert [name for name, _ in asked] == ["runs", "sweeps"]


def test_what_the_store_cannot_do_the_page_still_says(unwritable_home: None, open_page: Open) -> None:
    warm_up()
    assert "STEPLENS_HOME" in open_page("overview").error[0].value


def test_a_server_indexes_the_runs_before_anybody_opens_a_page(tmp_path: Path) -> None:
    with running_app(tmp_path, free_port()):
        end = time.monotonic() + 60
        while not (tmp_path / "steplens.duckdb").exists():
            assert time.monotonic() < end, (tmp_path / "app.log").read_text()
            time.sleep(0.05)
    assert "Traceback" not in (tmp_path / "app.log").read_text()
