"""The pixels that a training looks at, as rows of a table; which lies where, and what it is.

All pixels of evenly chosen tiles, then the labelled ones of every other tile: a label is never
lost, however many tiles there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hsiclust.models.base import Batch
from hsiclust.models.pixels import thinned_numbers

NOWHERE = -1
UNLABELLED = -1


@dataclass(frozen=True)
class PixelTable:
    """Pixels of some tiles.

    Attributes:
        tiles: All tiles of the training; read again for each kind of features.
        numbers: Which of them have rows.
        chosen: Of each of those, the pixels that are rows, `(row, col)`, bool.
        whole: How many of those are there with every pixel that may be learned from; they come
            first.
        places: `(M, 3)`, int64; tile (counted among `numbers`), row and column of each pixel.
        rows: Of each tile, the row of each pixel, `(row, col)`, int64; -1 for one that is none.
        classes: `(M,)`, int64; class of each pixel from 0, -1 where it has no label.
    """

    tiles: Sequence[Batch]
    numbers: tuple[int, ...]
    chosen: tuple[Tensor, ...]
    whole: int
    places: Tensor
    rows: tuple[Tensor, ...]
    classes: Tensor

    @classmethod
    def of(cls, tiles: Sequence[Batch]) -> PixelTable:
        """The table of a training's tiles."""
        fits, known = [], []
        for tile in tiles:
            fits.append(tile.fit[0])
            known.append(_classes(tile))
        whole = thinned_numbers([int(fit.sum()) for fit in fits])
        others = [
            number
            for number in range(len(fits))
            if number not in set(whole) and bool((known[number] >= 0).any())
        ]
        numbers = (*whole, *others)
        chosen = tuple(fits[n] if n in set(whole) else known[n] >= 0 for n in numbers)
        places, rows, count = [], [], 0
        for at, mask in enumerate(chosen):
            where = torch.nonzero(mask)
            places.append(torch.cat([torch.full_like(where[:, :1], at), where], dim=1))
            row = torch.full(mask.shape, NOWHERE, dtype=torch.int64, device=mask.device)
            row[mask] = torch.arange(count, count + len(where), device=mask.device)
            rows.append(row)
            count += len(where)
        classes = [known[number][mask] for number, mask in zip(numbers, chosen, strict=True)]
        return cls(
            tiles=tiles,
            numbers=numbers,
            chosen=chosen,
            whole=len(whole),
            places=torch.cat(places),
            rows=tuple(rows),
            classes=torch.cat(classes),
        )

    def __len__(self) -> int:
        return len(self.places)

    @property
    def labelled(self) -> Tensor:
        """Rows of the labelled pixels, `(L,)`."""
        return torch.nonzero(self.classes >= 0)[:, 0]

    def features(self, of: Callable[[Tensor], Tensor], context: int) -> Tensor:
        """Features of every pixel.

        Args:
            of: Gives those of a tile, `(1, C, H, W)` to `(1, F, H - 2 context, W - 2 context)`.
            context: Pixels around a tile that it needs.

        Returns:
            `(M, F)`.
        """
        return torch.cat(
            [
                of(self.tiles[number].within(context).values)[0].movedim(0, -1)[mask]
                for number, mask in zip(self.numbers, self.chosen, strict=True)
            ]
        )

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Rows of so many pixels, drawn with repetition; `(count,)`, int64."""
        drawn = torch.randint(len(self), (count,), generator=generator)
        return drawn.to(self.places.device)


class Neighbours:
    """Finds a pixel's neighbours in a table.

    Args:
        table: The pixels.
    """

    def __init__(self, table: PixelTable) -> None:
        sides = [row.shape for row in table.rows]
        lengths = torch.tensor([rows * cols for rows, cols in sides])
        device = table.places.device
        self._places = table.places
        self._sides = torch.tensor(sides, device=device)
        self._starts = (lengths.cumsum(0) - lengths).to(device)
        self._rows = torch.cat([row.flatten() for row in table.rows])

    def at(self, chosen: Tensor, shift: Tensor) -> Tensor:
        """The pixels some rows and columns away, in the same tile.

        Args:
            chosen: `(M,)`, rows of the table.
            shift: `(M, 2)` or `(2,)`, down and across; what leads out of the tile ends at its edge.

        Returns:
            `(M,)`, rows of the table; -1 where there is no such row.
        """
        tile, place = self._places[chosen, 0], self._places[chosen, 1:]
        there = (place + shift.to(place.device)).clamp_min(0)
        there = torch.minimum(there, self._sides[tile] - 1)
        return self._rows[self._starts[tile] + there[:, 0] * self._sides[tile, 1] + there[:, 1]]

    def drawn(self, chosen: Tensor, reach: int, generator: torch.Generator) -> Tensor:
        """For each pixel another at most `reach` pixels away, down and across, `(M,)`.

        A pixel whose partner is no row of the table is its own partner.
        """
        shift = torch.randint(-reach, reach + 1, (len(chosen), 2), generator=generator)
        partner = self.at(chosen, shift)
        return torch.where(partner == NOWHERE, chosen, partner)


def _classes(tile: Batch) -> Tensor:
    """Class of each pixel of a tile that may be learned from, `(row, col)`, -1 without a label."""
    fit = tile.fit[0]
    if tile.lesson is None:
        return torch.full(fit.shape, UNLABELLED, dtype=torch.int64, device=fit.device)
    labelled = fit & (tile.lesson.trust[0] > 0)
    return torch.where(labelled, tile.lesson.classes[0].long(), UNLABELLED)
