"""The pixels that a training looks at, as rows of a table; which lies where, and what it is.

Of a small training all pixels; of a large one those of square windows spread over its tiles, so
that neighbours stay neighbours, and every labelled pixel wherever it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hsiclust.errors import InputError
from hsiclust.models.base import Batch

NOWHERE = -1
UNLABELLED = -1
# Pixels of a training up to which all are looked at; of more, so many in windows of this side.
_MOST_PIXELS = 2**16
_WINDOW = 48
_APART = 10**8  # columns between one scene and the next


@dataclass(frozen=True)
class Patch:
    """A window of a tile, with what lies around it.

    Attributes:
        values: `(1, C, rows + 2 context, cols + 2 context)`, float16.
        chosen: Its pixels that are rows of the table, `(rows, cols)`, bool.
        classes: `(rows, cols)`, int64; class from 0, -1 where there is no label.
        place: Row and column of its first pixel on the ground; scenes lie far apart.
    """

    values: Tensor
    chosen: Tensor
    classes: Tensor
    place: tuple[int, int]

    @property
    def context(self) -> int:
        """Pixels around the window, on each side."""
        return (self.values.shape[2] - self.chosen.shape[0]) // 2

    def features(self, of: Callable[[Tensor], Tensor], context: int) -> Tensor:
        """See `PixelTable.features`; `(M, F)`."""
        edge = self.context - context
        rows, cols = self.values.shape[2:]
        values = self.values[..., edge : rows - edge, edge : cols - edge].float()
        return of(values)[0].movedim(0, -1)[self.chosen]


@dataclass(frozen=True)
class PixelTable:
    """Pixels of some windows.

    Attributes:
        patches: The windows.
        places: `(M, 3)`, int64; window, and row and column in it, of each pixel.
        rows: Of each window, the row of each pixel, `(rows, cols)`, int64; -1 for one that is none.
        ground: `(M, 2)`, int64; row and column of each pixel on the ground.
        classes: `(M,)`, int64; class of each pixel from 0, -1 where it has no label.
    """

    patches: tuple[Patch, ...]
    places: Tensor
    rows: tuple[Tensor, ...]
    ground: Tensor
    classes: Tensor

    @classmethod
    def of(cls, tiles: Sequence[Batch]) -> PixelTable:
        """The table of a training's tiles, each of which is read twice.

        Raises:
            InputError: None of their pixels may be learned from.
        """
        pixels = [int(tile.fit.sum()) for tile in tiles]
        patches = tuple(_patches(tiles, _windowed(pixels)))
        if not patches:
            raise InputError("no pixel to learn from")
        places, rows, ground, classes, count = [], [], [], [], 0
        for number, patch in enumerate(patches):
            where = torch.nonzero(patch.chosen)
            places.append(torch.cat([torch.full_like(where[:, :1], number), where], dim=1))
            row = torch.full(patch.chosen.shape, NOWHERE, device=where.device)
            row[patch.chosen] = torch.arange(count, count + len(where), device=where.device)
            rows.append(row)
            ground.append(where + torch.tensor(patch.place, device=where.device))
            classes.append(patch.classes[patch.chosen])
            count += len(where)
        return cls(patches, torch.cat(places), tuple(rows), torch.cat(ground), torch.cat(classes))

    def __len__(self) -> int:
        return len(self.places)

    @property
    def labelled(self) -> Tensor:
        """Rows of the labelled pixels, `(L,)`."""
        return torch.nonzero(self.classes >= 0)[:, 0]

    def features(self, of: Callable[[Tensor], Tensor], context: int) -> Tensor:
        """Features of every pixel.

        Args:
            of: Gives those of a window, `(1, C, H, W)` to `(1, F, H - 2 context, W - 2 context)`.
            context: Pixels around a window that it needs.

        Returns:
            `(M, F)`.
        """
        return torch.cat([patch.features(of, context) for patch in self.patches])

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
        """The pixels some rows and columns away, in the same window.

        Args:
            chosen: `(M,)`, rows of the table.
            shift: `(M, 2)` or `(2,)`, down and across; what leads out of the window ends at its
                edge.

        Returns:
            `(M,)`, rows of the table; -1 where there is no such row.
        """
        window, place = self._places[chosen, 0], self._places[chosen, 1:]
        there = (place + shift.to(place.device)).clamp_min(0)
        there = torch.minimum(there, self._sides[window] - 1)
        flat = self._starts[window] + there[:, 0] * self._sides[window, 1] + there[:, 1]
        return self._rows[flat]

    def drawn(self, chosen: Tensor, reach: int, generator: torch.Generator) -> Tensor:
        """For each pixel another at most `reach` pixels away, down and across, `(M,)`.

        A pixel whose partner is no row of the table is its own partner.
        """
        shift = torch.randint(-reach, reach + 1, (len(chosen), 2), generator=generator)
        partner = self.at(chosen, shift)
        return torch.where(partner == NOWHERE, chosen, partner)


def _windowed(pixels: Sequence[int]) -> set[int] | None:
    """Numbers of the tiles that a window is looked at of; None where all are looked at whole."""
    if sum(pixels) <= _MOST_PIXELS:
        return None
    some = [number for number, count in enumerate(pixels) if count]
    step = max(1.0, len(some) * _WINDOW**2 / _MOST_PIXELS)
    return {some[int(at * step)] for at in range(int(len(some) / step))}


def _patches(tiles: Sequence[Batch], windowed: set[int] | None) -> Iterator[Patch]:
    """Windows that hold the pixels of the table."""
    for number, tile in enumerate(tiles):
        fit, known = tile.fit[0], classes_of(tile)
        if windowed is None:
            if bool(fit.any()):
                yield _patch(number, tile, fit, known)
            continue
        central = torch.zeros_like(fit)
        if number in windowed:
            top, left = (max(0, side - _WINDOW) // 2 for side in fit.shape)
            central[top : top + _WINDOW, left : left + _WINDOW] = True
            if bool((central & fit).any()):
                yield _patch(number, tile, central & fit, known)
        labelled = (known >= 0) & ~central
        if bool(labelled.any()):
            yield _patch(number, tile, labelled, known)


def _patch(number: int, tile: Batch, chosen: Tensor, known: Tensor) -> Patch:
    """The smallest window that holds the chosen pixels of a tile."""
    rows, cols = (torch.nonzero(chosen.any(dim=axis))[:, 0] for axis in (1, 0))
    (top, bottom), (left, right) = ((int(at[0]), int(at[-1]) + 1) for at in (rows, cols))
    around = 2 * tile.context
    values = tile.values[..., top : bottom + around, left : right + around]
    inside = (slice(top, bottom), slice(left, right))
    site, row, col = tile.place or (number, 0, 0)
    return Patch(
        values.to(torch.float16, copy=True),
        chosen[inside].clone(),
        known[inside].clone(),
        (row + top, col + left + site * _APART),
    )


def classes_of(tile: Batch) -> Tensor:
    """Class of each pixel of a tile that may be learned from, `(row, col)`, -1 without a label."""
    if tile.lesson is None:
        return torch.full_like(tile.fit[0], UNLABELLED, dtype=torch.int64)
    return torch.where(tile.labelled[0], tile.lesson.classes[0].long(), UNLABELLED)
