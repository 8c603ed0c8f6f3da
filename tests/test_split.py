import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

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
    assert (counts.not_drawn >= 0).all()
    present = tally(usable) > 0
    assert (counts.training[present] > 0).all()
    if options["per_class"] is not None:
        assert (counts.training <= options["per_class"]).all()
    elif options["kind"] == "none":
        np.testing.assert_array_equal(counts.training, tally(usable))
    if options["kind"] == "random":
        np.testing.assert_array_equal(counts.training + counts.held_out, tally(usable))
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
