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
from hsiclust.labelmap import write_confidence, write_map
from hsiclust.mapformat import MapFormat
from hsiclust.palette import Classes
from hsiclust.scorecard import scorecard
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


# Maps of classes

CLASSES = Classes(("corn", "oats", "hay", "wood"), Classes.numbered(4).colours)


def class_map(path, labels, classes=CLASSES, kind="classes", grid=GRID, driver="COG"):
    tags = {} if kind is None else {"HSICLUST_LABELS": kind}
    write_map(Held8(labels), grid, path, classes, MapFormat(driver=driver, tags=tags))
    return path


@pytest.fixture
def swapped():
    """A truth, and a map that has two of its classes swapped."""
    truth = np.random.default_rng(0).integers(0, 5, (40, 50)).astype(np.uint8)
    return truth, np.array([1, 2, 1, 3, 4], np.uint8)[truth]


@pytest.mark.parametrize("driver", ["COG", "GTiff", "ENVI"])
def test_the_tag_of_a_map_says_what_its_numbers_mean(tmp_path, swapped, driver):
    truth, found = swapped
    class_map(tmp_path / "truth.tif", truth, kind=None)
    named = tmp_path / ("map.img" if driver == "ENVI" else "map.tif")
    for kind, exact in (("classes", True), ("clusters", False), (None, False), ("odd", False)):
        class_map(named, found, kind=kind, driver=driver)
        evaluation = evaluate(named, tmp_path / "truth.tif")
        assert (evaluation.accuracy is not None) == exact
        wrong = np.isin(truth, (1, 2)).sum() / (truth > 0).sum()
        assert evaluation.scores.accuracy == pytest.approx(1 - wrong if exact else 1)
        named.unlink()
        facts = evaluation.to_json()
        assert facts["labels"] == ("classes" if exact else "clusters")
        assert ("nmi" in facts) != exact


def test_what_the_caller_says_goes_before_the_tag(tmp_path, swapped):
    truth, found = swapped
    class_map(tmp_path / "truth.tif", truth, kind=None)
    for kind, matched in (("clusters", False), (None, False), ("classes", True)):
        class_map(tmp_path / "map.tif", found, kind=kind)
        evaluation = evaluate(tmp_path / "map.tif", tmp_path / "truth.tif", match=matched)
        assert (evaluation.scores.accuracy == 1) == matched
        assert (evaluation.accuracy is None) == matched


def test_classes_of_another_order_are_paired_by_name(tmp_path, swapped):
    truth, found = swapped
    class_map(tmp_path / "truth.tif", truth, kind=None)
    names = Classes(("oats", "corn", "hay", "wood"), CLASSES.colours)
    class_map(tmp_path / "map.tif", found, names)
    evaluation = evaluate(tmp_path / "map.tif", tmp_path / "truth.tif")
    assert evaluation.scores.accuracy == evaluation.accuracy.accuracy == 1
    assert evaluation.note.startswith("classes are paired by name: corn is 1 in the truth and 2")


def test_a_class_that_the_map_does_not_know_is_wrong(tmp_path, swapped):
    truth, _ = swapped
    class_map(tmp_path / "truth.tif", truth, kind=None)
    known = Classes(("corn", "oats", "hay"), Classes.numbered(3).colours)
    found = np.where(truth == 4, 0, truth)
    class_map(tmp_path / "map.tif", found, known)
    evaluation = evaluate(tmp_path / "map.tif", tmp_path / "truth.tif")
    lost = np.count_nonzero(truth == 4)
    assert evaluation.note.endswith(f"count as wrong: wood ({lost} pixels)")
    assert evaluation.accuracy.accuracy == pytest.approx(1 - lost / np.count_nonzero(truth))
    assert evaluation.accuracy.classes[3].mapped is None
    assert evaluation.accuracy.unclassified == lost
    assert (evaluation.areas.covered, evaluation.areas.left_out) == (1, ())
    assert [c.name for c in evaluation.areas.classes] == ["corn", "oats", "hay"]


@pytest.mark.parametrize(
    ("epsg", "unit", "area"),
    [(32633, "ha", 0.09), (2263, "ha", 900 * (1200 / 3937) ** 2 / 1e4), (None, "pixels", 1)],
)
def test_areas_are_of_the_whole_map(tmp_path, epsg, unit, area):
    """Metres, US survey feet, and a map without a place."""
    crs = None if epsg is None else CRS.from_epsg(epsg).to_wkt()
    grid = PixelGrid(40, 50, GRID.transform if crs else Affine.identity(), crs)
    labels = np.zeros((40, 50), np.uint8)
    labels[:30, :20], labels[:30, 20:] = 1, 2  # the rest is unclassified
    class_map(tmp_path / "map.tif", labels, grid=grid)
    truth = np.zeros_like(labels)
    truth[0, :40] = labels[0, :40]
    truth[0, 20:25] = 1  # 5 of 20 labelled pixels of class 2 are class 1
    truth[35, :2] = 1  # on no class: wrong, and no part of the map that areas are for
    class_map(tmp_path / "truth.tif", truth, kind=None, grid=grid)
    evaluation = evaluate(tmp_path / "map.tif", tmp_path / "truth.tif")
    areas = evaluation.areas
    assert (areas.unit, areas.covered) == (unit, 1)
    first, second = areas.classes
    assert first.mapped == pytest.approx(600 * area)
    assert first.area.value == pytest.approx((600 + 900 / 4) * area)
    assert second.area.value == pytest.approx(900 * 3 / 4 * area)
    assert second.area.error == pytest.approx(900 * np.sqrt(0.25 * 0.75 / 19) * area)
    assert evaluation.accuracy.accuracy == pytest.approx(35 / 42)
    assert areas.accuracy.value == pytest.approx(0.4 + 0.6 * 0.75)
    facts = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert facts["areas"]["classes"][1]["name"] == "oats"


def test_degrees_have_no_area(tmp_path):
    grid = PixelGrid(40, 50, Affine(1e-3, 0, 11, 0, -1e-3, 48), CRS.from_epsg(4326).to_wkt())
    labels = np.ones((40, 50), np.uint8)
    for name in ("map.tif", "truth.tif"):
        class_map(tmp_path / name, labels, grid=grid)
    areas = evaluate(tmp_path / "map.tif", tmp_path / "truth.tif").areas
    assert (areas.unit, areas.classes[0].area.value) == ("pixels", 2000)


def test_no_areas_of_too_few_labelled_pixels(tmp_path):
    labels, truth = np.full((40, 50), 2, np.uint8), np.zeros((40, 50), np.uint8)
    truth[3, 3] = 2
    class_map(tmp_path / "map.tif", labels)
    class_map(tmp_path / "truth.tif", truth, kind=None)
    evaluation = evaluate(tmp_path / "map.tif", tmp_path / "truth.tif")
    assert (evaluation.accuracy.accuracy, evaluation.areas) == (1, None)
    assert "no area is estimated" in scorecard(evaluation)


def test_a_class_that_is_left_out_is_not_said_to_cover_nothing(tmp_path):
    """What the map gives it is no part of the estimate: a dash, and not 0."""
    labels = np.full((40, 50), 2, np.uint8)
    labels[:, :10] = 1
    truth = np.zeros_like(labels)
    truth[3, 9:30] = 2
    truth[3, 10:12] = truth[3, 9] = 1  # class 1: one labelled pixel in its own stratum
    class_map(tmp_path / "map.tif", labels)
    class_map(tmp_path / "truth.tif", truth, kind=None)
    evaluation = evaluate(tmp_path / "map.tif", tmp_path / "truth.tif")
    left_out = evaluation.areas.classes[0].name
    assert evaluation.areas.left_out == (left_out,)
    estimates = scorecard(evaluation).partition("estimated")[2]
    line = next(line for line in estimates.splitlines() if line.startswith(left_out))
    assert line[len(left_out) :].split()[0] == "-"


@pytest.mark.parametrize("kind", ["classes", "clusters"])
def test_confidence_is_held_against_the_truth(tmp_path, swapped, kind):
    truth, found = swapped
    class_map(tmp_path / "map.tif", found, kind=kind)
    class_map(tmp_path / "truth.tif", truth, kind=None)
    sure = np.full((40, 50), 90, np.uint8)
    sure[0] = 255
    write_confidence(Held8(sure), GRID, tmp_path / "sure.tif", MapFormat())
    evaluation = evaluate(
        tmp_path / "map.tif", tmp_path / "truth.tif", confidence=tmp_path / "sure.tif"
    )
    right = (truth == found)[1:] if kind == "classes" else np.ones((39, 50), bool)
    expected = abs(right[truth[1:] > 0].mean() - 0.9)
    assert evaluation.reliability.ece == pytest.approx(expected)
    assert evaluation.reliability.without == np.count_nonzero(truth[0])
    assert evaluation.to_json()["calibration"]["bins"][8]["confidence"] == pytest.approx(0.9)
    assert f"calibration (ECE)  {expected:.4f}   mean confidence 0.9000" in scorecard(evaluation)


def test_the_scorecard_of_classes_fits_a_terminal(tmp_path, swapped):
    truth, found = swapped
    names = Classes(("corn, " + "x" * 60, "oats", "hay", "bog"), CLASSES.colours)
    found[truth == 4] = 3
    found[39, 49] = 4  # one pixel: too few for a stratum, or none
    class_map(tmp_path / "map.tif", found, names)
    class_map(tmp_path / "truth.tif", truth, kind=None)
    text = scorecard(evaluate(tmp_path / "map.tif", tmp_path / "truth.tif"))
    assert max(map(len, text.splitlines())) <= 100
    assert "accuracy (OA)" in text
    assert "NMI" not in text
    assert "fewer than 2 labelled pixels on bog" in text
