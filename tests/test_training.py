import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from conftest import TRANSFORM, Killed, fields_cube, write_raster
from rasterio.warp import transform
from sklearn.metrics import adjusted_rand_score

import hsiclust.training as loop
from hsiclust import lessons, sample, trainoptions
from hsiclust.api import predict
from hsiclust.checkpoint import load_checkpoint, save_checkpoint
from hsiclust.engine import EngineOptions
from hsiclust.errors import (
    InputError,
    ModelError,
    OutputExistsError,
    StoppedError,
    UsageError,
)
from hsiclust.modelfile import load_model
from hsiclust.models.base import Batch, Learned, Progress
from hsiclust.models.consensus import Teacher
from hsiclust.models.kmeans import KMeans
from hsiclust.models.settings import SsccConfig
from hsiclust.models.sscc import Sscc
from hsiclust.predictoptions import PredictOptions
from hsiclust.recipe import initial_model
from hsiclust.scene import Scene
from hsiclust.spectra import Kind, SpectralTransform
from hsiclust.spectralfit import Sample
from hsiclust.staging import TileShape
from hsiclust.tiling import TileOptions, tile
from hsiclust.trained import Step, Training
from hsiclust.training import train
from hsiclust.trainoptions import TrainOptions

KMEANS = TrainOptions(method="kmeans", classes=4, steps=10, engine=EngineOptions(threads=1))
SSCC = replace(KMEANS, method="sscc", steps=4)


# Spectra of the fields.
MEANS = [fields_cube()[0][:, fields_cube()[1] == number].mean(axis=1) for number in range(1, 5)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(path).method.state_dict())


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("options", [KMEANS, SSCC])
def test_a_seed_gives_one_model(
    fields: tuple[Path, Path], tmp_path: Path, options: TrainOptions
) -> None:
    for name in ("a", "b"):
        train([str(fields[0])], tmp_path / name, options)
    assert same(tmp_path / "a", tmp_path / "b")
    train([str(fields[0])], tmp_path / "c", replace(options, seed=1))
    assert not same(tmp_path / "a", tmp_path / "c")


def test_no_scene_is_staged_before_all_can_be_used(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train([str(fields[0])], tmp_path / "old", KMEANS)
    few = write_raster(tmp_path / "few.tif", fields_cube()[0][:3])
    monkeypatch.setattr("hsiclust.lessons.stage_tiles", lambda *_: pytest.fail("staged"))
    with pytest.raises(ModelError, match=r"^\S+few\.tif: has 3 bands and the model was fitted on"):
        train([str(fields[0]), str(few)], tmp_path / "new", replace(KMEANS, init=tmp_path / "old"))


def test_nothing_but_the_model_is_left(fields: tuple[Path, Path], tmp_path: Path) -> None:
    before = {file.name for file in tmp_path.iterdir()}
    result = train([str(fields[0])], tmp_path / "model.safetensors", KMEANS)
    assert {file.name for file in tmp_path.iterdir()} - before == {"model.safetensors"}
    assert result.in_use == 4
    assert not result.collapsed
    assert result.pixels == 60 * 70
    provenance = load_model(result.model).provenance
    assert provenance["scenes"] == ["scene.tif"]
    assert sum(provenance["cluster_pixels"]) == 60 * 70


@pytest.mark.parametrize("options", [KMEANS, SSCC])
def test_a_killed_training_goes_on_to_the_same_model(
    fields: tuple[Path, Path],
    tmp_path: Path,
    options: TrainOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train([str(fields[0])], tmp_path / "whole", options)
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY", 0.0)
    seen: list[int] = []

    def kill(step: Step) -> None:
        seen.append(step.step)
        if step.step == 3:
            raise Killed

    with pytest.raises(Killed):
        train([str(fields[0])], tmp_path / "model", options, kill)
    assert not (tmp_path / "model").exists()
    seen.clear()
    train([str(fields[0])], tmp_path / "model", options, lambda step: seen.append(step.step))
    assert seen[0] == 3  # the checkpoint was of the step before
    assert same(tmp_path / "whole", tmp_path / "model")


def test_what_is_stopped_after_its_last_step_has_the_same_record(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    train([str(fields[0])], tmp_path / "whole", KMEANS)

    def stop(step: Step) -> None:
        if step.step == step.steps:
            raise StoppedError

    with pytest.raises(StoppedError):
        train([str(fields[0])], tmp_path / "model", KMEANS, stop)
    result = train([str(fields[0])], tmp_path / "model", KMEANS)
    whole = load_model(tmp_path / "whole").provenance
    assert load_model(tmp_path / "model").provenance == whole
    assert result.loss == whole["loss"]


def test_what_is_killed_behind_its_last_step_takes_none_again(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    whole = train([str(fields[0])], tmp_path / "whole", KMEANS)
    with monkeypatch.context() as dying:
        dying.setattr(loop, "label_sample", killed)
        with pytest.raises(Killed):
            train([str(fields[0])], tmp_path / "model", KMEANS)
    steps: list[Step] = []
    result = train([str(fields[0])], tmp_path / "model", KMEANS, steps.append)
    assert not steps
    assert result.loss == whole.loss
    assert same(tmp_path / "whole", tmp_path / "model")


def test_staged_scenes_are_gone_before_there_is_a_model(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train([str(fields[0])], tmp_path / "whole", KMEANS)

    def kill(*_: object) -> None:
        raise Killed

    before = {file.name for file in tmp_path.iterdir()}
    with monkeypatch.context() as killing:
        killing.setattr(loop, "save_model", kill)
        with pytest.raises(Killed):
            train([str(fields[0])], tmp_path / "model", KMEANS)
    assert {file.name for file in tmp_path.iterdir()} - before == {".model.checkpoint"}
    train([str(fields[0])], tmp_path / "model", KMEANS)
    assert {file.name for file in tmp_path.iterdir()} - before == {"model"}
    assert same(tmp_path / "whole", tmp_path / "model")


def test_staged_scenes_of_a_killed_training_of_more_are_removed(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    second = shutil.copy(fields[0], tmp_path / "second.tif")

    def kill(step: Step) -> None:
        raise Killed

    with pytest.raises(Killed):
        train([str(fields[0]), str(second)], tmp_path / "model", KMEANS, kill)
    assert (tmp_path / ".model.1.tiles.zarr").is_dir()
    train([str(fields[0])], tmp_path / "model", KMEANS)
    assert not list(tmp_path.glob(".model*"))


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY", 0.0)

    def kill(step: Step) -> None:
        if step.step == 3:
            raise Killed

    with pytest.raises(Killed):
        train([str(fields[0])], tmp_path / "model", KMEANS, kill)
    seen: list[int] = []
    other = replace(KMEANS, seed=5)
    train([str(fields[0])], tmp_path / "model", other, lambda step: seen.append(step.step))
    assert seen[0] == 1


def test_a_mask_limits_what_is_learned_from(fields: tuple[Path, Path], tmp_path: Path) -> None:
    mask = np.zeros((1, 60, 70), np.uint8)
    mask[0, 10:20, 5:25] = 1
    path = write_raster(tmp_path / "mask.tif", mask)
    result = train([str(fields[0])], tmp_path / "m", replace(KMEANS, classes=2, mask=path))
    assert result.pixels == 200
    empty = write_raster(tmp_path / "empty.tif", mask * 0)
    with pytest.raises(InputError, match="within mask"):
        train([str(fields[0])], tmp_path / "n", replace(KMEANS, mask=empty))
    assert not (tmp_path / "n").exists()


def test_a_mask_limits_what_the_transform_is_fitted_to(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    cube, _ = fields_cube()
    clouds = cube.copy()
    clouds[:, :, 40:] = 9999
    clear = np.ones((1, 60, 70), np.uint8)
    clear[:, :, 40:] = 0
    mask = write_raster(tmp_path / "clear.tif", clear)
    for name, pixels in (("plain", cube), ("clouds", clouds)):
        scene = write_raster(tmp_path / f"{name}.tif", pixels)
        options = replace(KMEANS, mask=mask, smoothing=0.0)
        train([str(scene)], tmp_path / name, options)
    plain, clouded = load_model(tmp_path / "plain"), load_model(tmp_path / "clouds")
    assert plain.transform.equals(clouded.transform)
    assert same(tmp_path / "plain", tmp_path / "clouds")


def test_a_training_stopped_between_steps_goes_on_from_there(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    def stop(step: Step) -> None:
        if step.step == 3:
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        train([str(fields[0])], tmp_path / "model", KMEANS, stop)
    seen: list[int] = []
    train([str(fields[0])], tmp_path / "model", KMEANS, lambda step: seen.append(step.step))
    assert seen[0] == 4


def test_a_training_that_fails_leaves_nothing(fields: tuple[Path, Path], tmp_path: Path) -> None:
    other = write_raster(tmp_path / "other.tif", np.zeros((1, 9, 9), np.uint8), crs=None)
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match="do not match"):
        train([str(fields[0])], tmp_path / "m", replace(KMEANS, match_to=other))
    assert set(tmp_path.iterdir()) == before


def test_a_model_that_another_training_wrote_meanwhile_is_not_replaced(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m"
    monkeypatch.setattr(loop, "refuse_inputs", lambda *_: output.write_text("of another"))
    before = {*tmp_path.iterdir(), output}
    with pytest.raises(OutputExistsError, match="--overwrite replaces it"):
        train([str(fields[0])], output, KMEANS)
    assert output.read_text() == "of another"
    assert set(tmp_path.iterdir()) == before
    train([str(fields[0])], output, replace(KMEANS, overwrite=True))


def test_masked_pixels_do_not_reach_the_centres(tmp_path: Path) -> None:
    cube, truth = fields_cube()
    truth[:, 35:] = 0
    odd = cube.copy()
    odd[:, :, 50:] = cube[:, ::-1, 50:]
    scenes = [write_raster(tmp_path / f"{i}.tif", c) for i, c in enumerate((cube, odd))]
    mask = write_raster(tmp_path / "mask.tif", truth[None])
    store = tmp_path / "store.zarr"  # one transform for both
    tile(str(scenes[0]), store, TileOptions(engine=EngineOptions(threads=1)))
    train([str(store)], tmp_path / "a", replace(KMEANS, mask=mask))
    again = tmp_path / "again.zarr"
    tile(
        str(scenes[1]),
        again,
        TileOptions(model=tmp_path / "a", engine=EngineOptions(threads=1)),
    )
    train([str(again)], tmp_path / "b", replace(KMEANS, mask=mask))
    assert same(tmp_path / "a", tmp_path / "b")


def test_bounds_limit_what_is_learned_from(fields: tuple[Path, Path], tmp_path: Path) -> None:
    bounds = (400000.0, 5800000.0 - 30 * 30, 400000.0 + 40 * 30, 5800000.0)
    result = train([str(fields[0])], tmp_path / "m", replace(KMEANS, bounds=bounds))
    assert result.pixels == 30 * 40


def test_the_scene_that_bounds_miss_is_named(fields: tuple[Path, Path], tmp_path: Path) -> None:
    elsewhere = write_raster(
        tmp_path / "elsewhere.tif",
        fields_cube()[0],
        transform=TRANSFORM @ Affine.translation(90, 0),
    )
    bounds = (400000.0, 5799000.0, 401000.0, 5800000.0)
    with pytest.raises(UsageError, match=r"elsewhere\.tif: bounds .* do not meet the scene"):
        train([str(fields[0]), str(elsewhere)], tmp_path / "m", replace(KMEANS, bounds=bounds))


def test_a_budget_bounds_what_is_learned_from(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "large.tif", fields_cube(300, 400, 6)[0])
    result = train([str(scene)], tmp_path / "m", replace(KMEANS, budget=40_000))
    assert 20_000 < result.pixels <= 40_000


def test_a_budget_bounds_what_is_learned_from_many_scenes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = [
        str(write_raster(tmp_path / f"{number}.tif", fields_cube(20, 20, 6)[0]))
        for number in range(12)
    ]
    staged: list[str] = []
    stage = lessons.stage_tiles

    def noted(scene: Scene, *others: Any) -> Iterator[int]:
        staged.append(scene.path)
        return stage(scene, *others)

    monkeypatch.setattr(lessons, "stage_tiles", noted)
    with caplog.at_level("INFO"):
        result = train(scenes, tmp_path / "m", replace(KMEANS, budget=1000))
    assert result.pixels == 3 * 400
    assert staged == [scenes[0], scenes[4], scenes[9]]
    assert "a budget of 1000 pixels holds no tile of 9 of the 12 scenes" in caplog.text


def test_the_sample_of_many_scenes_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = [
        str(write_raster(tmp_path / f"{number}.tif", fields_cube(64, 64, 6)[0]))
        for number in range(5)
    ]
    sampled: list[int] = []
    fit = sample.fit_transform

    def fitted(windows: Sample, *others: Any, **more: Any) -> SpectralTransform:
        sampled.append(len(windows))
        return fit(windows, *others, **more)

    monkeypatch.setattr(sample, "fit_transform", fitted)
    monkeypatch.setattr(sample, "_SAMPLE_PIXELS", 2 * 64**2)
    train(scenes, tmp_path / "m", replace(KMEANS, steps=1))
    assert sampled == [2]


def test_several_scenes_and_stores_together(tmp_path: Path) -> None:
    first = write_raster(tmp_path / "1.tif", fields_cube()[0])
    second = write_raster(tmp_path / "2.tif", fields_cube(40, 50)[0])
    result = train([str(first), str(second)], tmp_path / "m", KMEANS)
    assert result.pixels == 60 * 70 + 40 * 50
    store = tile(
        str(first),
        tmp_path / "s.zarr",
        TileOptions(model=tmp_path / "m", engine=EngineOptions(threads=1)),
    )
    both = train([str(store.path), str(second)], tmp_path / "n", KMEANS)
    assert both.pixels == result.pixels
    assert load_model(both.model).transform.equals(load_model(result.model).transform)


def test_epochs_are_passes_over_the_pixels(fields: tuple[Path, Path], tmp_path: Path) -> None:
    options = replace(KMEANS, steps=None, epochs=20)
    result = train([str(fields[0])], tmp_path / "m", options)
    assert result.steps == -(-20 * 4200 // (256 * 64))


def test_init_goes_on_and_keeps_identities(fields: tuple[Path, Path], tmp_path: Path) -> None:
    train([str(fields[0])], tmp_path / "old", KMEANS)
    brighter = fields_cube()[0] + np.int16(5)
    new = write_raster(tmp_path / "new.tif", brighter)
    train([str(new)], tmp_path / "model", replace(KMEANS, init=tmp_path / "old"))
    old, model = load_model(tmp_path / "old"), load_model(tmp_path / "model")
    assert model.transform.equals(old.transform)
    assert model.provenance["scenes"] == ["scene.tif", "new.tif"]
    distances = torch.cdist(
        old.method.state_dict()["centres"], model.method.state_dict()["centres"]
    )
    assert torch.equal(distances.argmin(dim=1), torch.arange(4))
    assert model.method.state_dict()["counts"].sum() > old.method.state_dict()["counts"].sum()
    assert not torch.equal(old.method.state_dict()["centres"], model.method.state_dict()["centres"])


@pytest.mark.parametrize(
    "other",
    [{"classes": 5}, {"method": "sscc"}, {"smoothing": 7.0}, {"kind": "pca"}, {"bands": "1..5"}],
)
def test_init_settles_what_the_model_is(
    fields: tuple[Path, Path], tmp_path: Path, other: dict[str, object]
) -> None:
    train([str(fields[0])], tmp_path / "old", KMEANS)
    options = replace(KMEANS, init=tmp_path / "old", **other)
    with pytest.raises(UsageError, match="--init"):
        train([str(fields[0])], tmp_path / "new", options)


def test_clusters_rise_in_their_first_component(fields: tuple[Path, Path], tmp_path: Path) -> None:
    train([str(fields[0])], tmp_path / "m", KMEANS)
    centres = weights(tmp_path / "m")["centres"]
    assert bool((centres[:, 0].diff() > 0).all())


def test_match_to_takes_over_the_numbers_of_a_map(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    train([str(fields[0])], tmp_path / "m", KMEANS)
    plain = weights(tmp_path / "m")["centres"]
    options = replace(KMEANS, match_to=fields[1])
    train([str(fields[0])], tmp_path / "n", options)
    matched = weights(tmp_path / "n")["centres"]
    order = torch.cdist(matched, plain).argmin(dim=1)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    # the truth's class 1 has the spectrum that cluster 1 now has
    with rasterio.open(fields[0]) as scene, rasterio.open(fields[1]) as truth:
        cube, numbers = scene.read().astype(float), truth.read(1)
    fitted = load_model(tmp_path / "n").transform
    for number in range(1, 5):
        spectrum = cube[:, numbers == number].mean(axis=1)[list(fitted.bands)]
        component = torch.from_numpy(fitted.projection @ (spectrum - fitted.mean))
        nearest = (matched.double() - component).square().sum(dim=1).argmin()
        assert int(nearest) == number - 1


def test_collapse() -> None:
    assert Training(Path(), "sscc", False, 16, 7, 1, 1, 0.0, 0.0, {}, []).collapsed
    assert not Training(Path(), "sscc", False, 16, 8, 1, 1, 0.0, 0.0, {}, []).collapsed
    # that few of the user's classes lie on a scene is no failure
    assert not Training(Path(), "svm", True, 16, 2, 1, 1, 0.0, 0.0, {}, []).collapsed


def test_what_cannot_be_trained(fields: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    with pytest.raises(OutputExistsError):
        train([str(fields[0])], tmp_path / "there", KMEANS)
    with pytest.raises(UsageError, match="no folder"):
        train([str(fields[0])], tmp_path / "no" / "model", KMEANS)
    with pytest.raises(UsageError, match="no scene is named"):
        train([], tmp_path / "m", KMEANS)
    with pytest.raises(UsageError, match="transform 'ica' is unknown: mnf or pca"):
        train([str(fields[0])], tmp_path / "m", replace(KMEANS, kind=cast(Kind, "ica")))
    with pytest.raises(UsageError, match=r"\.: is a folder; name a file"):
        train([str(fields[0])], Path(), KMEANS)
    with pytest.raises(InputError, match="no such file"):
        train([str(tmp_path / "none.tif")], tmp_path / "m", KMEANS)
    with pytest.raises(ModelError, match="no such model"):
        train([str(fields[0])], tmp_path / "m", replace(KMEANS, init=tmp_path / "none"))
    other = write_raster(tmp_path / "other.tif", fields_cube(bands=5)[0])
    with pytest.raises(ModelError, match="5 bands"):
        train([str(fields[0]), str(other)], tmp_path / "m", KMEANS)
    nothing = write_raster(tmp_path / "nothing.tif", fields_cube()[0] * 0 - 1, nodata=-1)
    with pytest.raises(InputError, match="no pixel with data"):
        train([str(nothing)], tmp_path / "m", KMEANS)
    flat = write_raster(tmp_path / "flat.tif", fields_cube()[0] * 0 + 7)
    with pytest.raises(InputError, match=r"flat\.tif: every band is constant over the sample"):
        train([str(flat)], tmp_path / "m", KMEANS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "som"},
        {"classes": 1},
        {"classes": 256},
        {"steps": 3, "epochs": 2.0},
        {"budget": 0},
        {"epochs": -1.0, "steps": None},
        {"epochs": 0.0, "steps": None},
        {"epochs": float("nan"), "steps": None},
        {"seed": 2**32},
        {"smoothing": float("inf")},
        {"method": "sscc", "recipe": "large"},
        {"recipe": "default"},
        {"recipe": "paper"},
        {"teacher": False},
        {"contrast": False},
        {"method": "sscc", "teacher": False, "contrast": False},
        {"method": "sscc", "recipe": "paper", "teacher": True},
        {"method": "sscc", "recipe": "paper", "teacher": False},
        {"method": "sscc", "recipe": "paper", "contrast": False},
        {"method": "sscc", "smoothing": 1.0},
    ],
)
def test_options_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(KMEANS, **wrong)


def test_a_store_brings_its_transform(fields: tuple[Path, Path], tmp_path: Path) -> None:
    store = tile(str(fields[0]), tmp_path / "s.zarr", TileOptions(TileShape(halo=2)))
    with pytest.raises(UsageError, match="transform already"):
        train([str(store.path)], tmp_path / "m", replace(KMEANS, components=3))
    with pytest.raises(InputError, match="--halo 6"):
        train([str(store.path)], tmp_path / "m", KMEANS)


def test_bad_bands_and_asked_for_bands(tmp_path: Path) -> None:
    cube, _ = fields_cube()
    cube[5] = -9999  # a band without data anywhere
    scene = write_raster(tmp_path / "s.tif", cube, nodata=-9999)
    train([str(scene)], tmp_path / "m", KMEANS)
    assert load_model(tmp_path / "m").transform.bands == (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11)
    train([str(scene)], tmp_path / "n", replace(KMEANS, bands="2..4,9"))
    assert load_model(tmp_path / "n").transform.bands == (1, 2, 3, 8)


def test_the_papers_recipe_gets_the_papers_input(fields: tuple[Path, Path]) -> None:
    model = initial_model([str(fields[0])], TrainOptions(recipe="paper"))
    assert isinstance(model.method, Sscc)
    assert model.method.settings == replace(SsccConfig.paper(), seen=8)
    assert model.method.teacher is None
    assert model.method.receptive_field == 11
    assert model.transform.kind == "pca"
    assert model.transform.components == 8
    assert (model.transform.weights == 1).all()  # each value standardised


@pytest.mark.parametrize(
    ("asked", "settings", "most", "seen"),
    [
        ({}, SsccConfig(), 30, 16),
        ({"recipe": "default"}, SsccConfig(), 30, 16),
        ({"contrast": False}, SsccConfig(instance_weight=0.0, cluster_weight=0.0), 30, 16),
        ({"teacher": False}, SsccConfig.contrast_only(), 12, 12),
    ],
)
def test_parts_of_sscc_can_be_left_out(
    tmp_path: Path, asked: dict[str, object], settings: SsccConfig, most: int, seen: int
) -> None:
    scene = write_raster(tmp_path / "scene.tif", fields_cube(bands=40)[0])
    model = initial_model([str(scene)], replace(TrainOptions(), **asked))
    assert isinstance(model.method, Sscc)
    assert model.method.settings == replace(settings, seen=seen)
    assert (model.method.teacher is None) == (settings.partitions == 0)
    assert model.transform.kind == "mnf"
    assert model.transform.components == most


@pytest.mark.parametrize("part", [{"teacher": False}, {"contrast": False}])
def test_a_training_without_a_part(
    fields: tuple[Path, Path], tmp_path: Path, part: dict[str, object]
) -> None:
    result = train([str(fields[0])], tmp_path / "m", replace(SSCC, **part, steps=2))
    assert bool(result.choices) == ("contrast" in part)
    provenance = load_model(result.model).provenance
    assert provenance["choices"] == result.choices


def test_the_paper_is_trained_by_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[tuple[int, float]] = []

    def watched(
        self: Sscc, batch: Batch, progress: Progress, generator: torch.Generator
    ) -> Learned:
        assert batch.values.shape == (512, 3, 11, 11)
        assert batch.lesson is None
        places.append((progress.step, progress.epoch))
        return Learned(0.0, torch.ones(2))

    monkeypatch.setattr(Sscc, "learn", watched)  # a step takes seconds
    scene = write_raster(tmp_path / "scene.tif", fields_cube(20, 20)[0])
    mask = np.zeros((1, 20, 20), np.uint8)
    mask[0, 10:14, 5:13] = 1
    path = write_raster(tmp_path / "mask.tif", mask)
    options = TrainOptions(classes=2, recipe="paper", components=3, mask=path, epochs=30)
    result = train([str(scene)], tmp_path / "m", options)
    assert result.pixels == 32
    assert result.steps == 2  # 960 patches in batches of 512
    assert places == [(0, 0.0), (1, 16.0)]
    assert result.choices == {}


def test_budgets_follow_the_method() -> None:
    sscc, kmeans = Sscc(3, 4), KMeans(3, 4)
    assert TrainOptions().most_pixels(sscc) == 2**18
    assert TrainOptions().most_pixels(kmeans) == 2**22
    assert replace(KMEANS, budget=7).most_pixels(kmeans) == 7


def test_a_model_to_go_on_from_brings_its_budget(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainoptions, "_BUDGETS", {"kmeans": 10**6, "sscc": 300})
    store = tile(
        str(fields[0]),
        tmp_path / "s.zarr",
        TileOptions(TileShape(16, 6), engine=EngineOptions(threads=1)),
    )
    first = train([str(store.path)], tmp_path / "old", KMEANS)
    options = TrainOptions(steps=2, init=tmp_path / "old")
    again = train([str(store.path)], tmp_path / "new", options)
    assert again.pixels == first.pixels == 60 * 70


TAUGHT = replace(SSCC, contrast=False, steps=40)


def teacher_of(path: Path) -> Teacher:
    method = load_model(path).method
    assert isinstance(method, Sscc)
    assert method.teacher is not None
    return method.teacher


def spied(monkeypatch: pytest.MonkeyPatch) -> list[Batch]:
    """Batches that reach the method from now on."""
    batches: list[Batch] = []
    learn = Sscc.learn

    def watched(
        self: Sscc, batch: Batch, progress: Progress, generator: torch.Generator
    ) -> Learned:
        batches.append(batch)
        return learn(self, batch, progress, generator)

    monkeypatch.setattr(Sscc, "learn", watched)
    return batches


def test_the_network_learns_what_the_teacher_says(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = spied(monkeypatch)
    result = train([str(fields[0])], tmp_path / "m", TAUGHT)
    assert len(batches) == 40
    for batch in batches:
        assert batch.lesson is not None
        assert batch.lesson.classes.shape == batch.fit.shape
        assert float(batch.lesson.trust[batch.fit].min()) >= 0.09
        assert set(batch.lesson.classes[batch.fit].tolist()) <= {0, 1, 2, 3}
    assert result.in_use == 4
    # teacher and network carry the same, final numbers; together they find the fields
    method = load_model(result.model).method
    values, fit = batches[-1].values, batches[-1].fit
    edge = method.crop_shape.context - method.halo
    assert edge == 0
    with torch.inference_mode():
        labels = method.settled()(values).argmax(dim=1)
    taught = torch.stack([lesson.classes for lesson in map(method.teach, values) if lesson])
    assert float((labels == taught)[fit].float().mean()) > 0.9


def test_a_teacher_and_its_network_find_the_fields(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    train([str(fields[0])], tmp_path / "m", replace(TAUGHT, contrast=None))
    predict(str(fields[0]), tmp_path / "m", tmp_path / "map.tif", PredictOptions(device="cpu"))
    with rasterio.open(tmp_path / "map.tif") as labels, rasterio.open(fields[1]) as truth:
        assert adjusted_rand_score(truth.read(1).ravel(), labels.read(1).ravel()) > 0.8


def test_choices_and_stages_are_told_and_kept(fields: tuple[Path, Path], tmp_path: Path) -> None:
    result = train([str(fields[0])], tmp_path / "m", replace(SSCC, steps=2))
    assert result.choices == teacher_of(result.model).choices()
    assert result.choices["partitions"] == 32
    assert result.choices["clusters_found"] == 4
    names = [stage.name for stage in result.stages]
    assert names == ["transform", "staging", "teacher", "steps", "order"]
    assert 0 < sum(stage.seconds for stage in result.stages) <= result.seconds + 0.01
    provenance = load_model(result.model).provenance
    assert provenance["choices"] == result.choices
    assert train([str(fields[0])], tmp_path / "k", KMEANS).choices == {}


def test_a_mask_limits_what_is_taught(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((1, 60, 70), np.uint8)
    mask[0, 5:50, 10:40] = 1
    path = write_raster(tmp_path / "mask.tif", mask)
    batches = spied(monkeypatch)
    studied: list[int] = []
    study = Teacher.study

    def watched(self: Teacher, tiles: Sequence[Batch], random: torch.Generator) -> None:
        studied.append(sum(int(tile.fit.sum()) for tile in tiles))
        study(self, tiles, random)

    monkeypatch.setattr(Teacher, "study", watched)
    result = train([str(fields[0])], tmp_path / "m", replace(SSCC, mask=path))
    assert result.pixels == 45 * 30
    assert studied == [45 * 30]
    assert min(int(batch.fit.sum()) for batch in batches) > 0
    assert sum(load_model(result.model).provenance["cluster_pixels"]) == 45 * 30
    few = write_raster(
        tmp_path / "few.tif", np.where(np.cumsum(mask).reshape(mask.shape) <= 31, mask, 0)
    )
    with pytest.raises(InputError, match="fewer than 32 pixels"):
        train([str(fields[0])], tmp_path / "n", replace(SSCC, classes=16, mask=few))


def test_a_killed_training_does_not_study_again(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it dies before the first checkpoint of its steps."""
    train([str(fields[0])], tmp_path / "whole", SSCC)

    def kill(step: Step) -> None:
        raise Killed

    with pytest.raises(Killed):
        train([str(fields[0])], tmp_path / "model", SSCC, kill)

    def unwanted(self: Teacher, tiles: Sequence[Batch], random: torch.Generator) -> None:
        raise AssertionError

    monkeypatch.setattr(Teacher, "study", unwanted)
    seen: list[int] = []
    train([str(fields[0])], tmp_path / "model", SSCC, lambda step: seen.append(step.step))
    assert seen == [1, 2, 3, 4]
    assert same(tmp_path / "whole", tmp_path / "model")


def test_what_is_not_there_or_damaged_or_of_another_run_is_no_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = Sscc(3, 4, SsccConfig(width=8, partitions=2))
    path = tmp_path / "checkpoint"
    assert load_checkpoint(path, method, "run") is None
    save_checkpoint(path, method, "run", 0)
    assert load_checkpoint(path, method, "another") is None
    other = Sscc(3, 4, SsccConfig(width=8, partitions=2))
    assert load_checkpoint(path, other, "run") == 0
    assert torch.equal(other.head[0].weight, method.head[0].weight)
    content = path.read_bytes()
    path.write_bytes(content[:100])
    assert load_checkpoint(path, method, "run") is None
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    assert load_checkpoint(path, method, "run") is None


def test_init_keeps_the_teacher_and_identities(fields: tuple[Path, Path], tmp_path: Path) -> None:
    train([str(fields[0])], tmp_path / "old", TAUGHT)
    new = write_raster(tmp_path / "new.tif", fields_cube()[0] + np.int16(5))
    options = TrainOptions(init=tmp_path / "old", steps=3, engine=EngineOptions(threads=1))
    result = train([str(new)], tmp_path / "new", options)
    old, again = teacher_of(tmp_path / "old"), teacher_of(tmp_path / "new")
    for name, value in old.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert result.choices == old.choices()
    first, second = load_model(tmp_path / "old"), load_model(tmp_path / "new")
    assert isinstance(second.method, Sscc)
    assert isinstance(first.method, Sscc)
    assert second.method.settings == first.method.settings
    assert not same(tmp_path / "old", tmp_path / "new")
    values = torch.from_numpy(
        np.stack([first.transform.projection @ (m - first.transform.mean) for m in MEANS])
    )
    flat = values.float()[:, :, None, None].expand(-1, -1, 15, 15)
    with torch.inference_mode():
        labels = [model.method.settled()(flat).argmax(1).flatten() for model in (first, second)]
    assert sorted(labels[0].tolist()) == [0, 1, 2, 3]
    assert torch.equal(labels[0], labels[1])


def test_init_settles_what_sscc_is(fields: tuple[Path, Path], tmp_path: Path) -> None:
    train([str(fields[0])], tmp_path / "old", replace(SSCC, teacher=False, steps=1))
    others: list[dict[str, object]] = [
        {"recipe": "paper"},
        {"teacher": False},
        {"contrast": False},
        {"method": "kmeans"},
    ]
    for other in others:
        options = replace(TrainOptions(init=tmp_path / "old"), **other)
        with pytest.raises(UsageError, match=f"--{next(iter(other))} .* --init"):
            train([str(fields[0])], tmp_path / "new", options)


def test_a_seed_gives_the_same_bytes(fields: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        train([str(fields[0])], tmp_path / name, KMEANS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_polygons_as_a_mask(fields: tuple[Path, Path], tmp_path: Path) -> None:
    """Two squares in another CRS; only what they cover is learned from."""
    corners = [
        (400300.0, 5799700.0, 400600.0, 5799400.0),
        (401200.0, 5799000.0, 401500.0, 5798700.0),
    ]
    rings = [[(w, n), (e, n), (e, s), (w, s), (w, n)] for w, n, e, s in corners]
    features = []
    for ring in rings:
        xs, ys = transform("EPSG:32633", "EPSG:4326", *zip(*ring, strict=True))
        points = [list(point) for point in zip(xs, ys, strict=True)]
        geometry = {"type": "Polygon", "coordinates": [points]}
        features.append({"type": "Feature", "properties": {}, "geometry": geometry})
    mask = tmp_path / "mask.geojson"
    mask.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    result = train([str(fields[0])], tmp_path / "m", replace(KMEANS, classes=2, mask=mask))
    assert result.pixels == 2 * 10 * 10


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (replace(KMEANS, classes=None), ("init", "mask", "match_to")),
        (TrainOptions(method="svm", labels=Path("any"), engine=KMEANS.engine), ("labels",)),
    ],
)
def test_files_may_be_named_by_text(
    fields: tuple[Path, Path], tmp_path: Path, options: TrainOptions, named: tuple[str, ...]
) -> None:
    train([str(fields[0])], tmp_path / "old", KMEANS)
    files = {name: tmp_path / "old" if name == "init" else fields[1] for name in named}
    texts = {name: str(file) for name, file in files.items()}
    for model, given in (("a", files), ("b", texts)):
        train([str(fields[0])], tmp_path / model, replace(options, **given))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_going_on_takes_fewer_steps() -> None:
    method = Sscc(3, 4)
    assert method.online_steps == 100
    assert method.default_steps == 250
    assert KMeans(3, 4).online_steps == KMeans(3, 4).default_steps


def test_a_restart_that_fails_keeps_what_was_done(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    """As on a machine where the scene's disk is missing."""
    output, scene = tmp_path / "m.safetensors", fields[0]

    def stop(step: Step) -> None:
        if step.step == 2:
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        train([str(scene)], output, SSCC, stop)
    kept = {file.name for file in tmp_path.iterdir() if file.name.startswith(".m.safetensors.")}
    assert len(kept) == 2
    away = scene.rename(tmp_path / "away.tif")
    with pytest.raises(InputError, match="no such file"):
        train([str(scene)], output, SSCC)
    away.rename(scene)
    with pytest.raises(InputError, match=r"mask\.tif"):
        train([str(scene)], output, replace(SSCC, mask=tmp_path / "mask.tif"))
    assert kept <= {file.name for file in tmp_path.iterdir()}
    steps: list[Step] = []
    train([str(scene)], output, SSCC, steps.append)
    assert steps[0].step == 3
    assert not any(file.name.startswith(".m.") for file in tmp_path.iterdir())


def test_a_training_without_steps_goes_on_behind_its_split(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of its split are its own."""

    def killed(*_: object) -> None:
        raise Killed

    output = tmp_path / "m.safetensors"
    options = TrainOptions(method="svm", labels=fields[1], split="random")
    with monkeypatch.context() as dying:
        dying.setattr(loop, "save_model", killed)
        with pytest.raises(Killed):
            train([str(fields[0])], output, options)
    assert (tmp_path / "m_training.tif").exists()
    assert train([str(fields[0])], output, options).model == output
