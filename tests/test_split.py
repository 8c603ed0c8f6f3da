import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import warp
from rasterio.crs import CRS
from scipy import ndimage

from hsiclust.errors import InputError, UsageError
from hsiclust.grid import PixelGrid, Window
from hsiclust.numbering import number_classes
from hsiclust.split import Site, SplitOptions, split_labels


class Given:
    """Labels that are an array."""

    def __init__(self, values, names=None):
        self.values = np.asarray(values, np.uint16)
        self.names = names or {}
        self.note = None

    def read(self, window):
        return self.values[window.slices]


def everywhere(window):
    return np.ones((window.rows, window.cols), bool)


def site_of(labels, data=None):
    data = np.ones(np.shape(labels), bool) if data is None else data
    grid = PixelGrid(*np.shape(labels))

    def valid(window):
        return data[window.slices]

    return Site(Given(labels), grid, grid.window, valid)


def divided(*scenes, data=None, **options):
    sites = [site_of(scene, data) for scene in scenes]
    numbering = number_classes("labels.gpkg", [(site.truth, site.area) for site in sites])
    return split_labels(sites, numbering, SplitOptions(**options))


def whole(truths, scenes):
    return [
        truth.read(PixelGrid(*np.shape(scene)).window)
        for truth, scene in zip(truths, scenes, strict=True)
    ]


def fields(rng, rows, cols, classes, side):
    """Square fields of random classes, some of them bare."""
    coarse = rng.integers(0, classes + 1, (-(-rows // side), -(-cols // side)))
    return np.kron(coarse, np.ones((side, side), int))[:rows, :cols]


SCENES = st.builds(
    lambda seed, rows, cols, classes, side: fields(
        np.random.default_rng(seed), rows, cols, classes, side
    ),
    st.integers(0, 2**32 - 1),
    st.integers(1, 60),
    st.integers(2, 60),
    st.integers(2, 6),
    st.integers(1, 20),
)
OPTIONS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["separated", "random", "none"]),
        "per_class": st.sampled_from([None, 1, 3, 40]),
        "buffer": st.sampled_from([0, 1, 3, 12]),
        "seed": st.integers(0, 5),
    }
)


@settings(max_examples=60, deadline=None)
@given(scenes=st.lists(SCENES, min_size=1, max_size=2), options=OPTIONS, gaps=st.booleans())
def test_every_label_is_in_one_place(scenes, options, gaps):
    """Against a look at every pair of pixels."""
    for scene in scenes:
        scene.flat[:2] = 1, 2
    rng = np.random.default_rng(1)
    data = [rng.random(s.shape) < (0.7 if gaps else 2) for s in scenes]
    for there in data:
        there.flat[:2] = True
    sites = [site_of(scene, there) for scene, there in zip(scenes, data, strict=True)]
    numbering = number_classes("labels.gpkg", [(site.truth, site.area) for site in sites])
    split = split_labels(sites, numbering, SplitOptions(**options))
    training = whole(split.training, scenes)
    counts, size = split.counts, len(numbering) + 1
    held_out = [np.zeros_like(part) for part in training]
    if options["kind"] == "none":
        assert split.held_out is None
    else:
        held_out = whole(split.held_out, scenes)

    def tally(arrays):
        return sum(np.bincount(array.ravel(), minlength=size) for array in arrays)[1:]

    usable = [np.where(d, s, 0) for s, d in zip(scenes, data, strict=True)]
    np.testing.assert_array_equal(counts.labelled, tally(scenes))
    np.testing.assert_array_equal(counts.invalid, tally(scenes) - tally(usable))
    np.testing.assert_array_equal(counts.training, tally(training))
    np.testing.assert_array_equal(counts.held_out, tally(held_out))
    assert (counts.buffer >= 0).all()
    assert (counts.training + counts.held_out + counts.buffer <= counts.usable).all()
    present = tally(usable) > 0
    assert (counts.training[present] > 0).all()
    if options["per_class"] is not None:
        assert (counts.training <= options["per_class"]).all()
    elif options["kind"] == "none":
        np.testing.assert_array_equal(counts.training, tally(usable))
    if options["kind"] == "random":
        # Scenes of one shape and without a place are on one ground.
        taken = [np.any([t for t in training if t.shape == u.shape], axis=0) for u in usable]
        left = [np.where(t, 0, u) for t, u in zip(taken, usable, strict=True)]
        np.testing.assert_array_equal(counts.held_out, tally(left))
        assert (counts.training <= np.maximum(tally(usable) // 2, 1)).all()
        assert (counts.buffer == 0).all()
    for labels, learned, scored in zip(usable, training, held_out, strict=True):
        assert not (learned * scored).any()
        np.testing.assert_array_equal(learned[learned > 0], labels[learned > 0])
        np.testing.assert_array_equal(scored[scored > 0], labels[scored > 0])
        if options["kind"] == "separated" and learned.any() and scored.any():
            one, other = np.argwhere(learned), np.argwhere(scored)
            apart = np.abs(one[:, None] - other[None]).max(axis=2)
            assert apart.min() > options["buffer"]


@settings(max_examples=25, deadline=None)
@given(scene=SCENES, options=OPTIONS, data=st.data())
def test_windows_fit_together_and_runs_are_alike(scene, options, data):
    scene.flat[:2] = 1, 2
    split, again = divided(scene, **options), divided(scene, **options)
    rows, cols = scene.shape
    pairs = [(split.training[0], again.training[0])]
    if split.held_out is not None:
        pairs.append((split.held_out[0], again.held_out[0]))
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    window = Window(
        top, left, data.draw(st.integers(1, rows - top)), data.draw(st.integers(1, cols - left))
    )
    for one, other in pairs:
        all_of_it = one.read(Window(0, 0, rows, cols))
        np.testing.assert_array_equal(one.read(window), all_of_it[window.slices])
        np.testing.assert_array_equal(other.read(Window(0, 0, rows, cols)), all_of_it)
    assert split.notes == again.notes


def test_another_seed_splits_otherwise():
    scene = fields(np.random.default_rng(0), 120, 120, 4, 10)
    one, other = (
        divided(scene, seed=seed).training[0].read(Window(0, 0, 120, 120)) for seed in (0, 1)
    )
    assert (one != other).any()


def test_windows_of_the_census_leave_no_trace(monkeypatch):
    """What is drawn does not depend on the windows in which labels are read."""
    scene = fields(np.random.default_rng(5), 200, 230, 5, 9)
    data = np.random.default_rng(6).random(scene.shape) < 0.9
    options = {"kind": "separated", "per_class": 20, "data": data}
    one = divided(scene, **options)
    monkeypatch.setattr("hsiclust.census._WINDOW", 30)
    monkeypatch.setattr("hsiclust.census._PIECE", 7)
    monkeypatch.setattr("hsiclust.marks._WAITING", 100)
    other = divided(scene, **options)
    window = Window(0, 0, 200, 230)
    for name in ("training", "held_out"):
        (a,), (b,) = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(a.read(window), b.read(window))


def halves(split, scene):
    """Pixels learned from and held out of one scene."""
    return whole(split.training, [scene])[0], whole(split.held_out, [scene])[0]


def test_classes_are_divided_evenly_and_far_apart():
    scene = fields(np.random.default_rng(2), 600, 600, 6, 12)
    split = divided(scene, buffer=6)
    share = split.counts.training / split.counts.labelled
    assert ((share > 0.3) & (share < 0.7)).all()
    assert (split.counts.held_out > 0.3 * split.counts.labelled).all()
    assert split.scored.all()
    note = split.notes[-1]
    assert re.fullmatch(
        r"\d+ of \d+ blocks of \d+ x \d+ pixels are held out; \d+ labelled pixels in them lie "
        r"within 6 pixels of one that is learned from and are left out",
        note,
    )


def test_what_is_drawn_comes_from_all_over_the_ground():
    scene = np.ones((400, 400), int)
    scene[:200, :200] = 2
    scene[200:203, 200:203] = 0
    rows, cols = np.nonzero(
        divided(scene, buffer=4, per_class=30).training[0].read(Window(0, 0, 400, 400)) == 1
    )
    assert len(rows) == 30
    cells = {*zip(rows // 100, cols // 100, strict=True)}
    assert len(cells) >= 9  # of the 12 that hold class 1


def test_few_labels_are_drawn_at_random_among_all():
    """The published way: N of each class anywhere, half of a class that has too few."""
    scene = np.zeros((60, 60), int)
    scene[:30], scene[40, :9], scene[50, 0] = 1, 2, 3
    split = divided(scene, kind="random", per_class=5)
    assert split.counts.training.tolist() == [5, 4, 1]
    assert split.counts.held_out.tolist() == [1795, 5, 0]
    assert split.notes == (
        "fewer than 5 pixels to learn from: class 2 (4), class 3 (1)",
        "random split: optimistic, because pixels that are scored lie next to pixels that are "
        "learned from and share their surroundings",
        "one labelled pixel, learned from, not scored: class 3",
    )


def test_a_class_that_another_scene_learns_is_named():
    scene = np.kron(np.array([[1, 2]]), np.ones((30, 30), int))
    scene[4, 7] = 3
    split = divided(scene, scene, kind="random")
    assert split.counts.training[2] == 1
    assert split.counts.held_out[2] == 0
    said = "every pixel learned from in some scene, not scored: class 3"
    assert split.notes[-1] == said


def test_nothing_is_held_out_when_asked():
    scene = fields(np.random.default_rng(2), 50, 50, 3, 5)
    split = divided(scene, kind="none")
    np.testing.assert_array_equal(whole(split.training, [scene])[0], scene)
    assert split.held_out is None
    assert not split.scored.any()
    assert split.notes == ("nothing is held out: a score on these labels would be too good",)


def test_classes_that_cannot_be_divided_are_learned_from_and_named():
    scene = np.kron(np.array([[1, 2, 1, 2], [2, 1, 2, 1]]), np.ones((60, 60), int))
    scene[30, 30], scene[100, 10:12] = 3, 4
    split = divided(scene, buffer=12)
    assert split.counts.training[2:].tolist() == [1, 2]
    assert split.counts.held_out[2:].tolist() == [0, 0]
    assert "one labelled pixel, learned from, not scored: class 3" in split.notes
    assert (
        "in one block, or within 12 pixels of what is learned from: learned from whole, "
        "not scored: class 4" in split.notes
    )


def test_a_class_that_is_learned_from_whole_is_not_scored():
    scene = fields(np.random.default_rng(2), 80, 80, 3, 5)
    (held_out,) = divided(scene, buffer=2, per_class=5).held_out
    window = Window(0, 0, 80, 80)
    every = held_out.read(window)
    rest = replace(held_out, whole=np.array([False, True, False, False])).read(window)
    assert (every == 1).any()
    np.testing.assert_array_equal(rest, np.where(every == 1, 0, every))


@pytest.mark.parametrize(("seed", "whole"), [(6, True), (2, False)])
def test_classes_that_the_buffer_takes_are_named(seed, whole):
    """They are learned from whole, unless that costs another class its score."""
    scene = fields(np.random.default_rng(seed), 100, 100, 30, 7)
    split = divided(scene, buffer=8)
    counts = split.counts
    unscored = (counts.labelled > 0) & (counts.held_out == 0)
    near = unscored & (counts.buffer > 0)
    assert near.any() != whole
    rest = unscored & ~near
    np.testing.assert_array_equal(counts.training[rest], counts.labelled[rest])
    said = {
        "all held-out pixels within 8 pixels of what is learned from: not scored: ": near,
        "in one block, or within 8 pixels of what is learned from: learned from whole, "
        "not scored: ": rest,
    }
    for words, which in said.items():
        named = ", ".join(f"class {number}" for number in np.flatnonzero(which) + 1)
        assert which.sum() <= 10
        assert (words + named in split.notes) == which.any()


def test_where_nothing_can_be_held_out_all_is_learned_from():
    scene = np.zeros((40, 40), int)
    scene[:, 5:35], scene[20, :5], scene[20, 35:] = 1, 2, 2
    split = divided(scene, buffer=40)
    np.testing.assert_array_equal(whole(split.training, [scene])[0], scene)


def test_scenes_of_a_few_pixels_are_divided_too():
    split = divided(np.array([[1, 2, 0, 0, 0, 0, 2, 1]]), buffer=1)
    assert split.counts.training.tolist() == [1, 1]
    assert split.counts.held_out.tolist() == [1, 1]


def test_most_pixels_of_a_class_are_bounded(monkeypatch):
    monkeypatch.setattr("hsiclust.allotment.MOST_DRAWN", 50)
    monkeypatch.setattr("hsiclust.splitnotes.MOST_DRAWN", 50)
    scene = fields(np.random.default_rng(2), 100, 100, 2, 5)
    for kind in ("separated", "random", "none"):
        split = divided(scene, kind=kind, buffer=3)
        assert split.counts.training.tolist() == [50, 50]
        assert split.notes[0] == "50 pixels of a class are drawn, no more: class 1, class 2"


def test_labels_without_data_are_left_out_and_counted():
    scene = fields(np.random.default_rng(2), 60, 60, 2, 5)
    scene[0, 0] = 3
    data = np.ones((60, 60), bool)
    data[0, 0], data[:, 30:] = False, False
    split = divided(scene, data=data, buffer=2)
    learned, scored = halves(split, scene)
    assert not learned[:, 30:].any()
    assert not scored[:, 30:].any()
    lost = np.count_nonzero(scene[:, 30:]) + 1
    assert split.notes[:2] == (
        f"{lost} of {np.count_nonzero(scene)} labelled pixels are left out: no data there, or "
        "outside the mask",
        "every labelled pixel left out, not learned: class 3",
    )


def test_labels_that_no_classes_come_of_are_refused():
    scene = np.kron(np.array([[1, 0, 2]]), np.ones((10, 10), int))
    data = np.zeros((10, 30), bool)
    with pytest.raises(InputError, match=r"labels.gpkg: no labelled pixel has data and lies in"):
        divided(scene, data=data)
    data[:, 20:] = True
    with pytest.raises(
        InputError, match=r"labels.gpkg: labels of one class alone \(class 2\); at least"
    ):
        divided(scene, data=data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "half"}, "'half' is not one of separated, random, none"),
        ({"per_class": 0}, "0 labels a class"),
        ({"buffer": -1}, "buffer of -1 pixels"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        SplitOptions(**options)


def test_data_is_asked_for_only_around_labels_and_once_where_all_is_well():
    scene = np.zeros((2000, 2000), int)
    scene[10:20, 10:20], scene[1500:1510, 1700:1705], scene[700, 900:905] = 1, 2, 2
    data = np.ones(scene.shape, bool)
    data[700, 900] = False
    asked = []

    def valid(window):
        asked.append(window)
        return data[window.slices]

    grid = PixelGrid(2000, 2000)
    site = Site(Given(scene), grid, grid.window, valid)
    numbering = number_classes("labels.gpkg", [(site.truth, site.area)])
    split = split_labels([site], numbering, SplitOptions())
    first = asked[:3]
    assert sorted(window.pixels for window in first) == [5, 50, 100]
    assert {(window.row, window.col) for window in asked[3:]} == {(700, 900)}
    asked.clear()
    split.held_out[0].read(Window(0, 0, 500, 500))
    assert asked == []


def test_labels_outside_the_area_do_not_count():
    scene = fields(np.random.default_rng(2), 80, 80, 3, 5)
    grid = PixelGrid(80, 80)
    site = replace(site_of(scene), area=Window(10, 20, 50, 40))
    numbering = number_classes("labels.gpkg", [(site.truth, site.area)])
    split = split_labels([site], numbering, SplitOptions(buffer=2))
    inside = np.zeros((80, 80), bool)
    inside[10:60, 20:60] = True
    assert split.counts.labelled.sum() == np.count_nonzero(scene[inside])
    for truth in (*split.training, *split.held_out):
        assert not truth.read(grid.window)[~inside].any()
        assert truth.read(grid.window)[inside].any()


def test_scenes_of_one_ground_are_divided_alike():
    """Of two dates of a scene, what is learned from in one is not scored in the other."""
    scenes = [fields(np.random.default_rng(seed), 120, 120, 4, 10) for seed in (0, 1)]
    split = divided(*scenes, buffer=5)
    learned = np.any([part > 0 for part in whole(split.training, scenes)], axis=0)
    scored = np.any([part > 0 for part in whole(split.held_out, scenes)], axis=0)
    assert np.count_nonzero(scored) > 2000
    assert not (ndimage.maximum_filter(learned, 11) & scored).any()


def test_a_random_split_scores_no_pixel_that_another_scene_learns():
    """Neither of two dates of one place, nor where scenes overlap."""
    scenes = [fields(np.random.default_rng(seed), 60, 60, 3, 10) for seed in (0, 1, 2)]
    utm = CRS.from_epsg(32633).to_wkt()
    place = Affine(30.0, 0.0, 483000.0, 0.0, -30.0, 5818000.0)
    east = place @ Affine.translation(20, 0)
    sites = [
        replace(site_of(scene), grid=PixelGrid(60, 60, at, utm))
        for scene, at in zip(scenes, (place, place, east), strict=True)
    ]
    numbering = number_classes("labels.gpkg", [(site.truth, site.area) for site in sites])
    split = split_labels(sites, numbering, SplitOptions(kind="random", per_class=200))
    ground = np.zeros((2, 3, 60, 80), np.uint16)  # on the grid of the first
    for ours, truths in zip(ground, (split.training, split.held_out), strict=True):
        for at, found in enumerate(whole(truths, scenes)):
            ours[at, :, 20 * (at == 2) :][:, :60] = found
    learned, scored = ground > 0
    assert learned.sum() == 600
    assert not (learned.any(axis=0) & scored).any()
    # nothing else is left out
    for at, scene in enumerate(scenes):
        left = learned.any(axis=0)[:, 20 * (at == 2) :][:, :60]
        expected = np.count_nonzero(scene) - np.count_nonzero(left & (scene > 0))
        assert scored[at].sum() == expected


@pytest.mark.parametrize("epsg", [32633, 32634, 3857])
def test_scenes_that_overlap_are_kept_apart(epsg):
    """Against the distance on the ground, in pixels, in whatever reference system."""
    place = Affine(30.0, 0.0, 483000.0, 0.0, -30.0, 5818000.0)
    one = PixelGrid(100, 100, place, CRS.from_epsg(32633).to_wkt())
    (x,), (y,) = warp.transform(one.crs, f"EPSG:{epsg}", [483000.0 + 1500], [5818000.0 - 600])
    other = PixelGrid(100, 100, Affine(30, 0, x, 0, -30, y), CRS.from_epsg(epsg).to_wkt())
    sites = [
        replace(site_of(fields(np.random.default_rng(seed), 100, 100, 3, 10)), grid=grid)
        for seed, grid in enumerate((one, other))
    ]
    numbering = number_classes("labels.gpkg", [(site.truth, site.area) for site in sites])
    split = split_labels(sites, numbering, SplitOptions(buffer=5))
    for here, there in ((0, 1), (1, 0)):
        rows, cols = np.nonzero(split.training[there].read(one.window))
        x, y = sites[there].grid.transform @ (cols + 0.5, rows + 0.5)
        x, y = warp.transform(sites[there].grid.crs, sites[here].grid.crs, x, y)
        col, row = ~sites[here].grid.transform @ (np.array(x), np.array(y))
        at = np.argwhere(split.held_out[here].read(one.window))
        apart = np.maximum(np.abs(at[:, :1] + 0.5 - row[None]), np.abs(at[:, 1:] + 0.5 - col[None]))
        assert len(rows) > 300
        assert len(at) > 300
        assert apart.min() > 5


def test_splits_travel_to_other_processes():
    scene = fields(np.random.default_rng(2), 80, 80, 3, 5)
    site = replace(site_of(scene), valid=everywhere)
    numbering = number_classes("labels.gpkg", [(site.truth, site.area)])
    site = replace(site, truth=numbering.renumbered(site.truth))
    split = split_labels([site], numbering, SplitOptions(buffer=2))
    for truth in (*split.training, *split.held_out):
        sent = pickle.loads(pickle.dumps(truth))  # noqa: S301 - our own bytes
        np.testing.assert_array_equal(sent.read(site.area), truth.read(site.area))
        assert sent.names == {1: "class 1", 2: "class 2", 3: "class 3"}
