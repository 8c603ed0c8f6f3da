import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from hsiclust.accuracy import classification
from hsiclust.contingency import Contingency, contingency, pixels_by_number
from hsiclust.grid import Window
from hsiclust.scores import score


class Held:
    def __init__(self, values):
        self.values = np.atleast_2d(np.asarray(values, np.uint16))

    def read(self, window):
        return self.values[window.slices]


def table_of(truth, found):
    return contingency(Held(found), Held(truth), Window(0, 0, 1, len(truth)))


labelled = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(1, 5), min_size=n, max_size=n),
        st.lists(st.integers(0, 7), min_size=n, max_size=n),
    )
)


@settings(max_examples=150, deadline=None)
@given(pair=labelled, known=st.sets(st.integers(1, 7)))
def test_scores_are_those_of_scikit_learn(pair, known):
    truth, found = map(np.array, pair)
    table = table_of(truth, found)
    matching = {n: n for n in table.classes if n in known | set(found.tolist())}
    scores = classification(table, matching, {}, dict.fromkeys(known, ""))
    classes = sorted(set(truth.tolist()))
    kinds = {"labels": classes, "average": None, "zero_division": 0}
    recall = metrics.recall_score(truth, found, **kinds)
    precision = metrics.precision_score(truth, found, **kinds)
    f1 = metrics.f1_score(truth, found, **kinds)
    rows = scores.classes[: len(classes)]
    assert [c.number for c in rows] == classes
    assert [c.producers for c in rows] == pytest.approx(recall.tolist())
    assert [c.users or 0 for c in rows] == pytest.approx(precision.tolist())
    assert [c.f1 for c in rows] == pytest.approx(f1.tolist())
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(truth, found))
    assert scores.average_accuracy == pytest.approx(recall.mean())
    assert scores.macro_f1 == pytest.approx(f1.mean())
    if len(set(truth) | set(found)) > 1:
        assert scores.kappa == pytest.approx(metrics.cohen_kappa_score(truth, found))
    order = [c.mapped or c.number for c in scores.classes]
    confusion = metrics.confusion_matrix(truth, found, labels=[*order, 0])
    np.testing.assert_array_equal(scores.confusion, confusion[:-1])
    assert scores.unclassified == np.count_nonzero(found == 0)
    # The same table, the same pairs: what both kinds of scores say is the same.
    both = score(table, None, matching)
    assert (both.accuracy, both.average_accuracy) == pytest.approx(
        (scores.accuracy, scores.average_accuracy)
    )
    assert [c.accuracy for c in both.classes] == pytest.approx(recall.tolist())


def test_swapped_classes_are_wrong():
    table = table_of([1, 1, 2, 2], [2, 2, 1, 1])
    scores = classification(table, {1: 1, 2: 2}, {}, {})
    assert (scores.accuracy, scores.macro_f1) == (0, 0)
    assert scores.kappa == -1
    assert score(table).accuracy == 1


def test_pairs_of_unlike_numbers():
    scores = classification(table_of([1, 1, 2], [9, 9, 4]), {9: 1, 4: 2}, {1: "corn"}, {4: "x"})
    assert (scores.accuracy, scores.kappa) == (1, 1)
    assert [(c.number, c.mapped, c.name) for c in scores.classes] == [
        (1, 9, "corn"),
        (2, 4, "class 2"),
    ]


def test_classes_of_one_side_only():
    """Class 2 is unknown to the map, 7 to the truth; 8 lies on no labelled pixel."""
    table = table_of([1, 1, 2, 2, 1], [1, 7, 1, 7, 0])
    scores = classification(table, {1: 1}, {2: "hay"}, {1: "corn", 8: "bog"})
    assert [(c.number, c.mapped, c.name) for c in scores.classes] == [
        (1, 1, "class 1"),
        (2, None, "hay"),
        (None, 7, "class 7"),
        (None, 8, "bog"),
    ]
    assert [c.producers for c in scores.classes] == [1 / 3, 0, None, None]
    assert [c.users for c in scores.classes] == [0.5, None, 0, None]
    assert [c.f1 for c in scores.classes] == [2 / 5, 0, 0, None]
    assert scores.average_accuracy == pytest.approx(1 / 6)
    assert scores.macro_f1 == pytest.approx(1 / 5)
    assert scores.confusion[0] == (1, 0, 1, 0, 1)
    assert scores.confusion[2] == scores.confusion[3] == (0,) * 5
    facts = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert facts["classes"][3]["users"] is None


def test_counts_of_a_large_map_do_not_overflow():
    large = 4_000_000_000
    table = Contingency(np.array([[0, large, 0], [0, large, large]]), (1, 2), (0, 1, 2))
    scores = classification(table, {1: 1, 2: 2}, {}, {})
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.kappa == pytest.approx(0.4)
    assert scores.pixels == 3 * large


def test_pixels_of_a_whole_map():
    """More than one window, numbers up to the largest."""
    values = np.random.default_rng(0).choice([0, 1, 300, 65535], (1100, 1030)).astype(np.uint16)
    counts = pixels_by_number(Held(values), Window(0, 0, 1100, 1030))
    numbers, expected = np.unique(values, return_counts=True)
    assert counts == dict(zip(numbers.tolist(), expected.tolist(), strict=True))
