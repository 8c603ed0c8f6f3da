"""Reference systems as strangers' files name them: as well-known text, or by a number.

GDAL takes more, files and URLs among them, which it would open.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

import rasterio
from rasterio.crs import CRS
from rasterio.errors import CRSError

log = logging.getLogger(__name__)

# EPSG:32633, urn:ogc:def:crs:EPSG::32633, 32633
_CRS_CODE = re.compile(
    r"(?:(?:urn:ogc:def:crs:)?(EPSG|ESRI|OGC|IAU_\d+):(?:[\d.]*:)?)?(\w{1,16})",
    re.ASCII | re.IGNORECASE,
)


def known_crs(name: str, said: Iterable[str]) -> str | None:
    """The first reference system that is understood, as well-known text; None if none is.

    Args:
        name: The file, for a warning that something was said and is not understood.
        said: What it says, the first that counts.
    """
    texts = [text for text in map(str.strip, said) if text not in {"", "0"}]
    known = next((wkt for text in texts if (wkt := wkt_of(text)) is not None), None)
    if texts and known is None:
        log.warning(
            "%s: its reference system is not understood, and its map will have none: %.60r",
            name,
            texts[0],
        )
    return known


def wkt_of(crs: str | int) -> str | None:
    """A reference system as well-known text, from such a text or a number; None if unknown."""
    text = str(crs)
    code = _CRS_CODE.fullmatch(text)
    try:
        with rasterio.Env():  # which has GDAL's own messages
            if code is None:
                found = CRS.from_wkt(text)
            else:
                found = CRS.from_authority((code[1] or "EPSG").upper(), code[2])
    except (CRSError, ValueError):
        return None
    return str(found.to_wkt()) or None
