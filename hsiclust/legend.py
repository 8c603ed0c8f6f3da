"""What a map that is there already says of itself, whoever made it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hsiclust.errors import HsiclustError, InputError
from hsiclust.palette import MOST_CLASSES, Classes, Colour, class_colours
from hsiclust.plainxml import XML_ERRORS, parsed
from hsiclust.rasters import as_vrt, envi_header, grid_of, image_structure, open_raster

LABELS_TAG = "HSICLUST_LABELS"
"""Tag of a map that says what its numbers mean: "classes" or "clusters"."""
MODEL_TAG = "HSICLUST_MODEL_SHA256"
"""Tag that holds the hash of the model's file."""
SCENE_TAG = "HSICLUST_SCENE"
"""Tag that holds the name of the scene."""
SPLIT_TAG = "HSICLUST_SPLIT_OF"
"""Tag of labels that were learned from or held out: the name of the model's file."""
NO_LABELS = " (no labels)"
"""What stands behind the name of a class that the labels of a model do not have."""

# What a legend shows of a name; a stranger's field may hold a novel.
_LONGEST_NAME = 80
# 255 names are some 10 KB; what is larger than this is not a list of names.
_LARGEST_SIDECAR = 4 * 2**20
# The largest number that is looked for in an attribute table.
_LARGEST_VALUE = 2**16 - 1
# What columns of an attribute table mean, in GDAL's numbers (GFU_Name, GFU_MinMax).
_IS_NAME, _IS_VALUE = "2", "5"


def category_names(path: str | Path) -> tuple[str, ...]:
    """What a raster calls its values 0, 1, 2...; empty where it names none.

    Names stand in GDAL's sidecar (`.aux.xml`), in the file's ENVI header, or in what else GDAL
    reads of it: categories, or an attribute table that says which of its columns holds names.

    Raises:
        InputError: The file cannot be read, or its sidecar is damaged or too large.
    """
    with open_raster(str(path)) as dataset:
        listed = _listed_names(envi_header(dataset).get("class_names", ""))
        found = _sidecar_names(Path(f"{path}.aux.xml")) or listed or _known_names(as_vrt(dataset))
    names = list(map(one_line, found))
    while names and not names[-1]:  # one without a name in between has its number still
        names.pop()
    return tuple(names)


def _listed_names(text: str) -> list[str]:
    """Names of an ENVI header, `{one, two}`."""
    return text.strip().strip("{}").split(",") if text else []


def read_classes(path: str | Path) -> Classes | None:
    """Classes 1..K of a map: its names and its colour table; None where it has no names.

    Raises:
        InputError: The file cannot be read, or its sidecar is damaged or too large.
    """
    names = category_names(path)[1 : MOST_CLASSES + 1]
    if not names:
        return None
    named = (name or f"class {number}" for number, name in enumerate(names, start=1))
    return Classes(tuple(named), _colours(path, len(names)))


def holds_classes(path: str | Path) -> bool:
    """Whether a map says that its numbers mean classes, not clusters that came without names.

    Raises:
        InputError: The file cannot be read.
    """
    with open_raster(str(path)) as dataset:
        tags: dict[str, str] = dataset.tags()
    return tags.get(LABELS_TAG) == "classes"


def describe_map(path: str | Path) -> dict[str, Any] | None:
    """What a map says of itself, as plain values; None for a raster that is no map.

    A map is one band of integers with class names, or one that this program wrote.

    Returns:
        Path, shape, place, layout, names of the classes, and the tags that say how the map was
        made.

    Raises:
        InputError: The file cannot be read, or its sidecar is damaged or too large.
    """
    with open_raster(str(path)) as dataset:
        if dataset.count == 0:  # a container of rasters
            return None
        tags: dict[str, str] = dataset.tags()
        whole = dataset.count == 1 and dataset.dtypes[0].startswith(("int", "uint"))
        layout = image_structure(dataset).get("LAYOUT", dataset.driver)
        grid, blocks = grid_of(dataset), dataset.block_shapes[:1]
        facts = {"dtype": dataset.dtypes[0], "nodata": dataset.nodata}
    ours = {key: value for key, value in sorted(tags.items()) if key.startswith("HSICLUST_")}
    classes = read_classes(path) if whole else None
    if not whole or not (ours or classes):
        return None
    return {
        "path": str(path),
        **grid.facts,
        "format": layout,
        "block": list(*blocks),
        **facts,
        "classes": [] if classes is None else list(classes.names),
        "tags": ours,
    }


def is_map_of(path: Path, scene: str, digest: str) -> bool:
    """Whether a map says that it was made of a scene of this name, by the model of this hash."""
    tags = _own_tags(path)
    return (tags.get(MODEL_TAG), tags.get(SCENE_TAG)) == (digest, Path(scene).name)


def split_owner(path: Path) -> str | None:
    """The model whose labels a file says that it holds; None where it says nothing."""
    return _own_tags(path).get(SPLIT_TAG)


def _own_tags(path: Path) -> dict[str, str]:
    """What a map says in this program's tags; nothing where it is none, or cannot be read."""
    try:
        facts = describe_map(path)
    except HsiclustError:
        return {}
    tags: dict[str, str] = {} if facts is None else facts["tags"]
    return tags


def _colours(path: str | Path, count: int) -> tuple[Colour, ...]:
    with open_raster(str(path)) as dataset:
        try:
            table: dict[int, tuple[int, ...]] = dataset.colormap(1)
        except ValueError:  # rasterio's way to say that there is none
            table = {}
    chosen = enumerate(class_colours(count), start=1)
    known = ((table.get(number), colour) for number, colour in chosen)
    return tuple(colour if own is None else (own[0], own[1], own[2]) for own, colour in known)


def one_line(name: str) -> str:
    """A name as one line of printable text; may be empty."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


def printable_name(name: str) -> str:
    """A stranger's name of a class as a map holds it: one line, not too long; may be empty."""
    return one_line(name)[:_LONGEST_NAME].strip()


def listed(texts: Sequence[str], most: int = 10) -> str:
    """Texts in one line; of many, the first."""
    rest = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")


def _sidecar_names(sidecar: Path) -> list[str]:
    """`<CategoryNames>` of band 1 in a GDAL sidecar; empty when there is none."""
    if not sidecar.is_file():
        return []
    if sidecar.stat().st_size > _LARGEST_SIDECAR:
        raise InputError(f"{sidecar}: {sidecar.stat().st_size} bytes is no list of class names")
    try:
        root = parsed(sidecar.read_bytes())
    except (*XML_ERRORS, OSError) as error:
        raise InputError(f"{sidecar}: cannot be read as a GDAL sidecar: {error}") from error
    return [node.text or "" for node in root.iterfind("PAMRasterBand[@band='1']//Category")]


def _known_names(vrt: bytes) -> list[str]:
    """Categories of band 1 in the text of a VRT, or names of its attribute table; may be empty."""
    if len(vrt) > _LARGEST_SIDECAR:
        return []
    try:
        band = parsed(vrt).find("VRTRasterBand[@band='1']")
        if band is None:
            return []
        categories = [node.text or "" for node in band.iterfind("CategoryNames/Category")]
        return categories or _table_names(band.find("GDALRasterAttributeTable"))
    except (*XML_ERRORS, OverflowError):  # no UTF-8 text, no numbers, too few of them
        return []


def _table_names(table: ElementTree.Element | None) -> list[str]:
    """What an attribute table calls the values 0, 1, 2...: its rows, unless a column has values."""
    if table is None:
        return []
    usages = [field.findtext("Usage") for field in table.iterfind("FieldDefn")]
    if _IS_NAME not in usages:
        return []
    named, valued = usages.index(_IS_NAME), usages.index(_IS_VALUE) if _IS_VALUE in usages else None
    names: dict[int, str] = {}
    for number, row in enumerate(table.iterfind("Row")):
        cells = [cell.text or "" for cell in row.iterfind("F")]
        value = number if valued is None else int(float(cells[valued]))
        if 0 <= value <= _LARGEST_VALUE:
            names[value] = cells[named]
    return [names.get(value, "") for value in range(max(names, default=-1) + 1)]
