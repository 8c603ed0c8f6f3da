import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from conftest import Killed, fields_cube, killed_after, write_raster

from hsiclust import tiling
from hsiclust.components import Components, SceneComponents
from hsiclust.engine import EngineOptions
from hsiclust.errors import HsiclustError, InputError, OutputExistsError, UsageError
from hsiclust.grid import Window
from hsiclust.labels import LabelStore
from hsiclust.sample import TransformOptions
from hsiclust.scene import Scene
from hsiclust.spectra import SpectralTransform
from hsiclust.staging import TileShape
from hsiclust.tilegrid import TileGrid
from hsiclust.tiles import TileStore, is_tile_store
from hsiclust.tiling import TileOptions, tile
from hsiclust.training import train
from hsiclust.trainoptions import TrainOptions

OPTIONS = TileOptions(TileShape(32, 5), engine=EngineOptions(threads=2))


@pytest.fixture
def store(fields: tuple[Path, Path], tmp_path: Path) -> TileStore:
    return tile(str(fields[0]), tmp_path / "store.zarr", OPTIONS)


def source_of(store: TileStore, scene: Path) -> SceneComponents:
    return SceneComponents.of(Scene.open(scene), store.transform, store.sensor, torch.device("cpu"))


def test_tiles_hold_the_transformed_scene(fields: tuple[Path, Path], store: TileStore) -> None:
    source = source_of(store, fields[0])
    assert store.missing() == []
    assert len(store.tiles) == 6
    for here in store.tiles:
        stored, fresh = store.read(here), source.read(here)
        assert stored.values.shape == fresh.values.shape
        # a worker's product on one thread may round otherwise than ours, then float16 does
        torch.testing.assert_close(stored.values, fresh.values, atol=2e-3, rtol=2e-3)
        assert torch.equal(stored.valid, fresh.valid)


def test_one_chunk_a_tile(store: TileStore) -> None:
    array = zarr.open_array(store.path / "components", mode="r")
    assert array.dtype == np.float16
    assert array.chunks == (1, *array.shape[1:])
    assert array.shape[2:] == (30 + 10, 24 + 10)  # 60 x 70 in even tiles of at most 32


def test_a_store_opens_as_it_was_made(store: TileStore) -> None:
    assert is_tile_store(store.path)
    again = TileStore.open(store.path)
    assert again.grid == store.grid
    assert again.tiles == store.tiles
    assert again.sensor == store.sensor
    assert again.transform.equals(store.transform)
    assert again.identity == store.identity


def test_a_store_knows_its_kind_of_transform(fields: tuple[Path, Path], tmp_path: Path) -> None:
    options = replace(OPTIONS, transform=TransformOptions(kind="pca"))
    store = tile(str(fields[0]), tmp_path / "store.zarr", options)
    assert TileStore.open(store.path).transform.kind == "pca"


def test_invalid_pixels_are_marked_and_zero(tmp_path: Path) -> None:
    cube, _ = fields_cube()
    cube[3, 10:14, 20:30] = -9999
    scene = write_raster(tmp_path / "holes.tif", cube, nodata=-9999)
    store = tile(str(scene), tmp_path / "store.zarr", OPTIONS)
    seen = np.ones((60, 70), bool)
    for here in store.tiles:
        components = store.read(here)
        assert bool((components.values[:, ~components.valid] == 0).all())
        seen[here.core.slices] = components.valid[5:-5, 5:-5].numpy()
    expected = np.ones((60, 70), bool)
    expected[10:14, 20:30] = False
    assert np.array_equal(seen, expected)


@pytest.mark.parametrize("window", [(0, 0, 60, 70), (11, 25, 30, 20), (59, 69, 1, 1)])
def test_valid_pixels_of_a_window(tmp_path: Path, window: tuple[int, int, int, int]) -> None:
    cube, _ = fields_cube()
    cube[3, 10:14, 20:30] = -9999
    scene = write_raster(tmp_path / "holes.tif", cube, nodata=-9999)
    store = tile(str(scene), tmp_path / "store.zarr", OPTIONS)
    expected = cube[3] != -9999
    here = Window(*window)
    assert np.array_equal(store.valid_pixels(here), expected[here.slices])
    zarr.open_array(store.path / "done", mode="r+")[0] = 0  # not written: no data
    expected[store.tiles[0].core.slices] = False
    assert np.array_equal(store.valid_pixels(here), expected[here.slices])


def test_an_interrupted_tiling_goes_on(fields: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    small = replace(OPTIONS, shape=TileShape(12, 5))  # 30 tiles

    with pytest.raises(Killed):
        tile(str(fields[0]), path, small, killed_after(3))
    left = len(TileStore.open(path).missing())
    assert 15 < left <= 27
    seen: list[int] = []
    store = tile(str(fields[0]), path, small, lambda done, total: seen.append(done))
    assert store.missing() == []
    assert len(seen) == left
    whole = tile(str(fields[0]), tmp_path / "whole.zarr", small)
    for here in store.tiles:
        assert torch.equal(store.read(here).values, whole.read(here).values)


def test_a_finished_store_is_not_overwritten_unasked(
    fields: tuple[Path, Path], store: TileStore
) -> None:
    with pytest.raises(OutputExistsError, match="overwrite"):
        tile(str(fields[0]), store.path, OPTIONS)
    again = tile(str(fields[0]), store.path, replace(OPTIONS, overwrite=True))
    assert again.content == store.content
    assert again.identity != store.identity


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_store_is_never_replaced(
    fields: tuple[Path, Path], tmp_path: Path, overwrite: bool
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "file").write_text("a user's file")
    options = replace(OPTIONS, overwrite=overwrite)
    for output in (folder, folder / "file", fields[0], fields[0].parent):
        with pytest.raises(UsageError, match="another output"):
            tile(str(fields[0]), output, options)
    assert (folder / "file").read_text() == "a user's file"
    assert fields[0].exists()


def test_a_store_without_a_folder_is_refused_before_the_work(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "fit_to_scenes", None)
    with pytest.raises(UsageError, match=r"store\.zarr: there is no folder .*none"):
        tile(str(fields[0]), tmp_path / "none" / "store.zarr", OPTIONS)


def test_a_tiling_of_a_changed_scene_starts_again(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    """The transform comes from a model, so the grid and name alone would be the same."""
    train([str(fields[0])], tmp_path / "m", TrainOptions(method="kmeans", classes=4, steps=2))
    options = replace(OPTIONS, shape=TileShape(12, 5), model=str(tmp_path / "m"))
    path = tmp_path / "store.zarr"

    with pytest.raises(Killed):
        tile(str(fields[0]), path, options, killed_after(3))
    write_raster(fields[0], fields_cube(seed=7)[0], nodata=-9999)
    with pytest.raises(OutputExistsError):
        tile(str(fields[0]), path, options)
    store = tile(str(fields[0]), path, replace(options, overwrite=True))
    source = source_of(store, fields[0])
    for here in store.tiles:
        fresh = source.read(here)
        torch.testing.assert_close(store.read(here).values, fresh.values, atol=2e-3, rtol=2e-3)


def test_a_damaged_chunk_is_named(store: TileStore) -> None:
    chunk = store.path / "components" / "c" / "2" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:50])
    with pytest.raises(InputError, match="tile 2 is damaged"):
        store.read(store.tiles[2])


@pytest.mark.parametrize("name", ["components", "valid"])
def test_a_chunk_that_is_gone_is_no_tile_of_zeros(store: TileStore, name: str) -> None:
    """Zarr gives zeros for it, and calls them components."""
    shutil.rmtree(store.path / name / "c" / "2")
    with pytest.raises(InputError, match=rf"tile 2 is damaged \(its chunk of {name} is gone\)"):
        store.read(store.tiles[2])
    with pytest.raises(InputError, match="tile 2"):
        store.valid_pixels(store.tiles[2].core)
    store.read(store.tiles[1])


def test_a_tile_without_data_is_written(tmp_path: Path) -> None:
    cube, _ = fields_cube()
    cube[:, :40, :40] = -9999
    scene = write_raster(tmp_path / "holes.tif", cube, nodata=-9999)
    small = replace(OPTIONS, shape=TileShape(12, 5))
    store = tile(str(scene), tmp_path / "store.zarr", small)
    found = store.read(store.tiles[0])
    assert not found.values.any()
    assert not found.valid.any()


def test_a_store_of_another_version_says_what_to_do(
    fields: tuple[Path, Path], store: TileStore
) -> None:
    zarr.open_group(store.path, mode="r+").attrs["version"] = 1
    with pytest.raises(InputError, match=r"store\.zarr: .* make it again with `tile --overwrite`"):
        TileStore.open(store.path)
    again = tile(str(fields[0]), store.path, replace(OPTIONS, overwrite=True))
    assert again.content == store.content


def test_a_full_disk_is_named(store: TileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    components = store.read(store.tiles[0])

    def full(_where: object, _name: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TileStore, "_array", full)
    with pytest.raises(HsiclustError, match=r"store\.zarr: tiles cannot be written: No space left"):
        store.write(store.tiles[0], components)
    monkeypatch.setattr("hsiclust.tiles.open_group", full)
    with pytest.raises(HsiclustError, match=r"store\.zarr: tiles cannot be written: No space left"):
        store.create()


def test_one_component_is_enough(fields: tuple[Path, Path], tmp_path: Path) -> None:
    one = replace(OPTIONS, transform=TransformOptions(components=1))
    store = tile(str(fields[0]), tmp_path / "one.zarr", one)
    assert store.read(store.tiles[0]).values.shape[0] == 1
    assert store.transform.matrix.flags.c_contiguous


def test_an_unwritten_tile_is_an_error(store: TileStore) -> None:
    zarr.open_array(store.path / "done", mode="r+")[2] = 0
    assert store.missing() == [2]
    with pytest.raises(InputError, match="tile 2"):
        store.read(store.tiles[2])


@pytest.mark.parametrize("damage", ["nothing", "foreign", "version", "transform"])
def test_damaged_stores_are_refused(store: TileStore, damage: str, tmp_path: Path) -> None:
    path = store.path
    if damage == "nothing":
        path = tmp_path / "none.zarr"
    if damage == "foreign":
        path = tmp_path / "foreign.zarr"
        zarr.create_group(path)
    if damage == "version":
        zarr.open_group(path, mode="r+").attrs["version"] = 99
    if damage == "transform":
        del zarr.open_group(path, mode="r+")["transform/matrix"]
    with pytest.raises(InputError, match=path.name):
        TileStore.open(path)


def doctored(store: TileStore, array: str, **changes: object) -> Path:
    """A store whose metadata somebody has changed."""
    record = store.path / array / "zarr.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))
    return store.path


@pytest.mark.parametrize(
    ("array", "changes", "says"),
    [
        ("components", {"data_type": "float64"}, "array components is not of float16"),
        ("components", {"fill_value": 1.0}, "array components is not of float16"),
        ("valid", {"data_type": "uint8", "fill_value": 0}, "array valid is not of bool"),
        ("done", {"shape": [10**9]}, "array done is not of shape"),
        (
            "done",
            {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [6]}}},
            "array done has not a chunk a tile",
        ),
    ],
)
def test_arrays_are_what_the_store_says(
    store: TileStore, array: str, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        TileStore.open(doctored(store, array, **changes))


@pytest.mark.parametrize(
    ("rows", "side", "says"),
    [
        (10**7, 100, r"100000000000 tiles of 100 x 100 pixels, where a store has 1048576 at most"),
        (10**6, 10**6, r"a tile of \d+ bytes"),
    ],
)
def test_sizes_that_no_store_has_are_refused(
    store: TileStore, rows: int, side: int, says: str
) -> None:
    attributes = json.loads((store.path / "zarr.json").read_text())["attributes"]
    whole = {"row": 0, "col": 0, "rows": rows, "cols": rows * 10}
    tiles = {**attributes["tiles"], "scene": whole, "area": whole}
    attributes["tiles"] = {**tiles, "tile_rows": side, "tile_cols": side}
    path = doctored(store, "", attributes=attributes)
    with pytest.raises(InputError, match="not of its grid"):
        TileStore.open(path)
    attributes["grid"].update(rows=rows, cols=rows * 10)
    with pytest.raises(InputError, match=says):
        TileStore.open(doctored(store, "", attributes=attributes))


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("grid", {"rows": float("inf")}),
        ("grid", {"rows": 60.0}),
        ("grid", {"crs": 5}),
        ("grid", {"crs": "EPSG:4326"}),
        ("grid", {"crs": "/etc/hosts"}),
        ("grid", {"transform": [float("nan"), 0, 0, 0, -1, 0]}),
        ("tiles", {"halo": 5.5}),
        ("tiles", {"halo": None}),
        ("sensor", {"count": float("inf")}),
    ],
)
def test_odd_values_in_a_store(store: TileStore, part: str, changes: dict[str, object]) -> None:
    attributes = json.loads((store.path / "zarr.json").read_text())["attributes"]
    attributes[part].update(changes)
    with pytest.raises(InputError, match=r"store\.zarr: cannot be opened as a tile store"):
        TileStore.open(doctored(store, "", attributes=attributes))


@pytest.mark.parametrize("attributes", ["[1]", "[" * 50000 + "]" * 50000, "9" * 5000])
def test_what_is_no_metadata_is_no_store(store: TileStore, attributes: str) -> None:
    (store.path / "zarr.json").write_text(
        '{"zarr_format": 3, "node_type": "group", "attributes": ' + attributes + "}"
    )
    assert not is_tile_store(store.path)
    with pytest.raises(InputError, match=r"store\.zarr: cannot be opened as a tile store"):
        TileStore.open(store.path)
    assert LabelStore.record_of_run(store.path, "run") is None


def test_a_store_of_too_many_tiles_is_not_planned(store: TileStore) -> None:
    wide = replace(store.grid, cols=10**8)
    tiles = TileGrid(wide.window, wide.window, 60, 64, 5)
    with pytest.raises(UsageError, match="make larger ones"):
        replace(store, grid=wide, tiles=tiles)


def test_far_values_do_not_become_infinite(store: TileStore) -> None:
    here = store.tiles[0]
    shape = (store.transform.components, 40, 34)
    store.write(here, Components(torch.full(shape, 1e9), torch.ones(40, 34, dtype=torch.bool)))
    assert bool(torch.isfinite(store.read(here).values).all())


def test_a_part_of_a_scene(fields: tuple[Path, Path], tmp_path: Path) -> None:
    bounds = (400000.0 + 10 * 30, 5800000.0 - 40 * 30, 400000.0 + 50 * 30, 5800000.0 - 20 * 30)
    options = TileOptions(TileShape(64, 5), bounds=bounds, engine=EngineOptions(threads=1))
    store = tile(str(fields[0]), tmp_path / "part.zarr", options)
    assert isinstance(store.tiles, TileGrid)
    assert (store.tiles.area.row, store.tiles.area.col) == (20, 10)
    assert (store.tiles.area.rows, store.tiles.area.cols) == (20, 40)
    # the halo comes from the scene beyond the bounds, not from reflection
    assert not store.tiles[0].pad


def test_a_tiling_goes_on_with_the_transform_that_it_began_with(
    fields: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On other processors its last digits would be others, and the store another one."""
    where = tmp_path / "s.zarr"
    small = replace(OPTIONS, shape=TileShape(12, 5))
    with pytest.raises(Killed):
        tile(str(fields[0]), where, small, killed_after(3))
    begun = TileStore.open(where)

    def refitted(*_: object) -> SpectralTransform:
        return replace(begun.transform, mean=begun.transform.mean * (1 + 1e-12))

    monkeypatch.setattr(tiling, "fit_to_scenes", refitted)
    again = tile(str(fields[0]), where, small)
    assert again.created == begun.created
    assert again.missing() == []
    other = replace(small, seed=1)
    with pytest.raises(OutputExistsError):
        tile(str(fields[0]), where, other)


def test_a_scene_that_is_replaced_meanwhile_has_no_tiles(
    fields: tuple[Path, Path], tmp_path: Path
) -> None:
    def replaced(done: int, total: int) -> None:
        if done == total:
            write_raster(fields[0], fields_cube()[0][:, ::-1], nodata=-9999)

    with pytest.raises(InputError, match=r"scene\.tif: is not what it was"):
        tile(str(fields[0]), tmp_path / "s.zarr", OPTIONS, replaced)
    assert not (tmp_path / "s.zarr").exists()
