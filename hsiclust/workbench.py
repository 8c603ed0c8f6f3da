"""One strip: read, labelled tile by tile, written. What a worker does."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from hsiclust.blockwise import TileLabeller
from hsiclust.clock import Clock
from hsiclust.devices import own_stream, resolve_device
from hsiclust.engine import threads_here
from hsiclust.labeljob import LabelJob
from hsiclust.labeller import Labeller
from hsiclust.labelmodel import LabelModel, open_model
from hsiclust.labels import LabelStore
from hsiclust.location import store_location
from hsiclust.models.base import Precision
from hsiclust.sources import open_source
from hsiclust.strips import SceneStrips, StoredStrips, StripSource
from hsiclust.tiles import TileStore

_OPENING = threading.Lock()


@dataclass(frozen=True)
class LabelledStrip:
    """What a worker says of a strip.

    Attributes:
        labelled: Pixels that got a class.
        clock: Where the time went.
    """

    labelled: int
    clock: Clock


def label_strip(job: LabelJob, index: int) -> LabelledStrip:
    """Read a strip, label its tiles and write them; not those that an earlier run has done."""
    source, label, store = _workbench(job)
    tiles = job.reading.tiles_of(index)
    missing = store.missing_of(tiles) if job.begun else tiles
    clock, labelled = Clock(), 0
    with own_stream(resolve_device(job.device)), source.open(index, clock) as strip:
        for number in missing:
            tile = job.tiles[number]
            with clock.during("computing"):
                labels = label(strip, tile)
            with clock.during("writing"):
                store.refuse_other(job.run)
                store.write(tile, labels.classes, labels.confidence)
            labelled += int((labels.classes > 0).sum())
    return LabelledStrip(labelled, clock)


def _workbench(job: LabelJob) -> tuple[StripSource, TileLabeller, LabelStore]:
    """What a job needs, opened once a process; threads that come first wait for each other."""
    with _OPENING:
        return _opened(job)


@functools.lru_cache(maxsize=2)
def _opened(job: LabelJob) -> tuple[StripSource, TileLabeller, LabelStore]:
    device = resolve_device(job.device)
    model = open_model(Path(job.model))
    label = TileLabeller(_ready(model, device, job.precision, job.confidence), job.block)
    job.check_model()
    source = open_source(job.source, job.nodata, model, device)
    store = LabelStore(store_location(job.labels), job.reading, job.precision)
    if isinstance(source, TileStore):
        return StoredStrips(source, job.reading, model.halo), label, store
    threads = threads_here(job.threads)
    shared = replace(source, scene=source.scene.shared_by(threads))
    return SceneStrips(shared, job.reading, threads, passing=job.passing), label, store


@functools.lru_cache(maxsize=1)
def _ready(
    model: LabelModel, device: torch.device, precision: Precision, confidence: bool
) -> Labeller:
    """A model's network on a device, for as many scenes as are labelled with it."""
    return model.labeller(device, precision, confidence)
