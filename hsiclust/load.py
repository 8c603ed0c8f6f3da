"""What memory the work on a scene takes: a pixel, a step, a strip, and what decodes blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hsiclust.grid import Window
from hsiclust.spectra import part_of

WIDEST_TILE = 4096
"""Columns of a tile at most: its labels are one chunk of the label store."""

# Steps that are in memory beside one for each strip at work: above them, and kept for the next.
_MORE_STEPS = 3
_FLOAT = 4


@dataclass(frozen=True)
class Decoding:
    """What a library takes that decodes whole blocks, beside what it gives.

    Attributes:
        cache: Bytes that it keeps in each process, however little is read.
        kept: Bytes of blocks that each thread needs it to keep; together they may be more.
        block: Bytes of a block with all bands that are decoded together; 0 where none is.
        width: Columns of a block.
        piece: Bytes that are decoded at once, where a block is no larger.
    """

    cache: int = 0
    kept: int = 0
    block: int = 0
    width: int = 1
    piece: int = 0

    def of_process(self, threads: int) -> int:
        """Bytes that are kept for so many threads."""
        return max(self.cache, self.kept * threads)

    def beside(self, cols: int, nbytes: int) -> int:
        """Bytes of a thread that reads so many columns: blocks decoded, and what is taken of them.

        Args:
            cols: Columns.
            nbytes: Bytes that it reads at once.
        """
        blocks = -(-cols // self.width) * self.block
        return 2 * max(blocks, min(nbytes, self.piece))


@dataclass(frozen=True)
class Share:
    """Bytes of a memory.

    Attributes:
        step: Of each step that is kept.
        strip: Of each strip at work, beside its steps.
    """

    step: int
    strip: int

    def of(self, strips: int, workers: int, steps: int | None = None) -> int:
        """Bytes of so many strips at work in so many processes, of a scene of so many steps."""
        kept = strips + _MORE_STEPS * workers
        if steps is not None:  # and one that was used before
            kept = min(kept, (steps + 1) * workers)
        return kept * self.step + strips * self.strip


NOTHING = Share(0, 0)
"""Of a memory that is not used."""


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
        decoding: What the reading library takes to decode blocks; None where a file is read as
            it lies.
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
    decoding: Decoding | None = None
    cuda: bool = False

    def host(self, rows: int, cols: int, step: int | None = None) -> Share:
        """Memory of the machine for strips of this height and width.

        Args:
            rows: Height of a strip.
            cols: Width of a strip.
            step: Rows that are read for it; more than its own where the file's blocks are higher.
        """
        step = rows if step is None else step
        raw, labels = self._raw_bytes(step, cols), 4 * rows * min(cols, WIDEST_TILE)
        if self.decoding is not None:
            piece = min(self.piece[0], step) * min(self.piece[1], cols) * self._pixel_bytes
            raw += self.decoding.beside(min(self.piece[1], cols), piece)
        if self.cuda:  # what was read is copied to pinned memory
            return Share(0, 2 * raw + labels)
        # What was read has rooms that are kept while the network works.
        network = self._network_bytes(rows, cols)
        return Share(self._step_bytes(step, cols), raw + network + labels)

    def device(self, rows: int, cols: int, step: int | None = None) -> Share:
        """Memory of a CUDA device for them."""
        if not self.cuda:
            return NOTHING
        step = rows if step is None else step
        # As they were read, as float32, and as float32 less their mean.
        raw = 3 * self._raw_bytes(step, cols)
        return Share(self._step_bytes(step, cols), max(raw, self._network_bytes(rows, cols)))

    def step_rows(self, rows: int, area: Window) -> int:
        """Rows of a step: whole blocks, as `ReadPlan.of` cuts them, where there are so many."""
        return min(-(-rows // self.blocks[0]) * self.blocks[0], area.rows + 2 * self.halo)

    @property
    def _pixel_bytes(self) -> int:
        return self.bands * np.dtype(self.dtype).itemsize

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
        """A block in the network: a square, or as many pixels of a low or narrow tile."""
        edges = 2 * self.halo
        height, width = rows + edges, min(cols, WIDEST_TILE) + edges
        pixels = min((self.block + edges) ** 2, height * width)
        return pixels * _FLOAT * (2 * self.components + self.floats) + self.fixed
