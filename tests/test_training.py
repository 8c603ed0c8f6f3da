import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from conftest import Killed, fields_cube, write_raster
from rasterio.warp import transform

import hsiclust.training as loop
from hsiclust.engine import EngineOptions
from hsiclust.errors import (
    InputError,
    ModelError,
    OutputExistsError,
    StoppedError,
    UsageError,
)
from hsiclust.modelfile import load_model
from hsiclust.models.sscc import Sscc, SsccConfig
from hsiclust.recipe import TrainOptions, initial_model
from hsiclust.staging import TileShape
from hsiclust.tiling import TileOptions, tile
from hsiclust.training import Step, Training, train

KMEANS = TrainOptions(method="kmeans", classes=4, steps=10, engine=EngineOptions(threads=1))
SSCC = replace(KMEANS, method="sscc", steps=4)


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


def test_a_budget_bounds_what_is_learned_from(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "large.tif", fields_cube(300, 400, 6)[0])
    result = train([str(scene)], tmp_path / "m", replace(KMEANS, budget=40_000))
    assert 20_000 < result.pixels <= 40_000


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
    assert Training(Path(), "sscc", 16, 7, 1, 1, 0.0, 0.0).collapsed
    assert not Training(Path(), "sscc", 16, 8, 1, 1, 0.0, 0.0).collapsed


def test_what_cannot_be_trained(fields: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    with pytest.raises(OutputExistsError):
        train([str(fields[0])], tmp_path / "there", KMEANS)
    with pytest.raises(UsageError, match="no folder"):
        train([str(fields[0])], tmp_path / "no" / "model", KMEANS)
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
        {"encoder": "large"},
        {"encoder": "dense"},
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


def test_the_original_encoder_gets_the_papers_input(fields: tuple[Path, Path]) -> None:
    model = initial_model([str(fields[0])], TrainOptions(encoder="original"))
    assert isinstance(model.method, Sscc)
    assert model.method.settings == SsccConfig.original()
    assert model.method.receptive_field == 11
    assert model.transform.kind == "pca"
    assert model.transform.components == 8
    assert (model.transform.weights == 1).all()  # each value standardised


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
