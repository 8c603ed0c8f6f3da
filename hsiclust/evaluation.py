"""A map held against a truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hsiclust.errors import InputError
from hsiclust.scene import grid_of, open_raster
from hsiclust.scores import Scores, contingency, score
from hsiclust.truth import open_truth


@dataclass(frozen=True)
class Evaluation:
    """A map held against a truth.

    Attributes:
        map: The map.
        truth: The truth.
        note: How the truth was laid on the map, if there is something to say.
        scores: What came out.
    """

    map: Path
    truth: Path
    note: str | None
    scores: Scores

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        files = {"map": str(self.map), "truth": str(self.truth), "note": self.note}
        return {**files, **self.scores.to_json()}


def evaluate(
    map_path: Path, truth_path: Path, *, field: str | None = None, layer: str | None = None
) -> Evaluation:
    """Score a map on the pixels that a truth labels.

    Args:
        map_path: A raster of one band of class numbers.
        truth_path: A raster or vectors; see `hsiclust.truth.open_truth`.
        field: Vectors: where the class stands.
        layer: Vectors: which layer.

    Raises:
        InputError: One of them cannot be used, or no labelled pixel lies on the map.
    """
    with open_raster(str(map_path)) as dataset:
        kinds, grid = {np.dtype(name).kind for name in dataset.dtypes}, grid_of(dataset)
        if dataset.count != 1 or not kinds <= {"i", "u"}:
            raise InputError(
                f"{map_path}: {dataset.count} bands of {dataset.dtypes[0]} are no map; "
                "a map is one band of integers"
            )
    truth = open_truth(truth_path, grid, field=field, layer=layer)
    table = contingency(open_truth(map_path, grid), truth, grid.window)
    if not table.classes:
        raise InputError(f"{truth_path}: labels no pixel of {map_path}")
    return Evaluation(Path(map_path), Path(truth_path), truth.note, score(table, truth.names))
