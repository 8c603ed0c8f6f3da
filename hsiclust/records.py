"""Pixel grids and bands as the JSON values that a store keeps of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from affine import Affine

from hsiclust.bands import Bands
from hsiclust.grid import PixelGrid


def grid_to_json(grid: PixelGrid) -> dict[str, Any]:
    """A pixel grid as JSON; floats keep every bit."""
    return {
        "rows": grid.rows,
        "cols": grid.cols,
        "transform": list(grid.transform[:6]),
        "crs": grid.crs,
    }


def grid_from_json(value: Mapping[str, Any]) -> PixelGrid:
    """The pixel grid that `grid_to_json` wrote."""
    return PixelGrid(
        int(value["rows"]), int(value["cols"]), Affine(*value["transform"]), value["crs"]
    )


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


def _tuple_or_none(value: list[Any] | None) -> tuple[Any, ...] | None:
    return None if value is None else tuple(value)
