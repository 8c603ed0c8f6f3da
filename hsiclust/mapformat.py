"""How a map is stored: driver, block size, creation options, tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from hsiclust.envi import data_files_of_header
from hsiclust.errors import OutputExistsError, UsageError

Driver = Literal["COG", "GTiff", "ENVI"]

_DRIVER_OF_SUFFIX: dict[str, Driver] = {
    ".tif": "COG",
    ".tiff": "COG",
    ".img": "ENVI",
    ".dat": "ENVI",
    ".bsq": "ENVI",
    "": "ENVI",
}

# Creation options that say how bytes are stored, and nothing about overviews.
_OF_STORAGE = frozenset({"COMPRESS", "LEVEL", "PREDICTOR", "NUM_THREADS", "BIGTIFF"})


@dataclass(frozen=True)
class MapFormat:
    """How a map is stored.

    Attributes:
        driver: GDAL driver; see `driver_for`.
        block: Rows read from the source at once, and side of the map's blocks when that is a
            multiple of 16 and at least 128, the least that the COG driver takes; else those
            are 512.
        creation: GDAL creation options that go before the defaults.
        tags: Provenance, kept as dataset metadata.
    """

    driver: Driver = "COG"
    block: int = 512
    creation: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.driver not in get_args(Driver):
            raise UsageError(f"{self.driver!r} is not one of {', '.join(get_args(Driver))}")
        if self.block < 1:
            raise UsageError(f"blocks of {self.block} pixels are empty")

    @property
    def side(self) -> int:
        """Side of the map's blocks."""
        return self.block if self.block % 16 == 0 and self.block >= 128 else 512

    @property
    def plain_overviews(self) -> bool:
        """Whether the map has overviews that nobody has asked anything of."""
        return self.driver == "COG" and {key.upper() for key in self.creation} <= _OF_STORAGE

    def options(self, resampling: str) -> dict[str, str]:
        """Creation options; `resampling` makes the overviews that GDAL makes."""
        side = str(self.side)
        # DEFLATE, because every reader has it; IF_SAFER, because the size of a compressed
        # file is not known before, and a classic TIFF that outgrows 4 GiB is lost.
        tiff = {"COMPRESS": "DEFLATE", "BIGTIFF": "IF_SAFER", "NUM_THREADS": "ALL_CPUS"}
        defaults: dict[Driver, dict[str, str]] = {
            "COG": {**tiff, "BLOCKSIZE": side, "OVERVIEW_RESAMPLING": resampling},
            "GTiff": {**tiff, "TILED": "YES", "BLOCKXSIZE": side, "BLOCKYSIZE": side},
            "ENVI": {},
        }
        asked = {key.upper(): value for key, value in self.creation.items()}
        return {**defaults[self.driver], **asked}


def driver_for(output: Path, asked: str | None = None) -> Driver:
    """The driver of an output: the one that is asked for, or the one of its suffix.

    Raises:
        UsageError: There is none of that name, or for that suffix; or the ENVI header that
            belongs to `output` is that of another file.
    """
    names = {name.lower(): cast(Driver, name) for name in get_args(Driver)}
    suffix = output.suffix.lower()
    if asked is not None and asked.lower() not in names:
        raise UsageError(f"driver {asked!r} is not one of {', '.join(names.values())}")
    driver = _DRIVER_OF_SUFFIX.get(suffix) if asked is None else names[asked.lower()]
    if driver is None or suffix == ".hdr":
        raise UsageError(
            f"{output}: maps are .tif (COG) or .img (ENVI), not {suffix}; "
            "use one of these, or name the driver"
        )
    if driver == "ENVI":
        refuse_header_of_another(output)
    return driver


def refuse_header_of_another(output: Path) -> None:
    """Check that the ENVI header beside a map to be written is not that of a scene.

    GDAL names the header of `scene.img` and of `scene.dat` alike: `scene.hdr`.

    Raises:
        OutputExistsError: It belongs to another file.
    """
    header = output.with_suffix(".hdr")
    if not header.exists():
        return
    for owner in data_files_of_header(header):
        if not (output.exists() and owner.samefile(output)):
            raise OutputExistsError(
                f"{output}: its header {header.name} would replace that of {owner.name}; "
                "choose another name"
            )
