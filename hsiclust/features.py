"""Vector files: the shapes of a layer and the class of each."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from hsiclust.errors import InputError
from hsiclust.location import is_virtual

Geometries = NDArray[np.object_]
Numbers = NDArray[np.int64]

LARGEST_NUMBER = np.iinfo(np.uint16).max


@dataclass(frozen=True, eq=False)
class Features:
    """What a layer holds.

    Attributes:
        crs: Well-known text of its reference system, or None.
        geometries: `(N,)` shapes in two dimensions, None where there is none.
        numbers: `(N,)` their classes, 0 where they have none.
        names: What the classes are called.
    """

    crs: str | None
    geometries: Geometries
    numbers: Numbers
    names: Mapping[int, str]


def read_features(
    path: str, field: str | None, layer: str | None, inside: bool = False
) -> Features:
    """Read all features of a layer.

    Args:
        path: GeoPackage, Shapefile, GeoJSON and such.
        field: Where the class stands. Whole numbers are kept, as text too; other texts are numbered
            in sorted order.
        layer: Which layer; may be None when one alone has shapes.
        inside: Every feature is class 1; no field is looked at.

    Raises:
        InputError: The file, layer or field cannot be used, or no field is named.
    """
    import pyogrio  # 60 MB that only vectors need
    from pyogrio.errors import DataLayerError, DataSourceError

    if not is_virtual(path) and not Path(path).exists():
        raise InputError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            # Of features that share an `id`: it is a class here, or nothing.
            warnings.simplefilter("ignore", RuntimeWarning)
            # Of shapes that have measures (M), which are dropped as heights are.
            warnings.filterwarnings("ignore", "Measured", UserWarning)
            chosen = _only_layer(path, pyogrio.list_layers(path)) if layer is None else layer
            fields = pyogrio.read_info(path, layer=chosen)["fields"].tolist()
            columns = [] if inside else [_chosen_field(path, field, fields)]
            meta, _, wkb, values = pyogrio.raw.read(
                path, layer=chosen, columns=columns, force_2d=True
            )
    except (DataSourceError, DataLayerError) as error:
        raise InputError(
            f"{path}: cannot be read as vectors: {' '.join(str(error).split())}"
        ) from error
    try:
        crs = CRS.from_user_input(meta["crs"]).to_wkt() if meta["crs"] else None
    except CRSError as error:
        raise InputError(f"{path}: its CRS {meta['crs']!r} is not understood") from error
    shapes: Geometries = shapely.from_wkb(wkb, on_invalid="ignore")
    if inside:
        return Features(crs, shapes, np.ones(len(shapes), np.int64), {1: "inside"})
    return Features(crs, shapes, *_numbers(path, columns[0], values[0]))


def _chosen_field(path: str, field: str | None, fields: Sequence[str]) -> str:
    there_are = f"there are: {', '.join(fields) or 'none'}"
    if field is None:
        raise InputError(f"{path}: name the field (--field) that holds the class; {there_are}")
    if field not in fields:
        raise InputError(f"{path}: no field {field!r}; {there_are}")
    return field


def _only_layer(path: str, layers: NDArray[np.object_]) -> str:
    """The one layer that has shapes; QGIS keeps styles in layers of their own."""
    spatial = [str(name) for name, kind in layers if kind is not None]
    if len(spatial) != 1:
        raise InputError(
            f"{path}: has {len(spatial)} layers with shapes"
            + (f"; name one of: {', '.join(spatial)}" if spatial else "")
        )
    return spatial[0]


def _numbers(path: str, field: str, column: NDArray[Any]) -> tuple[Numbers, dict[int, str]]:
    """Class numbers of features, 0 where they have none, and the numbers' names."""
    if column.dtype.kind == "O":
        return _numbered_texts(path, field, column)
    if column.dtype.kind not in "biuf":
        raise InputError(f"{path}: field {field!r} holds {column.dtype} values, not classes")
    # GDAL gives integers as floats when some are missing.
    values = np.nan_to_num(column.astype(np.float64), nan=0.0)
    wrong = values[(values != np.floor(values)) | (values > LARGEST_NUMBER)]
    if wrong.size:
        raise InputError(
            f"{path}: {wrong[0]} in field {field!r} is no class number; "
            f"these are whole and at most {LARGEST_NUMBER}"
        )
    numbers = np.maximum(values, 0).astype(np.int64)
    return numbers, {int(n): str(n) for n in np.unique(numbers) if n > 0}


def _numbered_texts(path: str, field: str, column: NDArray[Any]) -> tuple[Numbers, dict[int, str]]:
    """Texts numbered from 1 in sorted order, over the whole file: other scenes get the same.

    Codes that are kept as text (CSV, many Shapefiles) are numbers: sorted, 10 would come before 2,
    and another file that lacks some codes would number them otherwise.
    """
    texts = [" ".join(text.split()) if isinstance(text, str) else "" for text in column]
    classes = sorted(set(texts) - {""})
    if not 1 <= len(classes) <= LARGEST_NUMBER:
        raise InputError(f"{path}: field {field!r} holds {len(classes)} different texts")
    if all(_is_code(name) for name in classes):
        number = {name: int(name) for name in classes}
    else:
        number = {name: at for at, name in enumerate(classes, start=1)}
    numbers = np.array([number.get(text, 0) for text in texts], np.int64)
    return numbers, {at: name for name, at in number.items() if at}


def _is_code(text: str) -> bool:
    """Whether a text is a class number, and written as one."""
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_NUMBER))
    return digits and text == str(int(text)) and int(text) <= LARGEST_NUMBER
