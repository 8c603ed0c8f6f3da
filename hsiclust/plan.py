"""Memory is arithmetic: how large tiles are and how many are worked on at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hsiclust.devices import total_memory
from hsiclust.errors import MemoryPlanError
from hsiclust.grid import PixelGrid

_TILE_SIDES = (512, 384, 256, 192, 128, 96, 64)
# What the interpreter, torch, Dask and GDAL's block cache take before the first tile.
_BASE_BYTES = 900 * 2**20
# Part of the machine's memory that a run takes when it was given no limit.
_DEFAULT_SHARE = 0.5
_FLOAT = 4


@dataclass(frozen=True)
class TileLoad:
    """What a pixel of a tile costs while it is worked on.

    Attributes:
        bands: Bands that are read.
        dtype: Their data type.
        components: Components after the transform.
        floats: Float32 values a pixel that the network holds at once.
        halo: Pixels around the core.
    """

    bands: int
    dtype: str
    components: int
    floats: int
    halo: int

    def tile_bytes(self, rows: int, cols: int) -> int:
        """Bytes of one tile in flight with a core of `rows x cols`."""
        read = (rows + 2 * self.halo) * (cols + 2 * self.halo)
        # A block is copied once when its bands are not neighbours; a byte says who is valid.
        raw = self.bands * (2 * np.dtype(self.dtype).itemsize + 1)
        return read * (raw + _FLOAT * (2 * self.components + self.floats))


@dataclass(frozen=True)
class RunPlan:
    """How a scene is going to be worked through.

    Attributes:
        tile_rows: Height of a core.
        tile_cols: Width of a core.
        in_flight: Tiles worked on at once.
        tile_bytes: Memory of each.
    """

    tile_rows: int
    tile_cols: int
    in_flight: int
    tile_bytes: int

    @property
    def peak_bytes(self) -> int:
        """Expected peak of the whole run."""
        return _BASE_BYTES + self.in_flight * self.tile_bytes


def plan_run(
    grid: PixelGrid, load: TileLoad, threads: int, memory: int | None, side: int | None
) -> RunPlan:
    """Choose tile size and tiles in flight.

    The largest tile of which every thread can hold one; below the smallest, fewer threads.

    Args:
        grid: The pixels to work through.
        load: What a pixel costs.
        threads: Tiles that could be worked on at once.
        memory: Bytes that the run may take; half of what there is when None.
        side: Side of a tile, when the user chose one.

    Raises:
        MemoryPlanError: Not even one small tile fits.
    """
    limit = int(_DEFAULT_SHARE * total_memory()) if memory is None else memory
    free = limit - _BASE_BYTES
    sides = _TILE_SIDES if side is None else (side,)
    plans = (_plan_of(grid, load, threads, free, candidate) for candidate in sides)
    plan = next((plan for plan in plans if plan.in_flight == threads), None)
    plan = plan or _plan_of(grid, load, threads, free, sides[-1])
    if plan.peak_bytes > limit:
        raise MemoryPlanError(
            f"{limit / 2**20:.0f} MiB are too little: the program itself takes "
            f"{_BASE_BYTES / 2**20:.0f} MiB and one tile of {plan.tile_rows} x {plan.tile_cols} "
            f"pixels {plan.tile_bytes / 2**20:.0f} MiB; give at least "
            f"{plan.peak_bytes / 2**20:.0f} MiB"
        )
    return plan


def _plan_of(grid: PixelGrid, load: TileLoad, threads: int, free: int, side: int) -> RunPlan:
    """A plan with tiles of one size: as many in flight as fit, one at least."""
    rows, cols = min(side, grid.rows), min(side, grid.cols)
    tile_bytes = load.tile_bytes(rows, cols)
    return RunPlan(rows, cols, max(1, min(threads, free // tile_bytes)), tile_bytes)
