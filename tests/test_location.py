import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import obstore
import pytest
import s3server
import zarr
from conftest import Killed, killed_after

from hsiclust import console, s3client
from hsiclust.cli import app
from hsiclust.engine import EngineOptions
from hsiclust.errors import HsiclustError, InputError, OutputExistsError, StorageError, UsageError
from hsiclust.facts import info
from hsiclust.grid import Window
from hsiclust.labels import LabelStore, Record
from hsiclust.location import S3Url, is_there, location, remove_store, stamp, store_location
from hsiclust.rasters import open_raster
from hsiclust.readplan import ReadPlan
from hsiclust.staging import TileShape
from hsiclust.tilegrid import TileGrid
from hsiclust.tiles import TileStore, is_tile_store
from hsiclust.tiling import TileOptions, tile

OPTIONS = TileOptions(TileShape(32, 5), engine=EngineOptions(threads=2))
URL = f"s3://{s3server.BUCKET}/run/x.zarr"
GRID = TileGrid(Window(0, 0, 40, 50), Window(0, 0, 40, 50), 20, 25, 3)
READING = ReadPlan.of(GRID, 2, 1)


@pytest.mark.parametrize("name", [URL, Path(URL), URL + "/", S3Url(s3server.BUCKET, "run/x.zarr")])
def test_names_of_a_place_on_s3(name: str | Path | S3Url) -> None:
    where = location(name)
    assert where == S3Url(s3server.BUCKET, "run/x.zarr")
    assert str(where) == URL
    assert where.name == "x.zarr"
    assert str(where / "done") == f"{URL}/done"


def test_names_of_a_place_on_disk(tmp_path: Path) -> None:
    assert location(tmp_path) == tmp_path
    assert location("s3/x.zarr") == Path("s3/x.zarr")


def test_names_of_no_store() -> None:
    with pytest.raises(UsageError, match="whole bucket"):
        location("s3://bucket/")
    with pytest.raises(UsageError, match=r"ends in \.zarr"):
        store_location("s3://bucket/store")


def test_who_is_killed_removing_a_store_leaves_none(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("c/0", "done/c/0", "zarr.json", "zz"):
        obstore.put(s3server.bucket(), f"run/x.zarr/{key}", b"{}")
    delete, asked = obstore.delete, []

    def killed_at_the_second(*arguments: Any) -> None:
        asked.append(arguments)
        if len(asked) > 1:
            raise Killed
        delete(*arguments)

    monkeypatch.setattr(obstore, "delete", killed_at_the_second)
    with pytest.raises(Killed):
        remove_store(location(URL))
    assert not is_there(location(URL) / "zarr.json")
    assert is_there(location(URL) / "c" / "0")


def test_two_states_of_a_folder_differ(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"1")
    states = [stamp(tmp_path)]
    (tmp_path / "a" / "b").write_bytes(b"12")
    states.append(stamp(tmp_path))
    os.utime(tmp_path / "a" / "b", ns=(0, 2**62))
    states.append(stamp(tmp_path))
    (tmp_path / "a" / "c").touch()
    states.append(stamp(tmp_path))
    assert len(set(states)) == 4
    assert stamp(tmp_path) == states[-1]


def test_there_and_removed(s3: str) -> None:
    for key in ("run/x.zarr/zarr.json", "run/x.zarr/c/0", "run/x.zarr2/zarr.json"):
        obstore.put(s3server.bucket(), key, b"{}")
    assert is_there(location(URL))
    assert is_there(location(URL) / "zarr.json")
    assert not is_there(location(URL) / "zarr")
    remove_store(location(URL))
    assert not is_there(location(URL))
    assert s3server.stored() == ["run/x.zarr2/zarr.json"]


def test_a_tile_store_on_s3_is_that_on_disk(
    s3: str, fields: tuple[Path, Path], tmp_path: Path
) -> None:
    there = tile(str(fields[0]), URL, OPTIONS)
    here = tile(str(fields[0]), tmp_path / "x.zarr", OPTIONS)
    assert is_tile_store(URL)
    assert there.missing() == []
    assert there.content == here.content
    for each in here.tiles:
        for name in (0, 1):
            assert np.array_equal(
                here.read_chunk(each.index)[name], there.read_chunk(each.index)[name]
            )
    assert info(URL)["tiles_written"] == len(here.tiles)
    assert all(key.startswith("run/x.zarr/") for key in s3server.stored())
    with pytest.raises(OutputExistsError, match="is there already"):
        tile(str(fields[0]), URL, OPTIONS)


def test_a_killed_tiling_on_s3_goes_on(s3: str, fields: tuple[Path, Path]) -> None:
    with pytest.raises(Killed):
        tile(str(fields[0]), URL, OPTIONS, killed_after(2))
    store = TileStore.open(URL)
    created, left = store.created, len(store.missing())
    assert 0 < left < len(store.tiles)
    seen: list[int] = []
    again = tile(str(fields[0]), URL, OPTIONS, lambda done, _: seen.append(done))
    assert again.created == created
    assert len(seen) == left
    assert again.missing() == []


def test_the_command_line_tiles_to_s3_learns_and_labels_from_there(
    s3: str,
    fields: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(console, "log_to_stderr", lambda quiet, verbose: None)
    model, labels = tmp_path / "m.safetensors", tmp_path / "map.tif"
    method = ["--method", "kmeans", "-k", "4", "--steps", "9"]
    for command in (
        ["tile", fields[0], URL],
        ["train", URL, "-o", model, *method],
        ["predict", URL, "-m", model, "-o", labels],
    ):
        app([*map(str, command), "-q"], standalone_mode=False)
    assert capsys.readouterr().out.splitlines() == [URL, str(model), str(labels)]
    with open_raster(str(labels)) as dataset:
        assert (dataset.read(1) > 0).all()


def test_labels_on_s3(s3: str) -> None:
    store = LabelStore(location(URL), READING)
    store.open_or_create("run", overwrite=False)
    assert LabelStore.record_of_run(URL, "run") == Record(READING, "float32")
    numbers = np.full((20, 25), 3, np.uint8)
    store.write(GRID[2], numbers, numbers)
    again = LabelStore(location(URL), READING)
    again.open_or_create("run", overwrite=False)
    assert again.missing() == [0, 1, 3]
    assert again.read(Window(20, 0, 20, 25)).tolist() == numbers.tolist()
    assert again.read_confidence(Window(0, 0, 1, 1), written=True) == 255
    with pytest.raises(OutputExistsError, match="unfinished run"):
        again.open_or_create("another", overwrite=False)
    again.remove()
    assert s3server.stored() == []


def test_labels_on_s3_that_another_run_may_have_begun_are_kept(s3: str) -> None:
    """No lock tells whether it is at work."""
    LabelStore(location(URL), READING).open_or_create("run", overwrite=False)
    with pytest.raises(OutputExistsError, match="unfinished run"):
        LabelStore(location(URL), READING).open_or_create("another", overwrite=False)


def test_damaged_labels_on_s3_are_forgotten(s3: str) -> None:
    store = LabelStore(location(URL), READING)
    store.open_or_create("run", overwrite=False)
    for each in GRID:
        store.write(each, np.ones((20, 25), np.uint8), None)
    obstore.put(s3server.bucket(), "run/x.zarr/labels/c/0/1", b"nonsense")
    with pytest.raises(HsiclustError, match="damaged"):
        store.read(Window(0, 0, 40, 50))
    assert store.missing() == [0, 1, 2, 3]


def test_no_bucket(s3: str) -> None:
    with pytest.raises(StorageError, match=r"^s3://nowhere/x\.zarr: there is no such bucket$"):
        is_there(location("s3://nowhere/x.zarr"))
    with pytest.raises(StorageError, match="no such bucket"):
        LabelStore(location("s3://nowhere/x.zarr"), READING).open_or_create("run", overwrite=False)


def test_no_store(s3: str) -> None:
    assert not is_tile_store(URL)
    with pytest.raises(InputError, match="cannot be opened as a tile store"):
        TileStore.open(URL)


def test_no_route(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3client, "_MOST_RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(
        StorageError,
        match=r"^s3://.*: no answer from http://127\.0\.0\.1:9; check AWS_ENDPOINT_URL$",
    ):
        is_tile_store(URL)


@pytest.mark.parametrize("endpoint", ["http://", "a server", "ftp://host", "http://ho st:9/"])
def test_an_endpoint_that_is_no_server(
    s3: str, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(StorageError, match=r"^AWS_ENDPOINT_URL: '.*' is no server's; http://host"):
        is_tile_store(URL)


def test_credentials_of_a_profile(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3server.put("run/x.zarr/zarr.json", b"{}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    file.write_text("[field]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "field")
    assert is_there(location(URL))


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("expanduser", RuntimeError("Could not determine home directory.")),
        ("is_file", PermissionError(13, "Permission denied")),
    ],
)
def test_who_has_no_home_has_no_profile(
    monkeypatch: pytest.MonkeyPatch, method: str, error: Exception
) -> None:
    """In a container the user may have no name, or the home of another."""

    def failing(_path: Path) -> NoReturn:
        raise error

    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr(Path, method, failing)
    assert s3client._profile() is None


@pytest.mark.parametrize(
    ("text", "profile", "message"),
    [
        ("[field]\naws_access_key_id = nobody\n", "field", "missing: aws_secret_access_key"),
        ("[field]\naws_access_key_id = nobody\n", "forest", r"profile \(forest\) could not be"),
        ("[field\n", "field", "Unable to parse config file: .*credentials"),
    ],
)
def test_a_profile_that_cannot_be_used(
    s3: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    profile: str,
    message: str,
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    file = tmp_path / "credentials"
    file.write_text(text)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(StorageError, match=f"^no credentials: .*{message}.*; mend AWS_PROFILE or"):
        is_there(location(URL))


def test_an_error_of_the_server_is_named() -> None:
    text = "status code: 400 Bad Request, body: <Error><Code>ExpiredToken</Code></Error>"
    found = s3client.in_short(OSError(text))
    assert found == "the server answers 400 Bad Request (ExpiredToken)"


def test_no_access(s3: str, refusing_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing_server)
    with pytest.raises(StorageError, match=r"refuses access \(403 Forbidden\)"):
        TileStore.open(URL)


def test_a_store_of_version_2_is_not_opened(tmp_path: Path) -> None:
    """Its arrays may name the pickle codec, which runs whatever the file says."""
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=2)
    group.attrs["format"] = "hsiclust-tiles"
    assert not is_tile_store(tmp_path / "x.zarr")
    with pytest.raises(InputError):
        TileStore.open(tmp_path / "x.zarr")


def test_a_store_on_s3_that_is_gone_is_said(s3: str) -> None:
    store = LabelStore(location(URL), READING)
    store.open_or_create("run", overwrite=False)
    store.refuse_other("run")
    store.remove()
    with pytest.raises(HsiclustError, match="is gone, or the store of another run by now"):
        store.refuse_other("run")


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_S3_ENDPOINT"])
def test_other_names_of_an_endpoint(s3: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    obstore.put(s3server.bucket(), "run/x.zarr/zarr.json", b"{}")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv(name, s3.removeprefix("http://"))
    assert is_there(location(URL))
