"""Made scenes of every layout, kept between runs where a folder for them is named."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import rasterio

from benchmarks.command import make_scene
from benchmarks.make_scene import parse_size, rows_for

Order = Literal["bsq", "bil", "bip"]
COLS: Final = 2048
# Axes of (band, row, col) as they follow each other in memory.
AXES: Final[Mapping[Order, tuple[int, int, int]]] = {
    "bsq": (0, 1, 2),
    "bil": (1, 0, 2),
    "bip": (1, 2, 0),
}


@dataclass(frozen=True)
class Layout:
    """How the pixels of a scene lie in its file.

    Attributes:
        name: For people.
        suffix: Of the file.
        options: What `make_scene` is told.
        order: Of the pixels in memory when they have been read the plain way.
        compressed: Whether the file's bytes are not the pixels.
    """

    name: str
    suffix: str
    options: tuple[str, ...]
    order: Order = "bsq"
    compressed: bool = False

    @property
    def raw(self) -> bool:
        """Whether the file holds nothing but pixels."""
        return self.suffix != "tif"


_TIF = ("--layout", "tiled-tif")
LAYOUTS: Final[Mapping[str, Layout]] = {
    "bsq": Layout("ENVI BSQ", "bsq", ("--layout", "bsq"), "bsq"),
    "bil": Layout("ENVI BIL", "bil", ("--layout", "bil"), "bil"),
    "bip": Layout("ENVI BIP", "bip", ("--layout", "bip"), "bip"),
    "tif": Layout("GeoTIFF, tiles of 256, uncompressed", "tif", _TIF),
    "deflate": Layout(
        "GeoTIFF, tiles of 256, deflate", "tif", (*_TIF, "--compress", "deflate"), compressed=True
    ),
    "zstd": Layout(
        "GeoTIFF, tiles of 256, zstd", "tif", (*_TIF, "--compress", "zstd"), compressed=True
    ),
    "striped": Layout("GeoTIFF, strips of 16, uncompressed", "tif", ("--layout", "striped-tif")),
    "pixelstrips": Layout(
        "GeoTIFF, strips of 16, pixel-interleaved, uncompressed",
        "tif",
        ("--layout", "striped-tif", "--interleave", "pixel"),
        "bip",
    ),
    "pixel": Layout(
        "GeoTIFF, tiles of 256, pixel-interleaved, uncompressed",
        "tif",
        (*_TIF, "--interleave", "pixel"),
    ),
}


def add_scene_options(parser: argparse.ArgumentParser, size: str) -> None:
    """The options of every benchmark on made scenes."""
    parser.add_argument("--folder", type=Path, help="keeps the made scenes for the next run")
    parser.add_argument("--size", default=size, help=f"of a scene's pixels, {size}")
    parser.add_argument("--cols", type=int, default=COLS, help=f"of a scene, {COLS}")


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """The folder that was named, made if need be, or one that goes with the run."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def scene_of(folder: Path, layout: str, size: str, cols: int = COLS) -> Path:
    """The scene of this layout and size in a folder: found there, or made."""
    kind = LAYOUTS[layout]
    path = folder / f"{layout}_{size}_{cols}.{kind.suffix}"
    if not path.exists() or not _has_size(path, parse_size(size), cols):
        make_scene(path, size, *kind.options, "--cols", str(cols), "--overwrite")
    return path


def remove_scene(path: Path) -> None:
    """Delete a made scene and what stands beside it."""
    for file in path.parent.glob(f"{path.stem}.*"):
        file.unlink()


def _has_size(path: Path, size: int, cols: int) -> bool:
    with rasterio.open(path) as scene:
        return bool((scene.height, scene.width) == (rows_for(size, cols, scene.count), cols))
