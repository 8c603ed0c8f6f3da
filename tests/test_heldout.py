from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fields_cube, write_raster

from hsiclust.crops import StoredTiles
from hsiclust.engine import EngineOptions
from hsiclust.grid import Window
from hsiclust.heldout import score_held_out
from hsiclust.modelfile import load_model
from hsiclust.models.classifier import Classifier
from hsiclust.numbering import Numbering, number_classes
from hsiclust.staging import TileShape
from hsiclust.tiles import TileStore
from hsiclust.tiling import TileOptions, tile
from hsiclust.training import train
from hsiclust.trainoptions import TrainOptions
from hsiclust.truth import open_truth

ENGINE = EngineOptions(threads=1)


class Given:
    """Labels that are an array."""

    note = None

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.names: dict[int, str] = {}

    def read(self, window: Window) -> np.ndarray:
        return self.values[window.slices]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine, and tiles of a noisier scene that it makes errors on."""
    folder = tmp_path_factory.mktemp("heldout")
    cube, truth = fields_cube()
    noise = np.random.default_rng(1).normal(0, 1500, cube.shape)
    scene = write_raster(folder / "scene.tif", (cube + noise).astype(np.int16))
    labels = write_raster(folder / "truth.tif", truth[None], nodata=0)
    options = TrainOptions(
        method="svm", labels=labels, per_class=20, split="random", device="cpu", engine=ENGINE
    )
    train([str(scene)], folder / "m", options)
    shape = TileOptions(TileShape(16, 12), model=folder / "m", engine=ENGINE)
    tile(str(scene), folder / "s.zarr", shape)
    return folder


def opened(folder: Path) -> tuple[Classifier, StoredTiles, Numbering]:
    method = load_model(folder / "m").method
    assert isinstance(method, Classifier)
    method.temperature.fill_(1)
    store = TileStore.open(folder / "s.zarr")
    truth = open_truth(folder / "truth.tif", store.grid)
    numbering = number_classes(folder / "truth.tif", [(truth, store.grid.window)])
    return method, StoredTiles(store, range(len(store.tiles)), None, truth), numbering


def test_the_score_sets_the_temperature(folder: Path) -> None:
    method, tiles, numbering = opened(folder)
    found = score_held_out(method, [tiles], numbering, 0)
    assert found is not None
    assert found.accuracy.pixels == 60 * 70
    assert 0.4 < found.accuracy.accuracy < 0.999
    assert found.temperature == pytest.approx(float(method.temperature))
    assert 0 <= found.error_after <= 1
    assert found.summary()["accuracy"] == found.accuracy.accuracy
    again = score_held_out(method, [tiles], numbering, 0)
    assert again == found  # the temperature that a method has has no say


def test_nothing_held_out_is_no_score(folder: Path) -> None:
    method, tiles, numbering = opened(folder)
    method.temperature.fill_(3)
    assert score_held_out(method, [], numbering, 0) is None
    nothing = Given(np.zeros((60, 70), np.uint16))
    assert score_held_out(method, [replace(tiles, labels=nothing)], numbering, 0) is None
    assert float(method.temperature) == 3


def test_a_class_that_was_not_learned_is_always_wrong(folder: Path) -> None:
    method, tiles, numbering = opened(folder)
    truth = open_truth(folder / "truth.tif", tiles.store.grid).read(tiles.store.grid.window)
    method.present[2] = False
    found = score_held_out(method, [tiles], numbering, 0)
    assert found is not None
    assert found.accuracy.pixels == 60 * 70
    assert found.accuracy.classes[2].producers == 0
    assert found.accuracy.classes[2].pixels == np.count_nonzero(truth == 3)
    # of how sure the others are it says nothing
    few = replace(tiles, labels=Given(np.where(truth == 3, 0, truth)))
    others = score_held_out(method, [few], numbering, 0)
    assert others is not None
    assert others.accuracy.pixels == np.count_nonzero(truth != 3)
    assert others.temperature == pytest.approx(found.temperature, rel=0.05)


def test_scores_of_some_pixels_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, tiles, numbering = opened(folder)
    whole = score_held_out(method, [tiles], numbering, 0)
    sizes: list[int] = []

    def fitted(scores: np.ndarray, classes: np.ndarray) -> float:
        assert scores.shape == (len(classes), 4)
        sizes.append(len(classes))
        return 1.0

    monkeypatch.setattr("hsiclust.heldout._KEPT", 500)
    monkeypatch.setattr("hsiclust.heldout.fit_temperature", fitted)
    some = score_held_out(method, [tiles], numbering, 0)
    assert whole is not None
    assert some is not None
    assert some.accuracy == whole.accuracy
    assert 400 < sizes[1] <= 500
    assert sizes[0] == -(-sizes[1] // 2)  # the error is measured on the other half


def test_pixels_without_data_are_not_scored(folder: Path, tmp_path: Path) -> None:
    method, tiles, numbering = opened(folder)
    store = tiles.store
    here = store.tiles[3]
    components = store.read(here)
    before = score_held_out(method, [tiles], numbering, 0)
    nowhere = torch.zeros_like(components.valid)
    store.write(here, replace(components, valid=nowhere))
    after = score_held_out(method, [tiles], numbering, 0)
    store.write(here, components)
    assert before is not None
    assert after is not None
    assert before.accuracy.pixels - after.accuracy.pixels == here.core.pixels
