"""The Run page's tables of processes, and of a projection that says that it is one."""

from typing import Any

from streamlit.testing.v1 import AppTest

from profiler.record import Projection, Rank

RANK: dict[str, Any] = {
    "step_ms": 10.0,
    "compute_ms": 8.0,
    "exposed_communication_ms": 2.0,
    "wait_ms": None,
    "communicated_bytes": 5_000_000,
    "peak_allocated_gib": 1.5,
}
PROJECTED: dict[str, Any] = {
    "world_size": 2,
    "batch": 32,
    "sent_bytes": 4_000_000,
    "link": "NVLink 4",
    "link_gb_per_s": 400.0,
    "communication_ms": 0.01,
    "step_ms_hidden": 10.0,
    "step_ms_exposed": 10.01,
    "assumptions": "projected, not measured",
}


def show(ranks: list[dict[str, Any]], projection: list[dict[str, Any]]) -> AppTest:
    def page(record: dict) -> None:  # type: ignore[type-arg]  # it runs without the imports above
        from pages.widgets import ranks

        ranks.show_ranks(record)
        ranks.show_projection(record)

    app = AppTest.from_function(page, kwargs={"record": {"ranks": ranks, "projection": projection}}).run()
    assert not app.exception
    return app


def test_the_fixtures_are_whole_rows() -> None:
    assert Rank(rank=0, **RANK).step_ms == Projection(**PROJECTED).step_ms_hidden


def test_each_process_has_a_row() -> None:
    app = show([{"rank": 0} | RANK, {"rank": 1} | RANK], [])
    assert [title.value for title in app.subheader] == ["Ranks"]
    (table,) = app.dataframe
    assert table.value["communicated_mb"].tolist() == [5.0, 5.0]


def test_a_projection_is_named_as_one() -> None:
    app = show([], [PROJECTED])
    assert [title.value for title in app.subheader] == ["Projection to more GPUs (not measured)"]


def test_a_run_of_one_process_has_neither() -> None:
    app = show([], [])
    assert not app.subheader
    assert not app.dataframe
