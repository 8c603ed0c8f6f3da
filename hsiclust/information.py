"""What two labellings of the same pixels say of each other, from their contingency table."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def normalised_information(counts: NDArray[np.int64], alone: float) -> float:
    """Mutual information over the mean of both entropies, `I(U, V) / ((H(U) + H(V)) / 2)`.

    Vinh et al. 2010.

    Args:
        counts: Pixels of each pair of groups, `(group of U, group of V)`.
        alone: What two labellings of one group each get, which the formula leaves open: they
            agree, and say nothing.

    Returns:
        0 (nothing) to 1 (one tells the other).
    """
    joint = counts / max(int(counts.sum()), 1)
    both = _entropy(joint.sum(axis=1)) + _entropy(joint.sum(axis=0))
    if both == 0:
        return alone
    return float(np.clip(2 * (both - _entropy(joint)) / both, 0, 1))


def _entropy(shares: NDArray[np.floating[Any]]) -> float:
    present = shares[shares > 0]
    return float(-(present * np.log(present)).sum())
