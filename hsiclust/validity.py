"""Pixels that hold a whole spectrum: every band finite and unlike nodata."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def valid_pixels(block: NDArray[np.generic], nodata: float | None) -> NDArray[np.bool_]:
    """Pixels in which every band is finite and unlike nodata.

    Args:
        block: `(band, row, col)`, bad bands already dropped.
        nodata: What stands for no data, if anything does.

    Returns:
        `(row, col)`.
    """
    valid = np.ones(block.shape[1:], bool)
    # One pass without a result a pixel first: most blocks hold nothing invalid.
    if np.issubdtype(block.dtype, np.floating) and not _all_finite(block):
        valid &= np.isfinite(block).all(axis=0)
    marker = _as_dtype(nodata, block.dtype)
    if marker is not None and (block == marker).any():
        valid &= (block != marker).all(axis=0)
    return valid


def _all_finite(block: NDArray[np.generic]) -> bool:
    """Whether a sum is finite: it is not where one value is not, and seldom else."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(block.sum()))


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
