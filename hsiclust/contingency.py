"""Which class of the truth meets which number of the map: the one table that scores come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hsiclust.grid import Window

WINDOW = 1024
"""Side of the windows that are compared at once."""

CODES = 2**16
"""Class numbers are 16 bits."""


class Numbers(Protocol):
    """Anything that gives class numbers of a window."""

    def read(self, window: Window) -> NDArray[np.unsignedinteger[Any]]:
        """Class numbers, `(row, col)`; 0 is unclassified, or unlabelled."""
        ...


@dataclass(frozen=True, eq=False)
class Contingency:
    """How many labelled pixels of each class lie in each cluster, or under each class of a map.

    Attributes:
        counts: `(class, cluster)`, int64.
        classes: Class number of each row, rising, without 0.
        clusters: Cluster number of each column, rising; the first is 0, unclassified.
    """

    counts: NDArray[np.int64]
    classes: tuple[int, ...]
    clusters: tuple[int, ...]


def contingency(found: Numbers, truth: Numbers, area: Window) -> Contingency:
    """Count class and cluster of every labelled pixel, window by window.

    Args:
        found: The map.
        truth: The truth, on the same grid; only what it labels is counted.
        area: Pixels to compare.
    """
    return tabulated(_labelled_pixels(found, truth, area))


def tabulated(parts: Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]]) -> Contingency:
    """The same of labelled pixels that come in parts.

    Args:
        parts: Class in the truth and number in the map of some pixels, `(N,)` each.
    """
    pairs: dict[int, int] = {}
    for classes, numbers in parts:
        codes = classes.astype(np.int64) * CODES + numbers
        for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
            pairs[int(code)] = pairs.get(int(code), 0) + int(count)
    return _table(pairs)


def _labelled_pixels(
    found: Numbers, truth: Numbers, area: Window
) -> Iterator[tuple[NDArray[np.integer], NDArray[np.integer]]]:
    for window in area.cut(WINDOW, WINDOW):
        labels = truth.read(window)
        labelled = labels > 0
        if labelled.any():
            yield labels[labelled], found.read(window)[labelled]


def _table(pairs: Mapping[int, int]) -> Contingency:
    rows = sorted({code // CODES for code in pairs})
    columns = sorted({0} | {code % CODES for code in pairs})
    counts = np.zeros((len(rows), len(columns)), np.int64)
    for code, count in pairs.items():
        counts[rows.index(code // CODES), columns.index(code % CODES)] = count
    return Contingency(counts, tuple(rows), tuple(columns))


def pixels_by_number(found: Numbers, area: Window) -> dict[int, int]:
    """How many pixels of a whole map have each class number, 0 among them, window by window."""
    counts = np.zeros(CODES, np.int64)
    for window in area.cut(WINDOW, WINDOW):
        counts += np.bincount(found.read(window).ravel(), minlength=CODES)
    return {int(number): int(counts[number]) for number in np.flatnonzero(counts)}


def kappa(confusion: NDArray[np.int64]) -> float:
    """Cohen's (1960), `(p - e) / (1 - e)`: agreement beyond that of chance.

    Args:
        confusion: `(class, class + 1)`: pixels by class and by the class that the map gives them,
            in the last column those that get none.

    Returns:
        1 where both are of one and the same class, when chance alone is always right.
    """
    shares = confusion / confusion.sum()
    by_chance = float(shares.sum(axis=1) @ shares[:, :-1].sum(axis=0))
    right = float(np.trace(shares))
    return 1.0 if by_chance >= 1 else (right - by_chance) / (1 - by_chance)
