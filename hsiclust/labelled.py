"""The labels of a training: opened on each scene, numbered, and divided."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsiclust.bands import match_bands
from hsiclust.census import Validity
from hsiclust.errors import NoOverlapError
from hsiclust.grid import PixelGrid, Window
from hsiclust.modelfile import FittedModel
from hsiclust.numbering import Numbering, number_classes
from hsiclust.recipe import area_of, mask_of
from hsiclust.scene import Scene
from hsiclust.split import Site, Split, SplitOptions, split_labels
from hsiclust.tiles import TileStore, is_tile_store
from hsiclust.trainoptions import TrainOptions
from hsiclust.truth import Truth, Unlabelled, open_truth

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Labelled:
    """The labels of a training.

    Attributes:
        numbering: What their numbers are.
        sites: Each source with its labels.
        split: What is learned from and what is held out.
    """

    numbering: Numbering
    sites: tuple[Site, ...]
    split: Split


def number_labels(sources: Sequence[str], options: TrainOptions) -> Numbering | None:
    """The classes that the labels have on the sources; None where no labels are given.

    Raises:
        InputError: The labels cannot be used, or none lies on a source.
    """
    if options.labels is None:
        return None
    parts = []
    for source in sources:
        grid, area = _ground(source, options)
        parts.append((_on_ground(options.labels, grid, options, len(sources) > 1), area))
    numbering = number_classes(options.labels, parts)
    for note in numbering.notes:
        log.info("%s", note)
    return numbering


def divide_labels(
    sources: Sequence[str], numbering: Numbering, model: FittedModel, options: TrainOptions
) -> Labelled:
    """Divide the labels into those that are learned from and those held out.

    Args:
        sources: Scenes and tile stores.
        numbering: Of `number_labels`.
        model: Its bands say which pixels have data, its window how wide the buffer is.
        options: The label file and how it is divided.

    Raises:
        InputError: Fewer than two classes lie on pixels with data.
    """
    sites = tuple(_site(source, numbering, model, options) for source in sources)
    split = split_labels(
        sites,
        numbering,
        SplitOptions(
            kind=options.split or "separated",
            per_class=options.per_class,
            buffer=model.method.halo,
            seed=options.seed,
        ),
    )
    for note in split.notes:
        log.info("%s: %s", options.labels, note)
    return Labelled(numbering, sites, split)


def _ground(source: str, options: TrainOptions) -> tuple[PixelGrid, Window]:
    """The grid of a source, and the window of it that is learned from."""
    if is_tile_store(source):
        store = TileStore.open(source)
        return store.grid, store.tiles.area
    scene = Scene.open(source, options.nodata)
    return scene.grid, area_of(scene, options.bounds)


def _on_ground(path: str | Path, grid: PixelGrid, options: TrainOptions, several: bool) -> Truth:
    """Labels on a grid; of several scenes, one that they do not meet has none."""
    try:
        return open_truth(path, grid, field=options.field, layer=options.layer)
    except NoOverlapError as error:
        if not several:
            raise
        log.info("%s", error)
        return Unlabelled()


def _site(source: str, numbering: Numbering, model: FittedModel, options: TrainOptions) -> Site:
    grid, area = _ground(source, options)
    truth = numbering.renumbered(
        # Said already when they were numbered.
        _on_ground(options.labels or Path(), grid, options, several=True)
    )
    valid = _valid_pixels(source, model, options)
    mask = mask_of(grid, options)

    def usable(window: Window) -> NDArray[np.bool_]:
        found = valid(window)
        return found if mask is None else found & mask.read(window)

    return Site(truth, grid, area, usable)


def _valid_pixels(source: str, model: FittedModel, options: TrainOptions) -> Validity:
    """Says which pixels of a source have data in the bands of the model."""
    if is_tile_store(source):
        return TileStore.open(source).valid_pixels
    scene = Scene.open(source, options.nodata)
    bands = match_bands(model.transform.bands, model.sensor, scene.bands, scene.path)
    return lambda window: scene.valid(scene.read(window, bands), window)
