"""Memory is arithmetic: how large steps and tiles are and how many are worked on at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hsiclust.devices import total_memory
from hsiclust.engine import EngineOptions
from hsiclust.errors import MemoryPlanError
from hsiclust.grid import Window
from hsiclust.spectra import part_of
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
# Widest tile: its labels are one chunk of the label store.
_WIDEST_TILE = 4096
# Narrowest panel: below, the columns that two panels both read weigh too much.
_NARROWEST_PANEL = 512
# Steps that are in memory beside one for each strip at work: above them, and kept for the next.
_MORE_STEPS = 3
# What the interpreter, torch, GDAL and, in a worker process, Dask take before the first pixel.
_BASE_BYTES = 640 * 2**20
# The same on a CUDA device.
_DEVICE_BASE_BYTES = 768 * 2**20
# Part of the machine's memory that a run takes when it was given no limit, and of the device's.
_DEFAULT_SHARE = 0.5
_DEVICE_SHARE = 0.8
_FLOAT = 4


@dataclass(frozen=True)
class Load:
    """What a pixel costs while it is worked on.

    Attributes:
        bands: Bands that are read.
        dtype: Their data type.
        blocks: Rows and columns of the file's blocks.
        piece: Rows and columns that are read at once.
        components: Components after the transform.
        floats: Float32 values a pixel that the network holds at once.
        halo: Pixels around a tile.
        block: Side of the squares that the network sees at once.
        fixed: Bytes of each square that do not grow with it.
        cache: Bytes that the reading library keeps, whatever is read.
        cuda: Whether a CUDA device computes; then components and network are in its memory.
    """

    bands: int
    dtype: str
    blocks: tuple[int, int]
    piece: tuple[int, int]
    components: int
    floats: int
    halo: int
    block: int
    fixed: int = 0
    cache: int = 0
    cuda: bool = False

    def host(self, rows: int, cols: int) -> Share:
        """Memory of the machine for strips of this height and width."""
        raw, labels = self._raw_bytes(rows, cols), 4 * rows * min(cols, _WIDEST_TILE)
        if self.cuda:  # what was read is copied to pinned memory
            return Share(0, 2 * raw + labels)
        # What was read has rooms that are kept while the network works.
        network = self._network_bytes(rows, cols)
        return Share(self._step_bytes(rows, cols), raw + network + labels)

    def device(self, rows: int, cols: int) -> Share:
        """Memory of a CUDA device for them."""
        if not self.cuda:
            return Share(0, 0)
        # As they were read, as float32, and as float32 less their mean.
        raw = 3 * self._raw_bytes(rows, cols)
        return Share(self._step_bytes(rows, cols), max(raw, self._network_bytes(rows, cols)))

    def _step_bytes(self, rows: int, cols: int) -> int:
        """A step that was read and the room above it: components, and who is valid."""
        return (rows + 2 * self.halo) * (cols + 2 * self.halo) * (self.components * _FLOAT + 1)

    def _raw_bytes(self, rows: int, cols: int) -> int:
        """A piece that is being read: a byte a value says who is valid, a part is float32."""
        piece_rows, piece_cols = min(self.piece[0], rows), min(self.piece[1], cols)
        _, floats = part_of(self.bands, self.components, piece_rows, piece_cols)
        values = piece_rows * piece_cols * self.bands
        return values * (np.dtype(self.dtype).itemsize + 1) + floats * _FLOAT

    def _network_bytes(self, rows: int, cols: int) -> int:
        """A block in the network: a square, or as many pixels of a low tile."""
        edges = 2 * self.halo
        height, width = min(self.block, rows) + edges, min(cols, _WIDEST_TILE) + edges
        pixels = min((self.block + edges) ** 2, height * width)
        return pixels * _FLOAT * (2 * self.components + self.floats) + self.fixed


@dataclass(frozen=True)
class Share:
    """Bytes of a memory.

    Attributes:
        step: Of each step that is kept.
        strip: Of each strip at work, beside its steps.
    """

    step: int
    strip: int

    def of(self, strips: int, workers: int) -> int:
        """Bytes of so many strips at work in so many processes."""
        return (strips + _MORE_STEPS * workers) * self.step + strips * self.strip


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
        cache: Bytes of each that the reading library keeps.
        devices: CUDA devices that the processes share evenly.
    """

    tile_rows: int
    tile_cols: int
    panel: int
    in_flight: int
    host: Share
    device: Share = Share(0, 0)
    workers: int = 1
    leader: bool = False
    cache: int = 0
    devices: int = 1

    @property
    def base_bytes(self) -> int:
        """What the programs themselves take."""
        return (self.workers + self.leader) * _BASE_BYTES + self.workers * self.cache

    @property
    def peak_bytes(self) -> int:
        """Expected peak of the whole run."""
        return self.base_bytes + self.host.of(self.in_flight, self.workers)

    @property
    def device_bytes(self) -> int:
        """Expected peak on a CUDA device; 0 where none computes."""
        strips, workers = (-(-count // self.devices) for count in (self.in_flight, self.workers))
        held = self.device.of(strips, workers)
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
    plans = [_plan_of(load, engine, *shape) for shape in _shapes(area, load, side)]
    for plan in plans:
        if limits.hold(plan):
            return plan
    least = plans[-1]
    while not limits.hold(least) and least.in_flight > least.workers:
        least = replace(least, in_flight=least.in_flight - 1)
    if not limits.hold(least):
        raise MemoryPlanError(_refusal(least, limits, area))
    return least


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
    return (
        f"{limits.memory / 2**20:.0f} MiB are too little: the program itself takes "
        f"{least.base_bytes / 2**20:.0f} MiB{places}, and {strips} the rest; "
        f"give at least {-(-least.peak_bytes // 2**20)} MiB"
        + (" or fewer --workers" if least.workers > 1 else "")
    )


def _shapes(area: Window, load: Load, side: int | None) -> Iterator[tuple[int, int, int]]:
    """Heights and widths of tiles, and tiles in a panel, the best first."""
    for cols in _widths(area, load):
        for rows in (side,) if side is not None else _heights(area, load):
            width = min(side, area.cols) if side is not None else even_tile_size(cols, _WIDEST_TILE)
            yield min(rows, area.rows), width, -(-cols // width)


def _heights(area: Window, load: Load) -> list[int]:
    """Whole blocks of the file, as many as make a good strip; even strips where there are none."""
    block = load.blocks[0]
    heights = [max(block, height // block * block) for height in _HEIGHTS]
    if block == 1:
        heights = [_even_height(area.rows, height) for height in heights]
    return list(dict.fromkeys(heights))


def _even_height(rows: int, height: int) -> int:
    """The height of nearly equal strips, at most `height` high."""
    strips, lowest = _FEW_STRIPS if rows <= _FEW * height else _EVEN_STRIPS
    even = -(-rows // (-(-rows // (height * strips)) * strips))
    return even if even >= lowest else even_tile_size(rows, height)


def _widths(area: Window, load: Load) -> Iterator[int]:
    """The whole width, then halves of it, in whole blocks of the file."""
    block = load.blocks[1] if load.blocks[1] < area.cols else 1
    cols = area.cols
    yield cols
    while cols // 2 >= max(_NARROWEST_PANEL, block):
        cols = -(-cols // 2 // block) * block
        yield cols


def _plan_of(load: Load, engine: EngineOptions, rows: int, cols: int, panel: int) -> RunPlan:
    width = panel * cols
    return RunPlan(
        tile_rows=rows,
        tile_cols=cols,
        panel=panel,
        in_flight=engine.parallel,
        host=load.host(rows, width),
        device=load.device(rows, width),
        workers=engine.workers or 1,
        leader=engine.workers is not None,
        cache=load.cache,
        devices=max(1, len(engine.devices)),
    )
