"""What may be asked of a labelling, and what the place of work makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from hsiclust.cluster import survey, visible_devices
from hsiclust.devices import resolve_device
from hsiclust.engine import EngineOptions
from hsiclust.errors import UsageError
from hsiclust.grid import Bounds

# Part of a standing worker's memory that a run takes: it was given to this worker alone.
_WORKER_SHARE = 0.8


@dataclass(frozen=True)
class PredictOptions:
    """How a scene is labelled.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        bounds: West, south, east, north in map units; the whole scene when None.
        nodata: Overrides the scene's nodata value.
        tile: Side of a tile's core; from the memory plan when None.
        memory: Bytes that the run may take; when None, half of what the machine has, or the
            control group may take; of each worker of a standing cluster.
        gpu_memory: Bytes that it may take of a CUDA device; most of what is free when None.
        precision: "float32" or "bfloat16"; "auto" is float32, unless a trial on the scene shows
            that the other is faster and gives the same labels.
        confidence: Also write the confidence map.
        driver: "COG", "GTiff" or "ENVI"; by the output's suffix when None.
        creation: GDAL creation options of the map.
        overwrite: Replace an existing map, and discard an unfinished run of another model.
        store: Where labels are kept until the map is written, such as `s3://bucket/x.zarr` for
            workers that share no disk; a hidden folder beside the output when None.
        engine: Where tiles are worked on.
    """

    device: str = "auto"
    bounds: Bounds | None = None
    nodata: float | None = None
    tile: int | None = None
    memory: int | None = None
    gpu_memory: int | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    confidence: bool = False
    driver: str | None = None
    creation: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False
    store: str | None = None
    engine: EngineOptions = EngineOptions()

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise UsageError(f"tiles of {self.tile} pixels: at least one is needed")


def placed(options: PredictOptions) -> PredictOptions:
    """The options with what is known of the place of work: its devices, its workers.

    Several CUDA devices of this machine make a worker process each, unless one is named. A
    standing cluster's workers say how many threads they have and how much memory they may take.

    Raises:
        DeviceError: The device is not there.
        UsageError: The standing scheduler does not answer.
    """
    engine = options.engine
    if not engine.standing:
        device = resolve_device(options.device)
        if device.type == "cuda" and device.index is None:
            visible = visible_devices(torch.cuda.device_count())
            engine = engine.one_process_a_device(visible)
        return replace(options, engine=engine)
    worker = survey(engine) if engine.threads is None else None
    if worker is None:
        return options
    memory = options.memory or (worker.memory and int(_WORKER_SHARE * worker.memory))
    return replace(options, engine=replace(engine, threads=worker.threads), memory=memory)
