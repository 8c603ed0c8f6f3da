"""Trainings that learn from labels: from the label file to the map and its score."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from conftest import TRANSFORM, UTM, Killed, fields_cube, write_raster

import hsiclust.training as loop
from hsiclust import lessons
from hsiclust.api import predict
from hsiclust.engine import EngineOptions
from hsiclust.errors import (
    HsiclustError,
    InputError,
    NoOverlapError,
    OutputExistsError,
    UsageError,
)
from hsiclust.evaluation import evaluate
from hsiclust.facts import info
from hsiclust.legend import category_names, holds_classes
from hsiclust.modelfile import load_model, save_model
from hsiclust.models import jury, sights
from hsiclust.models.base import Batch
from hsiclust.models.classifier import Classifier, labelled_counts
from hsiclust.models.contrastdm_settings import ContrastDmConfig
from hsiclust.models.svm import Svm
from hsiclust.predictoptions import PredictOptions
from hsiclust.staging import TileShape
from hsiclust.tiling import TileOptions, tile
from hsiclust.trained import Step, Training
from hsiclust.training import train
from hsiclust.trainoptions import TrainOptions

ENGINE = EngineOptions(threads=1)
ON_CPU = PredictOptions(device="cpu", engine=ENGINE)
LABELS = Path("labels.tif")  # of no test
SVM = TrainOptions(method="svm", labels=LABELS, device="cpu", engine=ENGINE)
QUICK = {
    field.name: 5 if field.name.endswith("steps") else 32
    for field in dataclasses.fields(ContrastDmConfig)
    if field.name.endswith(("steps", "batch"))
}
CONTRASTDM = replace(
    SVM,
    method=None,
    contrastdm=replace(
        ContrastDmConfig(**QUICK),
        deviations=(0.0, 1.0, 2.0),
        widths=(24, 24, 8),
        coders=1,
        nets=1,
        projected=16,
        steps=120,
        batch=128,
        rate=5e-3,
        diffusion_steps=0,
    ),
)
NAMES = ("barley", "maize", "oats", "wheat")


@pytest.fixture(autouse=True)
def few_jurors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sights, "_VIEWS", sights._VIEWS[:2])
    monkeypatch.setattr(sights, "_DIFFUSED", ())
    monkeypatch.setattr(jury, "_SPREADS", jury._SPREADS[:2])


def write_fields(path: Path, count: int = 4) -> Path:
    """The fields as polygons with their names as text."""
    _, truth = fields_cube()
    shapes, names = [], []
    for row in range(0, 60, 15):
        for col in range(0, 70, 15):
            west, north = TRANSFORM @ (col, row)
            east, south = TRANSFORM @ (min(col + 15, 70), row + 15)
            if truth[row, col] <= count:
                shapes.append(shapely.box(west, south, east, north))
                names.append(NAMES[truth[row, col] - 1])
    pyogrio.raw.write(
        path,
        shapely.to_wkb(np.array(shapes)),
        [np.array(names, object)],
        ["crop"],
        driver="GPKG",
        geometry_type="Polygon",
        crs=UTM,
    )
    return path


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        values: np.ndarray = dataset.read(1)
    return values


def check_score(result: Training, output: Path) -> None:
    """The score that the training reported is that of the map on the file that it wrote."""
    assert result.held_out is not None
    found = evaluate(output, result.split[-1]).accuracy
    own = result.held_out.accuracy
    assert found is not None
    assert (found.pixels, found.accuracy, found.kappa) == (own.pixels, own.accuracy, own.kappa)
    assert found.average_accuracy == own.average_accuracy
    kept = load_model(result.model).provenance["held_out"]
    assert (kept["pixels"], kept["accuracy"]) == (own.pixels, own.accuracy)


@pytest.mark.parametrize("options", [SVM, CONTRASTDM])
def test_the_held_out_score_is_that_of_the_map(
    fields: tuple[Path, Path], tmp_path: Path, options: TrainOptions
) -> None:
    # noise, so that some of the labels are wrong
    noise = np.random.default_rng(3).normal(0, 900, (12, 60, 70))
    scene = write_raster(tmp_path / "n.tif", (fields_cube()[0] + noise).astype(np.int16))
    asked = replace(options, labels=fields[1], per_class=10)
    result = train([str(scene)], tmp_path / "m.safetensors", asked)
    output = tmp_path / "map.tif"
    predict(str(scene), result.model, output, ON_CPU)
    assert result.held_out is not None
    assert 0.3 < result.held_out.accuracy.accuracy < 1
    check_score(result, output)
    assert holds_classes(output)
    with rasterio.open(output) as dataset:
        assert dataset.tags()["HSICLUST_LABELS"] == "classes"
    assert [path.name for path in result.split] == ["m_training.tif", "m_held_out.tif"]
    left = {"m.safetensors", "m_training.tif", "m_held_out.tif", "map.tif"}
    there = {path.name.removesuffix(".aux.xml") for path in tmp_path.iterdir()}
    assert there == left | {"scene.tif", "truth.tif", "n.tif"}


@pytest.mark.parametrize("options", [SVM, CONTRASTDM])
def test_a_field_of_text_names_the_classes_of_the_map(
    fields: tuple[Path, Path], tmp_path: Path, options: TrainOptions
) -> None:
    labels = write_fields(tmp_path / "fields.gpkg")
    asked = replace(options, labels=labels, field="crop", per_class=12)
    result = train([str(fields[0])], tmp_path / "m.safetensors", asked)
    output = tmp_path / "map.tif"
    predict(str(fields[0]), result.model, output, ON_CPU)
    check_score(result, output)
    assert category_names(output)[1:] == NAMES
    assert load_model(result.model).classes.names == NAMES
    assert info(str(output))["classes"] == [*NAMES]
    # sorted, the names have the numbers of the truth
    assert set(np.unique(read(output))) <= {1, 2, 3, 4}
    right = (read(output) == read(fields[1])).mean()
    assert right > 0.9


def test_labels_are_what_the_split_files_say(fields: tuple[Path, Path], tmp_path: Path) -> None:
    asked = replace(SVM, labels=fields[1], per_class=7)
    result = train([str(fields[0])], tmp_path / "m.safetensors", asked)
    truth = read(fields[1])
    training, held_out = map(read, result.split)
    assert np.bincount(training.ravel(), minlength=5)[1:].tolist() == [7] * 4
    for part in (training, held_out):
        assert (part[part > 0] == truth[part > 0]).all()
    assert not (training & held_out).any()
    labels = load_model(result.model).provenance["labels"]
    assert labels["training"] == [7] * 4
    assert sum(labels["held_out"]) == np.count_nonzero(held_out)
    assert labels["file"] == "truth.tif"
    assert labels["per_class"] == 7


def test_labels_outside_the_mask_are_not_learned(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = np.zeros((60, 70), np.uint8)
    inside[:, 30:] = 1
    mask = write_raster(tmp_path / "mask.tif", inside[None])
    counts: list[int] = []
    study = Svm.study

    def watched(self: Svm, tiles: list[Batch], *rest: object) -> None:
        counts.extend(labelled_counts(tiles, self.classes).tolist())
        study(self, tiles, *rest)

    monkeypatch.setattr(Svm, "study", watched)
    asked = replace(SVM, labels=fields[1], mask=mask, split="random")
    result = train([str(fields[0])], tmp_path / "m.safetensors", asked)
    training, held_out = map(read, result.split)
    assert not training[:, :30].any()
    assert not held_out[:, :30].any()
    assert (training | held_out)[:, 30:].all()
    assert counts == np.bincount(training.ravel(), minlength=5)[1:].tolist()
    notes = load_model(result.model).provenance["labels"]["notes"]
    assert any(note.startswith("1800 of 4200 labelled pixels are left out") for note in notes)


def test_nothing_held_out_gives_no_score(fields: tuple[Path, Path], tmp_path: Path) -> None:
    write_raster(tmp_path / "m_held_out.tif", np.ones((1, 3, 3), np.uint8))
    mine = (tmp_path / "m_held_out.tif").read_bytes()
    asked = replace(SVM, labels=fields[1], split="none", per_class=20)
    result = train([str(fields[0])], tmp_path / "m.safetensors", asked)
    assert result.held_out is None
    assert [path.name for path in result.split] == ["m_training.tif"]
    assert (tmp_path / "m_held_out.tif").read_bytes() == mine
    model = load_model(result.model)
    assert model.provenance["held_out"] is None
    assert isinstance(model.method, Classifier)
    assert float(model.method.temperature) == 1


def test_temperature_changes_how_sure_a_map_is_and_no_label(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    asked = replace(SVM, labels=fields[1], per_class=10)
    train([str(fields[0])], tmp_path / "m.safetensors", asked)
    model = load_model(tmp_path / "m.safetensors")
    assert isinstance(model.method, Classifier)
    for name, factor in (("plain", 1), ("hot", 5)):
        model.method.temperature.mul_(factor)
        save_model(model, tmp_path / f"{name}.safetensors")
        predict(
            str(fields[0]),
            tmp_path / f"{name}.safetensors",
            tmp_path / f"{name}.tif",
            replace(ON_CPU, confidence=True),
        )
    assert np.array_equal(read(tmp_path / "plain.tif"), read(tmp_path / "hot.tif"))
    plain, hot = (read(tmp_path / f"{name}_confidence.tif") for name in ("plain", "hot"))
    assert (hot <= plain).all()
    assert hot.mean() < plain.mean() - 1


def test_a_model_that_is_replaced_leaves_no_labels_of_its_own(
    fields: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else maps of the new model would be scored on pixels that it learned from."""
    scene, model = str(fields[0]), tmp_path / "m.safetensors"
    asked = replace(SVM, labels=fields[1], per_class=10)
    before = set(tmp_path.iterdir())
    other = train([scene], tmp_path / "m_1.safetensors", asked)
    others = {path: path.read_bytes() for path in set(tmp_path.iterdir()) - before}
    write_raster(tmp_path / "m_2_held_out.tif", np.ones((1, 3, 3), np.uint8))
    mine = tmp_path / "m_2_held_out.tif"
    train([scene], model, asked)
    again = replace(asked, overwrite=True)
    # a training that fails leaves the model and its labels as they are
    short = replace(again, labels=tmp_path / "m_held_out.tif", split="none")
    assert "m_held_out.tif" in failed(fields[0], short, tmp_path, UsageError)
    alone = write_raster(tmp_path / "alone.tif", np.ones((1, 60, 70), np.uint8))
    failed(fields[0], replace(again, labels=alone), tmp_path, InputError)
    caplog.set_level("INFO", "hsiclust")

    def left() -> set[str]:
        there = set(tmp_path.glob("m_*")) - set(others) - {mine}
        return {path.name.removesuffix(".aux.xml") for path in there}

    train([scene], model, replace(again, split="none"))
    assert left() == {"m_training.tif"}
    (said,) = [line for line in caplog.messages if "removed" in line]
    assert said == (
        f"{tmp_path / 'm_held_out.tif'}: removed, of the training of the model that is replaced"
    )
    train([scene], model, TrainOptions(method="kmeans", classes=4, steps=2, overwrite=True))
    assert left() == set()
    assert {path: path.read_bytes() for path in others} == others
    assert other.split[1] in others
    assert read(mine).all()


def failed(scene: Path, options: TrainOptions, folder: Path, kind: type[HsiclustError]) -> str:
    """What a training that fails says, in one line; it leaves nothing behind."""
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(kind) as found:
        train([str(scene)], folder / "m.safetensors", options)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("options", [SVM, CONTRASTDM])
def test_a_training_that_fails_leaves_nothing(
    fields: tuple[Path, Path], tmp_path: Path, options: TrainOptions
) -> None:
    far = rasterio.Affine(30.0, 0.0, 700000.0, 0.0, -30.0, 5800000.0)
    truth = fields_cube()[1][None]
    elsewhere = write_raster(tmp_path / "elsewhere.tif", truth, nodata=0, transform=far)
    said = failed(fields[0], replace(options, labels=elsewhere), tmp_path, NoOverlapError)
    assert "elsewhere.tif" in said
    alone = write_raster(tmp_path / "alone.tif", np.where(truth == 2, 2, 0).astype(np.uint8))
    said = failed(fields[0], replace(options, labels=alone), tmp_path, InputError)
    assert "one class alone" in said
    dark = write_raster(tmp_path / "dark.tif", np.zeros((1, 60, 70), np.uint8))
    said = failed(fields[0], replace(options, labels=fields[1], mask=dark), tmp_path, InputError)
    assert "mask" in said
    crops = write_fields(tmp_path / "fields.gpkg")
    said = failed(fields[0], replace(options, labels=crops, field="plant"), tmp_path, InputError)
    assert "plant" in said
    assert "crop" in said


def test_what_a_training_writes_beside_is_not_replaced_unasked(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    asked = replace(SVM, labels=fields[1], per_class=10)
    for name in ("m_held_out.tif", "m_training.tif"):
        (tmp_path / name).write_text("mine")
        assert name in failed(fields[0], asked, tmp_path, OutputExistsError)
        (tmp_path / name).unlink()
    (tmp_path / "m_held_out.tif").write_text("old")
    again = replace(asked, overwrite=True)
    train([str(fields[0])], tmp_path / "m.safetensors", again)
    assert read(tmp_path / "m_held_out.tif").any()
    # the labels that it learns from are not replaced even then
    own = replace(again, labels=tmp_path / "m_training.tif")
    assert "m_training.tif" in failed(fields[0], own, tmp_path, UsageError)


def test_the_labels_of_another_model_are_not_replaced(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    """Scene 1 of `m` and the one scene of `m_1` have labels of one name."""
    asked = replace(SVM, labels=fields[1], per_class=10)
    train([str(fields[0])], tmp_path / "m_1.safetensors", asked)
    held_out = (tmp_path / "m_1_held_out.tif").read_bytes()
    two = [str(fields[0]), str(fields[0])]
    with pytest.raises(OutputExistsError, match=r"holds labels of the training of m_1.safetensors"):
        train(two, tmp_path / "m.safetensors", replace(asked, overwrite=True))
    assert (tmp_path / "m_1_held_out.tif").read_bytes() == held_out


def test_labels_of_another_training_are_no_reason_to_go_on(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY", 0.0)

    def kill(step: Step) -> None:
        if step.step == 4:
            raise Killed

    asked = replace(CONTRASTDM, labels=fields[1], per_class=10)
    seen: list[int] = []
    for other, first in ((asked, 4), (replace(asked, per_class=9), 1)):
        with pytest.raises(Killed):
            train([str(fields[0])], tmp_path / "m", asked, kill)
        seen.clear()
        model = replace(other, overwrite=True)
        train([str(fields[0])], tmp_path / "m", model, lambda step: seen.append(step.step))
        assert seen[0] == first
        for path in tmp_path.glob("m*"):
            path.unlink()


def spied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Labels of all tiles that a machine studies."""
    seen: list[int] = []
    study = Svm.study

    def watched(self: Svm, tiles: list[Batch], *rest: object) -> None:
        seen.append(int(labelled_counts(tiles, self.classes).sum()))
        study(self, tiles, *rest)

    monkeypatch.setattr(Svm, "study", watched)
    return seen


def test_labels_in_tiles_beyond_the_budget_are_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cube, truth = fields_cube(300, 520, bands=5)
    marked = np.zeros_like(truth)
    for row, col in ((5, 5), (270, 490), (5, 500), (280, 20)):
        marked[row : row + 12, col : col + 12] = truth[row : row + 12, col : col + 12]
    scene = write_raster(tmp_path / "large.tif", cube)
    labels = write_raster(tmp_path / "labels.tif", marked[None], nodata=0)
    seen = spied(monkeypatch)
    asked = replace(SVM, labels=labels, split="random", budget=1)
    result = train([str(scene)], tmp_path / "m", asked)
    assert seen == [np.count_nonzero(read(result.split[0]))]
    assert result.held_out is not None
    assert result.held_out.accuracy.pixels == np.count_nonzero(read(result.split[1]))
    assert "not learned from" not in caplog.text
    monkeypatch.setattr(lessons, "_LABELLED_PIXELS", 1)
    result = train([str(scene)], tmp_path / "n", asked)
    assert seen[1] < seen[0]
    assert f"{seen[0] - seen[1]} of {seen[0]} labelled pixels lie in tiles beyond" in caplog.text


def test_a_tile_store_is_learned_from_with_labels(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    cube, _ = fields_cube()
    cube[3, 10:14, 20:30] = -9999
    scene = str(write_raster(tmp_path / "holes.tif", cube, nodata=-9999))
    store = tile(scene, tmp_path / "s.zarr", TileOptions(TileShape(32, 12), engine=ENGINE))
    asked = replace(SVM, labels=fields[1], split="random", per_class=15)
    result = train([str(store.path)], tmp_path / "m.safetensors", asked)
    training, held_out = map(read, result.split)
    assert not (training | held_out)[10:14, 20:30].any()
    assert np.count_nonzero(training | held_out) == 60 * 70 - 40
    predict(scene, result.model, tmp_path / "map.tif", ON_CPU)
    check_score(result, tmp_path / "map.tif")


def test_labels_need_no_pixel_on_each_scene(fields: tuple[Path, Path], tmp_path: Path) -> None:
    far = rasterio.Affine(30.0, 0.0, 700000.0, 0.0, -30.0, 5800000.0)
    other = write_raster(tmp_path / "far.tif", fields_cube(30, 30)[0], transform=far)
    asked = replace(SVM, labels=fields[1], per_class=10)
    result = train([str(other), str(fields[0])], tmp_path / "m", asked)
    assert result.held_out is not None
    assert not read(result.split[0]).any()
    assert np.count_nonzero(read(result.split[2])) == 40
    with pytest.raises(InputError, match=r"truth\.tif"):
        train([str(other)], tmp_path / "n", asked)
