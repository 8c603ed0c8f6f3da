import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsiclust.errors import UsageError
from hsiclust.models.phases import Phase, Place, place_of


@given(st.lists(st.integers(0, 5), max_size=6))
def test_steps_lie_in_the_phases_in_turn(lengths: list[int]) -> None:
    phases = [Phase("learn", number, steps) for number, steps in enumerate(lengths)]
    wanted = [
        Place(number, phase, step)
        for number, phase in enumerate(phases)
        for step in range(phase.steps)
    ]
    assert [place_of(phases, step) for step in range(sum(lengths))] == wanted
    with pytest.raises(UsageError, match="behind the last phase"):
        place_of(phases, sum(lengths))
