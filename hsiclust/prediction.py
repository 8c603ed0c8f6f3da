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
from hsiclust.components import ComponentSource
from hsiclust.devices import resolve_device
from hsiclust.engine import run_tiles
from hsiclust.grid import Window
from hsiclust.labeller import Labeller
from hsiclust.labelmap import write_confidence, write_map
from hsiclust.labels import LabelStore
from hsiclust.mapformat import MapFormat, driver_for
from hsiclust.modelfile import file_digest, load_model
from hsiclust.output import locked
from hsiclust.prediction_plan import LabelJob, PredictOptions, PredictPlan, confidence_path
from hsiclust.sources import open_source

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
    """

    map: Path
    confidence: Path | None
    pixels: int
    labelled: int
    tiles: int
    resumed: int
    seconds: float


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
    store = LabelStore(Path(job.labels), job.tiles)
    with locked(output):
        store.open_or_create(job.run, options.overwrite)
        todo = store.missing()
        resumed = len(job.tiles) - len(todo)
        if resumed:
            log.info("going on with an earlier run: %d of %d tiles done", resumed, len(job.tiles))
        done, labelled = resumed, 0
        engine = options.engine.limited_to(plan.run.in_flight)
        for _, pixels in run_tiles(label_tile, job, todo, engine):
            done, labelled = done + 1, labelled + pixels
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
    )


def label_tile(job: LabelJob, index: int) -> int:
    """Read, label and write one tile; returns its number of labelled pixels."""
    source, labeller, store = _workbench(job)
    tile = job.tiles[index]
    labels = labeller(source.read(tile), job.tiles.halo)
    store.write(tile, labels.classes, labels.confidence if job.confidence else None)
    return int((labels.classes > 0).sum())


def _workbench(job: LabelJob) -> tuple[ComponentSource, Labeller, LabelStore]:
    """What a job needs, opened once a process; threads that come first wait for each other."""
    with _OPENING:
        return _opened(job)


@functools.lru_cache(maxsize=2)
def _opened(job: LabelJob) -> tuple[ComponentSource, Labeller, LabelStore]:
    device = resolve_device(job.device)
    model = load_model(Path(job.model))
    source = open_source(job.source, job.nodata, model, device)
    return source, Labeller(model.method, device), LabelStore(Path(job.labels), job.tiles)


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
    driver = driver_for(plan.output, options.driver)
    form = MapFormat(driver, store.tiles.tile_rows, options.creation, tags)
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
