"""One number that makes a network's confidence honest: its temperature."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from hsiclust.errors import UsageError

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures that are looked at."""

# So close that a handful of pixels, whose valleys are narrow, has none between two of them.
_LOOKS = 121
_EXACTLY = {"xatol": 1e-5}


def fit_temperature(
    logits: NDArray[np.floating], classes: NDArray[np.integer], prior: float = 1.0
) -> float:
    """The temperature T by which logits are divided before the softmax (Guo et al. 2017).

    T minimises the Brier score, the mean squared distance of the probabilities p from the truth y,
    on pixels that training has not seen; labels do not change. The likelihood, which Guo et al.
    take, hangs on the few pixels that are surely and wrongly labelled: it blurs all others for
    their sake, and on the scenes at hand the calibration error rose where it should have fallen.

    Where all of few pixels are right, T would be as small as allowed and every confidence 100. So
    each pixel gives the share `prior / (M + prior)` of its truth to all classes alike, as Platt
    (1999) did for two classes: M pixels that are all right then get a mean confidence near
    `M / (M + prior)`, and of many pixels little changes.

    Args:
        logits: `(M, K)`, scores before the softmax.
        classes: `(M,)`, the right class of each pixel, 0..K-1.
        prior: How many pixels the doubt is worth; 0 leaves the score alone.

    Returns:
        T from `LOWEST` to `HIGHEST`; 1 without pixels.

    Raises:
        UsageError: The shapes do not fit, a class or `prior` is out of range, or a logit is not
            finite.
    """
    scores, right = np.asarray(logits, np.float64), np.asarray(classes)
    _check(scores, right, prior)
    if not len(scores):
        return 1.0
    share = prior / (len(scores) + prior)
    pixels = np.arange(len(scores))

    def loss(log_temperature: float) -> float:
        """The Brier score less what does not depend on T."""
        chances = softmax(scores / math.exp(log_temperature), axis=1)
        of_right = (1 - share) * chances[pixels, right] + share / scores.shape[1]
        return float((np.square(chances).sum(axis=1) - 2 * of_right).mean())

    # There may be more than one valley: each that a coarse look shows is gone to its bottom.
    looks = np.linspace(math.log(LOWEST), math.log(HIGHEST), _LOOKS)
    seen = np.pad([loss(look) for look in looks], 1, constant_values=np.inf)
    bottoms = [looks[0], looks[-1]]
    lower = (seen[1:-1] <= seen[:-2]) & (seen[1:-1] <= seen[2:])
    for at in np.flatnonzero(lower).tolist():
        ends = (looks[max(at - 1, 0)], looks[min(at + 1, _LOOKS - 1)])
        bottoms.append(minimize_scalar(loss, bounds=ends, method="bounded", options=_EXACTLY).x)
    return float(math.exp(min(bottoms, key=loss)))


def _check(scores: NDArray[np.float64], right: NDArray[np.integer], prior: float) -> None:
    if scores.ndim != 2 or right.shape != scores.shape[:1]:
        raise UsageError(f"logits {scores.shape} and classes {right.shape} are not (M, K) and (M,)")
    if right.size and not 0 <= right.min() <= right.max() < scores.shape[1]:
        raise UsageError(
            f"classes {right.min()} to {right.max()} are not 0 to {scores.shape[1] - 1}"
        )
    if not np.isfinite(scores).all():
        raise UsageError("a logit is not finite; the network has no temperature")
    if prior < 0:
        raise UsageError(f"a prior of {prior} pixels is below 0")
