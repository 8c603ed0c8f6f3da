"""Features of the pixels that a training holds, and which pixel lies where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hsiclust.models.base import Batch
from hsiclust.models.pixels import thinned
from hsiclust.models.scalespace import ScaleSpace

_NOWHERE = -1


@dataclass(frozen=True)
class PixelTable:
    """Pixels of some tiles as rows of a table.

    Attributes:
        features: `(M, F)`, float16.
        places: `(M, 3)`, int64; tile, row and column of each.
        sides: `(T, 2)`, int64; rows and columns of each tile.
        rows: `(sum of the tiles' pixels,)`, int32; the row of the table that holds a pixel, -1 for
            one that may not be learned from.
        starts: `(T,)`, int64; where each tile begins in `rows`.
    """

    features: Tensor
    places: Tensor
    sides: Tensor
    rows: Tensor
    starts: Tensor

    @classmethod
    def of(cls, space: ScaleSpace, tiles: Sequence[Batch]) -> PixelTable:
        """The pixels of evenly chosen tiles that may be learned from."""
        features, places, rows, sides = [], [], [], []
        count = 0
        for number, tile in enumerate(thinned(tiles)):
            fit = tile.fit[0]
            found = space(tile.within(space.halo).values)[0].movedim(0, -1)[fit]
            features.append(found.to(torch.float16))
            where = torch.nonzero(fit)
            places.append(torch.cat([torch.full_like(where[:, :1], number), where], dim=1))
            index = torch.full(fit.shape, _NOWHERE, dtype=torch.int32, device=fit.device)
            index[fit] = torch.arange(
                count, count + len(where), dtype=torch.int32, device=fit.device
            )
            rows.append(index.flatten())
            sides.append(fit.shape)
            count += len(where)
        lengths = torch.tensor([len(index) for index in rows])
        return cls(
            torch.cat(features),
            torch.cat(places),
            torch.tensor(sides, device=features[0].device),
            torch.cat(rows),
            (lengths.cumsum(0) - lengths).to(features[0].device),
        )

    def __len__(self) -> int:
        return len(self.features)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Rows of so many pixels, drawn with repetition; `(count,)`, int64."""
        drawn = torch.randint(len(self), (count,), generator=generator)
        return drawn.to(self.features.device)

    def displaced(self, chosen: Tensor, reach: int, generator: torch.Generator) -> Tensor:
        """For each pixel another at most `reach` pixels away, down and across, in the same tile.

        A pixel whose partner may not be learned from is its own partner.

        Args:
            chosen: `(M,)`, rows of the table.
            reach: Pixels.
            generator: Random numbers.

        Returns:
            `(M,)`, rows of the table.
        """
        shift = torch.randint(-reach, reach + 1, (len(chosen), 2), generator=generator)
        tile, place = self.places[chosen, 0], self.places[chosen, 1:]
        there = (place + shift.to(place.device)).clamp_min(0)
        there = torch.minimum(there, self.sides[tile] - 1)
        flat = self.starts[tile] + there[:, 0] * self.sides[tile, 1] + there[:, 1]
        partner = self.rows[flat].long()
        return torch.where(partner == _NOWHERE, chosen, partner)
