"""Which tiles a training looks at: a bounded number, whatever the size of the scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hsiclust.marks import Marks
from hsiclust.tilegrid import TileGrid
from hsiclust.truth import Mask, Truth


def spread_tiles(
    tiles: TileGrid, candidates: Sequence[int], pixels: int, mask: Mask | None, seed: int
) -> list[int]:
    """Tiles that hold about `pixels` pixels together, spread over the scene.

    Args:
        tiles: How the scene is cut.
        candidates: Tiles to choose from.
        pixels: How many pixels they may hold together; one tile at least is chosen.
        mask: Tiles without a pixel in the mask are not chosen.
        seed: Of the choice within each stretch of the scene.
    """
    if mask is not None:
        candidates = [index for index in candidates if mask.read(tiles[index].core).any()]
    count = max(1, pixels // (tiles.tile_rows * tiles.tile_cols))
    if len(candidates) <= count:
        return list(candidates)
    edges = np.arange(count + 1) * len(candidates) // count
    picked = np.random.default_rng(seed).integers(edges[:-1], edges[1:])
    return [candidates[position] for position in picked]


class Shares:
    """What each scene of a training gives of the pixels that all may hold together.

    Of an archive of many scenes a share may be less than a tile, and a tile of each would know no
    bound. Such a scene gives one where those before it left enough of their shares, and none
    otherwise: all hold together what they may, and one tile more at most.

    Args:
        pixels: How many pixels all scenes may hold together.
        scenes: How many scenes there are.
        seed: Of the choice within each stretch of a scene.

    Attributes:
        without: Scenes so far that there was no tile left for.
    """

    def __init__(self, pixels: int, scenes: int, seed: int) -> None:
        self._pixels, self._scenes, self._seed = pixels, scenes, seed
        self._asked = self._given = 0
        self.without = 0

    def tiles_of(
        self, tiles: TileGrid, candidates: Sequence[int], mask: Mask | None
    ) -> Sequence[int]:
        """Tiles of the next scene; see `spread_tiles`."""
        self._asked += 1
        share = self._pixels // self._scenes
        size = tiles.tile_rows * tiles.tile_cols
        if share < size:
            if self._given > self._pixels * self._asked // self._scenes:
                self.without += 1
                return []
            share = size
        chosen = spread_tiles(tiles, candidates, share, mask, self._seed)
        self._given += len(chosen) * size
        return chosen


def labelled_tiles(tiles: TileGrid, marks: Marks, pixels: int) -> list[int]:
    """Tiles that hold labelled pixels, in rising order.

    Where not all can be taken, those that hold the largest parts of the classes: a label of a rare
    class counts for more.

    Args:
        tiles: How the scene is cut.
        marks: Labelled pixels.
        pixels: How many pixels they may hold together; one tile at least is chosen.
    """
    if len(marks) == 0:
        return []
    holding = tiles.holding(marks.rows, marks.cols)
    rarity = 1 / np.bincount(marks.numbers)[marks.numbers].astype(np.float64)
    found, owner = np.unique(holding, return_inverse=True)
    weights = np.bincount(owner, weights=rarity)
    count = max(1, pixels // (tiles.tile_rows * tiles.tile_cols))
    chosen = np.argsort(-weights, kind="stable")[:count]
    return sorted(found[chosen].tolist())


def tiles_to_score(tiles: TileGrid, held_out: Truth, pixels: int, seed: int) -> list[int]:
    """Tiles that hold held-out pixels, in rising order; where not all can be taken, drawn ones.

    Args:
        tiles: How the scene is cut.
        held_out: Labels that are held out.
        pixels: How many pixels they may hold together; one tile at least is chosen.
        seed: Of the drawing.
    """
    count = max(1, pixels // (tiles.tile_rows * tiles.tile_cols))
    chosen: list[int] = []
    for index in np.random.default_rng(seed).permutation(len(tiles)):
        if held_out.read(tiles[int(index)].core).any():
            chosen.append(int(index))
        if len(chosen) == count:
            break
    return sorted(chosen)
