"""Groups: rows with equal keys, and sums over them, on whole arrays."""

from dataclasses import dataclass

import numpy as np

from profiler.traces.columns import Floats, Ints

_MOST = 2**62
_WIDE = 2**31


@dataclass(frozen=True)
class Groups:
    """first is a row of each group, of_row the group of each row."""

    first: Ints
    of_row: Ints

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def by(cls, *keys: Ints) -> "Groups":
        """Rows with the same numbers in all keys."""
        code, span = np.zeros(len(keys[0]), np.int64), 1
        for key in keys:
            if key.max(initial=0) >= _WIDE or key.min(initial=0) < -1:  # a corrupt file's numbers
                key = np.unique(key, return_inverse=True)[1].astype(np.int64)
            width = int(key.max(initial=-1)) + 2
            if span * width >= _MOST:  # number the groups so far anew
                code = np.unique(code, return_inverse=True)[1].astype(np.int64)
                span = int(code.max(initial=0)) + 1
            code, span = code * width + key + 1, span * width
        _, first, of_row = np.unique(code, return_index=True, return_inverse=True)
        return cls(first.astype(np.int64), of_row.reshape(-1).astype(np.int64))

    @property
    def counts(self) -> Ints:
        return np.bincount(self.of_row, minlength=len(self)).astype(np.int64)

    def sum(self, values: Ints) -> Ints:
        """Exact for nanoseconds: a double holds integers to 2**53, a hundred days."""
        return np.rint(np.bincount(self.of_row, values, len(self))).astype(np.int64)

    def mean(self, values: Floats, weights: Ints) -> Floats:
        """Weighted, over the values that are known; NaN where none is."""
        known = np.isfinite(values)
        weight = np.bincount(self.of_row, np.where(known, weights, 0), len(self))
        total = np.bincount(self.of_row, np.where(known, values * weights, 0), len(self))
        found: Floats = np.divide(total, weight, out=np.full(len(self), np.nan), where=weight > 0)
        return found

    def least(self, values: Ints) -> Ints:
        found = np.full(len(self), np.iinfo(np.int64).max)
        np.minimum.at(found, self.of_row, values)
        return found

    def most(self, values: Ints) -> Ints:
        found = np.full(len(self), np.iinfo(np.int64).min)
        np.maximum.at(found, self.of_row, values)
        return found
