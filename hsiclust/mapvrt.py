"""The VRT that tells GDAL all that it is to know of a map whose values lie in raw files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from hsiclust.grid import PixelGrid
from hsiclust.mapformat import Driver, MapFormat
from hsiclust.palette import AS_ENVI, UNCLASSIFIED, Classes
from hsiclust.pyramid import Level


@dataclass(frozen=True)
class Layer:
    """What the values of a map mean.

    Attributes:
        resampling: How GDAL makes overviews.
        nodata: Value of pixels that have none.
        largest: Largest value.
        classes: Names and colours, where the values are classes.
    """

    resampling: str
    nodata: int
    largest: int
    classes: Classes | None


def write_vrt(
    vrt: Path, raw: Path, grid: PixelGrid, form: MapFormat, layer: Layer, levels: Sequence[Level]
) -> None:
    """Describe the raw file of a map, and those of its overviews, which lie beside it.

    Args:
        vrt: File to write.
        raw: The map's values, row by row, uint8.
        grid: Shape, transform and CRS of the map.
        form: Driver and tags.
        layer: What the values mean.
        levels: Overviews, the largest first.
    """
    root = _dataset(grid.rows, grid.cols)
    if grid.crs is not None:
        _add(root, "SRS", grid.crs)
    if grid.georeferenced:
        _add(root, "GeoTransform", ", ".join(repr(float(v)) for v in grid.transform.to_gdal()))
    metadata = _add(root, "Metadata")
    for key, value in sorted(form.tags.items()):
        _add(metadata, "MDI", value, key=key)
    band = _add_band(root, layer)
    if layer.classes is not None:
        _add_classes(band, layer.classes, form.driver)
    for level in levels:
        overview = level.file.with_suffix(".vrt")
        small = _dataset(level.rows, level.cols)
        _add_raw(_add_band(small, layer), level.file, level.cols)
        _save(small, overview)
        part = _add(band, "Overview")
        _add(part, "SourceFilename", overview.name, relativeToVRT="1")
        _add(part, "SourceBand", "1")
    _add_raw(band, raw, grid.cols)
    _save(root, vrt)


def _dataset(rows: int, cols: int) -> ElementTree.Element:
    return ElementTree.Element("VRTDataset", rasterXSize=str(cols), rasterYSize=str(rows))


def _add_band(root: ElementTree.Element, layer: Layer) -> ElementTree.Element:
    band = _add(root, "VRTRasterBand", dataType="Byte", band="1", subClass="VRTRawRasterBand")
    _add(band, "NoDataValue", str(layer.nodata))
    return band


def _add_raw(band: ElementTree.Element, raw: Path, cols: int) -> None:
    _add(band, "SourceFilename", raw.name, relativetoVRT="1")
    for name, number in {"ImageOffset": 0, "PixelOffset": 1, "LineOffset": cols}.items():
        _add(band, name, str(number))


def _add_classes(band: ElementTree.Element, classes: Classes, driver: Driver) -> None:
    _add(band, "ColorInterp", "Palette")
    colours = _add(band, "ColorTable")
    _add(colours, "Entry", c1="0", c2="0", c3="0", c4="0")
    for red, green, blue in classes.colours:
        _add(colours, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4="255")
    categories = _add(band, "CategoryNames")
    for name in (UNCLASSIFIED, *classes.names):
        _add(categories, "Category", name.translate(AS_ENVI) if driver == "ENVI" else name)


def _add(
    parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag, attributes)
    child.text = text
    return child


def _save(root: ElementTree.Element, vrt: Path) -> None:
    ElementTree.ElementTree(root).write(vrt, encoding="utf-8")
