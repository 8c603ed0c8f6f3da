import io
import os
from pathlib import Path

import pytest

from hsiclust.errors import InputError, UsageError
from hsiclust.scenelist import SceneList, scene_list, scene_names


def pairs(words: list[str], output: str | None, stdin: str = "") -> list[tuple[str, str]]:
    found = scene_list(words, output, ".tif", io.StringIO(stdin))
    return [(scene, str(path)) for scene, path in found.pairs]


def test_one_scene_and_its_map(tmp_path: Path) -> None:
    assert pairs(["in/a.bsq"], None) == [("in/a.bsq", "a_labels.tif")]
    assert pairs(["a.zarr/"], None) == [("a.zarr/", "a_labels.tif")]
    assert pairs(["a.tif"], "map.tif") == [("a.tif", "map.tif")]
    assert pairs(["a.tif"], "maps/") == [("a.tif", "maps/a_labels.tif")]
    assert pairs(["a.tif"], str(tmp_path)) == [("a.tif", str(tmp_path / "a_labels.tif"))]
    assert not scene_list(["a.tif"], "maps/", ".tif", io.StringIO()).many


def test_several_go_to_a_folder() -> None:
    assert pairs(["x/a.tif", "y/b.hdr"], "maps") == [
        ("x/a.tif", "maps/a_labels.tif"),
        ("y/b.hdr", "maps/b_labels.tif"),
    ]
    assert pairs(["a.tif", "b.tif"], None) == [("a.tif", "a_labels.tif"), ("b.tif", "b_labels.tif")]
    found = scene_list(["a.tif", "b.tif"], "maps", ".img", io.StringIO())
    assert (found.folder, found.many) == (Path("maps"), True)
    assert found.pairs[1] == ("b.tif", Path("maps/b_labels.img"))


def test_lists(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("\ufeff# of July\n\n  a b.tif \nc.tif\r\n", "utf-8")  # Windows begins so
    names = [scene for scene, _ in pairs([f"@{file}", "d.tif", "-"], None, "e.tif\n#f.tif\n")]
    assert names == ["a b.tif", "c.tif", "d.tif", "e.tif"]
    assert scene_list(["-"], "maps", ".tif", io.StringIO("a.tif\n")).many


def test_names_alone_may_be_alike() -> None:
    """Two scenes of one name have no maps that would be the same where they are learned from."""
    words = ["x/a.tif", "-", "y/a.img"]
    assert scene_names(words, io.StringIO("b.tif\n")) == ["x/a.tif", "b.tif", "y/a.img"]


def test_lists_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no scene"):
        pairs(["-"], None, "# nothing\n")
    with pytest.raises(InputError, match=r"none\.txt: No such file"):
        pairs(["@none.txt"], None)
    (tmp_path / "scene.tif").write_bytes(b"II*\0\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        pairs([f"@{tmp_path / 'scene.tif'}"], None)
    stdin = io.TextIOWrapper(io.BytesIO(b"caf\xe9.tif\n"), "utf-8")
    with pytest.raises(InputError, match=r"^standard input: .*not UTF-8"):
        scene_list(["-"], None, ".tif", stdin)


def test_two_scenes_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match=r"y/a\.img: its map m/a_labels\.tif .*x/a\.tif"):
        pairs(["x/a.tif", "y/a.img"], "m")


def make_folder(found: SceneList, file: str | None = None) -> None:
    """Use a folder, for a file perhaps."""
    assert found.folder is not None
    with found.folder_in_use():
        assert found.folder.is_dir()
        if file is not None:
            (found.folder / file).touch()


def test_the_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "maps"
    found = scene_list(["a"], f"{output}/", ".tif", io.StringIO())
    make_folder(found)
    assert not output.exists()
    output.mkdir()
    make_folder(found)
    assert output.is_dir()
    output.rmdir()
    make_folder(found, "a_labels.tif")
    assert (output / "a_labels.tif").exists()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for wrong in ("file/", "link/", "no/such/"):
        found = scene_list(["a"], f"{tmp_path}/{wrong}", ".tif", io.StringIO())
        with pytest.raises(UsageError, match="no folder can be made"):
            make_folder(found)
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != tmp_path)
    found = scene_list(["a"], f"{tmp_path}/more/", ".tif", io.StringIO())
    with pytest.raises(UsageError, match="no folder can be made"):
        make_folder(found)
