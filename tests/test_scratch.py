import numpy as np

from hsiclust.scratch import Scratch


def test_what_is_lent_is_nobody_elses() -> None:
    scratch = Scratch()
    with scratch.lend(8) as first, scratch.lend(16) as second:
        assert (first.size, second.size) == (8, 16)
        first[:], second[:] = 1, 2
        assert (first == 1).all()
        assert not np.shares_memory(first, second)


def test_memory_is_used_again() -> None:
    scratch = Scratch()
    with scratch.lend(16) as first:
        pass
    with scratch.lend(8) as again:
        assert np.shares_memory(first, again)
    with scratch.lend(32) as larger:
        assert larger.size == 32


def test_it_begins_with_a_page() -> None:
    scratch = Scratch()
    for size in (1, 5000, 2**22):
        with scratch.lend(size) as room:
            assert room.ctypes.data % 4096 == 0
            assert room.size == size


def test_it_comes_back_from_what_fails() -> None:
    scratch = Scratch()
    try:
        with scratch.lend(8) as first:
            raise OSError
    except OSError:
        pass
    with scratch.lend(8) as again:
        assert np.shares_memory(first, again)
