import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import onnx
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from conftest import Killed, fields_cube, killed_after, write_raster
from numpy.typing import NDArray
from rio_cogeo.cogeo import cog_validate

from hsiclust import cutting, labelmap, labelmodel, labels, prediction, prediction_plan
from hsiclust.api import evaluate, export, predict, predict_scenes, report
from hsiclust.demonstration import demo_scene
from hsiclust.engine import EngineOptions
from hsiclust.errors import (
    HsiclustError,
    InputError,
    MemoryPlanError,
    ModelError,
    OutputExistsError,
    UsageError,
)
from hsiclust.grid import Window
from hsiclust.labels import LabelStore
from hsiclust.modelfile import FittedModel, load_model
from hsiclust.output import locked
from hsiclust.prediction import new_store
from hsiclust.prediction import predict as run_prediction
from hsiclust.prediction_plan import plan_prediction
from hsiclust.predictoptions import PredictOptions
from hsiclust.rasters import open_raster
from hsiclust.sample import TransformOptions
from hsiclust.scene import Scene
from hsiclust.staging import TileShape
from hsiclust.tiling import TileOptions, tile
from hsiclust.training import train
from hsiclust.trainoptions import TrainOptions
from hsiclust.trial import Trial
from hsiclust.workbench import label_strip

HERE = PredictOptions(device="cpu", engine=EngineOptions(threads=2))


@pytest.fixture(scope="module", params=["kmeans", "sscc"])
def real_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the demonstration scene; a few steps do for what is tested here."""
    path = tmp_path_factory.mktemp("model") / f"{request.param}.safetensors"
    options = TrainOptions(method=request.param, classes=8, steps=12, budget=4096)
    train([str(demo_scene())], path, options)
    return path


@pytest.fixture
def model(fields: tuple[Path, Path], tmp_path: Path) -> Path:
    options = TrainOptions(method="kmeans", classes=4, smoothing=1.0, steps=10)
    train([str(fields[0])], tmp_path / "model.safetensors", options)
    return tmp_path / "model.safetensors"


def read(path: Path) -> NDArray[np.uint8]:
    with open_raster(str(path)) as dataset:  # no warning where there is no georeference
        labels: NDArray[np.uint8] = dataset.read(1)
    return labels


def test_the_map_of_fields_is_the_truth(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    result = predict(str(fields[0]), model, tmp_path / "map.tif", HERE)
    labels, truth = read(result.map), read(fields[1])
    assert result.labelled == 60 * 70
    for number in range(1, 5):
        values, counts = np.unique(labels[truth == number], return_counts=True)
        # a Gaussian blurs the fields' borders, nothing else
        assert counts.max() > 0.85 * counts.sum()
        assert values.min() >= 1


def test_a_model_is_opened_once_as_long_as_its_file_is_the_same(
    fields: tuple[Path, Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def counted(path: Path) -> FittedModel:
        opened.append(path)
        return load_model(path)

    monkeypatch.setattr(labelmodel, "load_model", counted)
    scene = str(fields[0])
    first, second = (predict(scene, model, tmp_path / f"{name}.tif", HERE) for name in "ab")
    assert opened == [model]
    assert np.array_equal(read(first.map), read(second.map))
    assert read(first.map).max() == 4
    options = TrainOptions(method="kmeans", classes=2, smoothing=1.0, steps=10)
    train([scene], tmp_path / "other.safetensors", options)
    (tmp_path / "other.safetensors").replace(model)
    third = predict(scene, model, tmp_path / "c.tif", HERE)
    assert opened == [model, model]
    assert read(third.map).max() == 2


def test_the_map_lies_on_the_scenes_grid(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "map.tif"
    predict(str(fields[0]), model, output, HERE)
    assert cog_validate(output, strict=True)[0]
    with rasterio.open(fields[0]) as scene, rasterio.open(output) as label_map:
        assert label_map.transform == scene.transform
        assert label_map.crs == scene.crs
        assert label_map.shape == scene.shape
        assert label_map.nodata == 0
        assert label_map.dtypes == ("uint8",)
        assert label_map.colormap(1)[1][3] == 255
        assert label_map.tags()["HSICLUST_METHOD"] == "kmeans"
        assert label_map.tags()["HSICLUST_SCENE"] == "scene.tif"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "map.tif",
        "map.tif.aux.xml",
        "model.safetensors",
        "scene.tif",
        "truth.tif",
    ]


def test_a_rotated_grid_is_kept_to_the_last_bit(model: Path, tmp_path: Path) -> None:
    transform = (
        Affine.translation(383472.37, 5818302.35) @ Affine.rotation(21.7) @ Affine.scale(3.1, -3.1)
    )
    scene = write_raster(tmp_path / "r.tif", fields_cube()[0], transform=transform)
    predict(str(scene), model, tmp_path / "map.tif", HERE)
    with rasterio.open(tmp_path / "map.tif") as label_map:
        assert label_map.transform == transform


def test_labels_do_not_depend_on_tiles_or_workers(real_model: Path, tmp_path: Path) -> None:
    def labels(name: str, side: int, engine: EngineOptions) -> Path:
        output = tmp_path / f"{name}.tif"
        predict(str(demo_scene()), real_model, output, replace(HERE, tile=side, engine=engine))
        return output

    whole = read(labels("whole", 512, EngineOptions(threads=1)))
    assert len(np.unique(whole)) > 3
    for side in (32, 64, 100):
        one = labels(f"{side}-1", side, EngineOptions(threads=1))
        four = labels(f"{side}-4", side, EngineOptions(threads=4))
        assert one.read_bytes() == four.read_bytes()
        assert (read(one) == whole).mean() >= 0.9999
    processes = labels("64-p", 64, EngineOptions(workers=2, threads=2))
    assert processes.read_bytes() == (tmp_path / "64-1.tif").read_bytes()


def test_invalid_pixels_get_no_class(model: Path, tmp_path: Path) -> None:
    cube, _ = fields_cube()
    cube[2, 7:9, 30:40] = -9999
    cube[:, 50:, 60:] = -9999
    scene = write_raster(tmp_path / "holes.tif", cube, nodata=-9999)
    options = replace(HERE, confidence=True, tile=32)
    result = predict(str(scene), model, tmp_path / "map.tif", options)
    expected = np.zeros((60, 70), bool)
    expected[7:9, 30:40] = expected[50:, 60:] = True
    assert np.array_equal(read(result.map) == 0, expected)
    assert result.confidence == tmp_path / "map_confidence.tif"
    confidence = read(result.confidence)
    assert np.array_equal(confidence == 255, expected)
    assert confidence[~expected].max() <= 100
    assert result.labelled == 60 * 70 - expected.sum()
    with rasterio.open(result.confidence) as dataset:
        assert dataset.nodata == 255


def test_a_scene_smaller_than_the_halo(model: Path, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "tiny.tif", fields_cube(2, 1)[0])
    predict(str(scene), model, tmp_path / "map.tif", HERE)
    assert read(tmp_path / "map.tif").shape == (2, 1)
    assert read(tmp_path / "map.tif").min() >= 1


def test_bounds_give_the_same_labels_as_the_whole(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    predict(str(fields[0]), model, tmp_path / "whole.tif", HERE)
    bounds = (400000.0 + 20 * 30, 5800000.0 - 50 * 30, 400000.0 + 65 * 30, 5800000.0 - 10 * 30)
    part = tmp_path / "part.tif"
    predict(str(fields[0]), model, part, replace(HERE, bounds=bounds))
    assert np.array_equal(read(part), read(tmp_path / "whole.tif")[10:50, 20:65])
    with rasterio.open(part) as dataset:
        assert dataset.bounds == bounds


def test_a_store_gives_the_scenes_labels(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    store = tile(str(fields[0]), tmp_path / "store.zarr", TileOptions(TileShape(32), model=model))
    predict(str(store.path), model, tmp_path / "store.tif", HERE)
    predict(str(fields[0]), model, tmp_path / "scene-map.tif", HERE)
    from_store, from_scene = read(tmp_path / "store.tif"), read(tmp_path / "scene-map.tif")
    assert (from_store == from_scene).mean() > 0.995  # float16 against float32
    with rasterio.open(tmp_path / "store.tif") as dataset:
        assert dataset.transform == Affine(30.0, 0.0, 400000.0, 0.0, -30.0, 5800000.0)


def test_a_store_holds_more_than_the_network_sees(real_model: Path, tmp_path: Path) -> None:
    scene, model = str(demo_scene()), load_model(real_model)
    store = tile(scene, tmp_path / "store.zarr", TileOptions(TileShape(64, 8), model=real_model))
    assert store.transform.components == model.transform.components
    if model.method.name == "sscc":
        assert model.labelling_transform.components == 16 < store.transform.components
    predict(str(store.path), real_model, tmp_path / "store.tif", HERE)
    predict(scene, real_model, tmp_path / "scene.tif", HERE)
    from_store, from_scene = read(tmp_path / "store.tif"), read(tmp_path / "scene.tif")
    assert (from_store == from_scene).mean() > 0.995  # float16 against float32


def test_stores_that_do_not_fit(fields: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    fewer = TransformOptions(components=5)
    own = tile(
        str(fields[0]), tmp_path / "own.zarr", TileOptions(TileShape(halo=8), transform=fewer)
    )
    with pytest.raises(ModelError, match="another spectral transform"):
        predict(str(own.path), model, tmp_path / "m.tif", HERE)
    thin = tile(str(fields[0]), tmp_path / "thin.zarr", TileOptions(TileShape(halo=1), model=model))
    with pytest.raises(ModelError, match="--halo 3"):
        predict(str(thin.path), model, tmp_path / "m.tif", HERE)


def test_other_formats(fields: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    predict(str(fields[0]), model, tmp_path / "cog.tif", HERE)
    predict(str(fields[0]), model, tmp_path / "plain.tif", replace(HERE, driver="GTiff"))
    predict(str(fields[0]), model, tmp_path / "envi.img", HERE)
    expected = read(tmp_path / "cog.tif")
    assert np.array_equal(read(tmp_path / "plain.tif"), expected)
    assert np.array_equal(read(tmp_path / "envi.img"), expected)
    assert "ENVI Classification" in (tmp_path / "envi.hdr").read_text()


def test_outputs_are_not_overwritten_unasked(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    predict(str(fields[0]), model, tmp_path / "map.tif", HERE)
    with pytest.raises(OutputExistsError, match=r"map\.tif.*--overwrite"):
        predict(str(fields[0]), model, tmp_path / "map.tif", HERE)
    predict(str(fields[0]), model, tmp_path / "map.tif", replace(HERE, overwrite=True))


def test_an_interrupted_run_goes_on(
    fields: tuple[Path, Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(HERE, tile=16, confidence=True, engine=EngineOptions(threads=1))
    whole, output = tmp_path / "whole.tif", tmp_path / "map.tif"
    predict(str(fields[0]), model, whole, options)

    with pytest.raises(Killed):
        predict(str(fields[0]), model, output, options, killed_after(5))
    assert not output.exists()
    # without a tile size of its own, the run keeps that of the unfinished one
    resumed = predict(str(fields[0]), model, output, replace(options, tile=None))
    assert 5 <= resumed.resumed < 20
    assert resumed.tiles == 20
    assert output.read_bytes() == whole.read_bytes()
    assert resumed.confidence is not None
    assert resumed.confidence.read_bytes() == (tmp_path / "whole_confidence.tif").read_bytes()


def test_a_run_that_goes_on_with_less_memory_is_planned_for_it(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    options = replace(HERE, tile=16, engine=EngineOptions(threads=2))
    output = tmp_path / "map.tif"
    with pytest.raises(Killed):
        predict(str(fields[0]), model, output, options, killed_after(5))
    plan = plan_prediction(str(fields[0]), model, output, replace(options, tile=None))
    assert plan.run.tile_rows == plan.job.tiles.tile_rows == 16
    assert plan.run.in_flight == 2
    least = replace(plan.run, in_flight=1).peak_bytes
    less = replace(options, tile=None, memory=least)
    rest = plan_prediction(str(fields[0]), model, output, less)
    assert rest.job.reading == plan.job.reading
    assert (rest.job.threads, rest.run.peak_bytes) == (1, least)
    with pytest.raises(MemoryPlanError, match="the unfinished run keeps its tiles"):
        plan_prediction(str(fields[0]), model, output, replace(less, memory=least - 1))


def test_there_are_no_more_tiles_than_a_run_can_keep(
    fields: tuple[Path, Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(HERE, tile=16)
    tiles = plan_prediction(str(fields[0]), model, tmp_path / "map.tif", options).job.tiles
    monkeypatch.setattr(cutting, "_MOST_TILES", len(tiles) - 1)
    with pytest.raises(
        UsageError, match=rf"are {len(tiles)} tiles, and a run has {len(tiles) - 1}"
    ):
        plan_prediction(str(fields[0]), model, tmp_path / "map.tif", options)


def test_a_run_killed_after_its_maps_ends_well(
    fields: tuple[Path, Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between writing the maps and removing the labels: the same command goes on."""
    output = tmp_path / "map.tif"
    options = replace(HERE, confidence=True)

    def kill(store: LabelStore) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(LabelStore, "remove", kill)
        with pytest.raises(Killed):
            predict(str(fields[0]), model, output, options)
    first = output.read_bytes()
    again = predict(str(fields[0]), model, output, options)
    assert again.resumed == again.tiles
    assert output.read_bytes() == first
    assert not (tmp_path / ".map.tif.labels.zarr").exists()
    with pytest.raises(OutputExistsError):
        predict(str(fields[0]), model, output, options)


def test_damaged_labels_are_made_again(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    options = replace(HERE, tile=16)
    whole, output = tmp_path / "whole.tif", tmp_path / "map.tif"
    predict(str(fields[0]), model, whole, options)

    with pytest.raises(Killed):
        predict(str(fields[0]), model, output, options, killed_after(10))
    chunk = next((tmp_path / ".map.tif.labels.zarr" / "labels" / "c").rglob("[0-9]"))
    chunk = chunk if chunk.is_file() else next(part for part in chunk.iterdir())
    chunk.write_bytes(chunk.read_bytes()[:6])
    with pytest.raises(HsiclustError, match="damaged"):
        predict(str(fields[0]), model, output, options)
    predict(str(fields[0]), model, output, options)
    assert output.read_bytes() == whole.read_bytes()


def test_two_runs_on_one_output(fields: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    output = tmp_path / "map.tif"
    plan = plan_prediction(str(fields[0]), model, output, HERE)
    with locked(output), pytest.raises(OutputExistsError, match="another run"):
        run_prediction(plan, HERE)
    assert not output.exists()
    run_prediction(plan, HERE)
    assert not list(tmp_path.glob(".*"))


def test_an_output_never_replaces_its_inputs(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    options = replace(HERE, overwrite=True, driver="GTiff")
    before = fields[0].read_bytes()
    for output in (fields[0], model):
        with pytest.raises(UsageError, match="name another output"):
            predict(str(fields[0]), model, output, options)
    with pytest.raises(UsageError, match="name another output"):
        train([str(fields[0])], fields[0], TrainOptions(overwrite=True))
    assert fields[0].read_bytes() == before


def test_an_output_never_replaces_what_a_vrt_is_made_of(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    scene = tmp_path / "scene.vrt"
    rasterio.shutil.copy(fields[0], scene, driver="VRT")
    before = fields[0].read_bytes()
    outer = tmp_path / "outer.vrt"
    outer.write_text(scene.read_text().replace(">scene.tif<", ">scene.vrt<"))
    (tmp_path / "scene.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    assert set(Scene.open(outer).sources) == {str(scene), str(fields[0])}
    for name in (scene, outer):
        with pytest.raises(UsageError, match=r"scene\.tif: .*name another output"):
            predict(str(name), model, fields[0], replace(HERE, overwrite=True))
        with pytest.raises(UsageError, match=r"scene\.tif: .*name another output"):
            train([str(name)], fields[0], TrainOptions(overwrite=True))
    assert fields[0].read_bytes() == before


def test_a_changed_source_of_a_vrt_is_another_scene(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    scene, output = tmp_path / "scene.vrt", tmp_path / "map.tif"
    rasterio.shutil.copy(fields[0], scene, driver="VRT")
    options = replace(HERE, tile=16)
    with pytest.raises(Killed):
        predict(str(scene), model, output, options, killed_after(10))
    write_raster(fields[0], fields_cube(seed=1)[0], nodata=-9999)
    with pytest.raises(OutputExistsError, match="another scene"):
        predict(str(scene), model, output, options)


def test_an_output_that_cannot_be_is_refused_before_the_work(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    sheared = Affine(3.0, 1.0, 4e5, 0.5, -3.0, 5e6)
    scene = write_raster(tmp_path / "shear.tif", fields_cube()[0], transform=sheared)
    with pytest.raises(UsageError, match=r"map\.img.*COG"):
        plan_prediction(str(scene), model, tmp_path / "map.img", HERE)
    misspelt = replace(HERE, creation={"COMPRES": "ZSTD"})
    with pytest.raises(UsageError, match="COMPRES"):
        plan_prediction(str(scene), model, tmp_path / "map.tif", misspelt)
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(UsageError, match="folder"):
        plan_prediction(str(scene), model, tmp_path / "folder.tif", HERE)


def test_a_scene_that_is_compressed_as_a_whole_is_said_to_be_slow(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cube = fields_cube()[0]
    for name, unpack in (("plain.bsq", bytes), ("packed.bsq", gzip.compress)):
        scene = tmp_path / name
        scene.write_bytes(unpack(cube.astype("<u2").tobytes()))
        scene.with_suffix(".hdr").write_text(
            f"ENVI\nsamples = {cube.shape[2]}\nlines = {cube.shape[1]}\nbands = {len(cube)}\n"
            f"data type = 12\ninterleave = bsq\nfile compression = {int(unpack is not bytes)}\n"
        )
        predict(str(scene), model, tmp_path / f"{name}.tif", HERE)
        assert ("gunzip it first" in caplog.text) == (unpack is not bytes)
    assert np.array_equal(read(tmp_path / "plain.bsq.tif"), read(tmp_path / "packed.bsq.tif"))


def test_a_map_without_a_class_is_said(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cube = fields_cube()[0].astype(np.float32)
    cube[3] = np.nan
    scene = write_raster(tmp_path / "nan.tif", cube)
    result = predict(str(scene), model, tmp_path / "map.tif", HERE)
    assert result.labelled == 0
    assert "not one pixel got a class" in caplog.text


def test_an_unfinished_run_of_another_model_is_not_gone_on_with(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "map.tif"
    options = replace(HERE, tile=16)
    with pytest.raises(Killed):
        predict(str(fields[0]), model, output, options, killed_after(1))
    other = tmp_path / "other.safetensors"
    train([str(fields[0])], other, TrainOptions(method="kmeans", classes=3, steps=5))
    with pytest.raises(OutputExistsError, match="unfinished run"):
        predict(str(fields[0]), other, output, options)
    result = predict(str(fields[0]), other, output, replace(options, overwrite=True))
    assert result.resumed == 0
    assert read(output).max() <= 3


def test_a_model_that_fails_at_its_first_tile_is_not_in_the_way_of_another(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    export(model, tmp_path / "model.onnx")
    proto = onnx.ModelProto.FromString((tmp_path / "model.onnx").read_bytes())
    proto.graph.node[0].input[0] = "nothing"
    del proto.metadata_props[1]  # the digest
    (tmp_path / "refused.onnx").write_bytes(proto.SerializeToString())
    output = tmp_path / "map.tif"
    with pytest.raises(ModelError, match="ONNX Runtime refuses it"):
        predict(str(fields[0]), tmp_path / "refused.onnx", output, HERE)
    assert predict(str(fields[0]), model, output, HERE).resumed == 0
    assert not list(tmp_path.glob(".*"))


def test_a_tile_that_fails_is_named(fields: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    output = tmp_path / "map.tif"
    options = replace(HERE, tile=32)
    write_raster(fields[0], fields_cube()[0], nodata=-9999, compress="deflate", blockysize=4)
    plan = plan_prediction(str(fields[0]), model, output, options)
    state, whole = fields[0].stat(), fields[0].read_bytes()
    fields[0].write_bytes(whole[:30_000] + bytes(len(whole) - 30_000))
    os.utime(fields[0], ns=(state.st_atime_ns, state.st_mtime_ns))  # as a disk damages a file
    with pytest.raises(InputError, match=r"strip \d: .*scene\.tif.*cannot be read"):
        run_prediction(plan, options)
    assert not output.exists()
    assert (tmp_path / ".map.tif.labels.zarr").exists()  # what is done stays done


def test_plans_that_cannot_be(fields: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    other = write_raster(tmp_path / "other.tif", fields_cube(bands=7)[0])
    with pytest.raises(ModelError, match="7 bands"):
        plan_prediction(str(other), model, tmp_path / "m.tif", HERE)
    for side in (0, -5):
        with pytest.raises(UsageError, match=f"tiles of {side} pixels"):
            plan_prediction(str(fields[0]), model, tmp_path / "m.tif", replace(HERE, tile=side))
    with pytest.raises(UsageError, match="maps are"):
        plan_prediction(str(fields[0]), model, tmp_path / "m.png", HERE)
    with pytest.raises(UsageError, match="bounds"):
        plan_prediction(
            str(fields[0]), model, tmp_path / "m.tif", replace(HERE, bounds=(0, 0, 1, 1))
        )


def test_the_plan_counts_what_will_be_read(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    plan = plan_prediction(str(fields[0]), model, tmp_path / "m.tif", replace(HERE, tile=30))
    facts = plan.facts()
    assert facts["tiles"] == 6
    assert facts["halo"] == 3
    assert facts["bytes_read"] == 60 * 70 * 12 * 2  # each byte once, halos and all
    assert not list(tmp_path.glob(".*"))


def test_killed_and_started_again_gives_the_same_bytes(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    """The real command, SIGKILL at any moment; `benchmarks/kill_and_resume.py` does it more."""
    command = [sys.executable, "-m", "hsiclust", "predict", str(fields[0]), "-m", str(model), "-q"]
    command += ["--tile-size", "16"]
    subprocess.run([*command, "-o", str(tmp_path / "whole.tif")], check=True, timeout=100)
    output = tmp_path / "map.tif"
    process = subprocess.Popen([*command, "-o", str(output)])
    store = tmp_path / ".map.tif.labels.zarr" / "labels" / "c"
    limit = time.monotonic() + 60
    while not store.exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    if process.returncode == -signal.SIGKILL:
        assert not output.exists() or output.read_bytes()
    subprocess.run([*command, "-o", str(output), "--overwrite"], check=True, timeout=100)
    assert output.read_bytes() == (tmp_path / "whole.tif").read_bytes()


def test_an_onnx_file_gives_the_models_map(real_model: Path, tmp_path: Path) -> None:
    export(real_model, tmp_path / "model.onnx")
    maps = []
    for model in (real_model, tmp_path / "model.onnx"):
        options = replace(HERE, confidence=True, tile=64)
        result = predict(str(demo_scene()), model, tmp_path / f"{model.suffix}.tif", options)
        assert result.confidence is not None
        maps.append((read(result.map), read(result.confidence).astype(int)))
    assert (maps[0][0] == maps[1][0]).mean() >= 0.9999
    assert abs(maps[0][1] - maps[1][1]).max() <= 1


def test_an_onnx_file_labels_scenes_in_float32(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    export(model, tmp_path / "model.onnx")
    store = tmp_path / "store.zarr"
    tile(str(fields[0]), store, TileOptions(shape=TileShape(32, 8), model=model))
    with pytest.raises(ModelError, match=r"labels scenes, not tile stores such as .*store\.zarr"):
        plan_prediction(str(store), tmp_path / "model.onnx", tmp_path / "m.tif", HERE)
    with pytest.raises(UsageError, match="computes in float32, not bfloat16"):
        plan_prediction(
            str(fields[0]),
            tmp_path / "model.onnx",
            tmp_path / "m.tif",
            replace(HERE, precision="bfloat16"),
        )


def test_precision(real_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 when it is asked for; by itself only where a trial finds the same labels."""
    scene = str(demo_scene())
    exact = predict(scene, real_model, tmp_path / "exact.tif", HERE)
    assert exact.precision == "float32"
    rough = predict(scene, real_model, tmp_path / "rough.tif", replace(HERE, precision="bfloat16"))
    assert rough.precision == "bfloat16"
    assert (read(rough.map) == read(exact.map)).mean() > 0.9
    monkeypatch.setattr(prediction_plan, "_WORTH_A_TRIAL", 1)
    monkeypatch.setattr(prediction, "fastest", lambda ways, blocks: Trial(list(ways)[1], {}, {}))
    plan = plan_prediction(scene, real_model, tmp_path / "tried.tif", replace(HERE, tile=32))
    assert plan.trial
    with pytest.raises(Killed):
        run_prediction(plan, replace(HERE, tile=32), killed_after(5))
    # what the trial said holds for the whole run, also when it goes on
    plan = plan_prediction(scene, real_model, tmp_path / "tried.tif", HERE)
    assert (plan.job.precision, plan.trial) == ("bfloat16", False)


def test_a_run_says_what_bound_it(fields: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    result = predict(str(fields[0]), model, tmp_path / "map.tif", HERE)
    assert result.bytes_read == 60 * 70 * 12 * 2
    assert result.bound in ("reading", "computing", "writing")
    assert f"bound by {result.bound}" in result.summary
    assert "GB/s" in result.summary


def test_labels_may_lie_elsewhere(fields: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    store, options = tmp_path / "elsewhere.zarr", replace(HERE, tile=16)
    whole = predict(str(fields[0]), model, tmp_path / "whole.tif", options).map
    options = replace(options, store=str(store))
    with pytest.raises(Killed):
        predict(str(fields[0]), model, tmp_path / "map.tif", options, killed_after(5))
    assert store.exists()
    assert not list(tmp_path.glob(".*zarr"))
    resumed = predict(str(fields[0]), model, tmp_path / "map.tif", options)
    assert resumed.resumed >= 5
    assert resumed.map.read_bytes() == whole.read_bytes()
    assert not store.exists()


def test_what_an_earlier_run_has_done_is_not_done_again(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    options = replace(HERE, tile=16)
    job = plan_prediction(str(fields[0]), model, tmp_path / "map.tif", options).job
    store = new_store(plan_prediction(str(fields[0]), model, tmp_path / "map.tif", options))
    store.open_or_create(job.run, overwrite=False)
    whole = label_strip(job, 0).labelled
    first, *others = job.reading.tiles_of(0)
    assert others
    store._array("done")[first] = 0
    assert label_strip(replace(job, begun=True), 0).labelled < whole
    assert label_strip(replace(job, begun=True), 0).labelled == 0
    assert label_strip(job, 0).labelled == whole  # who knows of no earlier run does not ask
    store.remove()


def test_maps_grow_while_strips_are_labelled(
    fields: tuple[Path, Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelmap, "_TAKEN_PIXELS", 1)  # a row at a time
    options = replace(HERE, tile=16, confidence=True)
    sizes: list[list[int]] = []

    def look(done: int, count: int) -> None:
        raw = tmp_path.glob(".*.partial/labels.raw")
        sizes.append([file.stat().st_size for file in raw])

    found = predict(str(fields[0]), model, tmp_path / "map.tif", options, look)
    assert sizes[0] == []
    assert len(sizes[-1]) == 2
    assert all(0 < size < found.pixels for size in sizes[-1])
    assert not list(tmp_path.glob(".*.partial"))


def test_a_record_that_could_not_be_read_once_is_read_again(
    fields: tuple[Path, Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_prediction(str(fields[0]), model, tmp_path / "map.tif", HERE)
    store = new_store(plan)
    store.open_or_create(plan.job.run, overwrite=False)
    with monkeypatch.context() as broken:
        broken.setattr(labels, "open_group", raising(OSError("a hiccup")))
        with pytest.raises(HsiclustError, match="is gone, or the store of another run"):
            store.refuse_other(plan.job.run)
    store.refuse_other(plan.job.run)
    with monkeypatch.context() as broken:  # it is not read while its file stays as it is
        broken.setattr(labels, "open_group", raising(OSError("a hiccup")))
        store.refuse_other(plan.job.run)
    store.remove()
    with pytest.raises(HsiclustError, match="is gone"):
        store.refuse_other(plan.job.run)


def raising(error: Exception) -> Callable[..., None]:
    """A function that raises this, whatever it is given."""

    def fail(*arguments: object) -> None:
        raise error

    return fail


def test_a_strip_that_outlives_its_run_writes_nothing(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    options = replace(HERE, tile=16)
    plan = plan_prediction(str(fields[0]), model, tmp_path / "map.tif", options)
    store = new_store(plan)
    store.open_or_create(plan.job.run, overwrite=False)
    label_strip(plan.job, 0)
    store.open_or_create("another run", overwrite=True)
    with pytest.raises(HsiclustError, match="another run by now"):
        label_strip(plan.job, 1)
    assert len(store.missing()) == len(plan.job.tiles)
    store.remove()
    with pytest.raises(HsiclustError):
        label_strip(plan.job, 2)
    assert not Path(plan.job.labels).exists()


def test_a_store_never_replaces_what_is_no_store(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "thesis.txt").write_text("data")
    for overwrite in (False, True):
        options = replace(HERE, store=str(keep), overwrite=overwrite)
        with pytest.raises(OutputExistsError, match="is no label store"):
            predict(str(fields[0]), model, tmp_path / "map.tif", options)
        for own in (fields[0], model):
            options = replace(HERE, store=str(own), overwrite=True)
            with pytest.raises(UsageError, match="what the work starts from"):
                predict(str(fields[0]), model, tmp_path / "map.tif", options)
    options = replace(HERE, store=str(tmp_path / "map.tif"))
    with pytest.raises(UsageError, match="is the map itself"):
        predict(str(fields[0]), model, tmp_path / "map.tif", options)
    options = replace(HERE, store=str(tmp_path / "none" / "labels.zarr"))
    with pytest.raises(UsageError, match=r"labels\.zarr: there is no folder .*none"):
        predict(str(fields[0]), model, tmp_path / "map.tif", options)
    assert (keep / "thesis.txt").read_text() == "data"
    assert not (tmp_path / "map.tif").exists()


def test_a_store_belongs_to_one_run(fields: tuple[Path, Path], model: Path, tmp_path: Path) -> None:
    store = tmp_path / "labels.zarr"
    options = replace(HERE, store=str(store))
    with locked(store), pytest.raises(OutputExistsError, match="another run"):
        predict(str(fields[0]), model, tmp_path / "map.tif", options)
    assert predict(str(fields[0]), model, tmp_path / "map.tif", options).labelled > 0


def test_a_confidence_map_never_replaces_the_scene(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    scene = fields[0].rename(tmp_path / "x_confidence.tif")
    options = replace(HERE, confidence=True, overwrite=True)
    with pytest.raises(UsageError, match=r"x_confidence\.tif: is what the work starts from"):
        predict(str(scene), model, tmp_path / "x.tif", options)


def test_an_envi_map_never_replaces_a_scene_or_its_header(model: Path, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "q.bsq", fields_cube()[0], driver="ENVI")
    header = (tmp_path / "q.hdr").read_bytes()
    options = replace(HERE, overwrite=True)
    with pytest.raises(UsageError, match="what the work starts from"):
        predict(str(tmp_path / "q.hdr"), model, tmp_path / "q.bsq", options)
    (tmp_path / "q.img").touch()
    with pytest.raises(OutputExistsError, match=r"q\.hdr would replace that of q\.bsq"):
        predict(str(scene), model, tmp_path / "q.img", options)
    assert (tmp_path / "q.hdr").read_bytes() == header


@pytest.mark.parametrize("room", [2**29, 20_000])
def test_the_system_is_told_what_the_first_strips_need(
    fields: tuple[Path, Path],
    model: Path,
    tmp_path: Path,
    room: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not of what an earlier run has done, and no more than there is memory for."""
    options, output = replace(HERE, tile=10), tmp_path / "map.tif"
    plan = plan_prediction(str(fields[0]), model, output, options)
    reading, store = plan.job.reading, new_store(plan)
    store.open_or_create(plan.job.run, overwrite=False)
    for number in [*reading.tiles_of(0), *reading.tiles_of(1)]:
        core = plan.job.tiles[number].core
        store.write(plan.job.tiles[number], np.ones((core.rows, core.cols), np.uint8), None)
    told: list[Window] = []
    threads: list[Thread] = []

    class Remembered(Thread):
        def start(self) -> None:
            threads.append(self)
            super().start()

    monkeypatch.setattr("hsiclust.prediction._FIRST_BYTES", room)
    monkeypatch.setattr("hsiclust.prediction.Thread", Remembered)
    monkeypatch.setattr(Scene, "prefetch", lambda _, window: told.append(window))
    monkeypatch.setattr("hsiclust.strips._READ_AHEAD", 10**6)
    run_prediction(plan, options)
    for thread in threads:
        thread.join()
    steps = [reading.step(number) for number in range(reading.count)]
    needed = [steps[number] for strip in (2, 3) for number in reading.steps_of(strip)]
    assert 0 < len(told) < len(steps)
    assert told == sorted(set(needed), key=lambda step: step.row)[: len(told)]
    assert sum(step.pixels for step in told) * 12 * 2 <= room
    assert (len(told) < len(set(needed))) == (room == 20_000)


@pytest.mark.parametrize(
    ("held", "memory", "kept"), [(False, 16, False), (False, 17, True), (True, 16, True)]
)
@pytest.mark.parametrize("compress", ["none", "deflate"])
def test_the_system_need_not_keep_a_large_file_that_it_did_not_keep_before(
    model: Path,
    tmp_path: Path,
    held: bool,
    memory: int,
    kept: bool,
    compress: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = write_raster(tmp_path / "scene.tif", fields_cube()[0], nodata=-9999, compress=compress)
    size, told = scene.stat().st_size, []

    def remember(_file: int, at: int, count: int, advice: int) -> None:
        if advice == os.POSIX_FADV_DONTNEED:
            told.append((at, count))

    monkeypatch.setattr("hsiclust.pagecache.holds", lambda _: held)
    monkeypatch.setattr("hsiclust.prediction.total_memory", lambda: size * memory - 1)
    monkeypatch.setattr(os, "posix_fadvise", remember)
    predict(str(scene), model, tmp_path / "map.tif", replace(HERE, tile=10))
    assert bool(told) != kept
    if told and compress == "none":
        assert sum(count for _, count in told) == fields_cube()[0].astype("i2").nbytes
    assert set(told) <= {(0, 0)} or compress == "none"


def test_a_scene_that_is_replaced_meanwhile_has_no_map(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    output, options = tmp_path / "map.tif", replace(HERE, tile=32)
    plan = plan_prediction(str(fields[0]), model, output, options)

    def replaced(done: int, total: int) -> None:
        if done == total:
            other = write_raster(tmp_path / "other.tif", fields_cube()[0][:, ::-1], nodata=-9999)
            other.replace(fields[0])

    with pytest.raises(InputError, match=r"scene\.tif: is not what it was when the run began"):
        run_prediction(plan, options, replaced)
    assert not output.exists()
    with pytest.raises(OutputExistsError, match="unfinished run with another scene"):
        predict(str(fields[0]), model, output, options)
    assert predict(str(fields[0]), model, output, replace(options, overwrite=True)).resumed == 0


def test_a_worker_takes_no_model_but_what_the_run_began_with(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    """It opens it by name, perhaps hours later."""
    plan = plan_prediction(str(fields[0]), model, tmp_path / "map.tif", HERE)
    new_store(plan).open_or_create(plan.job.run, overwrite=False)
    train([str(fields[0])], model, TrainOptions(method="kmeans", classes=3, overwrite=True))
    with pytest.raises(ModelError, match=r"model\.safetensors: is not what it was"):
        label_strip(plan.job, 0)


def test_an_unfinished_run_replaces_no_file_but_its_own(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    scene, store = str(fields[0]), str(tmp_path / "s.zarr")
    options = replace(HERE, tile=32, store=store)
    with pytest.raises(Killed):
        predict(scene, model, tmp_path / "map.tif", options, killed_after(1))
    precious = tmp_path / "precious.tif"
    precious.write_text("precious")
    with pytest.raises(OutputExistsError, match=r"precious\.tif: is there already"):
        predict(scene, model, precious, options)
    assert precious.read_text() == "precious"
    # A map that this model made of this scene is what the run would have written itself.
    predict(scene, model, tmp_path / "map.tif", HERE)
    assert predict(scene, model, tmp_path / "map.tif", options).resumed > 0


def test_a_map_that_another_run_wrote_meanwhile_is_left(
    fields: tuple[Path, Path], model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "map.tif"
    plan = plan_prediction(str(fields[0]), model, output, HERE)
    output.write_text("of another run")
    with pytest.raises(OutputExistsError, match=r"map\.tif: is there already"):
        run_prediction(plan, HERE)
    assert output.read_text() == "of another run"
    assert not (tmp_path / ".map.tif.labels.zarr").exists()


def test_workers_of_a_standing_cluster_get_names_that_mean_the_same_there(
    fields: tuple[Path, Path], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    standing = EngineOptions(scheduler="tcp://127.0.0.1:1", threads=1)
    options = replace(HERE, engine=standing, memory=2**30)
    job = plan_prediction("scene.tif", Path("model.safetensors"), Path("map.tif"), options).job
    assert (job.source, job.model) == (str(fields[0]), str(model))
    assert job.labels == str(tmp_path / ".map.tif.labels.zarr")
    here = plan_prediction("scene.tif", Path("model.safetensors"), Path("map.tif"), HERE).job
    assert (here.source, here.model) == ("scene.tif", "model.safetensors")
    assert here.run == job.run


def test_files_are_named_by_text_as_well(fields: tuple[Path, Path], tmp_path: Path) -> None:
    scene, truth = map(str, fields)
    model, made = str(tmp_path / "a.safetensors"), str(tmp_path / "map.tif")
    onnx, picture = str(tmp_path / "a.onnx"), str(tmp_path / "map.png")
    train([scene], model, TrainOptions(method="kmeans", classes=3, steps=2))
    assert predict(scene, model, made).map == Path(made)
    assert export(model, onnx).onnx == Path(onnx)
    assert evaluate(made, truth).map == Path(made)
    report(made, picture)
    assert Path(picture).is_file()
    pairs = [(scene, tmp_path / "again.tif")]
    watched = predict_scenes(pairs, model, PredictOptions(), lambda _: nullcontext(lambda *_: None))
    assert [outcome.status for outcome in watched] == ["done"]
