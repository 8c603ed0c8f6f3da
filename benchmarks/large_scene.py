"""Whether a scene of ten million real pixels is clustered as well as the small one it is made of.

    python -m benchmarks.large_scene --folder /scratch
    python -m benchmarks.large_scene --folder /scratch --repeats 4 --every 8 --no-record

The large scene repeats Indian Pines, mirrored at each edge, under an illumination that changes
slowly over the whole scene and with fresh sensor noise on every pixel, so that no two repeats are
equal; the small one is a single repeat with the same treatment. The commands themselves train a
default SSCC model on each, label it and score the map. The truth serves for the scores only.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from benchmarks.command import Measured, hsiclust, measure, run
from benchmarks.make_scene import (
    BLOCK,
    SOURCE,
    Cube,
    Index,
    Library,
    Matrix,
    SceneRecipe,
    write_envi,
    write_truth,
)
from benchmarks.results import Section, add_record_option, cores, report, table, use_cores
from benchmarks.subject import add_steps_option, add_training_options

_STAGES = ("transform", "staging", "teacher", "steps", "order")
# Illumination: relative strength, rows and columns of a period, phase of each wave.
_WAVES = ((0.08, 1700.0, 2900.0, 0.0), (0.04, 4100.0, -3300.0, 1.0))


@dataclass(frozen=True)
class Mosaic(SceneRecipe):
    """A scene repeated, mirrored at each edge.

    Attributes:
        cube: The source, `(row, col, band)`.
        classes: Its truth, `(row, col)`.
        noise: `(band,)` standard deviation of the sensor noise.
        light: Part of the slow illumination of `_WAVES` that lies on it.
    """

    cube: Matrix
    classes: NDArray[np.uint8]
    noise: Matrix
    light: float = 0.0

    @classmethod
    def of(cls, source: Path, every: int, noise: float, seed: int) -> Mosaic:
        """One repeat of every so many bands of a source.

        Args:
            source: The scene, its truth beside it.
            every: Take each band of this step.
            noise: Sensor noise, in parts of a band's mean.
            seed: Of the noise.
        """
        library = Library.read(source)
        library = replace(
            library,
            spectra=library.spectra[:, ::every],
            directions=library.directions[:, ::every],
            sigma=library.sigma[::every],
            wavelength=library.wavelength[::every],
            fwhm=library.fwhm[::every],
        )
        with (
            rasterio.open(source) as scene,
            rasterio.open(source.with_name(f"{source.stem}_truth.tif")) as truth,
        ):
            bands = scene.read(list(scene.indexes)[::every]).astype(np.float32)
            classes = truth.read(1)
        cube = np.ascontiguousarray(bands.transpose(1, 2, 0))
        sigma = np.asarray(noise * cube.mean(axis=(0, 1)), np.float32)
        rows, cols = classes.shape
        return cls(library, rows, cols, seed, cube, classes, sigma)

    def repeated(self, times: int) -> Mosaic:
        """So many repeats on either side."""
        return replace(self, rows=times * self.classes.shape[0], cols=times * self.classes.shape[1])

    def truth(self, row: int, height: int) -> NDArray[np.uint8]:
        """Class numbers of full-width rows, `(height, cols)`; 0 is unlabelled."""
        rows, cols = self._source(row, 0, height, self.cols)
        return self.classes[rows[:, None], cols[None, :]]

    def block(self, row: int, col: int) -> Cube:
        """Pixels of the block at (row, col), clipped at the scene's edge: (height, width, band)."""
        height, width = min(BLOCK[0], self.rows - row), min(BLOCK[1], self.cols - col)
        rows, cols = self._source(row, col, height, width)
        rng = np.random.default_rng([self.seed, row // BLOCK[0], col // BLOCK[1]])
        pixels = rng.standard_normal((height, width, self.bands), dtype=np.float32)
        pixels *= self.noise
        light = _illumination(row, col, height, width, self.light)[..., None]
        pixels += self.cube[rows[:, None], cols[None, :]] * light
        np.rint(pixels, out=pixels)
        np.clip(pixels, 1, np.iinfo(np.uint16).max, out=pixels)
        return pixels.astype(np.uint16)

    def _source(self, row: int, col: int, height: int, width: int) -> tuple[Index, Index]:
        rows, cols = self.classes.shape
        return (
            _mirrored(np.arange(row, row + height), rows),
            _mirrored(np.arange(col, col + width), cols),
        )


def _mirrored(places: Index, size: int) -> Index:
    """Places of a line that runs to and fro over `size` places: 0 1 2 2 1 0 0 1 ..."""
    folded = places % (2 * size)
    return np.minimum(folded, 2 * size - 1 - folded)


def _illumination(row: int, col: int, height: int, width: int, light: float) -> Matrix:
    """What the pixels of a window are multiplied by, around 1: `(height, width)`."""
    rows = np.arange(row, row + height)[:, None]
    cols = np.arange(col, col + width)[None, :]
    waves = [
        light * strength * np.sin(2 * np.pi * (rows / down + cols / across) + phase)
        for strength, down, across, phase in _WAVES
    ]
    return np.asarray(1 + sum(waves), np.float32)


@dataclass(frozen=True)
class Run:
    """One scene: made, learned from, labelled, scored.

    Attributes:
        name: Of the scene.
        seed: Of the training.
        pixels: Of the scene.
        training: The command.
        labelling: The command.
        scores: Of the map.
    """

    name: str
    seed: int
    pixels: int
    training: Measured
    labelling: Measured
    scores: Mapping[str, Any]


def write(mosaic: Mosaic, scene: Path) -> float:
    """Write a scene, raw BIL, and its truth; returns the seconds."""
    begin = perf_counter()
    write_envi(mosaic, scene, "bil", cores())
    write_truth(mosaic, _truth(scene))
    return perf_counter() - begin


def _truth(scene: Path) -> Path:
    return scene.with_name(f"{scene.stem}_truth.tif")


def measured(scene: Path, classes: int, seed: int, train_options: Sequence[str]) -> Run:
    """Train, label and score with the commands."""
    model, output = scene.with_suffix(".safetensors"), scene.with_name(f"{scene.stem}_map.tif")
    words = ["-k", str(classes), "--seed", str(seed), "--json", "--overwrite", "-q"]
    training = measure(hsiclust("train", scene, "-o", model, *words, *train_options))
    labelling = measure(
        hsiclust("predict", scene, "-m", model, "-o", output, "--json", "--overwrite", "-q")
    )
    scores = run(hsiclust("evaluate", output, _truth(scene), "--json"))
    found = Run(scene.stem, seed, labelling.facts["pixels"], training, labelling, scores)
    print(
        f"{found.name}, seed {seed}: ACC {scores['accuracy']:.4f}, NMI {scores['nmi']:.4f}, "
        f"training {training.seconds:.1f} s, labelling {labelling.seconds:.1f} s",
        file=sys.stderr,
    )
    return found


def line(found: Run) -> list[str]:
    """A row of the table."""
    laps = {stage["name"]: stage["seconds"] for stage in found.training.facts["stages"]}
    labelling = found.labelling.facts["seconds"]
    return [
        found.name,
        str(found.seed),
        f"{found.pixels:,}",
        f"{found.training.facts['pixels']:,}",
        *(f"{laps.get(name, 0.0):.1f}" for name in _STAGES),
        f"{found.training.seconds:.1f}",
        f"{found.training.peak:.0f}",
        f"{labelling:.1f}",
        f"{found.pixels / labelling / 1e6:.2f}",
        f"{found.labelling.peak:.0f}",
        *(f"{found.scores[name]:.3f}" for name in ("accuracy", "nmi", "ari", "kappa")),
    ]


def check_room(folder: Path, mosaic: Mosaic) -> None:
    """Stop when the folder cannot hold the scene, its truth, the staged tiles and the map."""
    pixels = mosaic.rows * mosaic.cols
    needed = pixels * (2 * mosaic.bands + 4) + 2 * 2**30
    free = shutil.disk_usage(folder).free
    if free < needed:
        sys.exit(f"{folder}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="for scenes and maps: room for 4 GB")
    parser.add_argument("--repeats", type=int, default=22, help="of the scene on a side, 22")
    parser.add_argument("--every", type=int, default=4, help="take every so many bands, 4")
    parser.add_argument("--noise", type=float, default=0.01, help="parts of a band's mean, 0.01")
    parser.add_argument("--light", type=float, default=0.0, help="slow illumination; 1: 12 %%")
    parser.add_argument("--source", type=Path, default=SOURCE, help="the carried Indian Pines")
    add_training_options(parser, seeds=(0,))
    add_steps_option(parser)
    add_record_option(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Make both scenes, run the commands on them and print the table."""
    arguments = parse_arguments(argv)
    use_cores(arguments.cores)
    warnings.simplefilter("ignore", NotGeoreferencedWarning)  # Indian Pines has no place
    small = replace(
        Mosaic.of(arguments.source, arguments.every, arguments.noise, 0), light=arguments.light
    )
    large = small.repeated(arguments.repeats)
    options = [] if arguments.steps is None else ["--steps", str(arguments.steps)]
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        check_room(folder, large)
        scenes = {folder / "small.bil": small, folder / "large.bil": large}
        seconds = [write(mosaic, scene) for scene, mosaic in scenes.items()][-1]
        print(f"{large.rows} x {large.cols} pixels made in {seconds:.1f} s", file=sys.stderr)
        for scene in scenes:
            for seed in arguments.seeds:
                rows.append(line(measured(scene, arguments.classes, seed, options)))
    report(_section(arguments, large, rows), arguments.record)


def _section(
    arguments: argparse.Namespace, large: Mosaic, rows: Sequence[Sequence[str]]
) -> Section:
    header = (
        *("scene", "seed", "pixels", "learned from", *(f"{name}, s" for name in _STAGES)),
        *("train, s", "train peak, MiB", "labelling, s", "Mpixel/s", "predict peak, MiB"),
        *("ACC", "NMI", "ARI", "kappa"),
    )
    size = 2 * large.rows * large.cols * large.bands / 1e9
    height, width = large.classes.shape
    body = (
        f"{arguments.source.stem}, {large.bands} of its bands, raw BIL of 16 bits. Small: "
        f"{height} x {width} pixels. Large: {large.rows} x {large.cols} pixels, {size:.2f} GB, "
        f"{arguments.repeats} mirrored repeats on a side. Both with a slow illumination of "
        f"±{100 * arguments.light * sum(wave[0] for wave in _WAVES):g} % over the large scene "
        "(the small one sees little of it) and fresh noise of "
        f"{100 * arguments.noise:g} % of each band's mean. Default SSCC, {arguments.classes} "
        "clusters; `train, s` is the whole command, the columns before it are its stages; peaks "
        f"are the kernel's, pages of mapped files included.\n\n{table(header, rows)}"
    )
    return Section("large_scene", "A large scene of real pixels with truth", body)


if __name__ == "__main__":
    main()
