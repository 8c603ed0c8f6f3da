"""Tiles are labelled block by block, in smaller ones when the device's memory ends."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from hsiclust.blockwise import TileLabeller
from hsiclust.components import Components
from hsiclust.errors import HsiclustError
from hsiclust.grid import Window
from hsiclust.labeller import Labels
from hsiclust.tilegrid import Tile, TileGrid, even_tile_size

SCENE = Window(0, 0, 100, 70)
NUMBERS = np.arange(100 * 70, dtype=np.int64).reshape(100, 70) % 251


@dataclass
class NumberStrip:
    """Its blocks hold the numbers of the scene."""

    def blocks(self, tile: Tile, side: int) -> Iterable[Tile]:
        rows, cols = (even_tile_size(size, side) for size in (tile.core.rows, tile.core.cols))
        return TileGrid(SCENE, tile.core, rows, cols, 0)

    def read(self, block: Tile) -> Components:
        values = torch.from_numpy(NUMBERS[block.core.slices])[None]
        return Components(values, torch.ones(values.shape[1:], dtype=torch.bool))


@dataclass
class SmallDevice:
    """Labels a pixel by its number; holds blocks of so many pixels."""

    pixels: int
    halo: int = 0
    seen: list[int] = field(default_factory=list)

    def __call__(self, components: Components) -> Labels:
        numbers = components.values[0].numpy().astype(np.uint8)
        if numbers.size > self.pixels:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.seen.append(numbers.size)
        return Labels(numbers, numbers // 3)


TILE = TileGrid(SCENE, SCENE, 96, 70, 0)[0]


@pytest.mark.parametrize("pixels", [10_000, 64 * 70, 32 * 36])
def test_a_tile_is_the_sum_of_its_blocks(pixels: int, caplog: pytest.LogCaptureFixture) -> None:
    label = TileLabeller(SmallDevice(pixels), 128)
    found = label(NumberStrip(), TILE)
    assert np.array_equal(found.classes, NUMBERS[:96].astype(np.uint8))
    assert np.array_equal(found.confidence, NUMBERS[:96].astype(np.uint8) // 3)
    assert ("out of device memory" in caplog.text) == (pixels < 96 * 70)


def test_smaller_blocks_stay() -> None:
    device = SmallDevice(36 * 36)
    label = TileLabeller(device, 128)
    label(NumberStrip(), TILE)
    assert label.side == 32
    device.seen.clear()
    label(NumberStrip(), TILE)
    assert sum(device.seen) == 96 * 70


def test_a_device_that_holds_nothing_is_said() -> None:
    with pytest.raises(HsiclustError, match="no memory for blocks of 32 x 32"):
        TileLabeller(SmallDevice(100), 128)(NumberStrip(), TILE)
