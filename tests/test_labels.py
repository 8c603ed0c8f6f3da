"""The label store: chunks are Zarr's, whoever writes them; damage and full disks are noticed."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from conftest import Killed
from numpy.typing import NDArray

from hsiclust.errors import HsiclustError, OutputExistsError
from hsiclust.grid import Window
from hsiclust.labels import LabelStore
from hsiclust.palette import UNSURE
from hsiclust.readplan import ReadPlan
from hsiclust.tilegrid import TileGrid

# Tiles at the right and at the bottom are smaller than a chunk.
AREA = Window(3, 5, 41, 33)
GRID = TileGrid(Window(0, 0, 50, 40), AREA, 16, 20, 4)


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    """A new store of a run."""
    store = LabelStore(tmp_path / "x.zarr", ReadPlan.of(GRID, GRID.across, 1))
    store.open_or_create("run", overwrite=False)
    return store


def write_all(store: LabelStore) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Random labels and confidence, written tile by tile."""
    numbers = np.random.default_rng(0)
    labels = numbers.integers(0, 256, (AREA.rows, AREA.cols)).astype(np.uint8)
    sure = numbers.integers(0, 256, labels.shape).astype(np.uint8)
    for tile in GRID:
        where = tile.core.relative_to(AREA).slices
        store.write(tile, labels[where], sure[where])
    return labels, sure


def test_zarr_reads_what_was_written(store: LabelStore) -> None:
    labels, sure = write_all(store)
    group = zarr.open_group(store.path, mode="r")
    for name, expected in (("labels", labels), ("confidence", sure), ("done", np.ones(6))):
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert np.array_equal(array[:], expected)
        assert array.nchunks_initialized == array.nchunks == len(GRID)
    assert store.missing() == []


def test_zarr_could_write_it_as_well(store: LabelStore) -> None:
    """The same files: what a chunk at the edge holds beyond the area is what Zarr puts there."""
    labels, sure = write_all(store)
    assert isinstance(store.path, Path)
    before = {file: file.read_bytes() for file in store.path.rglob("c/**/*") if file.is_file()}
    assert len(before) == 3 * len(GRID)
    group = zarr.open_group(store.path, mode="r+")
    for name, values in (("labels", labels), ("confidence", sure)):
        array = group[name]
        assert isinstance(array, zarr.Array)
        array[:] = 7
        array[:] = values
    assert {file: file.read_bytes() for file in before} == before


def test_without_confidence_nobody_is_sure(store: LabelStore) -> None:
    tile = GRID[5]
    store.write(tile, np.ones((tile.core.rows, tile.core.cols), np.uint8), None)
    where = tile.core.relative_to(AREA)
    assert (store.read(where) == 1).all()
    assert (store.read_confidence(where, written=False) == UNSURE).all()
    assert store.missing() == [0, 1, 2, 3, 4]


def test_one_wrong_byte_of_a_chunk_is_noticed(store: LabelStore) -> None:
    write_all(store)
    assert isinstance(store.path, Path)
    chunk = store.path / "labels" / "c" / "1" / "0"
    whole = chunk.read_bytes()
    for place in (len(whole) // 2, len(whole) - 1):
        chunk.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(HsiclustError, match=r"labels of rows 16 to 31 are damaged"):
            store.read(Window(16, 0, 16, 33))
    assert store.missing() == [2, 3]


def test_a_full_disk_leaves_no_half_of_a_chunk(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, data: bytes) -> int:
        with file.open("wb") as half:
            half.write(data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    tile = GRID[0]
    with pytest.raises(HsiclustError, match="labels cannot be written: No space left on device"):
        store.write(tile, np.ones((tile.core.rows, tile.core.cols), np.uint8), None)
    assert isinstance(store.path, Path)
    assert {file.name for file in store.path.rglob("*") if file.is_file()} == {"zarr.json"}
    assert store.missing() == [0, 1, 2, 3, 4, 5]


def test_a_full_disk_takes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LabelStore(tmp_path / "labels.zarr", ReadPlan.of(GRID, GRID.across, 1))

    def full(self: LabelStore, run: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LabelStore, "_create", full)
    with pytest.raises(HsiclustError, match=r"labels\.zarr: labels cannot be written: No space"):
        store.open_or_create("run", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_a_chunk_that_is_gone_is_noticed(store: LabelStore) -> None:
    """Zarr gives zeros for it, and its flag says that it is done."""
    labels, sure = write_all(store)
    assert isinstance(store.path, Path)
    whole = Window(0, 0, AREA.rows, AREA.cols)
    (store.path / "labels" / "c" / "1" / "0").unlink()
    with pytest.raises(HsiclustError, match=r"rows 16 to 31 are damaged \(a chunk is gone\)"):
        store.read(Window(16, 0, 16, 33))
    assert store.missing() == [2, 3]
    (store.path / "confidence" / "c" / "0" / "1").unlink()
    with pytest.raises(HsiclustError, match="a chunk is gone"):
        store.read_confidence(whole, written=True)
    assert store.missing() == list(range(6))
    for tile in GRID:
        where = tile.core.relative_to(AREA).slices
        store.write(tile, np.zeros_like(labels[where]), np.full_like(sure[where], UNSURE))
    assert (store.read(whole) == 0).all()
    assert (store.read_confidence(whole, written=True) == UNSURE).all()


def test_who_is_killed_while_a_store_is_removed_leaves_none(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one whose flags are all set, but not its labels."""
    write_all(store)
    assert isinstance(store.path, Path)

    def killed(path: Path) -> None:
        (path / "labels" / "c" / "0" / "0").unlink()
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(shutil, "rmtree", killed)
        with pytest.raises(Killed):
            store.remove()
    assert LabelStore.record_of_run(store.path, "run") is None
    assert len(list(store.path.parent.iterdir())) == 1
    store.open_or_create("run", overwrite=False)
    assert len(store.missing()) == 6
    store.remove()
    assert list(store.path.parent.iterdir()) == []


def test_who_is_interrupted_while_a_store_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LabelStore(tmp_path / "x.zarr", ReadPlan.of(GRID, GRID.across, 1)).open_or_create(
            "r", False
        )
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_another_run_is_replaced_while_nothing_is_lost_with_it(
    store: LabelStore,
) -> None:
    """It may be cut in another way."""
    grid = TileGrid(GRID.scene, AREA, 8, 8, 4)
    other = LabelStore(store.path, ReadPlan.of(grid, grid.across, 1))
    other.open_or_create("another run", overwrite=False)
    assert LabelStore.record_of_run(store.path, "run") is None
    assert other.missing() == list(range(len(grid)))
    tile = grid[7]
    other.write(tile, np.ones((tile.core.rows, tile.core.cols), np.uint8), None)
    with pytest.raises(OutputExistsError, match="unfinished run"):
        store.open_or_create("run", overwrite=False)
    assert other.missing() == [index for index in range(len(grid)) if index != 7]


def test_a_store_whose_flags_cannot_be_read_is_kept(store: LabelStore) -> None:
    write_all(store)
    assert isinstance(store.path, Path)
    for flag in (store.path / "done" / "c").iterdir():
        flag.write_bytes(b"nonsense")
    with pytest.raises(OutputExistsError, match="unfinished run"):
        store.open_or_create("another run", overwrite=False)
    assert LabelStore.record_of_run(store.path, "run") is not None


def test_a_store_that_the_system_does_not_let_be_read_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of another user, or on a disk that fails: it has the name that only a run gives."""
    store = LabelStore(tmp_path / ".map.tif.labels.zarr", ReadPlan.of(GRID, GRID.across, 1))
    store.open_or_create("run", overwrite=False)
    labels, _ = write_all(store)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "zarr.json")

    with monkeypatch.context() as patch:
        patch.setattr("hsiclust.labels.open_group", refused)
        for overwrite in (False, True):
            with pytest.raises(HsiclustError, match=r"labels\.zarr: cannot be read: Permission"):
                store.open_or_create("run", overwrite)
    assert np.array_equal(store.read(Window(0, 0, AREA.rows, AREA.cols)), labels)


def test_flags_are_found_by_one_listing(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zarr opens a file a tile: a store of 80000 tiles took 18 s before a word was said."""
    write_all(store)
    store._array("done")[4] = 0

    def refused(self: zarr.Array, selection: object) -> None:  # type: ignore[type-arg]
        raise AssertionError

    monkeypatch.setattr(zarr.Array, "__getitem__", refused)
    assert store.missing() == [4]
    assert store.missing_of(range(3, 6)) == [4]


def test_flags_without_a_tile_are_none(store: LabelStore) -> None:
    assert store.missing() == store.missing_of(range(6)) == list(range(6))
