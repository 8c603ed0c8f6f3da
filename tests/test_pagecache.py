"""What the system keeps of a file, as it is asked and told."""

import os
from pathlib import Path

import pytest

from hsiclust import pagecache

BYTES = 2**20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.raw"
    path.write_bytes(os.urandom(BYTES))
    with path.open("rb") as opened:
        os.fsync(opened.fileno())  # only what is on the disk can be forgotten
    return path


def test_what_was_read_is_kept_until_it_is_given_back(file: Path) -> None:
    file.read_bytes()
    assert pagecache.holds(str(file))
    pagecache.give_back_all(str(file))
    if pagecache.holds(str(file)):
        pytest.skip("this file system keeps its files in memory, or does not tell")
    file.read_bytes()
    with file.open("rb") as opened:
        pagecache.give_back(opened.fileno(), [(0, BYTES // 4)])
    assert pagecache.holds(str(file))  # most of it
    with file.open("rb") as opened:
        pagecache.give_back(opened.fileno(), [(0, BYTES // 2), (BYTES // 2, BYTES // 4)])
    assert not pagecache.holds(str(file))


def test_a_file_system_that_does_not_tell_is_left_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "preadv", refused)
    assert pagecache.holds(str(file))


@pytest.mark.parametrize("held", [31, 32, 33, 64])
def test_most_of_a_file_is_more_than_half(
    held: int, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(_file: int, _into: list[bytearray], place: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        if place * 64 // BYTES >= held:
            raise BlockingIOError
        return 1

    monkeypatch.setattr(os, "preadv", told)
    assert pagecache.holds(str(file)) == (held > 32)


def test_where_there_are_no_hints_nothing_is_done(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fadvise")
    monkeypatch.delattr(os, "RWF_NOWAIT")
    with file.open("rb") as opened:
        pagecache.ask_for(opened.fileno(), [(0, BYTES)])
        pagecache.give_back(opened.fileno(), [(0, BYTES)])
    assert pagecache.holds(str(file))
