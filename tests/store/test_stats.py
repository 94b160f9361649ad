import time

import numpy as np
import pytest

from store.stats import Interval, ratio_interval, resampled_medians, verdict


def test_two_runs_of_the_same_are_called_the_same() -> None:
    assert sum(_verdict(seed, shift=0.0, num=20) == "same" for seed in range(100)) >= 93


@pytest.mark.parametrize("num", [10, 11, 100])
def test_a_shift_of_5_percent_under_1_percent_noise_is_found(num: int) -> None:
    assert sum(_verdict(seed, shift=0.05, num=num) == "faster" for seed in range(100)) == 100


def test_the_same_samples_give_the_same_interval() -> None:
    samples = np.random.default_rng(1).normal(10, 1, (2, 30))
    assert ratio_interval(*samples) == ratio_interval(*samples)
    assert ratio_interval(*samples) != ratio_interval(*samples, seed=1)


@pytest.mark.parametrize("num", [5, 6, 19, 20])
def test_resampled_medians_are_those_of_drawn_resamples(num: int) -> None:
    random = np.random.default_rng(3)
    samples = random.lognormal(size=num)
    drawn = np.median(random.choice(samples, (40_000, num)), axis=1)
    found = resampled_medians(samples, 40_000, random)
    levels = np.linspace(0.05, 0.95, 19)
    between = [abs((found <= q).mean() - (drawn <= q).mean()) for q in np.quantile(samples, levels)]
    assert max(between) < 0.015


@pytest.mark.parametrize(("above", "below"), [([1.0] * 4, [1.0] * 20), ([1.0] * 20, []), ([1.0] * 9, [0.0] * 9)])
def test_too_few_samples_or_none_above_zero_give_no_interval(above: list[float], below: list[float]) -> None:
    assert ratio_interval(above, below) is None


def test_samples_without_spread_give_an_interval_without_width() -> None:
    assert ratio_interval([2.0] * 5, [1.0] * 5) == Interval(low=2.0, high=2.0)


def test_an_interval_is_quick_however_many_samples() -> None:
    samples = np.random.default_rng(0).normal(10, 1, (2, 100_000))
    start = time.process_time()
    ratio_interval(*samples)
    assert time.process_time() - start < 0.05


@pytest.mark.parametrize(
    ("speedup", "interval", "drift", "expected"),
    [
        (1.2, (1.1, 1.3), None, "faster"),
        (0.8, (0.7, 0.9), 0.01, "slower"),
        (1.2, (0.9, 1.3), 0.0, "same"),
        (1.02, (1.01, 1.03), 0.03, "same"),
        (0.98, (0.97, 0.99), 0.03, "same"),
        (1.02, (1.01, 1.03), None, "faster"),
        (1.2, None, 0.0, "unknown"),
        (None, (1.1, 1.3), 0.0, "unknown"),
    ],
)
def test_verdicts(speedup: float, interval: tuple[float, float] | None, drift: float, expected: str) -> None:
    bounds = Interval(low=interval[0], high=interval[1]) if interval else None
    assert verdict(speedup, bounds, drift) == expected


def _verdict(seed: int, *, shift: float, num: int) -> str:
    baseline, run = np.random.default_rng(seed).normal(10, 0.1, (2, num))
    run = run / (1 + shift)
    return verdict(float(np.median(baseline) / np.median(run)), ratio_interval(baseline, run), None)
