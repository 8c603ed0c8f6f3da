"""Labelling a scene: tiles through a model into the label store, then the map.

A run that was killed goes on where it was when it is started again, and gives the same bytes.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from hsiclust import __version__
from hsiclust.clock import Clock
from hsiclust.devices import resolve_device
from hsiclust.engine import run_tiles
from hsiclust.grid import Tile, Window
from hsiclust.labeller import Labeller, Labels, TorchLabeller
from hsiclust.labelmap import write_confidence, write_map
from hsiclust.labels import LabelStore
from hsiclust.mapformat import MapFormat, driver_for
from hsiclust.modelfile import file_digest, load_model
from hsiclust.output import locked
from hsiclust.prediction_plan import LabelJob, PredictOptions, PredictPlan, confidence_path
from hsiclust.sources import open_source
from hsiclust.strips import SceneStrips, StoredStrips, Strip, StripSource
from hsiclust.tiles import TileStore

log = logging.getLogger(__name__)

_OPENING = threading.Lock()


@dataclass(frozen=True)
class Prediction:
    """What a run did.

    Attributes:
        map: The label map.
        confidence: The confidence map, if it was asked for.
        pixels: Pixels of the map.
        labelled: Pixels that this run gave a class; resumed tiles are not counted again.
        tiles: Tiles in all.
        resumed: Tiles that an earlier run had done.
        seconds: Time of this run.
        clock: Seconds that its threads together spent reading, computing and writing.
    """

    map: Path
    confidence: Path | None
    pixels: int
    labelled: int
    tiles: int
    resumed: int
    seconds: float
    clock: Clock


def predict(
    plan: PredictPlan,
    options: PredictOptions,
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """Label a scene and write its map.

    Args:
        plan: From `plan_prediction`.
        options: The same as there.
        progress: Called with tiles done and tiles in all.

    Raises:
        OutputExistsError: An unfinished run of something else is in the way.
        HsiclustError: A tile failed for good; finished tiles stay for the next start.
    """
    start = perf_counter()
    job, output = plan.job, plan.output
    store = LabelStore(Path(job.labels), job.reading)
    clock = Clock()
    with locked(output):
        store.open_or_create(job.run, options.overwrite)
        todo = store.missing()
        resumed = len(job.tiles) - len(todo)
        if resumed:
            log.info("going on with an earlier run: %d of %d tiles done", resumed, len(job.tiles))
        done, labelled = resumed, 0
        engine = options.engine.limited_to(plan.run.in_flight)
        strips = job.reading.strips_of(todo)
        for _, strip in run_tiles(label_strip, job, strips, engine, unit="strip"):
            done, labelled = done + strip.tiles, labelled + strip.labelled
            clock.add(strip.clock)
            if progress is not None:
                progress(done, len(job.tiles))
        confidence = _write(plan, store, options)
        store.remove()
    if labelled == 0 and not resumed:
        log.warning(
            "%s: not one pixel got a class: each is nodata or not finite in a band that the model "
            "needs",
            output,
        )
    return Prediction(
        map=output,
        confidence=confidence,
        pixels=job.tiles.area.pixels,
        labelled=labelled,
        tiles=len(job.tiles),
        resumed=resumed,
        seconds=perf_counter() - start,
        clock=clock,
    )


@dataclass(frozen=True)
class LabelledStrip:
    """What a worker says of a strip.

    Attributes:
        tiles: Tiles that it labelled.
        labelled: Pixels that got a class.
        clock: Where the time went.
    """

    tiles: int
    labelled: int
    clock: Clock


def label_strip(job: LabelJob, index: int) -> LabelledStrip:
    """Read a strip, label its missing tiles and write them."""
    source, labeller, store = _workbench(job)
    missing = store.missing_of(job.reading.tiles_of(index))
    clock, labelled = Clock(), 0
    with source.open(index, clock) as strip:
        for number in missing:
            tile = job.tiles[number]
            with clock.during("computing"):
                labels = _label_tile(strip, tile, labeller, job.block)
            with clock.during("writing"):
                store.write(tile, labels.classes, labels.confidence if job.confidence else None)
            labelled += int((labels.classes > 0).sum())
    return LabelledStrip(len(missing), labelled, clock)


def _label_tile(strip: Strip, tile: Tile, labeller: Labeller, side: int) -> Labels:
    """Label a tile, block by block."""
    shape = (tile.core.rows, tile.core.cols)
    labels = Labels(np.empty(shape, np.uint8), np.empty(shape, np.uint8))
    for block in strip.blocks(tile, side):
        here = block.core.relative_to(tile.core).slices
        found = labeller(strip.read(block))
        labels.classes[here] = found.classes
        labels.confidence[here] = found.confidence
    return labels


def _workbench(job: LabelJob) -> tuple[StripSource, Labeller, LabelStore]:
    """What a job needs, opened once a process; threads that come first wait for each other."""
    with _OPENING:
        return _opened(job)


@functools.lru_cache(maxsize=2)
def _opened(job: LabelJob) -> tuple[StripSource, Labeller, LabelStore]:
    device = resolve_device(job.device)
    model = load_model(Path(job.model))
    labeller = TorchLabeller(model.method, device)
    source = open_source(job.source, job.nodata, model, device)
    store = LabelStore(Path(job.labels), job.reading)
    if isinstance(source, TileStore):
        return StoredStrips(source, job.reading, labeller.halo), labeller, store
    return SceneStrips(source, job.reading, job.threads), labeller, store


def _write(plan: PredictPlan, store: LabelStore, options: PredictOptions) -> Path | None:
    """Write the maps from the finished store; returns the confidence map."""
    tags = {
        "TIFFTAG_SOFTWARE": f"hsiclust {__version__}",
        "HSICLUST_VERSION": __version__,
        "HSICLUST_METHOD": plan.model.method.name,
        "HSICLUST_CLASSES": str(plan.model.method.classes),
        "HSICLUST_MODEL_SHA256": file_digest(Path(plan.job.model)),
        "HSICLUST_SCENE": Path(plan.job.source).name,
    }
    form = MapFormat(driver_for(plan.output, options.driver), 512, options.creation, tags)
    confidence = None
    if options.confidence:
        confidence = confidence_path(plan.output)
        write_confidence(_ConfidenceOf(store), plan.grid, confidence, form)
    write_map(store, plan.grid, plan.output, plan.model.classes, form)
    return confidence


@dataclass(frozen=True)
class _ConfidenceOf:
    """The confidence of a label store, read like labels."""

    store: LabelStore

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Confidence of a window, `(row, col)`."""
        return self.store.read_confidence(window)
