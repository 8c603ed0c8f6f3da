"""A map held against a truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsiclust.accuracy import Accuracy
from hsiclust.area import Areas
from hsiclust.comparison import compare
from hsiclust.errors import InputError
from hsiclust.grid import PixelGrid
from hsiclust.rasters import grid_of, open_raster
from hsiclust.reliability import ConfidenceMap, Reliability, reliability
from hsiclust.scores import Scores
from hsiclust.truth import open_truth


@dataclass(frozen=True)
class Evaluation:
    """A map held against a truth.

    Attributes:
        map: The map.
        truth: The truth.
        note: How the truth was laid on the map and how classes were paired, if there is something
            to say.
        scores: What came out, clusters or classes matched to those of the truth.
        accuracy: Scores of a map of classes; None for clusters.
        areas: Estimates for the whole of a map of classes; None for clusters, and where too few
            pixels are labelled.
        reliability: Of the confidence map, if one was given.
    """

    map: Path
    truth: Path
    note: str | None
    scores: Scores
    accuracy: Accuracy | None = None
    areas: Areas | None = None
    reliability: Reliability | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        facts: dict[str, Any] = {"map": str(self.map), "truth": str(self.truth), "note": self.note}
        if self.accuracy is None:
            facts |= {"labels": "clusters", **self.scores.to_json()}
        else:
            areas = None if self.areas is None else self.areas.to_json()
            facts |= {"labels": "classes", **self.accuracy.to_json(), "areas": areas}
        if self.reliability is not None:
            facts["calibration"] = self.reliability.to_json()
        return facts


def evaluate(
    map_path: str | Path,
    truth_path: str | Path,
    *,
    field: str | None = None,
    layer: str | None = None,
    match: bool | None = None,
    confidence: str | Path | None = None,
) -> Evaluation:
    """Score a map on the pixels that a truth labels.

    Args:
        map_path: A raster of one band of class numbers.
        truth_path: A raster or vectors; see `hsiclust.truth.open_truth`.
        field: Vectors: where the class stands.
        layer: Vectors: which layer.
        match: Whether to match the map's numbers with classes so that most pixels are right
            (clusters), or to take them for classes; as the map's own tag says when None, and
            matched where it says nothing.
        confidence: The map's confidence, to be held against the share of pixels that is right.

    Raises:
        InputError: One of them cannot be used, or no labelled pixel lies on the map.
    """
    grid = _map_grid(map_path)
    truth = open_truth(truth_path, grid, field=field, layer=layer)
    compared = compare(map_path, truth, grid, match)
    if compared is None:
        raise InputError(f"{truth_path}: labels no pixel of {map_path}")
    scores, accuracy = compared.scores(), compared.accuracy()
    sure = None
    if confidence is not None:
        given = ConfidenceMap.open(confidence, grid)
        sure = reliability(compared.found, truth, given, scores.matching, grid.window)
    return Evaluation(
        map=Path(map_path),
        truth=Path(truth_path),
        note=compared.note,
        scores=scores,
        accuracy=accuracy,
        areas=None if accuracy is None else compared.areas(accuracy),
        reliability=sure,
    )


def _map_grid(path: str | Path) -> PixelGrid:
    with open_raster(str(path)) as dataset:
        kinds, grid = {np.dtype(name).kind for name in dataset.dtypes}, grid_of(dataset)
        if dataset.count != 1 or not kinds <= {"i", "u"}:
            raise InputError(
                f"{path}: {dataset.count} bands of {dataset.dtypes[0]} are no map; "
                "a map is one band of integers"
            )
    return grid
