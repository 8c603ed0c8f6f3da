"""Memory is arithmetic: how large tiles are and how many are worked on at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hsiclust.devices import total_memory
from hsiclust.engine import EngineOptions
from hsiclust.errors import MemoryPlanError
from hsiclust.grid import PixelGrid

# Larger tiles gain a tenth in speed and take four times the memory.
_TILE_SIDES = (256, 192, 128, 96, 64)
# What the interpreter, torch, Dask and GDAL's block cache take before the first tile.
_BASE_BYTES = 900 * 2**20
# Part of the machine's memory that a run takes when it was given no limit.
_DEFAULT_SHARE = 0.5
_FLOAT = 4
# What reading, transform and head hold of a tile at a time, beside its own arrays.
_STRIP_BYTES = 64 * 2**20


@dataclass(frozen=True)
class TileLoad:
    """What a pixel of a tile costs while it is worked on.

    Attributes:
        bands: Bands that are read.
        dtype: Their data type.
        components: Components after the transform.
        floats: Float32 values a pixel that the network holds at once.
        halo: Pixels around the core.
        fixed: Bytes of a tile in flight that do not grow with it.
    """

    bands: int
    dtype: str
    components: int
    floats: int
    halo: int
    fixed: int = 0

    def tile_bytes(self, rows: int, cols: int) -> int:
        """Bytes of one tile in flight with a core of `rows x cols`."""
        read = (rows + 2 * self.halo) * (cols + 2 * self.halo)
        # A byte a value says who is valid.
        raw = self.bands * (np.dtype(self.dtype).itemsize + 1)
        grown = read * (raw + _FLOAT * (2 * self.components + self.floats))
        return grown + self.fixed + _STRIP_BYTES


@dataclass(frozen=True)
class RunPlan:
    """How a scene is going to be worked through.

    Attributes:
        tile_rows: Height of a core.
        tile_cols: Width of a core.
        in_flight: Tiles worked on at once.
        tile_bytes: Memory of each.
        processes: Processes that work on them.
    """

    tile_rows: int
    tile_cols: int
    in_flight: int
    tile_bytes: int
    processes: int = 1

    @property
    def base_bytes(self) -> int:
        """What the programs themselves take."""
        return self.processes * _BASE_BYTES

    @property
    def peak_bytes(self) -> int:
        """Expected peak of the whole run."""
        return self.base_bytes + self.in_flight * self.tile_bytes


def plan_run(
    grid: PixelGrid, load: TileLoad, engine: EngineOptions, memory: int | None, side: int | None
) -> RunPlan:
    """Choose tile size and tiles in flight.

    The largest tile of which every thread can hold one; below the smallest, fewer threads.

    Args:
        grid: The pixels to work through.
        load: What a pixel costs.
        engine: Threads and processes that could work.
        memory: Bytes that the run may take; half of what there is when None.
        side: Side of a tile, when the user chose one.

    Raises:
        MemoryPlanError: Not even one small tile fits.
    """
    limit = int(_DEFAULT_SHARE * total_memory()) if memory is None else memory
    sides = _TILE_SIDES if side is None else (side,)
    plans = [_plan_of(grid, load, engine, limit, candidate) for candidate in sides]
    plan = next((plan for plan in plans if plan.in_flight == engine.parallel), plans[-1])
    if plan.peak_bytes > limit:
        places = f" in {plan.processes} processes" if plan.processes > 1 else ""
        raise MemoryPlanError(
            f"{limit / 2**20:.0f} MiB are too little: the program itself takes "
            f"{plan.base_bytes / 2**20:.0f} MiB{places} and one tile of "
            f"{plan.tile_rows} x {plan.tile_cols} pixels {plan.tile_bytes / 2**20:.0f} MiB; "
            f"give at least {plan.peak_bytes / 2**20:.0f} MiB"
        )
    return plan


def _plan_of(
    grid: PixelGrid, load: TileLoad, engine: EngineOptions, limit: int, side: int
) -> RunPlan:
    """A plan with tiles of one size: as many in flight as fit, one at least."""
    rows, cols = min(side, grid.rows), min(side, grid.cols)
    tile_bytes = load.tile_bytes(rows, cols)
    # Workers beside the process that leads them.
    processes = 1 if engine.workers is None else engine.workers + 1
    free = limit - processes * _BASE_BYTES
    in_flight = max(1, min(engine.parallel, free // tile_bytes))
    return RunPlan(rows, cols, in_flight, tile_bytes, processes)
