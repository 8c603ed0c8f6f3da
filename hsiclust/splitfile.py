"""A split on disk: what was learned from and what was held out, to look at and to score on."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from hsiclust.errors import HsiclustError
from hsiclust.grid import PixelGrid, Window
from hsiclust.labelmap import write_map
from hsiclust.legend import LABELS_TAG, SPLIT_TAG, is_split_of
from hsiclust.mapformat import MapFormat
from hsiclust.marks import Drawing, Marks, Pixels, marks_of
from hsiclust.numbering import Numbering
from hsiclust.output import remove
from hsiclust.palette import MOST_CLASSES, Classes
from hsiclust.split import Site, Split
from hsiclust.truth import Truth

MOST_POINTS = 1_000_000
"""Points of a layer at most; of more pixels, this many are drawn."""

_WINDOW = 1024


def split_files(beside: Path, sites: int, held_out: bool = True) -> tuple[Path, ...]:
    """The files that a split is written to.

    Args:
        beside: Their folder and the start of their names; ending in .gpkg, one file a site.
        sites: How many scenes there are; of several, their number stands in the names.
        held_out: Whether anything is held out.
    """
    return tuple(file for site in range(sites) for file in _of_site(beside, site, sites, held_out))


def _of_site(beside: Path, site: int, sites: int, held_out: bool) -> tuple[Path, ...]:
    stem = beside.stem if sites == 1 else f"{beside.stem}_{site + 1}"
    if beside.suffix.lower() == ".gpkg":
        return (beside.with_name(f"{stem}.gpkg"),)
    parts = ("training", "held_out") if held_out else ("training",)
    return tuple(beside.with_name(f"{stem}_{part}.tif") for part in parts)


def earlier_files(beside: Path, written: Sequence[Path]) -> list[Path]:
    """Files of an earlier split of the same model that a new one does not replace.

    Args:
        beside: The model; its folder is there.
        written: What the new split is written to.
    """
    name = re.compile(rf"{re.escape(beside.stem)}(_\d+)?_(training|held_out)\.tif")
    named = sorted(path for path in beside.parent.iterdir() if name.fullmatch(path.name))
    return [path for path in named if path not in written and is_split_of(path, beside.name)]


def write_split(
    split: Split, sites: Sequence[Site], classes: Numbering, beside: Path
) -> tuple[str, ...]:
    """Write a split, so that `hsiclust evaluate` scores a map on what was held out.

    Beside `out.safetensors` stand `out_training.tif` and `out_held_out.tif`, class numbers on the
    scene's grid. For `out.gpkg`, the pixels' centres are points in its layers `training` and
    `held_out`, with the fields `class` and `name`. Files that are there are replaced.

    Args:
        split: What is written.
        sites: The scenes that it was made of.
        classes: Names and colours.
        beside: Names the files; see `split_files`.

    Returns:
        What has to be said, each one line.

    Raises:
        HsiclustError: A file cannot be written.
    """
    form = MapFormat(tags={LABELS_TAG: "classes", SPLIT_TAG: beside.name})
    notes: list[str] = []
    held_out = split.held_out or (None,) * len(sites)
    for number, (site, training, held) in enumerate(
        zip(sites, split.training, held_out, strict=True)
    ):
        parts = (training,) if held is None else (training, held)
        files = _of_site(beside, number, len(sites), held is not None)
        if files[0].suffix == ".gpkg":
            notes += _write_points(files[0], site, parts, classes.classes)
            continue
        for file, truth in zip(files, parts, strict=True):
            write_map(_Bytes(truth), site.grid, file, classes.classes, form)
    return tuple(notes)


@dataclass(frozen=True, eq=False)
class _Bytes:
    """Class numbers of a truth as those of a map."""

    truth: Truth

    def read(self, window: Window) -> NDArray[np.uint8]:
        return self.truth.read(window).astype(np.uint8)


def _write_points(file: Path, site: Site, parts: Sequence[Truth], classes: Classes) -> list[str]:
    """Write the layers of a site; returns what has to be said."""
    notes = []
    folder = file.with_name(f".{file.name}.partial")
    made = folder / file.name  # under its own name: the driver wants its suffix
    try:
        remove(folder)
        folder.mkdir()
        for layer, truth in zip(("training", "held_out"), parts, strict=False):
            points, count = _points(truth, site.area)
            if count > len(points):
                notes.append(f"{file}: {len(points)} of {count} pixels of {layer} are written")
            _write_layer(made, layer, points, site.grid, classes)
        made.replace(file)
        return notes
    except OSError as error:
        raise HsiclustError(f"{file}: cannot be written: {error}") from error
    finally:
        remove(folder)


def _points(truth: Truth, area: Window) -> tuple[Marks, int]:
    """The pixels that a truth labels, or as many as are written; and how many there are."""
    counts = np.zeros(MOST_CLASSES + 1, np.int64)
    for window in area.cut(_WINDOW, _WINDOW):
        counts += np.bincount(truth.read(window).ravel(), minlength=len(counts))
    counts[0] = 0
    total = int(counts.sum())
    drawing = Drawing((counts * min(MOST_POINTS, total) // max(total, 1))[None], seed=0)
    for window in area.cut(_WINDOW, _WINDOW):
        labels = truth.read(window)
        rows, cols = np.nonzero(labels)
        none, numbers = np.zeros(len(rows), np.int64), labels[rows, cols].astype(np.int64)
        drawing.offer(Pixels(none, numbers, none, rows + window.row, cols + window.col))
    return marks_of(drawing.drawn(), 0, truth.names), total


def _write_layer(file: Path, layer: str, points: Marks, grid: PixelGrid, classes: Classes) -> None:
    import pyogrio  # 60 MB that only vectors need
    from pyogrio.errors import DataLayerError, DataSourceError

    places: Any = (points.cols + 0.5, points.rows + 0.5)  # the types of Affine know no arrays
    centres = shapely.points(*(grid.transform @ places))
    names = np.array(["", *classes.names], object)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
            pyogrio.raw.write(
                file,
                shapely.to_wkb(centres),
                [points.numbers.astype(np.int32), names[points.numbers]],
                ["class", "name"],
                layer=layer,
                driver="GPKG",
                geometry_type="Point",
                crs=grid.crs,
            )
    except (DataSourceError, DataLayerError) as error:
        raise HsiclustError(f"{file}: cannot be written: {' '.join(str(error).split())}") from error
