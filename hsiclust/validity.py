"""Pixels that hold a whole spectrum: every band a number that may have been measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LARGEST: Final = 1e30
"""No sensor measures as much: it stands for no data, declared or not.

Such fills (1e34, the largest number of a type) are often declared in fewer digits than they have,
so that nothing equals what is declared; and what is reckoned from them is not finite.
"""


def valid_pixels(block: NDArray[np.generic], nodata: float | None) -> NDArray[np.bool_]:
    """Pixels in which every band is finite, not larger than `LARGEST`, and unlike nodata.

    Args:
        block: `(band, row, col)`, bad bands already dropped.
        nodata: What stands for no data, if anything does.

    Returns:
        `(row, col)`.
    """
    valid = np.ones(block.shape[1:], bool)
    # One pass without a result a pixel first: most blocks hold nothing invalid.
    if np.issubdtype(block.dtype, np.floating) and not _all_measured(block):
        valid &= (np.abs(block) <= _largest(block.dtype)).all(axis=0)
    marker = _as_dtype(nodata, block.dtype)
    if marker is not None and (block == marker).any():
        valid &= (block != marker).all(axis=0)
    return valid


def _largest(dtype: np.dtype[Any]) -> Any:
    """`LARGEST` in a type of floating numbers, or the largest that it has."""
    return dtype.type(min(LARGEST, float(np.finfo(dtype).max)))


def _all_measured(block: NDArray[Any]) -> bool:
    """Whether a sum of squares is one of measured values; it is seldom not if all are."""
    with np.errstate(all="ignore"):
        return float(np.einsum("ijk,ijk->", block, block)) <= LARGEST**2  # NaN is not


@dataclass(frozen=True)
class Fills:
    """What stands for no data in bands that each say so for themselves.

    Attributes:
        common: What does in the scene: the farthest from zero that its type can hold, which is
            least like a reading.
        own: What does in each band instead, None where nothing else does; empty where no band has
            anything else.
    """

    common: float | None
    own: tuple[float | None, ...] = ()

    @classmethod
    def of(cls, values: Sequence[float | None], dtype: np.dtype[Any]) -> Fills:
        """Of what each band says, where all are read as this type."""
        held = {each for each in values if each is not None and _as_dtype(each, dtype) is not None}
        if not held:
            return cls(next((value for value in values if value is not None), None))
        common = max(held, key=abs)
        own = tuple(value if value in held - {common} else None for value in values)
        return cls(common, own if len(held) > 1 else ())

    def unify(self, block: NDArray[np.generic], bands: Sequence[int]) -> None:
        """Write the scene's value where these bands have their own, `(band, row, col)`, in place.

        A reading that happens to be the scene's is taken for no data in every band.
        """
        for values, band in zip(block, bands, strict=True) if self.own else ():
            marker = _as_dtype(self.own[band], block.dtype)
            if marker is not None:
                values[values == marker] = self.common


def _as_dtype(nodata: float | None, dtype: np.dtype[Any]) -> np.generic | None:
    """`nodata` as the file's own type holds it, or None where that type cannot hold it."""
    if nodata is None or np.isnan(nodata):
        return None
    if np.issubdtype(dtype, np.floating):
        if abs(nodata) > np.finfo(dtype).max:
            return None
        converted: np.generic = dtype.type(nodata)
        return converted
    limits = np.iinfo(dtype)
    if not nodata.is_integer() or not limits.min <= nodata <= limits.max:
        return None
    converted = dtype.type(int(nodata))
    return converted
