import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsiclust.area import estimate_areas

# Olofsson et al. 2014, tables 8 to 10: deforestation, forest gain, stable forest, stable
# non-forest; 10 million pixels of 30 m.
NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
SAMPLE = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED = np.array([200_000, 150_000, 3_200_000, 6_450_000])
HECTARES = 0.09


def test_the_published_example():
    areas = estimate_areas(NAMES, SAMPLE, MAPPED, HECTARES)
    assert areas.unit == "ha"
    assert areas.covered == 1
    assert areas.left_out == ()
    assert (round(areas.accuracy.value, 2), round(areas.accuracy.margin, 2)) == (0.95, 0.02)
    found = [(round(c.area.value), round(c.area.margin)) for c in areas.classes]
    assert found == [(21158, 6158), (11686, 3756), (285770, 15510), (581386, 16282)]
    users = [(round(c.users.value, 2), round(c.users.margin, 2)) for c in areas.classes]
    assert users == [(0.88, 0.07), (0.73, 0.10), (0.93, 0.04), (0.96, 0.02)]
    assert [round(c.producers.value, 2) for c in areas.classes] == [0.75, 0.85, 0.93, 0.96]
    assert round(areas.classes[0].producers.margin, 2) == 0.21
    assert [c.mapped for c in areas.classes] == pytest.approx(MAPPED * HECTARES)
    assert areas.classes[0].proportion.error == pytest.approx(0.0035, abs=5e-5)


def test_pixels_where_a_pixel_has_no_area():
    areas = estimate_areas(NAMES, SAMPLE, MAPPED, None)
    assert areas.unit == "pixels"
    assert round(areas.classes[0].area.value) == 235086
    assert areas.classes[1].mapped == 150_000


def numbers_of(areas, part):
    """OA, then proportion and producer's accuracy of each class."""
    estimates = [areas.accuracy]
    for each in areas.classes:
        estimates += [each.proportion, each.producers]
    return [getattr(each, part) for each in estimates]


def test_standard_errors_are_the_spread_over_many_samples():
    """Against what they estimate: samples drawn anew from a ground that is known."""
    ground = np.array([[0.85, 0.1, 0.05], [0.1, 0.8, 0.1], [0.02, 0.08, 0.9]])  # of each stratum
    mapped = np.array([1000, 3000, 6000])
    rng = np.random.default_rng(0)
    drawn = [np.array([rng.multinomial(200, share) for share in ground]) for _ in range(1500)]
    found = [estimate_areas("abc", sample, mapped, None) for sample in drawn]
    values, errors = (np.array([numbers_of(f, part) for f in found]) for part in ("value", "error"))
    weights = mapped / mapped.sum()
    whole = weights @ ground
    expected = [weights @ np.diag(ground)]
    for at in range(3):
        expected += [whole[at], weights[at] * ground[at, at] / whole[at]]
    assert values.mean(axis=0) == pytest.approx(expected, abs=0.005)
    assert errors.mean(axis=0) == pytest.approx(values.std(axis=0), rel=0.08)


samples = st.integers(1, 5).flatmap(
    lambda k: st.tuples(
        st.lists(st.lists(st.integers(0, 30), min_size=k, max_size=k), min_size=k, max_size=k),
        st.lists(st.integers(0, 10**9), min_size=k, max_size=k),
    )
)


@settings(max_examples=150, deadline=None)
@given(drawn=samples)
def test_areas_add_up_to_the_part_of_the_map_that_they_are_for(drawn):
    sample, mapped = (np.array(each, np.int64) for each in drawn)
    names = [f"c{at}" for at in range(len(mapped))]
    areas = estimate_areas(names, sample, mapped, 0.5)
    used = (mapped > 0) & (sample.sum(axis=1) >= 2)
    if not used.any():
        assert areas is None
        return
    total = mapped[used].sum() * 0.5
    assert math.fsum(c.area.value for c in areas.classes) == pytest.approx(total)
    assert math.fsum(c.proportion.value for c in areas.classes) == pytest.approx(1)
    assert math.fsum(c.mapped for c in areas.classes) == pytest.approx(total)
    assert areas.covered == pytest.approx(mapped[used].sum() / mapped.sum())
    assert list(areas.left_out) == [
        n for n, u, m in zip(names, used, mapped, strict=True) if m and not u
    ]
    for found in areas.classes:
        assert found.area.error >= 0
        assert (found.users is None) == (not used[names.index(found.name)])
        assert found.producers is None or 0 <= found.producers.value <= 1
    json.dumps(areas.to_json(), allow_nan=False)


def test_strata_with_too_few_pixels_are_left_out():
    sample = SAMPLE.copy()
    sample[1] = [0, 1, 0, 0]
    areas = estimate_areas(NAMES, sample, MAPPED, HECTARES)
    assert areas.left_out == ("forest gain",)
    assert areas.covered == pytest.approx(1 - 0.015)
    gain = areas.classes[1]
    # What other strata say of the class is kept: 1 of 325 pixels mapped as non-forest.
    assert gain.mapped == 0
    assert gain.users is None
    assert gain.producers.value == 0
    assert gain.area.value == pytest.approx(6_450_000 / 325 * HECTARES)
    rest = [0, 2, 3]
    others = estimate_areas(
        [NAMES[at] for at in rest], sample[np.ix_(rest, rest)], MAPPED[rest], HECTARES
    )
    assert areas.classes[0].users == others.classes[0].users


def test_classes_that_the_truth_or_the_map_alone_has():
    areas = estimate_areas(("a", "b"), np.array([[4, 4], [0, 0]]), np.array([100, 0]), None)
    a, b = areas.classes
    assert (a.area.value, b.area.value) == (50, 50)
    assert (a.producers.value, b.producers.value, b.users) == (1, 0, None)
    areas = estimate_areas(("a", "b"), np.array([[8, 0], [4, 0]]), np.array([100, 50]), None)
    a, b = areas.classes
    assert (a.area.value, b.area.value, b.area.error) == (150, 0, 0)
    assert (b.users.value, b.producers) == (0, None)


def test_a_perfect_map_is_sure():
    areas = estimate_areas(("a", "b"), np.diag([5, 9]), np.array([30, 70]), None)
    assert (areas.accuracy.value, areas.accuracy.error) == (1, 0)
    assert [(c.area.value, c.area.margin) for c in areas.classes] == [(30, 0), (70, 0)]
    assert areas.to_json()["classes"][0]["area"] == {
        "value": 30,
        "standard_error": 0,
        "interval_95": [30, 30],
    }
