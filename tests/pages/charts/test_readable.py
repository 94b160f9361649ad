"""Numbers as a reader wants them."""

import pandas as pd
import pytest

from pages.charts import readable
from pages.charts.labels import place_labels


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12345.6, "12,346"),
        (274.84, "275"),
        (36.27, "36.3"),
        (2.0, "2.00"),
        (0.5, "0.500"),
        (0.0123, "0.0123"),
        (1.2e-6, "1.2e-06"),
        (0, "0"),
        (None, "—"),
        (float("nan"), "—"),
        (pd.NA, "—"),
    ],
)
def test_numbers_have_three_digits(value: object, text: str) -> None:
    assert readable.number(value) == text


def test_unknown_has_no_unit() -> None:
    assert readable.number(None, "ms") == "—"
    assert readable.number(3.0, "ms") == "3.00 ms"


def test_metrics_are_read_by_their_names() -> None:
    assert readable.metric("mfu", 0.314) == "31%"
    assert readable.metric("num_kernels", 1234.0) == "1,234"
    assert readable.metric("step_ms", 12.34) == "12.3"


def test_little_memory_is_told_in_mib() -> None:
    assert readable.gib(2.1) == "2.10 GiB"
    assert readable.gib(0.25) == "256 MiB"
    assert readable.gib(None) == "—"


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (274, "4 min 34 s"), (7500, "2 h 05 min"), (None, "—")])
def test_durations_are_read_in_two_units(seconds: float | None, text: str) -> None:
    assert readable.duration(seconds) == text


def test_labels_do_not_cover_each_other() -> None:
    places = place_labels([(0.5, 0.5), (0.5, 0.5), (0.95, 0.5)], ["first", "second", "third"], width=500, height=300)
    assert places[0] != places[1]
    assert places[2] is not None
    assert "right" not in places[2]


def test_a_label_without_room_is_left_out() -> None:
    crowd = [(0.5, 0.5)] * 12
    assert None in place_labels(crowd, ["a long label"] * 12, width=300, height=120)


def test_how_long_the_gpu_waits_means_the_same_in_every_row_and_is_unknown_on_a_cpu() -> None:
    rows = pd.DataFrame(
        {
            "launch_verdict": ["launch-bound", "partly launch-bound", "gpu-bound", "gpu-bound", None],
            "gpu_busy_share": [0.55, 0.88, 0.98, 1.01, None],
        }
    )
    assert readable.gpu_waits(rows).tolist() == ["45% (launches)", "12% (partly)", "2.0%", "0.0%", "—"]
    assert readable.gpu_waits(rows[4:]).tolist() == ["—"]
