"""Make a large scene of fields from the spectra of a small labelled one.

    python -m benchmarks.make_scene --output /tmp/scene.bil --size 8GiB --layout bil

The scene is a map of fields (the cells of a Voronoi diagram of jittered grid points), each of one
class of the source. A pixel is a spectrum drawn from the pixels of that class, plus noise that is
correlated over bands and space (within-class principal directions under slow waves) and white noise
(as strong as in the source, judged by neighbours). Everything follows from the seed and the pixel's
place: the layouts hold the same numbers, and memory does not grow with the scene.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import resource
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import WktVersion
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

SOURCE: Final = (
    Path(__file__).resolve().parents[1] / "hsiclust" / "data" / "indian_pines" / "indian_pines.tif"
)
LAYOUTS: Final = ("bsq", "bil", "bip", "tiled-tif", "striped-tif")
BLOCK: Final = (16, 256)  # rows, cols of one unit of work, with its own random stream
TIF_TILE: Final = 256  # side of a tile, a multiple of both sides of BLOCK
FIELD: Final = 160  # mean side of a field, pixels
WAVES: Final = 6  # plane waves per direction of the correlated noise
PIXEL_M: Final = 20.0  # ground size of a pixel, as AVIRIS has it
ORIGIN: Final = (500_000.0, 4_480_000.0)  # easting, northing of the upper left corner
EPSG: Final = 32616  # UTM 16 N, where Indian Pines lies

Cube = NDArray[np.uint16]
Matrix = NDArray[np.float32]
Index = NDArray[np.int64]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Library:
    """The labelled pixels of the source scene, sorted by class.

    Attributes:
        spectra: (pixel, band) labelled spectra.
        first: (class,) row of `spectra` at which each class begins.
        count: (class,) number of its pixels.
        numbers: (class,) its number in the truth, 1..K.
        directions: (direction, band) strongest deviations within classes, one sigma long.
        sigma: (band,) standard deviation of the white noise.
        wavelength: (band,) centre in micrometres; empty if the source has none.
        fwhm: (band,) width in micrometres; empty if the source has none.
    """

    spectra: Matrix
    first: Index
    count: Index
    numbers: NDArray[np.uint8]
    directions: Matrix
    sigma: Matrix
    wavelength: tuple[float, ...]
    fwhm: tuple[float, ...]

    @classmethod
    def read(cls, source: Path) -> Library:
        """Read the scene and the truth beside it (`NAME_truth.tif`)."""
        truth_path = source.with_name(f"{source.stem}_truth.tif")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # Indian Pines has no place
            scene, truth_file = rasterio.open(source), rasterio.open(truth_path)
        with scene, truth_file:
            cube = scene.read().astype(np.float32)  # (band, row, col)
            tags = [scene.tags(band, ns="IMAGERY") for band in scene.indexes]
            truth = truth_file.read(1)
        order = np.argsort(truth, axis=None, kind="stable")[np.count_nonzero(truth == 0) :]
        spectra = np.ascontiguousarray(cube.reshape(len(cube), -1).T[order])
        numbers, first, count = np.unique(
            truth.ravel()[order], return_index=True, return_counts=True
        )
        means = np.add.reduceat(spectra, first, axis=0) / count[:, None]
        deviations = spectra - np.repeat(means, count, axis=0)
        _, scale, axes = np.linalg.svd(deviations, full_matrices=False)
        directions = axes[:3] * (scale[:3, None] / np.sqrt(len(spectra)))
        return cls(
            spectra=spectra,
            first=first,
            count=count,
            numbers=numbers.astype(np.uint8),
            directions=directions.astype(np.float32),
            sigma=_neighbour_sigma(cube, truth),
            wavelength=_numbers(tags, "CENTRAL_WAVELENGTH_UM"),
            fwhm=_numbers(tags, "FWHM_UM"),
        )


def _neighbour_sigma(cube: Matrix, truth: NDArray[np.uint8]) -> Matrix:
    """Sigma of the noise per band, from the median absolute difference of neighbours of a class."""
    same = (truth[:, 1:] == truth[:, :-1]) & (truth[:, 1:] > 0)
    difference = np.diff(cube, axis=2)[:, same]  # (band, pair)
    spread: NDArray[np.float64] = np.median(np.abs(difference), axis=1) / (0.6745 * math.sqrt(2))
    return spread.astype(np.float32)


def _numbers(tags: list[dict[str, str]], key: str) -> tuple[float, ...]:
    return tuple(float(tag[key]) for tag in tags) if all(key in tag for tag in tags) else ()


@dataclass(frozen=True)
class SceneRecipe:
    """Everything that a pixel's value depends on.

    Attributes:
        library: where spectra come from.
        rows: rows of the scene.
        cols: columns of the scene.
        seed: of fields, draws and noise.
    """

    library: Library
    rows: int
    cols: int
    seed: int

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.library.sigma)

    @property
    def transform(self) -> Affine:
        """Affine transform of the pixel grid, pixel to UTM metres."""
        return Affine(PIXEL_M, 0, ORIGIN[0], 0, -PIXEL_M, ORIGIN[1])

    def fields(self, row: int, col: int, height: int, width: int) -> tuple[Index, Matrix]:
        """Fields of a window: class index and a random number in [0, 1) of each pixel's field.

        A pixel belongs to the nearest of the points of the 3 x 3 grid cells around it. Both arrays
        are (height, width).
        """
        rows = np.arange(row, row + height)[:, None]
        cols = np.arange(col, col + width)[None, :]
        top, left = row // FIELD - 1, col // FIELD - 1
        shape = ((row + height - 1) // FIELD + 2 - top, (col + width - 1) // FIELD + 2 - left)
        points = np.array(
            [
                np.random.default_rng([self.seed, 1, top + i + 1, left + j + 1]).random(4)
                for i in range(shape[0])
                for j in range(shape[1])
            ]
        ).reshape(*shape, 4)
        point_row = (np.arange(top, top + shape[0])[:, None] + points[..., 0]) * FIELD
        point_col = (np.arange(left, left + shape[1])[None, :] + points[..., 1]) * FIELD
        best = np.full((height, width), np.inf)
        owner_row, owner_col = np.zeros((2, height, width), dtype=np.int64)
        for down in range(3):
            for right in range(3):
                i, j = rows // FIELD - 1 - top + down, cols // FIELD - 1 - left + right
                distance = (point_row[i, j] - rows) ** 2 + (point_col[i, j] - cols) ** 2
                nearer = distance < best
                best = np.where(nearer, distance, best)
                owner_row = np.where(nearer, i, owner_row)
                owner_col = np.where(nearer, j, owner_col)
        owner = points[owner_row, owner_col]
        classes = (owner[..., 2] * len(self.library.numbers)).astype(np.int64)
        return classes, owner[..., 3].astype(np.float32)

    def truth(self, row: int, height: int) -> NDArray[np.uint8]:
        """Class numbers of full-width rows, (height, cols)."""
        classes, _ = self.fields(row, 0, height, self.cols)
        return self.library.numbers[classes]

    def waves(self, row: int, col: int, height: int, width: int) -> Matrix:
        """Slow random waves, one for each direction, variance 1: (height, width, direction)."""
        directions = len(self.library.directions)
        rng = np.random.default_rng([self.seed, 2])
        length = np.exp(rng.uniform(np.log(20), np.log(400), (directions, WAVES)))
        angle, phase = rng.uniform(0, 2 * np.pi, (2, directions, WAVES))
        frequency = 2 * np.pi / length
        rows = np.arange(row, row + height)[:, None, None]
        cols = np.arange(col, col + width)[:, None, None]
        # cos(a + b) = Re(e^ia e^ib): the exponentials are needed for each row and each column only
        down = np.exp(1j * (rows * frequency * np.sin(angle) + phase))  # (height, direction, wave)
        right = np.exp(1j * (cols * frequency * np.cos(angle)))  # (width, direction, wave)
        sums: NDArray[np.float64] = np.einsum("hdw,xdw->hxd", down, right, optimize=True).real
        return (sums * math.sqrt(2 / WAVES)).astype(np.float32)

    def block(self, row: int, col: int) -> Cube:
        """Pixels of the block at (row, col), clipped at the scene's edge: (height, width, band)."""
        height, width = min(BLOCK[0], self.rows - row), min(BLOCK[1], self.cols - col)
        library = self.library
        rng = np.random.default_rng([self.seed, 3, row // BLOCK[0], col // BLOCK[1]])
        classes, field = self.fields(row, col, height, width)
        count = library.count[classes]
        # A field draws from a third of its class, from neighbours in the source: fields differ.
        span = np.maximum(count // 3, 1)
        draw = (field * count).astype(np.int64) + rng.integers(0, span)
        pixels = library.spectra[library.first[classes] + draw % count]
        noise = rng.standard_normal((height, width, self.bands), dtype=np.float32)
        noise *= library.sigma
        noise += pixels
        noise += (0.5 * self.waves(row, col, height, width)) @ library.directions
        np.rint(noise, out=noise)
        np.clip(noise, 1, np.iinfo(np.uint16).max, out=noise)  # 0 stays free for "no data"
        return noise.astype(np.uint16)

    def window(self, row: int, col: int, height: int, width: int) -> Cube:
        """Pixels of a window that starts on a block: (height, width, band)."""
        out = np.empty((height, width, self.bands), dtype=np.uint16)
        for top in range(0, height, BLOCK[0]):
            for left in range(0, width, BLOCK[1]):
                block = self.block(row + top, col + left)
                out[top : top + BLOCK[0], left : left + BLOCK[1]] = block
        return out


def header_path(path: Path) -> Path:
    """The header that belongs to a raw data file: its name with `.hdr` for the extension."""
    return path.with_suffix(".hdr")


def envi_header(recipe: SceneRecipe, interleave: str) -> str:
    """The text of the ENVI header."""
    easting, northing = ORIGIN
    crs = CRS.from_epsg(EPSG).to_wkt(version=WktVersion.WKT1_ESRI)
    lines = [
        "ENVI",
        "description = {Synthetic fields of real spectra}",
        f"samples = {recipe.cols}",
        f"lines = {recipe.rows}",
        f"bands = {recipe.bands}",
        "header offset = 0",
        "file type = ENVI Standard",
        "data type = 12",
        f"interleave = {interleave}",
        "byte order = 0",
        f"map info = {{UTM, 1, 1, {easting}, {northing}, {PIXEL_M}, {PIXEL_M}, 16, North, WGS-84,"
        " units=Meters}",
        f"coordinate system string = {{{crs}}}",
    ]
    if recipe.library.wavelength:
        lines += [
            "wavelength units = Micrometers",
            _envi_list("wavelength", recipe.library.wavelength),
        ]
    if recipe.library.fwhm:
        lines.append(_envi_list("fwhm", recipe.library.fwhm))
    return "\n".join(lines) + "\n"


def _envi_list(key: str, values: tuple[float, ...]) -> str:
    return f"{key} = {{{', '.join(f'{value:.5f}' for value in values)}}}"


def write_envi(recipe: SceneRecipe, path: Path, interleave: str, workers: int) -> None:
    """Write raw pixels strip by strip, several strips at a time, each to its own place.

    The data stay in native little-endian uint16; the header lies beside.
    """
    rows, cols, bands = recipe.rows, recipe.cols, recipe.bands
    partial = path.with_name(path.name + ".part")
    handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)

    def write_strip(row: int) -> None:
        height = min(BLOCK[0], rows - row)
        strip = recipe.window(row, 0, height, cols).astype("<u2", copy=False)
        if interleave == "bsq":
            for band in range(bands):
                _write_at(handle, strip[:, :, band], 2 * cols * (band * rows + row))
        else:
            strip = strip.transpose(0, 2, 1) if interleave == "bil" else strip
            _write_at(handle, strip, 2 * cols * bands * row)

    try:
        os.ftruncate(handle, 2 * rows * cols * bands)
        for _ in _in_order(write_strip, range(0, rows, BLOCK[0]), workers):
            pass
    finally:
        os.close(handle)
    header_path(path).write_text(envi_header(recipe, interleave), encoding="ascii")
    partial.replace(path)


def _write_at(handle: int, array: Cube, offset: int) -> None:
    """Write all of an array at a byte offset of the file; `pwrite` may take a part at a time."""
    data = np.ascontiguousarray(array).data.cast("B")
    while data:
        done = os.pwrite(handle, data, offset)
        data, offset = data[done:], offset + done


@dataclass(frozen=True)
class TifLayout:
    """How the pixels lie in a GeoTIFF.

    Attributes:
        tiled: square tiles rather than strips of full rows.
        interleave: "band" (a block holds one band) or "pixel" (all of them).
        compress: GDAL's name of the compression, or "none".
    """

    tiled: bool
    interleave: str = "band"
    compress: str = "none"


def write_tif(recipe: SceneRecipe, path: Path, layout: TifLayout, workers: int) -> None:
    """Write a GeoTIFF through windows that follow its blocks."""
    side = (TIF_TILE, TIF_TILE) if layout.tiled else (BLOCK[0], recipe.cols)
    profile = {
        **_profile(recipe),
        "dtype": "uint16",
        "count": recipe.bands,
        "interleave": layout.interleave,
        "tiled": layout.tiled,
        "blockysize": side[0],
        "compress": layout.compress,
        # GDAL queues whole blocks for its threads: with all bands in a block that is much memory.
        "num_threads": workers if layout.interleave == "band" else 1,
        "bigtiff": "if_safer",
    }
    if layout.tiled:
        profile["blockxsize"] = side[1]
    places = (
        (row, col)
        for row in range(0, recipe.rows, side[0])
        for col in range(0, recipe.cols, side[1])
    )

    def make(place: tuple[int, int]) -> tuple[tuple[int, int], Cube]:
        row, col = place
        height, width = min(side[0], recipe.rows - row), min(side[1], recipe.cols - col)
        return place, recipe.window(row, col, height, width)

    partial = path.with_name(path.name + ".part")
    # A handle belongs to one thread: the pool makes pixels, this thread writes them. Whole blocks
    # are written once, so the cache need not hold more than a few.
    with (
        rasterio.Env(GDAL_CACHEMAX=64 * 2**20),
        rasterio.open(partial, "w", **profile) as out,
    ):
        for band in range(1, recipe.bands + 1):
            if recipe.library.wavelength:
                micrometres = recipe.library.wavelength[band - 1]
                out.set_band_description(band, f"{1000 * micrometres:.2f} nm")
                out.update_tags(band, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{micrometres:.5f}")
            if recipe.library.fwhm:
                out.update_tags(band, ns="IMAGERY", FWHM_UM=f"{recipe.library.fwhm[band - 1]:.5f}")
        for (row, col), pixels in _in_order(make, places, workers):
            height, width, _ = pixels.shape
            out.write(pixels.transpose(2, 0, 1), window=Window(col, row, width, height))
    partial.replace(path)


def write_truth(recipe: SceneRecipe, path: Path) -> None:
    """Write the class numbers as a GeoTIFF on the scene's pixel grid, nodata 0."""
    profile = {**_profile(recipe), "dtype": "uint8", "count": 1, "nodata": 0, "compress": "deflate"}
    partial = path.with_name(path.name + ".part")
    with rasterio.open(partial, "w", blockysize=64, tiled=False, **profile) as out:
        for row in range(0, recipe.rows, 64):
            height = min(64, recipe.rows - row)
            window = Window(0, row, recipe.cols, height)
            out.write(recipe.truth(row, height), 1, window=window)
    partial.replace(path)


def _profile(recipe: SceneRecipe) -> dict[str, object]:
    return {
        "driver": "GTiff",
        "height": recipe.rows,
        "width": recipe.cols,
        "crs": CRS.from_epsg(EPSG),
        "transform": recipe.transform,
    }


def _in_order(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Map over items with threads, results in order, never more than workers + 1 in flight."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def rows_for(size: int, cols: int, bands: int) -> int:
    """Rows of a uint16 scene of about `size` bytes, at least one."""
    return max(1, round(size / (2 * cols * bands)))


def parse_size(text: str) -> int:
    """Bytes of "8GiB", "256MiB" or "0.5" (GiB where no unit stands)."""
    match = re.fullmatch(r"([0-9.]+)\s*([KMGT]iB)?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a size such as 8GiB or 256MiB")
    unit = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}[match[2] or "GiB"]
    return int(float(match[1]) * unit)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="scene to write")
    parser.add_argument("--truth", type=Path, help="truth raster to write (GeoTIFF)")
    parser.add_argument("--size", type=parse_size, default="1GiB", help="bytes of pixels, 1GiB")
    parser.add_argument("--layout", choices=LAYOUTS, default="tiled-tif")
    parser.add_argument(
        "--compress", choices=("none", "deflate", "zstd"), default="none", help="tif only"
    )
    parser.add_argument("--interleave", choices=("band", "pixel"), default="band", help="tif only")
    parser.add_argument("--cols", type=int, default=2048)
    parser.add_argument("--source", type=Path, default=SOURCE, help="labelled scene")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args(argv)
    written = [arguments.output, arguments.truth]
    if not arguments.layout.endswith("-tif"):
        written.append(header_path(arguments.output))
    for path in written:
        if path and path.exists() and not arguments.overwrite:
            parser.error(f"{path} exists: name another file or give --overwrite")
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Make a scene, print its path on stdout and the figures of the run on stderr."""
    arguments = parse_arguments(argv)
    library = Library.read(arguments.source)
    rows = rows_for(arguments.size, arguments.cols, len(library.sigma))
    recipe = SceneRecipe(library, rows, arguments.cols, arguments.seed)
    start = time.perf_counter()
    if arguments.layout.endswith("-tif"):
        tiled = arguments.layout == "tiled-tif"
        layout = TifLayout(tiled, arguments.interleave, arguments.compress)
        write_tif(recipe, arguments.output, layout, arguments.workers)
    else:
        write_envi(recipe, arguments.output, arguments.layout, arguments.workers)
    seconds = time.perf_counter() - start
    if arguments.truth:
        write_truth(recipe, arguments.truth)
    megabytes = 2 * rows * recipe.cols * recipe.bands / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{recipe.bands} bands x {rows} rows x {recipe.cols} cols, {megabytes:.0f} MB"
        f" in {seconds:.1f} s ({megabytes / seconds:.0f} MB/s), peak memory {peak:.0f} MiB",
        file=sys.stderr,
    )
    print(arguments.output)


if __name__ == "__main__":
    main()
