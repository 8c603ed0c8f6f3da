import threading
import time

import pytest

from hsiclust import crew
from hsiclust.crew import Crew
from hsiclust.errors import HsiclustError, InputError


def test_each_index_once_and_in_order():
    assert list(Crew(lambda index: -index, range(5), "tile", 1).work()) == [
        (index, -index) for index in range(5)
    ]
    found = dict(Crew(lambda index: -index, range(50), "tile", 4).work())
    assert found == {index: -index for index in range(50)}
    assert list(Crew(int, [], "tile", 4).work()) == []


def test_all_threads_are_at_work():
    meeting = threading.Barrier(3)  # broken unless three come

    def meet(index):
        return meeting.wait(20)

    assert len(list(Crew(meet, range(6), "tile", 3).work())) == 6


def test_a_hiccup_is_tried_again():
    tries = []

    def fail_twice(index):
        tries.append(index)
        if tries.count(3) in (1, 2) and index == 3:
            raise OSError("a hiccup")
        return index

    assert dict(Crew(fail_twice, range(5), "tile", 2).work()) == {i: i for i in range(5)}
    assert tries.count(3) == 3


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (InputError("a.tif: torn"), InputError, r"strip 2: a\.tif: torn"),
        (ZeroDivisionError("a bug"), HsiclustError, "strip 2 failed 3 times: ZeroDivisionError"),
        (MemoryError("all gone"), HsiclustError, "strip 2 failed 3 times: MemoryError: all gone"),
    ],
)
def test_a_failure_is_named_and_ends_the_run(error, kind, message):
    begun = []

    def fail(index):
        begun.append(index)
        if index == 2:
            raise error
        return index

    with pytest.raises(kind, match=message) as caught:
        list(Crew(fail, range(1000), "strip", 1).work())
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error
    assert begun.count(2) == 3
    assert max(begun) == 2  # those that wait are not begun any more


def test_who_stops_listening_stops_the_work():
    begun = []

    def slowly(index):
        begun.append(index)
        time.sleep(0.01)
        return index

    work = Crew(slowly, range(10_000), "tile", 2).work()
    next(work)
    work.close()
    count = len(begun)
    assert count < 10_000
    time.sleep(0.05)
    assert len(begun) == count  # nobody is at work any more


def test_what_takes_long_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(crew, "_END_WITHIN", 0.05)
    begun, release = threading.Event(), threading.Event()

    def wait(index):
        if index == 0:
            begun.set()
            release.wait(60)
        else:
            begun.wait(60)
        return index

    start = time.monotonic()
    work = Crew(wait, range(2), "tile", 2).work()
    assert next(work) == (1, 1)
    work.close()
    assert crew.still_at_work()
    release.set()
    assert time.monotonic() - start < 30


def test_what_fails_after_the_stop_is_not_tried_again(monkeypatch):
    monkeypatch.setattr(crew, "_END_WITHIN", 0.0)
    begun, release, tries = threading.Event(), threading.Event(), []

    def fail_late(index):
        if index:
            return begun.wait(60)
        tries.append(index)
        begun.set()
        release.wait(60)
        raise OSError("late")

    crew_at_work = Crew(fail_late, range(2), "tile", 2)
    work = crew_at_work.work()
    next(work)
    work.close()
    release.set()
    for thread in crew_at_work._threads:
        thread.join()
    assert tries == [0]
