"""Area and accuracy of a whole map, estimated from its labelled pixels.

Pixel counts of a map are biased where it errs more to one side than to the other; a sample of
labelled pixels says by how much. The estimators are those of stratified random sampling with the
map's classes as strata (Olofsson et al. 2014, Good practices for estimating area and assessing
accuracy of land change, Remote Sensing of Environment 148, 42-57; equations are theirs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ASSUMPTION = "assumes that the labelled pixels are a probability sample within each mapped class"

FEWEST = 2
"""Labelled pixels that a stratum needs: the variances divide by their number less one."""

_DEVIATIONS = 1.96  # of the normal distribution, on each side of 95 %


@dataclass(frozen=True)
class Estimate:
    """An estimate.

    Attributes:
        value: The estimate.
        error: Its standard error.
    """

    value: float
    error: float

    @property
    def margin(self) -> float:
        """Half of the 95 % confidence interval."""
        return _DEVIATIONS * self.error

    def times(self, factor: float) -> Estimate:
        """The same in another unit."""
        return Estimate(self.value * factor, self.error * factor)

    def to_json(self) -> dict[str, Any]:
        """As plain values; the interval is not cut off at 0 or 1."""
        interval = [self.value - self.margin, self.value + self.margin]
        return {"value": self.value, "standard_error": self.error, "interval_95": interval}


@dataclass(frozen=True)
class ClassArea:
    """What is estimated of one class.

    Attributes:
        name: The class.
        mapped: Area that the map gives it, in the unit of the estimates.
        proportion: Share of the ground that is of this class (eq. 9, 10).
        area: The same in the unit of the estimates (eq. 11).
        users: User's accuracy (eq. 2, 6); None where the map has no such stratum.
        producers: Producer's accuracy (eq. 3, 7); None where its area is estimated as 0.
    """

    name: str
    mapped: float
    proportion: Estimate
    area: Estimate
    users: Estimate | None
    producers: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        estimates = {
            "proportion": self.proportion,
            "area": self.area,
            "users": self.users,
            "producers": self.producers,
        }
        plain = {key: each and each.to_json() for key, each in estimates.items()}
        return {"name": self.name, "mapped_area": self.mapped, **plain}


@dataclass(frozen=True)
class Areas:
    """Estimates for the part of a map whose strata hold enough labelled pixels.

    Attributes:
        unit: Of areas: "ha" or "pixels".
        accuracy: Overall accuracy (eq. 1, 5).
        classes: Each class that this part of the map or its labelled pixels have.
        covered: Share of the classified pixels of the map that the estimates are for.
        left_out: Classes of the map that are left out: strata of fewer than `FEWEST` labelled
            pixels.
    """

    unit: str
    accuracy: Estimate
    classes: tuple[ClassArea, ...]
    covered: float
    left_out: tuple[str, ...]

    @property
    def assumption(self) -> str:
        """What the estimates stand on, for people."""
        return _ASSUMPTION

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "assumption": self.assumption,
            "unit": self.unit,
            "covered": self.covered,
            "left_out": list(self.left_out),
            "accuracy": self.accuracy.to_json(),
            "classes": [each.to_json() for each in self.classes],
        }


def estimate_areas(
    names: Sequence[str],
    sample: NDArray[np.int64],
    mapped: NDArray[np.int64],
    pixel_hectares: float | None,
) -> Areas | None:
    """Estimate areas and accuracies of a map with their standard errors.

    Args:
        names: The K classes.
        sample: `(K, K)` labelled pixels by class in the map (stratum, row) and in the truth
            (column).
        mapped: `(K,)` pixels of each class in the whole map.
        pixel_hectares: Area of a pixel; None counts areas in pixels.

    Returns:
        None where no stratum holds enough labelled pixels.
    """
    sizes = sample.sum(axis=1)
    used = (mapped > 0) & (sizes >= FEWEST)
    if not used.any():
        return None
    pixels = int(mapped[used].sum())
    found = _Stratified.of(sample, mapped / pixels, used)
    unit = 1.0 if pixel_hectares is None else pixel_hectares
    classes = tuple(
        ClassArea(
            names[at],
            float(mapped[at] * unit) if used[at] else 0.0,
            found.proportion(at),
            found.proportion(at).times(pixels * unit),
            found.users(at) if used[at] else None,
            found.producers(at),
        )
        for at in np.flatnonzero(used | (sample[used].sum(axis=0) > 0)).tolist()
    )
    return Areas(
        unit="pixels" if pixel_hectares is None else "ha",
        accuracy=found.accuracy(),
        classes=classes,
        covered=pixels / int(mapped.sum()),
        left_out=tuple(names[at] for at in np.flatnonzero((mapped > 0) & ~used).tolist()),
    )


@dataclass(frozen=True, eq=False)
class _Stratified:
    """Estimators of a stratified random sample.

    Attributes:
        weights: `(K,)` share of each stratum, W_i; 0 for one that is not used.
        shares: `(K, K)` shares of the truth's classes in each stratum, n_ij / n_i.
        variances: `(K, K)` of the shares, `s (1 - s) / (n_i - 1)`.
    """

    weights: NDArray[np.float64]
    shares: NDArray[np.float64]
    variances: NDArray[np.float64]

    @classmethod
    def of(
        cls, sample: NDArray[np.int64], weights: NDArray[np.float64], used: NDArray[np.bool_]
    ) -> _Stratified:
        sizes = np.where(used, sample.sum(axis=1), FEWEST)[:, None]
        shares = np.where(used[:, None], sample, 0) / sizes
        variances = shares * (1 - shares) / (sizes - 1)
        return cls(np.where(used, weights, 0.0), shares, variances)

    def accuracy(self) -> Estimate:
        """Eq. 1 and 5."""
        return self._weighted(self.shares.diagonal(), self.variances.diagonal())

    def users(self, at: int) -> Estimate:
        """Eq. 2 and 6."""
        return _estimate(self.shares[at, at], self.variances[at, at])

    def proportion(self, at: int) -> Estimate:
        """Eq. 9 and 10."""
        return self._weighted(self.shares[:, at], self.variances[:, at])

    def producers(self, at: int) -> Estimate | None:
        """Eq. 3 and 7, with areas as shares of the whole."""
        whole = self.proportion(at).value
        if whole == 0:
            return None
        value = self.weights[at] * self.shares[at, at] / whole
        terms = self.weights**2 * self.variances[:, at] * value**2
        terms[at] = self.weights[at] ** 2 * self.variances[at, at] * (1 - value) ** 2
        return _estimate(value, terms.sum() / whole**2)

    def _weighted(self, shares: NDArray[np.float64], variances: NDArray[np.float64]) -> Estimate:
        """A mean over the strata."""
        return _estimate(float(self.weights @ shares), float(self.weights**2 @ variances))


def _estimate(value: float, variance: float) -> Estimate:
    return Estimate(float(value), math.sqrt(variance))
