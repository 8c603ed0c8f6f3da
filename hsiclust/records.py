"""Pixel grids and bands as the JSON values that a store keeps of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from affine import Affine

from hsiclust.bands import Bands
from hsiclust.grid import PixelGrid, Window
from hsiclust.refsystems import wkt_of
from hsiclust.tilegrid import TileGrid


def grid_to_json(grid: PixelGrid) -> dict[str, Any]:
    """A pixel grid as JSON; floats keep every bit."""
    return {
        "rows": grid.rows,
        "cols": grid.cols,
        "transform": list(grid.transform[:6]),
        "crs": grid.crs,
    }


def grid_from_json(value: Mapping[str, Any]) -> PixelGrid:
    """The pixel grid that `grid_to_json` wrote.

    Raises:
        ValueError: It holds other values than numbers and a reference system.
    """
    size = _integers({name: value[name] for name in ("rows", "cols")})
    transform, crs = Affine(*value["transform"]), value["crs"]
    if not all(map(math.isfinite, transform)):
        raise ValueError(f"a transform of {value['transform']}")
    is_text = isinstance(crs, str) and "[" in crs  # not a number, which has none
    if crs is not None and not (is_text and wkt_of(crs)):
        raise ValueError(f"{crs!r:.60} is no reference system")
    return PixelGrid(**size, transform=transform, crs=crs)


def tiles_from_json(value: Mapping[str, Any]) -> TileGrid:
    """The tile grid that `dataclasses.asdict` turned into JSON.

    Raises:
        ValueError: It holds other values than whole numbers.
    """
    rest = dict(value)
    scene, area = (Window(**_integers(rest.pop(name))) for name in ("scene", "area"))
    return TileGrid(scene, area, **_integers(rest))


def bands_from_json(value: Mapping[str, Any]) -> Bands:
    """The bands that `dataclasses.asdict` turned into JSON."""
    return Bands(
        count=int(value["count"]),
        names=tuple(value["names"]),
        wavelengths=_tuple_or_none(value["wavelengths"]),
        fwhm=_tuple_or_none(value["fwhm"]),
        units=value["units"],
        good=_tuple_or_none(value["good"]),
    )


def _integers(value: Mapping[str, Any]) -> dict[str, int]:
    for name, number in value.items():
        if not isinstance(number, int):
            raise ValueError(f"{name} is {number!r}, no whole number")
    return dict(value)


def _tuple_or_none(value: list[Any] | None) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)
