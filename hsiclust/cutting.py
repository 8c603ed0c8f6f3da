"""How a scene is cut for a model, by the memory that there is."""

from __future__ import annotations

from dataclasses import replace

import torch

from hsiclust.components import SceneComponents
from hsiclust.devices import free_memory
from hsiclust.errors import MemoryPlanError, UsageError
from hsiclust.grid import Window
from hsiclust.labelmodel import LabelModel
from hsiclust.load import Decoding, Load
from hsiclust.plan import Limits, RunPlan, plan_run, plan_tiles
from hsiclust.predictoptions import PredictOptions
from hsiclust.readplan import ReadPlan
from hsiclust.scene import Scene
from hsiclust.tilegrid import TileGrid
from hsiclust.tiles import TileStore

# Side of the blocks that the network sees at once: in smaller ones halos weigh more, larger ones
# are no faster and take more memory.
_BLOCK = 256
# The same on a CUDA device: many processors are to have something to do.
_DEVICE_BLOCK = 1024
# Tiles of a run: each is two files, and a thing to remember. Scenes of a terabyte have a hundredth.
_MOST_TILES = 2**22


def block_side(kind: str) -> int:
    """Side of the blocks that the network sees at once on a device of this kind."""
    return _DEVICE_BLOCK if kind == "cuda" else _BLOCK


def cut_source(
    source: SceneComponents | TileStore,
    model: LabelModel,
    area: Window,
    device: torch.device,
    options: PredictOptions,
    kept: ReadPlan | None,
) -> tuple[RunPlan, ReadPlan]:
    """What is worked on at once, and how it is read.

    Args:
        source: A scene, or a tile store, which is cut already.
        model: Its halo lies around tiles, and its network takes memory.
        area: The pixels to label.
        device: Where the network computes.
        options: Memory, processes, and the size of tiles, where the user chose one.
        kept: How the run that goes on reads; None where one begins.

    Raises:
        MemoryPlanError: Not even one small strip fits into the memory.
        UsageError: There would be too many tiles, or a store is not labelled whole.
    """
    limits = Limits.of(options.memory, options.gpu_memory, free_memory(device))
    if isinstance(source, TileStore):
        if area != source.grid.window:
            raise UsageError(f"{source.path}: a tile store is labelled whole, without --bounds")
        reading = ReadPlan.of(source.tiles, 1, 1)
        load = replace(
            _load(model, device, None),
            block=max(source.tiles.tile_rows, source.tiles.tile_cols),
            decoding=Decoding(block=source.chunk_bytes, width=source.tiles.tile_cols),
        )
        return plan_tiles(load, options.engine, limits, reading), reading
    load = _load(model, device, source.scene)
    if kept is not None:
        return _plan_of_rest(load, options, limits, kept), kept
    plan = plan_run(area, load, options.engine, limits, options.tile)
    tiles = TileGrid(source.grid.window, area, plan.tile_rows, plan.tile_cols, model.halo)
    if (count := tiles.down * tiles.across) > _MOST_TILES:
        raise UsageError(
            f"{source.scene.path}: {area.rows} x {area.cols} pixels are {count} tiles, and a run "
            f"has {_MOST_TILES} at most; take a larger --tile-size, or --bounds"
        )
    return plan, ReadPlan.of(tiles, plan.panel, source.scene.blocks[0])


def _plan_of_rest(
    load: Load, options: PredictOptions, limits: Limits, reading: ReadPlan
) -> RunPlan:
    """What is worked on at once by a run that goes on, in the memory that it is given now."""
    try:
        return plan_tiles(load, options.engine, limits, reading)
    except MemoryPlanError as error:
        raise MemoryPlanError(
            f"{error}; the unfinished run keeps its tiles, unless --overwrite and another "
            "--tile-size begin anew"
        ) from None


def _load(model: LabelModel, device: torch.device, scene: Scene | None) -> Load:
    """What a pixel of a scene costs, or of a tile store where there is none."""
    bands = 0 if scene is None else len(model.bands)
    return Load(
        bands=bands,
        dtype="float16" if scene is None else scene.dtype,
        blocks=(1, 1) if scene is None else scene.blocks,
        piece=(1, 1) if scene is None else scene.piece_shape(bands),
        components=model.needs.kept,
        floats=model.needs.floats,
        halo=model.halo,
        block=block_side(device.type),
        fixed=model.needs.fixed,
        decoding=None if scene is None else scene.decoding,
        cuda=device.type == "cuda",
    )
