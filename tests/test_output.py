import os
import stat
from pathlib import Path

import pytest

from hsiclust.errors import OutputBusyError, OutputExistsError, UsageError
from hsiclust.output import refuse_existing, refuse_inputs, written_alone, written_beside


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_may_be_read_by_whoever_may_read_others_here(tmp_path: Path, mask: int) -> None:
    """Also where a library makes files that no one else may read."""
    before = os.umask(mask)
    try:
        with written_beside(tmp_path / "a") as beside:
            os.close(os.open(beside, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_what_fails_leaves_nothing_and_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def fail() -> None:
        with written_beside(tmp_path / "a") as beside:
            beside.write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / ".a.partial" / "part").write_text("old")
    with written_beside(tmp_path / "a") as beside:
        assert not beside.exists()
        beside.write_text("new")
    assert (tmp_path / "a").read_text() == "new"


def test_one_run_at_a_time_writes_a_file(tmp_path: Path) -> None:
    with written_alone(tmp_path / "a", overwrite=False) as beside:
        beside.write_text("first")
        with (
            pytest.raises(OutputBusyError),
            written_alone(tmp_path / "a", overwrite=True) as other,
        ):
            other.write_text("second")
    with (
        pytest.raises(OutputExistsError, match="--overwrite"),
        written_alone(tmp_path / "a", overwrite=False) as other,
    ):
        other.write_text("third")
    assert (tmp_path / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_folders_are_written_too(tmp_path: Path) -> None:
    with written_beside(tmp_path / "a") as beside:
        beside.mkdir()
        (beside / "part").write_text("x")
    assert (tmp_path / "a" / "part").read_text() == "x"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) & 0o100  # may be entered


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("there", "link"):
        with pytest.raises(OutputExistsError, match="--overwrite"):
            refuse_existing(tmp_path / name, overwrite=False)
        refuse_existing(tmp_path / name, overwrite=True)
    with pytest.raises(UsageError, match="is a folder"):
        refuse_existing(tmp_path, overwrite=True)
    with pytest.raises(UsageError, match="no folder"):
        refuse_existing(tmp_path / "no" / "file", overwrite=False)


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe: is a device or a pipe; name a file"):
        refuse_existing(tmp_path / "pipe", overwrite=True)
    with pytest.raises(UsageError, match="/dev/null: is a device or a pipe"):
        refuse_existing(Path("/dev/null"), overwrite=True)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"map.udcff\.tif': a name that is not UTF-8 text"):
        refuse_existing(tmp_path / os.fsdecode(b"map\xff.tif"), overwrite=False)


def test_a_folder_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda folder, mode: folder != tmp_path)
    with pytest.raises(UsageError, match=f"nothing can be written in {tmp_path}; name another"):
        refuse_existing(tmp_path / "map.tif", overwrite=True)
    (tmp_path / "maps").mkdir()
    refuse_existing(tmp_path / "maps" / "map.tif", overwrite=False)


def test_names_that_leave_no_room(tmp_path: Path) -> None:
    refuse_existing(tmp_path / ("ä" * 110), overwrite=False)
    with pytest.raises(UsageError, match=r"^ä{80}\.\.\.: a name of 221 bytes, which"):
        refuse_existing(tmp_path / ("ä" * 110 + "a"), overwrite=False)


def test_inputs_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "scene").write_text("")
    (tmp_path / "same").hardlink_to(tmp_path / "scene")
    for output in (tmp_path / "scene", tmp_path / "same", tmp_path):
        with pytest.raises(UsageError, match="what the work starts from"):
            refuse_inputs(output, None, tmp_path / "none", tmp_path / "scene")
    refuse_inputs(tmp_path / "new", tmp_path / "scene")
