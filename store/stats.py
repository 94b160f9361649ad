"""How far apart two runs are, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["faster", "slower", "same", "unknown"]
Floats = NDArray[np.float64]

# Below five samples not even their whole range holds the median with 95% probability (four: 1 - 2 / 2**4 = 87.5%).
MIN_SAMPLES = 5
NUM_RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    low: float
    high: float


def ratio_interval(
    numerator: Sequence[float] | Floats,
    denominator: Sequence[float] | Floats,
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval | None:
    """The bootstrap percentile interval of median(numerator) / median(denominator); None for too few samples.

    It knows the spread within two runs, not the drift between them: verdict needs both.
    """
    return product_interval([numerator], [denominator], num_resamples=num_resamples, confidence=confidence, seed=seed)


def product_interval(
    numerators: Sequence[Sequence[float] | Floats],
    denominators: Sequence[Sequence[float] | Floats],
    *,
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval | None:
    """The same for a product of medians over a product of medians, each resampled by itself; None for too few samples.

    What stands above and below the line is one run's median: it must be left out of both.
    """
    above, below = ([np.asarray(one, float) for one in side] for side in (numerators, denominators))
    if min(map(len, [*above, *below])) < MIN_SAMPLES or any(one.min() <= 0 for one in below):
        return None
    random = np.random.default_rng(seed)
    products = np.ones(num_resamples)
    for one in above:
        products = products * resampled_medians(one, num_resamples, random)
    for one in below:
        products = products / resampled_medians(one, num_resamples, random)
    low, high = np.quantile(products, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(low=float(low), high=float(high))


def resampled_medians(samples: Floats, num: int, random: np.random.Generator) -> Floats:
    """Medians of num resamples with replacement, without drawing the resamples.

    The kth smallest of n draws from n sorted samples is the one at n * U, where U, the kth smallest of n uniform
    numbers, follows Beta(k, n - k + 1): exact, and the cost does not grow with n.
    """
    ordered, n = np.sort(samples), len(samples)
    k = (n + 1) // 2
    middle = random.beta(k, n - k + 1, num)
    lower = ordered[_place(middle, n)]
    if n % 2:
        return lower
    # The next uniform number above the kth is the smallest of n - k in what is left.
    upper = ordered[_place(middle + (1 - middle) * random.beta(1, n - k, num), n)]
    return np.asarray((lower + upper) / 2)


def verdict(speedup: float | None, interval: Interval | None, drift: float | None) -> Verdict:
    """What a speedup may be called: 'same' when its interval holds 1 or it is inside the baseline's own drift."""
    if speedup is None or interval is None:
        return "unknown"
    if interval.low <= 1 <= interval.high or abs(speedup - 1) <= (drift or 0.0):
        return "same"
    return "faster" if speedup > 1 else "slower"


def _place(uniform: Floats, n: int) -> NDArray[np.int64]:
    return np.minimum((uniform * n).astype(np.int64), n - 1)
