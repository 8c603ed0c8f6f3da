from collections import Counter, defaultdict
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hsiclust.runs import Runs

NAMES = ["a", "b", "c", "d", "e"]


@given(
    count=st.integers(0, 60),
    first=st.integers(0, 5),
    moves=st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(["take", "take", "leave", "give back"])),
        max_size=150,
    ),
)
def test_every_index_once_whoever_comes_and_goes(
    count: int, first: int, moves: list[tuple[str, str]]
) -> None:
    indices = [3 * at for at in range(count)]
    runs = Runs(indices, NAMES[:first])
    taken: list[int] = []
    for worker, move in moves:
        assert len(runs) == count - len(taken)
        if move == "leave":
            runs.leave(worker)
        elif move == "give back":
            if taken:
                runs.give_back(taken.pop())
        elif (index := runs.take(worker)) is not None:
            taken.append(index)
        else:
            assert len(taken) == count
    while (index := runs.take("last")) is not None:
        taken.append(index)
    assert Counter(taken) == Counter(indices)
    assert len(runs) == 0


@given(count=st.integers(1, 80), workers=st.integers(1, 5))
def test_workers_of_one_speed_get_neighbours(count: int, workers: int) -> None:
    runs = Runs(range(count), NAMES[:workers])
    of: defaultdict[str, list[int]] = defaultdict(list)
    while len(runs):
        for name in NAMES[:workers]:
            index = runs.take(name)
            if index is not None:
                of[name].append(index)
    breaks = sum(after != before + 1 for own in of.values() for before, after in pairwise(own))
    assert breaks <= workers - 1  # runs differ by one in length: a last index may be stolen
    assert max(map(len, of.values())) - min(map(len, of.values())) <= 1 or count < workers


def test_who_has_none_takes_the_later_half_of_the_longest_run() -> None:
    runs = Runs(range(20), ["a", "b"])
    assert [runs.take("b") for _ in range(10)] == list(range(10, 20))
    assert [runs.take("b") for _ in range(3)] == [5, 6, 7]
    assert [runs.take("late") for _ in range(2)] == [2, 3]  # half of 0 to 4
    assert [runs.take("a") for _ in range(2)] == [0, 1]


def test_what_a_gone_worker_left_is_taken_first() -> None:
    runs = Runs(range(20), ["a", "b"])
    assert runs.take("b") == 10
    runs.leave("b")
    assert [runs.take("c") for _ in range(2)] == [11, 12]
    runs.leave("never seen")
    assert len(runs) == 17
