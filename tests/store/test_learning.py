"""Whose loss leaves the others', and that noise and short curves accuse nobody."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from store import learning

# SD1.5, batch 16, on an H200: bf16_amp with SDPA, and pure bf16, from runs/reference/sd15-train-b16-around-h200.
AMP = (1.116, 1.955, 1.0893, 1.2066, 1.0404, 1.0314, 1.0361, 1.015, 1.0143, 1.009, 1.0034, 1.0203)
PURE = (1.116, 1.9848, 1.0842, 1.1838, 1.0493, 1.0252, 1.0284, 1.0177, 1.0178, 1.009, 0.9992, 1.0187)


def _study(*losses: tuple[float, ...], exact: tuple[bool, ...] | None = None) -> pd.DataFrame:
    """The first run is the baseline; all keep fp32 weights but the last, unless exact says otherwise."""
    keeps = exact or tuple(place + 1 < len(losses) for place in range(len(losses)))
    runs = pd.DataFrame(
        {
            "run_id": [f"r{place}" for place in range(len(losses))],
            "combo_label": "a combo",
            "role": ["candidate" if place else "baseline" for place in range(len(losses))],
            "keeps_fp32": keeps,
        }
    )
    curves = {f"r{place}": dict(enumerate(curve, start=1)) for place, curve in enumerate(losses)}
    return learning.departures(runs, curves)


def _moved(by: float, at: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(loss * (1 + by) if step in at else loss for step, loss in enumerate(AMP, start=1))


def test_pure_bf16_leaves_the_others_and_in_the_end_is_no_worse() -> None:
    (row,) = _study(AMP, AMP, AMP, PURE).to_dict("records")
    assert (row["run_id"], row["num_peers"], row["num_steps"], row["step"]) == ("r3", 3, 12, 4)
    assert (row["loss"], row["peers_loss"]) == (1.1838, 1.2066)
    assert row["end_change"] == pytest.approx(sum(PURE[-3:]) / sum(AMP[-3:]) - 1)


@pytest.mark.parametrize(
    "curve",
    [
        pytest.param(PURE[:2], id="two steps are no trend"),
        pytest.param(PURE[:5], id="nor are five"),
        pytest.param(_moved(0.03, (4, 8)), id="two steps of twelve are outliers"),
        pytest.param(_moved(0.004, tuple(range(2, 13))), id="less than the floor"),
        pytest.param((), id="no curve"),
    ],
)
def test_these_accuse_nobody(curve: tuple[float, ...]) -> None:
    assert _study(AMP, AMP, AMP, curve).empty


def test_what_the_others_differ_by_among_themselves_is_no_departure() -> None:
    every = tuple(range(2, 13))
    assert len(_study(AMP, AMP, AMP, _moved(0.03, every))) == 1
    assert _study(AMP, _moved(0.01, every), _moved(-0.01, every), _moved(0.03, every)).empty


@pytest.mark.parametrize("size", [1e-4, 1e-3, 1e-2])
@pytest.mark.parametrize("num_others", [3, 5])
def test_noise_alone_accuses_nobody(num_others: int, size: float) -> None:
    """However long the curve: of a hundred steps three would be far from others that happen to agree there."""
    draw = np.random.default_rng(0)
    for _ in range(10):
        noisy = [tuple(1 + size * draw.normal() for _ in range(100)) for _ in range(num_others + 1)]
        assert _study(*noisy).empty


def test_what_is_known_by_heart_accuses_nobody() -> None:
    """The only one in bf16_amp, on a CPU: three batches learnt by heart have no loss left, and rounding grows in it."""
    told = tuple(0.9**step for step in range(100))
    rounded = tuple(loss * (1 + 0.0005 * step) for step, loss in enumerate(told))
    assert abs(rounded[-1] / told[-1] - 1) > learning.FLOOR_OF_FEW
    assert _study(told, told, told, rounded, exact=(True,) * 4).empty


def test_the_baseline_is_never_judged_and_16_bit_weights_are_no_yardstick() -> None:
    """One run in fp32 against three in 16 bits, which agree: those leave, not the one."""
    far = _moved(0.03, tuple(range(2, 13)))
    found = _study(AMP, far, far, far, exact=(True, False, False, False))
    assert found["run_id"].tolist() == ["r1", "r2", "r3"]
    assert found["floor"].unique().tolist() == [learning.FLOOR_OF_FEW]
    near = _moved(0.015, tuple(range(2, 13)))
    assert _study(AMP, near).empty, "one other shows no spread"


def test_where_the_baselines_curve_has_ended_three_others_are_a_yardstick_and_two_are_not() -> None:
    assert len(_study(AMP[:5], AMP, AMP, AMP, PURE)) == 1
    assert _study(AMP[:5], AMP, AMP, PURE).empty


def test_others_without_a_curve_are_none() -> None:
    """They would make the one that has one look like many that agree."""
    near = _moved(0.015, tuple(range(2, 13)))
    assert _study(AMP, (), (), near).empty
    assert len(_study(AMP, AMP, AMP, near)) == 1


def test_without_rows_the_columns_are_the_same() -> None:
    empty: Any = learning.departures(_frame().head(0), {})
    assert empty.dtypes.to_dict() == _study(AMP, AMP, AMP, PURE).dtypes.to_dict()


def _frame() -> pd.DataFrame:
    return pd.DataFrame({"run_id": ["r"], "combo_label": ["a"], "role": ["candidate"], "keeps_fp32": [True]})
