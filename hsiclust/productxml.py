"""What the XML beside an image of EnMAP or DESIS says of it: wavelengths, widths, no data.

Their images, `NAME-SPECTRAL_IMAGE.TIF`, say little of their bands; `NAME-METADATA.XML` does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

from hsiclust.bands import Bands
from hsiclust.errors import InputError
from hsiclust.plainxml import XML_ERRORS, parsed

# L1B has an image a detector; the catalogue of DLR calls its copies "_COG".
_IMAGE = re.compile(
    r"(?P<product>.+)-SPECTRAL_IMAGE(?:_(?P<detector>VNIR|SWIR))?(?:_COG)?\.[A-Z0-9]+",
    re.IGNORECASE,
)
_METADATA = ("-METADATA.XML", "-METADATA.xml")
# Those of real products hold a megabyte or two. The worst takes fifty times as much when parsed.
_LARGEST_METADATA = 8 * 2**20
_WIDTHS = ("FWHMOfBand", "wavelengthWidthOfBand")  # of EnMAP, of DESIS


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image by its own file and the one beside it.

    Attributes:
        bands: Its bands.
        nodata: Value of pixels without data, where the XML says it.
        unread: Why the XML is not used, in words; empty where it is, or there is none.
    """

    bands: Bands
    nodata: float | None = None
    unread: tuple[str, ...] = ()


def with_metadata(path: str, bands: Bands) -> ImageFacts:
    """Add what the product's XML says to bands without wavelengths.

    Args:
        path: The image.
        bands: What its own file says.
    """
    image = _IMAGE.fullmatch(Path(path).name)
    if image is None or bands.wavelengths is not None:
        return ImageFacts(bands)
    names = (Path(path).with_name(image["product"] + end) for end in _METADATA)
    file = next((name for name in names if name.is_file()), None)
    if file is None:
        return ImageFacts(bands)
    try:
        root = _read(file)
        spectral = _of_detector(root, _spectral(root), image["detector"])
        if len(spectral) != bands.count:
            raise InputError(f"it describes {len(spectral)} bands, the image has {bands.count}")
        nodata = root.findtext("specific/backgroundValue")
        return ImageFacts(_described(bands, spectral), None if nodata is None else float(nodata))
    except (*XML_ERRORS, OSError) as error:
        why = error if isinstance(error, InputError) else f"it cannot be read: {error}"
        return ImageFacts(bands, unread=(f"{file.name} beside it is ignored: {why}",))


def _read(file: Path) -> ElementTree.Element:
    size = file.stat().st_size
    if size > _LARGEST_METADATA:
        raise InputError(f"it has {size} bytes, at most {_LARGEST_METADATA} are read")
    return parsed(file.read_bytes())


def _spectral(root: ElementTree.Element) -> list[tuple[float, float]]:
    """Centre and width of each band, by its number."""
    found = {}
    for band in root.iterfind("specific/bandCharacterisation/*"):
        number = int(band.get("number") or band.findtext("bandNumber") or "")
        width = next(filter(None, map(band.findtext, _WIDTHS)), "")
        found[number] = float(band.findtext("wavelengthCenterOfBand") or ""), float(width)
    return [found[number] for number in sorted(found)]


def _of_detector(
    root: ElementTree.Element, spectral: Sequence[tuple[float, float]], detector: str | None
) -> Sequence[tuple[float, float]]:
    """Of bands of two detectors, VNIR first, those of one."""
    if detector is None:
        return spectral
    said = root.findtext("specific/numberOfVNIRBands")
    if said is None:
        raise InputError("it does not say how many of its bands are VNIR")
    first = int(said)
    return spectral[:first] if detector.upper() == "VNIR" else spectral[first:]


def _described(bands: Bands, spectral: Sequence[tuple[float, float]]) -> Bands:
    centres, widths = zip(*spectral, strict=True)
    if not all(math.isfinite(value) and value > 0 for value in (*centres, *widths)):
        raise InputError("a wavelength or width in it is not above 0")
    return replace(bands, wavelengths=centres, fwhm=widths, units="nm")
