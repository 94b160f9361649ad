"""Compare's table and its chart agree on what is a difference."""

import pandas as pd
import pytest

from pages.widgets import comparison


@pytest.mark.parametrize(("drift", "is_coloured"), [(0.02, False), (0.001, True), (None, True)])
def test_a_ratio_inside_the_measured_drift_has_no_colour(
    drift: float | None, is_coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "is_dark", lambda: False)
    row = pd.Series({"ratio": 0.99, "ratio_low": 0.985, "ratio_high": 0.995, "better": "lower"})
    assert bool(comparison._style(row, drift)) is is_coloured
