import json

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyogrio.raw import write as write_vectors
from rasterio.crs import CRS
from sklearn import metrics

from hsiclust.contingency import Contingency, contingency
from hsiclust.errors import InputError
from hsiclust.evaluation import evaluate
from hsiclust.grid import PixelGrid, Window
from hsiclust.labelmap import write_map
from hsiclust.mapformat import MapFormat
from hsiclust.palette import Classes
from hsiclust.scores import match, score

GRID = PixelGrid(40, 50, Affine(30, 0, 4e5, 0, -30, 5e6), CRS.from_epsg(32633).to_wkt())


class Held:
    """Class numbers in memory."""

    def __init__(self, values):
        self.values = np.asarray(values, np.uint16)

    def read(self, window):
        return self.values[window.slices]


def scores_of(truth, found, names=None):
    truth, found = (np.atleast_2d(np.asarray(values)) for values in (truth, found))
    return score(contingency(Held(found), Held(truth), Window(0, 0, *truth.shape)), names)


def pairs_of_labels(least_found=0):
    """Truth and map of the same length, with truths of 1 and more."""
    size = st.integers(1, 60)
    return size.flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(1, 5), min_size=n, max_size=n),
            st.lists(st.integers(least_found, 7), min_size=n, max_size=n),
        )
    )


@settings(max_examples=150, deadline=None)
@given(pair=pairs_of_labels())
def test_scores_are_those_of_scikit_learn(pair):
    truth, found = map(np.array, pair)
    scores = scores_of(truth, found)
    # Unmatched and unclassified pixels are a class that the truth does not have.
    matched = np.array([scores.matching.get(cluster, 0) for cluster in found])
    assert scores.pixels == len(truth)
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(truth, matched))
    one_class = len(set(truth) | set(matched)) == 1
    kappa = 1.0 if one_class else metrics.cohen_kappa_score(truth, matched)
    assert scores.kappa == pytest.approx(kappa)
    assert scores.ari == pytest.approx(metrics.adjusted_rand_score(truth, found))
    nmi = metrics.normalized_mutual_info_score(truth, found, average_method="arithmetic")
    assert scores.nmi == pytest.approx(nmi, abs=1e-9)
    recall = metrics.recall_score(
        truth, matched, labels=sorted(set(truth)), average=None, zero_division=0
    )
    assert [c.accuracy for c in scores.classes] == pytest.approx(recall.tolist())
    assert scores.average_accuracy == pytest.approx(recall.mean())
    labels = [*sorted(set(truth)), 0]
    confusion = metrics.confusion_matrix(truth, matched, labels=labels)
    np.testing.assert_array_equal(scores.confusion, confusion[:-1])


@settings(max_examples=60, deadline=None)
@given(pair=pairs_of_labels())
def test_no_other_matching_is_better(pair):
    """Against every one-to-one matching, tried by recursion."""
    truth, found = map(np.array, pair)

    def best(clusters, classes):
        if not clusters:
            return 0
        first, *rest = clusters
        chances = [best(rest, classes)]
        for number in classes:
            shared = int(np.sum((found == first) & (truth == number)))
            if shared:
                chances.append(shared + best(rest, classes - {number}))
        return max(chances)

    right = best(sorted(set(found) - {0}), frozenset(truth.tolist()))
    assert scores_of(truth, found).accuracy == pytest.approx(right / len(truth))


@settings(max_examples=60, deadline=None)
@given(pair=pairs_of_labels())
def test_purity_is_the_share_of_each_clusters_main_class(pair):
    truth, found = map(np.array, pair)
    main = sum(np.bincount(truth[found == c]).max() for c in set(found) - {0})
    assert scores_of(truth, found).purity == pytest.approx(main / len(truth))


@settings(max_examples=40, deadline=None)
@given(pair=pairs_of_labels(), shift=st.permutations(range(8)))
def test_numbers_of_clusters_mean_nothing(pair, shift):
    truth, found = map(np.array, pair)
    renamed = np.where(found > 0, np.array(shift)[found] + 100, 0)
    one, other = scores_of(truth, found), scores_of(truth, renamed)
    for name in ("accuracy", "nmi", "ari", "purity"):
        assert getattr(one, name) == pytest.approx(getattr(other, name))


def test_a_perfect_map():
    scores = scores_of([1, 1, 2, 9], [7, 7, 3, 200], {1: "corn", 9: "oats"})
    assert (scores.accuracy, scores.kappa, scores.nmi, scores.ari, scores.purity) == (1,) * 5
    assert scores.matching == {7: 1, 3: 2, 200: 9}
    assert [(c.number, c.name, c.pixels, c.cluster) for c in scores.classes] == [
        (1, "corn", 2, 7),
        (2, "class 2", 1, 3),
        (9, "oats", 1, 200),
    ]
    assert scores.class_lines()[0] == f"{'corn':<32} {2:>8} {1:>9.4f}  7"


def test_one_cluster_only():
    scores = scores_of([1, 1, 1, 2], [4, 4, 4, 4])
    assert (scores.accuracy, scores.purity) == (0.75, 0.75)
    assert (scores.kappa, scores.nmi, scores.ari) == (0, 0, 0)
    assert scores.classes[1].cluster is None
    assert scores.classes[1].accuracy == 0
    assert scores.class_lines()[1].endswith("  -")


def test_one_class_and_one_cluster_agree():
    scores = scores_of([3, 3], [1, 1])
    assert (scores.accuracy, scores.kappa, scores.nmi, scores.ari, scores.purity) == (1,) * 5


def test_more_clusters_than_classes():
    scores = scores_of([1, 1, 1, 2, 2], [1, 1, 2, 3, 4])
    assert scores.accuracy == pytest.approx(3 / 5)  # clusters 2 and one of 3, 4 are left over
    assert scores.purity == 1
    assert np.array(scores.confusion)[:, -1].tolist() == [1, 1]


def test_unclassified_pixels_are_wrong_and_a_cluster_of_their_own():
    scores = scores_of([1, 1, 2, 2], [5, 0, 6, 0])
    assert scores.unclassified == 2
    assert scores.accuracy == scores.purity == 0.5
    assert scores.matching == {5: 1, 6: 2}
    assert scores.nmi == pytest.approx(
        metrics.normalized_mutual_info_score([1, 1, 2, 2], [5, 0, 6, 0])
    )
    nothing = scores_of([1, 2], [0, 0])
    assert (nothing.accuracy, nothing.kappa, nothing.purity, nothing.nmi) == (0, 0, 0, 0)
    assert nothing.matching == {}


def test_clusters_that_share_nothing_match_nothing():
    table = contingency(Held([[1, 1, 3]]), Held([[1, 2, 0]]), Window(0, 0, 1, 3))
    assert table.classes == (1, 2)
    assert table.clusters == (0, 1)  # cluster 3 lies on no labelled pixel
    assert match(table) in ({1: 1}, {1: 2})


def test_counting_by_windows_is_counting_at_once():
    """More than one window, numbers above one byte."""
    rng = np.random.default_rng(2)
    truth, found = rng.integers(0, 4, (1500, 1100)), rng.integers(0, 400, (1500, 1100))
    table = contingency(Held(found), Held(truth), Window(0, 0, 1500, 1100))
    labelled = truth > 0
    expected = metrics.cluster.contingency_matrix(truth[labelled], found[labelled])
    np.testing.assert_array_equal(table.counts, expected)
    assert table.counts.dtype == np.int64
    assert (table.classes, table.clusters) == ((1, 2, 3), tuple(range(400)))


def test_counts_of_a_large_scene_do_not_overflow():
    large = 4_000_000_000
    table = Contingency(np.array([[0, large, 0], [0, large, large]]), (1, 2), (0, 1, 2))
    scores = score(table)
    assert scores.accuracy == pytest.approx(2 / 3)
    small = score(Contingency(table.counts // 1_000_000, (1, 2), (0, 1, 2)))
    assert scores.ari == pytest.approx(small.ari, rel=1e-3)
    assert scores.nmi == pytest.approx(small.nmi)


# Files


def map_and_truth(folder, labelled=None):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (40, 50)).astype(np.uint8) if labelled is None else labelled
    found = np.where(rng.random((40, 50)) < 0.7, (truth + 1) % 5, rng.integers(0, 5, (40, 50)))
    found = found.astype(np.uint8)
    write_map(Held8(found), GRID, folder / "map.tif", Classes.numbered(4), MapFormat())
    names = Classes(("corn", "oats", "hay", "wood"), Classes.numbered(4).colours)
    write_map(Held8(truth), GRID, folder / "truth.tif", names, MapFormat())
    return found, truth


class Held8(Held):
    def read(self, window):
        return self.values[window.slices].astype(np.uint8)


def test_evaluate_files(tmp_path):
    found, truth = map_and_truth(tmp_path)
    evaluation = evaluate(tmp_path / "map.tif", tmp_path / "truth.tif")
    assert evaluation.note is None
    expected = scores_of(truth, found, dict(enumerate(("corn", "oats", "hay", "wood"), start=1)))
    assert evaluation.scores == expected
    facts = json.loads(json.dumps(evaluation.to_json()))
    assert facts["map"].endswith("map.tif")
    assert facts["accuracy"] == expected.accuracy
    assert facts["classes"][1]["name"] == "oats"
    assert {int(k): v for k, v in facts["matching"].items()} == expected.matching
    assert np.array(facts["confusion"]).sum() == facts["pixels"]


def test_evaluate_with_vectors(tmp_path):
    labels = np.zeros((40, 50), np.uint8)
    labels[:, :25], labels[:, 25:] = 1, 2
    write_map(Held8(labels), GRID, tmp_path / "map.tif", Classes.numbered(2), MapFormat())
    fields = [
        shapely.box(4e5, 5e6 - 300, 4e5 + 300, 5e6),
        shapely.box(4e5 + 900, 4.9999e6, 4e5 + 1200, 5e6),
    ]
    write_vectors(
        tmp_path / "fields.gpkg",
        shapely.to_wkb(fields),
        [np.array(["wood", "hay"])],
        ["crop"],
        crs="EPSG:32633",
        geometry_type="Polygon",
    )
    scores = evaluate(tmp_path / "map.tif", tmp_path / "fields.gpkg", field="crop").scores
    assert [(c.name, c.cluster, c.accuracy) for c in scores.classes] == [
        ("hay", 2, 1),
        ("wood", 1, 1),
    ]
    assert scores.classes[1].pixels == 100


def test_what_is_no_map_is_refused(tmp_path):
    _, truth = map_and_truth(tmp_path)
    profile = {"width": 50, "height": 40, "crs": "EPSG:32633", "transform": GRID.transform}
    for name, count, dtype in (("float.tif", 1, "float32"), ("two.tif", 2, "uint8")):
        with rasterio.open(tmp_path / name, "w", count=count, dtype=dtype, **profile) as dataset:
            dataset.write(np.stack([truth.astype(dtype)] * count))
        with pytest.raises(InputError, match=f"{count} bands of {dtype} are no map"):
            evaluate(tmp_path / name, tmp_path / "truth.tif")
    with pytest.raises(InputError, match="no such file"):
        evaluate(tmp_path / "missing.tif", tmp_path / "truth.tif")


def test_a_truth_without_labels_is_refused(tmp_path):
    map_and_truth(tmp_path, np.zeros((40, 50), np.uint8))
    with pytest.raises(InputError, match=r"truth.tif: labels no pixel of .*map.tif"):
        evaluate(tmp_path / "map.tif", tmp_path / "truth.tif")
