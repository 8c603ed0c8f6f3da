"""Whether a confidence of 80 means that 80 pixels of 100 are right.

Expected calibration error (Guo et al. 2017, On calibration of modern neural networks, equations 2
to 5): labelled pixels are put into bins by their confidence, and in each the share that is right is
held against the mean confidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hsiclust.contingency import CODES, WINDOW, Numbers
from hsiclust.errors import InputError
from hsiclust.georef import same_crs
from hsiclust.grid import PixelGrid, Window
from hsiclust.legend import LABELS_TAG
from hsiclust.palette import UNSURE
from hsiclust.rasters import grid_of, open_raster

_BINS = 10
_MOST = 100  # per cent


class Percents(Protocol):
    """Anything that gives the confidence of a window."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Per cent, `(row, col)`; 255 where there is none."""
        ...


@dataclass(frozen=True)
class ConfidenceMap:
    """A confidence map as `predict --confidence` writes it.

    Attributes:
        path: The raster.
    """

    path: str

    @classmethod
    def open(cls, path: str | Path, grid: PixelGrid) -> ConfidenceMap:
        """Open the confidence map of a label map.

        Args:
            path: A raster of one band of bytes.
            grid: That of the label map.

        Raises:
            InputError: It is no such raster, or does not lie where the label map lies.
        """
        with open_raster(str(path)) as dataset:
            own, dtypes = grid_of(dataset), dataset.dtypes
            # Both maps of a run have its tags; labels have another nodata value.
            labels = LABELS_TAG in dataset.tags() and dataset.nodata != UNSURE
        if tuple(dtypes) != ("uint8",):
            raise InputError(
                f"{path}: {len(dtypes)} bands of {dtypes[0] if dtypes else 'nothing'} are no "
                "confidence map; give the one that predict --confidence wrote"
            )
        if labels:
            raise InputError(
                f"{path}: is a map of labels; give the confidence that predict --confidence wrote"
            )
        same = (own.rows, own.cols, own.transform) == (grid.rows, grid.cols, grid.transform)
        if not same or not same_crs(own.crs, grid.crs):
            raise InputError(
                f"{path}: its pixels are not those of the map; give the map's own confidence"
            )
        return cls(str(path))

    def read(self, window: Window) -> NDArray[np.uint8]:
        """As `Percents.read`.

        Raises:
            InputError: The file cannot be read there, or a value is no per cent.
        """
        rows, cols = (window.row, window.row_stop), (window.col, window.col_stop)
        with open_raster(self.path) as dataset:
            values: NDArray[np.uint8] = dataset.read(1, window=(rows, cols))
        wrong = values[(values > _MOST) & (values != UNSURE)]
        if wrong.size:
            raise InputError(
                f"{self.path}: confidence {wrong[0]} is not 0 to {_MOST} per cent, nor {UNSURE}"
            )
        return values


@dataclass(frozen=True)
class Bin:
    """Labelled pixels of like confidence.

    Attributes:
        above: Confidence that they lie above; the first bin holds 0 too.
        up_to: Confidence that they reach at most.
        pixels: How many.
        confidence: Their mean confidence; None without pixels.
        accuracy: Share of them that is right; None without pixels.
    """

    above: float
    up_to: float
    pixels: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Reliability:
    """How far confidence and accuracy are apart; confidences from 0 to 1.

    Attributes:
        pixels: Labelled pixels that have a confidence.
        without: Those that have none.
        ece: Expected calibration error: mean over `pixels` of the distance between accuracy and
            mean confidence of their bin; None without pixels.
        confidence: Mean confidence of `pixels`; None without pixels.
        accuracy: Share of `pixels` that is right; None without pixels.
        bins: Ten bins of equal width.
    """

    pixels: int
    without: int
    ece: float | None
    confidence: float | None
    accuracy: float | None
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def reliability(
    found: Numbers,
    truth: Numbers,
    confidence: Percents,
    matching: Mapping[int, int],
    area: Window,
) -> Reliability:
    """Hold confidence against accuracy on every labelled pixel, window by window.

    Args:
        found: The map.
        truth: The truth, on the same grid; only what it labels is counted.
        confidence: Confidence of the map, on the same grid.
        matching: Class number of the truth, by number in the map; others are wrong.
        area: Pixels to compare.
    """
    class_of = np.zeros(CODES, np.int64)
    class_of[list(matching)] = list(matching.values())
    counts = np.zeros((2, UNSURE + 1), np.int64)  # wrong and right pixels of each per cent
    for window in area.cut(WINDOW, WINDOW):
        labels = truth.read(window)
        labelled = labels > 0
        if labelled.any():
            sure = confidence.read(window)[labelled]
            right = class_of[found.read(window)[labelled]] == labels[labelled]
            counts[0] += np.bincount(sure[~right], minlength=UNSURE + 1)
            counts[1] += np.bincount(sure[right], minlength=UNSURE + 1)
    return summarise(counts[:, : _MOST + 1], without=int(counts[:, UNSURE].sum()))


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error of pixels, at least one: confidences 0 to 1, and who is right."""
    percents = np.rint(confidence * _MOST).astype(np.int64)
    counts = np.stack(
        [np.bincount(percents[right == verdict], minlength=_MOST + 1) for verdict in (False, True)]
    )
    return summarise(counts).ece or 0.0


def summarise(counts: NDArray[np.int64], without: int = 0) -> Reliability:
    """The reliability of counted pixels.

    Args:
        counts: `(2, 101)` wrong and right pixels of each per cent.
        without: Pixels that have no confidence.
    """
    percents = np.arange(_MOST + 1)
    # (m - 1) / 10 < confidence <= m / 10, as Guo et al. have it; 0 joins the first bin.
    bin_of = np.maximum(-(-percents * _BINS // _MOST) - 1, 0)
    pixels, right, sure = (
        np.bincount(bin_of, weights, _BINS)
        for weights in (counts.sum(axis=0), counts[1], counts.sum(axis=0) * percents / _MOST)
    )
    total = int(pixels.sum())
    bins = tuple(
        Bin(at / _BINS, (at + 1) / _BINS, int(pixels[at]), *_means(sure[at], right[at], pixels[at]))
        for at in range(_BINS)
    )
    ece = float(np.abs(right - sure).sum() / total) if total else None
    return Reliability(total, without, ece, *_means(sure.sum(), right.sum(), total), bins)


def _means(sure: float, right: float, pixels: float) -> tuple[float | None, float | None]:
    return (float(sure / pixels), float(right / pixels)) if pixels else (None, None)
