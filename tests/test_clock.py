import time
from collections.abc import Iterator

from hsiclust.clock import Clock


def test_time_goes_where_it_was_spent() -> None:
    clock = Clock()
    with clock.during("writing"):
        time.sleep(0.01)
    assert clock.writing >= 0.01
    assert clock.reading == clock.computing == 0.0
    assert clock.bound == "writing"


def test_an_iterator_is_read_and_what_is_done_with_its_items_is_not() -> None:
    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.01)
            yield number

    clock, found = Clock(), []
    for number in clock.reading_each(slow()):
        time.sleep(0.02)
        found.append(number)
    assert found == [0, 1, 2]
    assert clock.reading >= 0.03
    assert clock.computing == 0.0


def test_clocks_add_up() -> None:
    clock = Clock(1.0, 2.0, 3.0)
    clock.add(Clock(0.5, 4.0, 0.25))
    assert clock == Clock(1.5, 6.0, 3.25)
    assert clock.bound == "computing"
