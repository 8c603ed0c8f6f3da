"""Tiles are labelled block by block: what the network holds of a whole tile would be much."""

from __future__ import annotations

import logging

import numpy as np
import torch

from hsiclust.errors import HsiclustError
from hsiclust.labeller import Labeller, Labels
from hsiclust.strips import Strip
from hsiclust.tilegrid import Tile

log = logging.getLogger(__name__)

_SMALLEST_BLOCK = 32


class TileLabeller:
    """Labels tiles; in smaller blocks from the moment that a device has no memory for larger.

    Args:
        labeller: Labels blocks.
        side: Largest side of a block, in pixels.
    """

    def __init__(self, labeller: Labeller, side: int) -> None:
        self.labeller = labeller
        self.side = side

    def __call__(self, strip: Strip, tile: Tile) -> Labels:
        """Label a tile of a strip.

        Raises:
            HsiclustError: The device has no memory for the smallest block.
        """
        while True:
            side = self.side
            try:
                return self._label(strip, tile, side)
            except torch.OutOfMemoryError as error:
                if side <= _SMALLEST_BLOCK:
                    raise HsiclustError(
                        f"the device has no memory for blocks of {side} x {side} pixels: {error}"
                    ) from error
            # Out here the failed block's memory is free again.
            self._halve(side)

    def _label(self, strip: Strip, tile: Tile, side: int) -> Labels:
        shape = (tile.core.rows, tile.core.cols)
        classes, confidence = np.empty(shape, np.uint8), None
        for block in strip.blocks(tile, side):
            here = block.core.relative_to(tile.core).slices
            found = self.labeller(strip.read(block))
            classes[here] = found.classes
            if found.confidence is not None:
                confidence = np.empty_like(classes) if confidence is None else confidence
                confidence[here] = found.confidence
        return Labels(classes, confidence)

    def _halve(self, side: int) -> None:
        """Go on with smaller blocks, unless another thread has said so already."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.side == side:
            self.side = max(_SMALLEST_BLOCK, side // 2)
            log.warning("out of device memory: going on with blocks of %d pixels", self.side)
