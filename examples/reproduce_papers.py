"""Scores on the benchmark scenes of the papers, from the `.mat` files that are passed around.

    python examples/reproduce_papers.py Salinas_corrected.mat Salinas_gt.mat --folder salinas
    python examples/reproduce_papers.py PaviaU.mat PaviaU_gt.mat --folder pavia --seeds 0 1 2
    python examples/reproduce_papers.py WHU_Hi_LongKou.mat WHU_Hi_LongKou_gt.mat --folder longkou
    python examples/reproduce_papers.py houston.mat --cube-key img --truth-key gt --folder houston

The cube and the truth become GeoTIFFs in the folder; then models are trained on the scene, label
it and are scored, with as many clusters as the truth has classes. Nothing else is taken from the
truth, except that methods called "labelled" learn from the labelled pixels only, as most papers do.

Read are MATLAB files of version 5 (scipy) and 7.3 (which are HDF5: `pip install h5py`). The cube is
the only array of three dimensions in its file and the truth the only one of two, unless their names
are given. Only arrays of numbers are read, never structures, objects or functions.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import struct
import sys
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError

import hsiclust

Array = NDArray[Any]
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_AT = (0, 512)  # MATLAB puts a header of its own before it
# Types of arrays in a file of version 5 that hold numbers.
_NUMBERS = frozenset(
    {
        *("double", "single", "logical"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    }
)
# What scipy and h5py raise on files that are damaged or something else.
_UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError),
    *(MatReadError, zlib.error, struct.error),
)
_LARGEST_CLASS = 255
# What a GeoTIFF holds, from the smallest integer type on.
_INTEGERS = (np.uint8, np.uint16, np.int16, np.uint32, np.int32)


@dataclass(frozen=True)
class Entry:
    """An array in a file that has not been read yet.

    Attributes:
        name: Of the variable.
        shape: As MATLAB has it.
        kind: Type of its numbers, or of whatever else it holds.
        numeric: Whether it holds real numbers.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    numeric: bool

    def has(self, dimensions: int) -> bool:
        """Whether it is an array of numbers of so many dimensions, none of them of length 1."""
        return self.numeric and len(self.shape) == dimensions and min(self.shape) > 1


class MatFile(Protocol):
    """A file of arrays."""

    @property
    def path(self) -> Path:
        """The file."""
        ...

    def entries(self) -> list[Entry]:
        """What it holds, without reading it."""
        ...

    def read(self, name: str) -> Array:
        """One array, its axes as MATLAB has them."""
        ...


@dataclass(frozen=True)
class Version5:
    """A MATLAB file up to version 7."""

    path: Path

    def entries(self) -> list[Entry]:
        """What it holds, from the heads of its variables."""
        return [
            Entry(name, tuple(shape), kind, kind in _NUMBERS)
            for name, shape, kind in whosmat(self.path)
        ]

    def read(self, name: str) -> Array:
        """One array."""
        return np.asarray(loadmat(self.path, variable_names=[name])[name])


@dataclass(frozen=True)
class Version73:
    """A MATLAB file of version 7.3, which is HDF5 with all axes in reverse order."""

    path: Path

    def entries(self) -> list[Entry]:
        """The arrays at its top that lie in the file itself: links to other files are not read."""
        h5py = _h5py(self.path)
        found = []
        with h5py.File(self.path, "r") as file:
            for name in file:
                if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                    continue
                item = file[name]
                if isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual:
                    numeric = item.dtype.kind in "iufb"
                    found.append(Entry(name, item.shape[::-1], item.dtype.name, numeric))
        return found

    def read(self, name: str) -> Array:
        """One array, its axes turned round."""
        with _h5py(self.path).File(self.path, "r") as file:
            return np.asarray(file[name][()]).T


def _h5py(path: Path) -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError:
        sys.exit(f"{path} is a MATLAB file of version 7.3; reading it takes: pip install h5py")


def open_mat(path: Path) -> MatFile:
    """Tell the version of a file by its first bytes."""
    if not path.is_file():
        sys.exit(f"{path}: no such file")
    with path.open("rb") as file:
        head = file.read(max(_HDF5_AT) + len(_HDF5))
    if any(head[at : at + len(_HDF5)] == _HDF5 for at in _HDF5_AT):
        return Version73(path)
    return Version5(path)


def pick(file: MatFile, dimensions: int, name: str | None, largest: int) -> Array:
    """Read the array of this name, or the only one of so many dimensions.

    Args:
        file: Where from.
        dimensions: Of the array.
        name: Of the array, if it was given.
        largest: Bytes that it may take; more are refused before any is read.
    """
    try:
        entries = file.entries()
        listing = ", ".join(f"{each.name} {each.shape} {each.kind}" for each in entries)
        if name is None:
            fitting = [each for each in entries if each.has(dimensions)]
        else:
            fitting = [each for each in entries if each.name == name and each.has(dimensions)]
        if len(fitting) != 1:
            asked = "" if name is None else f" called {name}"
            option = "--cube-key" if dimensions == 3 else "--truth-key"
            sys.exit(
                f"{file.path}: {len(fitting)} arrays of {dimensions} dimensions{asked}; name one "
                f"with {option}. It holds: {listing or 'nothing'}"
            )
        size = 8 * math.prod(fitting[0].shape)  # MATLAB's numbers take at most 8 bytes
        if size > largest:
            sys.exit(
                f"{file.path}: {fitting[0].name} {fitting[0].shape} may take {size / 2**30:.1f} "
                "GiB; --largest allows for more"
            )
        return file.read(fitting[0].name)
    except _UNREADABLE as error:
        sys.exit(f"{file.path}: cannot be read as a MATLAB file: {error}")


def aligned(cube: Array, truth: Array) -> tuple[Array, Array]:
    """Cube `(band, row, col)` and truth `(row, col)` on the same pixels.

    Files differ in the order of axes; the truth's shape says which of them are rows and columns.
    Bands last is tried first, as MATLAB has it.
    """
    for turned in (truth, truth.T):
        for axis in (2, 0, 1):
            bands_first = np.moveaxis(cube, axis, 0)
            if bands_first.shape[1:] == turned.shape:
                return bands_first, turned
    sys.exit(f"a truth of {truth.shape} does not lie on a cube of {cube.shape}")


def class_numbers(truth: Array) -> NDArray[np.uint8]:
    """The truth as small integers; 0 is unlabelled."""
    if truth.dtype.kind not in "iufb":
        sys.exit(f"the truth holds {truth.dtype} values, not class numbers")
    whole = np.rint(truth) if truth.dtype.kind == "f" else truth
    if not np.array_equal(whole, truth) or whole.min() < 0 or whole.max() > _LARGEST_CLASS:
        sys.exit(f"the truth holds other numbers than classes 0 to {_LARGEST_CLASS}")
    if not (whole > 0).any():
        sys.exit("the truth labels no pixel")
    return whole.astype(np.uint8)


def storable(cube: Array) -> Array:
    """The cube in a type that a GeoTIFF holds: floats as 32 bits, integers as they are."""
    if cube.dtype.kind == "f":
        return cube.astype(np.float32)
    if cube.dtype in [np.dtype(kind) for kind in _INTEGERS]:
        return cube
    if cube.dtype.kind not in "iub":
        sys.exit(f"the cube holds {cube.dtype} values, not real numbers")
    least, most = int(cube.min()), int(cube.max())
    for kind in _INTEGERS:
        if np.iinfo(kind).min <= least and most <= np.iinfo(kind).max:
            return cube.astype(kind)
    sys.exit(f"values from {least} to {most} do not go into a GeoTIFF")


def write(path: Path, bands: Array, nodata: float | None) -> Path:
    """Write bands `(band, row, col)` as a GeoTIFF without a place on the ground."""
    partial = path.with_name(f"{path.name}.part")
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": len(bands),
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype.name,
        "nodata": nodata,
        "interleave": "band",
        # Three bands are no colours, and a fourth is no transparency.
        "photometric": "minisblack",
        "alpha": "no",
        "compress": "deflate",
        "predictor": 3 if bands.dtype.kind == "f" else 2,
        "bigtiff": "if_safer",
    }
    with rasterio.open(partial, "w", **profile) as file:
        for number, band in enumerate(bands, 1):
            file.write(np.ascontiguousarray(band), number)
    partial.replace(path)
    return path


@dataclass(frozen=True)
class Benchmark:
    """A scene with its truth, as GeoTIFFs.

    Attributes:
        scene: The cube.
        truth: Class numbers, 0 where unlabelled.
        classes: Classes of the truth.
    """

    scene: Path
    truth: Path
    classes: int


def convert(arguments: argparse.Namespace) -> Benchmark:
    """Read the `.mat` files and write the GeoTIFFs."""
    largest = int(arguments.largest * 2**30)
    cube = pick(open_mat(arguments.cube), 3, arguments.cube_key, largest)
    truth = pick(open_mat(arguments.truth or arguments.cube), 2, arguments.truth_key, largest)
    bands, labels = aligned(cube, truth)
    numbers = class_numbers(labels)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    name = arguments.cube.stem
    found = Benchmark(
        write(arguments.folder / f"{name}.tif", storable(bands), None),
        write(arguments.folder / f"{name}_truth.tif", numbers[None], 0),
        len(np.unique(numbers[numbers > 0])),
    )
    print(
        f"{found.scene}: {len(bands)} bands of {bands.shape[1]} x {bands.shape[2]} pixels; "
        f"{found.truth}: {found.classes} classes, {int((numbers > 0).sum())} labelled pixels",
        file=sys.stderr,
    )
    return found


Options = Callable[[Benchmark], hsiclust.TrainOptions]


def _sscc(**settings: Any) -> Options:
    return lambda scene: hsiclust.TrainOptions(method="sscc", classes=scene.classes, **settings)


def _kmeans(**settings: Any) -> Options:
    return lambda scene: hsiclust.TrainOptions(method="kmeans", classes=scene.classes, **settings)


def _labelled(options: Options) -> Options:
    return lambda scene: replace(options(scene), mask=scene.truth)


METHODS: Mapping[str, Options] = {
    "sscc": _sscc(),
    "sscc-labelled": _labelled(_sscc()),
    "sscc-no-contrast": _sscc(contrast=False),
    "sscc-no-teacher": _sscc(teacher=False),
    "sscc-pca": _sscc(kind="pca"),
    "kmeans": _kmeans(),
    "kmeans-labelled": _labelled(_kmeans()),
    "kmeans-pca8": _kmeans(kind="pca", components=8, smoothing=0.0),
    "paper-labelled": _labelled(_sscc(recipe="paper")),
}
# Hours: trained only when it is asked for.
_SLOW = "paper-labelled"


def scores_of(method: str, benchmark: Benchmark, seed: int, arguments: argparse.Namespace) -> Any:
    """Train, label, score."""
    stem = f"{benchmark.scene.stem}_{method}_{seed}"
    model = arguments.folder / f"{stem}.safetensors"
    label_map = arguments.folder / f"{stem}_map.tif"
    options = replace(
        METHODS[method](benchmark), seed=seed, device=arguments.device, overwrite=True
    )
    if method == _SLOW:
        options = replace(options, epochs=arguments.paper_epochs)
    hsiclust.train([str(benchmark.scene)], model, options)
    labelling = hsiclust.PredictOptions(device=arguments.device, overwrite=True)
    hsiclust.predict(str(benchmark.scene), model, label_map, labelling)
    return hsiclust.evaluate(label_map, benchmark.truth).scores


def line(method: str, scores: Sequence[Any]) -> str:
    """Mean and deviation of each score over the seeds."""
    cells = []
    for name in ("accuracy", "average_accuracy", "kappa", "nmi", "ari", "purity"):
        values = [getattr(each, name) for each in scores]
        deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        cells.append(f"{f'{statistics.fmean(values):.3f}{deviation}':<15}")
    return f"{method:<18}{''.join(cells)}".rstrip()


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    usual = [name for name in METHODS if name != _SLOW]
    parser.add_argument("cube", type=Path, help="file of the cube")
    parser.add_argument("truth", type=Path, nargs="?", help="file of the truth; the cube's own")
    parser.add_argument("--folder", type=Path, required=True, help="for scenes, models and maps")
    parser.add_argument("--cube-key", help="name of the cube in its file")
    parser.add_argument("--truth-key", help="name of the truth in its file")
    parser.add_argument("--largest", type=float, default=16.0, help="GiB an array may take, 16")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=usual)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--paper-epochs", type=float, default=200.0, help="as published, 200")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Convert, run every method with every seed, print the scores."""
    arguments = parse_arguments(argv)
    warnings.simplefilter("ignore", NotGeoreferencedWarning)  # these scenes have no place
    benchmark = convert(arguments)
    seeds = ", ".join(map(str, arguments.seeds))
    print(f"{benchmark.scene.stem}: {benchmark.classes} clusters, seeds {seeds}")
    heads = ("ACC", "AA", "kappa", "NMI", "ARI", "purity")
    print(f"{'method':<18}{''.join(f'{head:<15}' for head in heads)}".rstrip())
    for method in arguments.methods:
        scores = [scores_of(method, benchmark, seed, arguments) for seed in arguments.seeds]
        print(line(method, scores), flush=True)


if __name__ == "__main__":
    main()
