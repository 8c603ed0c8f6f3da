"""A scene with its truth, as the clustering benchmarks learn from it, label it and score it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS

from benchmarks.make_scene import SOURCE
from hsiclust.contingency import contingency
from hsiclust.grid import PixelGrid, Window
from hsiclust.scene import Scene
from hsiclust.scores import Scores, score
from hsiclust.tilegrid import TileGrid
from hsiclust.truth import Truth, open_truth

if TYPE_CHECKING:
    from hsiclust.trainoptions import TrainOptions

Labels = NDArray[np.uint8]
_TRUTH = SOURCE.with_name(f"{SOURCE.stem}_truth.tif")
# A cluster counts as used from this part of the map on, as `hsiclust train` counts it.
_IN_USE = 0.001


@dataclass(frozen=True)
class Subject:
    """A scene with its truth.

    Attributes:
        scene: The raster.
        truth: Raster or vectors.
        field: Vectors: where the class stands.
    """

    scene: Path = SOURCE
    truth: Path = _TRUTH
    field: str | None = None

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Subject:
        """The one that `add_subject_options` asked for."""
        return cls(arguments.scene, arguments.truth, arguments.field)

    def score(self, labels: Labels) -> Scores:
        """Scores of class numbers, `(row, col)`, on the labelled pixels of the whole scene."""
        grid = Scene.open(self.scene).grid
        truth = self._truth(grid)
        return score(contingency(_Numbers(labels), truth, grid.window), truth.names)

    def cut(self, area: Window, folder: Path, name: str) -> Subject:
        """A part of the scene and of its truth as files of their own.

        Bands of the bad-bands list are left out; wavelengths, nodata and place are kept.
        """
        scene = Scene.open(self.scene)
        grid = PixelGrid(area.rows, area.cols)
        if scene.grid.georeferenced:
            grid = scene.grid.crop(area)
        part = Subject(folder / f"{name}.tif", folder / f"{name}_truth.tif")
        bands = scene.bands.usable()
        with rasterio.open(
            part.scene, "w", count=len(bands), dtype=scene.dtype, **_profile(grid, scene.nodata)
        ) as file:
            file.write(scene.read(area, bands))
            for at, band in enumerate(bands, 1):
                if scene.bands.wavelengths is not None:
                    micrometres = scene.bands.wavelengths[band] / 1000
                    file.update_tags(at, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{micrometres:.6f}")
        truth = self._truth(scene.grid).read(area)
        with rasterio.open(part.truth, "w", count=1, dtype="uint16", **_profile(grid, 0)) as file:
            file.write(truth, 1)
        return part

    def halves(self, folder: Path) -> tuple[Subject, Subject]:
        """The left and the right half of the columns; neither file holds a pixel of the other."""
        rows, cols = Scene.open(self.scene).grid.rows, Scene.open(self.scene).grid.cols
        middle = cols // 2
        return (
            self.cut(Window(0, 0, rows, middle), folder, "left"),
            self.cut(Window(0, middle, rows, cols - middle), folder, "right"),
        )

    def _truth(self, grid: PixelGrid) -> Truth:
        return open_truth(self.truth, grid, field=self.field)


def add_subject_options(parser: argparse.ArgumentParser) -> None:
    """Which scene, and its truth."""
    carried = Subject()
    parser.add_argument("--scene", type=Path, default=carried.scene, help="carried Indian Pines")
    parser.add_argument("--truth", type=Path, default=carried.truth, help="raster or vectors")
    parser.add_argument("--field", help="vectors: field of the class")
    parser.add_argument("--title", default="Indian Pines (carried)", help="name of the scene")


def add_training_options(parser: argparse.ArgumentParser, seeds: Sequence[int]) -> None:
    """How many clusters, which seeds and how many processors a benchmark takes."""
    usual = " ".join(map(str, seeds))
    parser.add_argument("--classes", type=int, default=16, help="number of clusters, 16")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=list(seeds), help=f"of the trainings, {usual}"
    )
    parser.add_argument("--cores", type=int, default=2, help="processors to use, 2")


def add_steps_option(parser: argparse.ArgumentParser) -> None:
    """How long a benchmark trains."""
    parser.add_argument("--steps", type=int, help="of each training; the method's own")


@dataclass(frozen=True)
class LabelMap:
    """Class numbers of a scene, and what they took.

    Attributes:
        labels: `(row, col)`; 0 is unclassified.
        training: Seconds.
        labelling: Seconds; None where learning gives the labels.
        processors: That the whole run had, on average.
    """

    labels: Labels
    training: float
    labelling: float | None = None
    processors: float = field(default=0.0, compare=False)

    @property
    def in_use(self) -> int:
        """Clusters that hold at least 0.1 % of the classified pixels."""
        counts = np.bincount(self.labels[self.labels > 0])
        return int((counts >= max(1.0, _IN_USE * counts.sum())).sum())


def learn(subject: Subject, model: Path, options: TrainOptions) -> float:
    """Train a model; returns the seconds."""
    from hsiclust.api import train

    return train([str(subject.scene)], model, options).seconds


def label(subject: Subject, model: Path, folder: Path) -> tuple[Labels, float]:
    """Label a scene; returns its labels and the seconds."""
    from hsiclust.api import PredictOptions, predict

    output = folder / "map.tif"
    done = predict(str(subject.scene), model, output, PredictOptions(overwrite=True))
    with rasterio.open(output) as dataset:
        labels: Labels = dataset.read(1)
    return labels, done.seconds


def teach(subject: Subject, model: Path) -> tuple[Labels, float]:
    """Labels that the teacher in an SSCC model gives a scene, in one piece, and the seconds."""
    import torch

    from hsiclust.components import SceneComponents
    from hsiclust.modelfile import load_model
    from hsiclust.models.base import trimmed
    from hsiclust.models.consensus import HALO
    from hsiclust.models.sscc import Sscc

    fitted = load_model(model)
    if not isinstance(fitted.method, Sscc) or fitted.method.teacher is None:
        raise SystemExit(f"{model}: no model with a teacher")
    watch = Watch()
    scene = Scene.open(subject.scene)
    area = scene.grid.window
    source = SceneComponents.of(scene, fitted.transform, fitted.sensor, torch.device("cpu"))
    whole = TileGrid(area, area, area.rows, area.cols, HALO)[0]
    components = source.read(whole)
    with torch.inference_mode():
        classes = fitted.method.teacher.teach(components.values).classes + 1
    valid = trimmed(components.valid, HALO)
    labels: Labels = classes.where(valid, 0).to(torch.uint8).numpy()
    return labels, watch.seconds


class Watch:
    """Wall time since it was made, and the processors that this process had meanwhile."""

    def __init__(self) -> None:
        self._start, self._used = perf_counter(), process_time()

    @property
    def seconds(self) -> float:
        """Wall time."""
        return perf_counter() - self._start

    @property
    def processors(self) -> float:
        """Processors on average."""
        return (process_time() - self._used) / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class _Numbers:
    """Class numbers in memory, read like those of a file."""

    labels: Labels

    def read(self, window: Window) -> Labels:
        return self.labels[window.slices]


def _profile(grid: PixelGrid, nodata: float | None) -> Mapping[str, object]:
    profile: dict[str, object] = {
        "driver": "GTiff",
        "height": grid.rows,
        "width": grid.cols,
        "interleave": "band",
        "photometric": "minisblack",
        "nodata": nodata,
        "bigtiff": "if_safer",
    }
    if grid.georeferenced:
        profile["transform"] = grid.transform
        profile["crs"] = None if grid.crs is None else CRS.from_wkt(grid.crs)
    return profile
