"""Memory is arithmetic: how large steps and tiles are and how many are worked on at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hsiclust.devices import total_memory
from hsiclust.engine import EngineOptions
from hsiclust.errors import MemoryPlanError
from hsiclust.grid import Window
from hsiclust.load import NOTHING, WIDEST_TILE, Decoding, Load, Share
from hsiclust.readplan import ReadPlan
from hsiclust.tilegrid import even_tile_size

# Heights of a strip, the best first: in low ones halos weigh more, in high ones memory does.
_HEIGHTS = (128, 64, 32, 16)
# The number of strips is a multiple of the first number, so that no thread is idle while the last
# are done, unless that makes strips lower than the second. It is no function of the threads: the
# tiles of a scene must not depend on who works on them.
_EVEN_STRIPS = (16, 96)
# The same of a scene of so few strips that an idle thread weighs more than a halo.
_FEW = 10
_FEW_STRIPS = (4, 80)
# Columns below which strips are higher, so that each has as many pixels as one of this width: a
# strip costs some time whatever it holds.
_NARROW = 512
# Narrowest panel: below, the columns that two panels both read weigh too much.
_NARROWEST_PANEL = 512
# What the interpreter, torch, GDAL and, in a worker process, Dask take before the first pixel, and
# what a heap cannot give back: 300 MiB and 100 to 200.
_BASE_BYTES = 512 * 2**20
# The same of a process that leads others, and labels nothing.
_LEADER_BYTES = 384 * 2**20
# The same on a CUDA device.
_DEVICE_BASE_BYTES = 768 * 2**20
# Part of the machine's memory that a run takes when it was given no limit, and of the device's.
_DEFAULT_SHARE = 0.5
_DEVICE_SHARE = 0.8


@dataclass(frozen=True)
class RunPlan:
    """How a scene is going to be worked through.

    Attributes:
        tile_rows: Height of a core.
        tile_cols: Width of a core.
        panel: Columns of tiles that are read together.
        in_flight: Strips at work at once, over all processes.
        host: What strips take of the machine's memory.
        device: What they take of a CUDA device's.
        workers: Processes that work.
        leader: Whether another process leads them.
        decoding: What the reading library takes.
        devices: CUDA devices that the processes share evenly.
        steps: Steps that the scene is read in.
    """

    tile_rows: int
    tile_cols: int
    panel: int
    in_flight: int
    host: Share
    device: Share = NOTHING
    workers: int = 1
    leader: bool = False
    decoding: Decoding | None = None
    devices: int = 1
    steps: int | None = None

    @property
    def threads(self) -> int:
        """Strips at work at once in each process."""
        return max(1, self.in_flight // self.workers)

    @property
    def base_bytes(self) -> int:
        """What the programs themselves take."""
        return self.workers * _BASE_BYTES + self.leader * _LEADER_BYTES

    @property
    def cache_bytes(self) -> int:
        """What the reading library keeps."""
        if self.decoding is None:
            return 0
        return self.workers * self.decoding.of_process(-(-self.in_flight // self.workers))

    @property
    def peak_bytes(self) -> int:
        """Expected peak of the whole run."""
        strips = self.host.of(self.in_flight, self.workers, self.steps)
        return self.base_bytes + self.cache_bytes + strips

    @property
    def device_bytes(self) -> int:
        """Expected peak on a CUDA device; 0 where none computes."""
        strips, workers = (-(-count // self.devices) for count in (self.in_flight, self.workers))
        held = self.device.of(strips, workers, self.steps)
        return held and held + workers * _DEVICE_BASE_BYTES


@dataclass(frozen=True)
class Limits:
    """Bytes that a run may take.

    Attributes:
        memory: Of the machine.
        device: Of the CUDA device.
    """

    memory: int
    device: int

    @classmethod
    def of(cls, memory: int | None, device: int | None, free: int | None) -> Limits:
        """What was asked for; else half of the machine, and most of what is `free` on the device.

        What is free of a device is there for it alone.
        """
        return cls(
            int(_DEFAULT_SHARE * total_memory()) if memory is None else memory,
            int(_DEVICE_SHARE * (free or 0)) if device is None else device,
        )

    def hold(self, plan: RunPlan) -> bool:
        """Whether a plan fits."""
        return plan.peak_bytes <= self.memory and plan.device_bytes <= self.device


def plan_run(
    area: Window, load: Load, engine: EngineOptions, limits: Limits, side: int | None
) -> RunPlan:
    """Choose the height of strips, the width of panels and the number of strips at work.

    The first of all shapes of which every thread can hold one strip; below that, fewer threads.

    Args:
        area: The pixels to work through.
        load: What a pixel costs.
        engine: Threads and processes that could work.
        limits: Bytes that the run may take.
        side: Side of a tile, when the user chose one.

    Raises:
        MemoryPlanError: Not even one small strip fits.
    """
    for shapes in _shapes(area, load, side):
        plans = [_plan_of(area, load, engine, *shape) for shape in shapes]
        plan = next(filter(limits.hold, plans), None) or _with_fewer_strips(plans[-1], limits)
        if limits.hold(plan):
            return plan
    raise MemoryPlanError(_refusal(plan, limits, area))


def plan_tiles(load: Load, engine: EngineOptions, limits: Limits, reading: ReadPlan) -> RunPlan:
    """As `plan_run`, where the scene is cut already: by a run that goes on, or in a tile store.

    Raises:
        MemoryPlanError: Not even one of its strips fits.
    """
    tiles = reading.tiles
    shape = tiles.tile_rows, tiles.tile_cols, reading.panel
    plan = _with_fewer_strips(_plan_of(tiles.area, load, engine, *shape), limits)
    if not limits.hold(plan):
        raise MemoryPlanError(_refusal(plan, limits, tiles.area))
    return plan


def _with_fewer_strips(plan: RunPlan, limits: Limits) -> RunPlan:
    """A plan of which so many strips are at work at once as memory holds; one at least."""
    while not limits.hold(plan) and plan.in_flight > plan.workers:
        plan = replace(plan, in_flight=plan.in_flight - 1)
    return plan


def _refusal(least: RunPlan, limits: Limits, area: Window) -> str:
    """What is too little, what it would have to hold, and what would be enough."""
    cols = min(least.panel * least.tile_cols, area.cols)
    strips = f"strips of {least.tile_rows} rows and {cols} columns"
    if least.device_bytes > limits.device:
        return (
            f"{limits.device / 2**20:.0f} MiB of the device are too little for {strips}; "
            f"give at least {-(-least.device_bytes // 2**20)} MiB with --gpu-memory"
        )
    places = f" in {least.workers + 1} processes" if least.leader else ""
    cache = f", decoded blocks {least.cache_bytes / 2**20:.0f} MiB" if least.cache_bytes else ""
    return (
        f"{limits.memory / 2**20:.0f} MiB are too little: the program itself takes "
        f"{least.base_bytes / 2**20:.0f} MiB{places}{cache}, and {strips} the rest; "
        f"give at least {-(-least.peak_bytes // 2**20)} MiB with --memory"
        + (" or fewer --workers" if least.workers > 1 else "")
    )


def _shapes(area: Window, load: Load, side: int | None) -> Iterator[list[tuple[int, int, int]]]:
    """Heights and widths of tiles, and tiles in a panel, the best first.

    Those of a later list have blocks decoded more often.
    """
    for widths in _widths(area, load):
        shapes = []
        for cols in widths:
            for rows in (side,) if side is not None else _heights(area, load):
                most = even_tile_size(cols, WIDEST_TILE)
                width = most if side is None else min(side, area.cols)
                shapes.append((min(rows, area.rows), width, -(-cols // width)))
        yield shapes


def _heights(area: Window, load: Load) -> list[int]:
    """Whole blocks of the file, as many as make a good strip; even strips where there are none."""
    block, more = load.blocks[0], max(1, _NARROW // area.cols)
    wanted = [height * more for height in _HEIGHTS]
    heights = [max(block, height // block * block) for height in wanted]
    if block == 1:
        heights = [_even_height(area.rows, height) for height in heights]
    return list(dict.fromkeys(heights))


def _even_height(rows: int, height: int) -> int:
    """The height of nearly equal strips, at most `height` high."""
    strips, lowest = _FEW_STRIPS if rows <= _FEW * height else _EVEN_STRIPS
    even = -(-rows // (-(-rows // (height * strips)) * strips))
    return even if even >= lowest else even_tile_size(rows, height)


def _widths(area: Window, load: Load) -> Iterator[list[int]]:
    """The whole width, then halves of it, in whole blocks of the file.

    Lines that are read as they lie are cut anywhere. Blocks that are decoded, and as wide as the
    area, are cut only where nothing else fits, not even with fewer threads: each is decoded once a
    panel.
    """
    wide = load.blocks[1] >= area.cols
    widths = [area.cols, *_halves(area.cols, 1 if wide else load.blocks[1])]
    if wide and load.decoding is not None and load.decoding.block:
        yield from ([cols] for cols in widths)
    else:
        yield widths


def _halves(cols: int, block: int) -> Iterator[int]:
    while cols // 2 >= max(_NARROWEST_PANEL, block):
        cols = -(-cols // 2 // block) * block
        yield cols


def _plan_of(
    area: Window, load: Load, engine: EngineOptions, rows: int, cols: int, panel: int
) -> RunPlan:
    width, step = panel * cols, load.step_rows(rows, area)
    workers, panels = engine.workers or 1, -(-area.cols // width)
    strips = panels * -(-area.rows // rows)
    return RunPlan(
        tile_rows=rows,
        tile_cols=cols,
        panel=panel,
        in_flight=max(workers, min(engine.parallel, strips)),
        host=load.host(rows, width, step),
        device=load.device(rows, width, step),
        workers=workers,
        leader=engine.workers is not None,
        decoding=load.decoding,
        devices=max(1, len(engine.devices)),
        steps=panels * (-(-(area.rows + 2 * load.halo) // step) + 1),
    )
