import json
import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import hsiclust.models.consensus as module
from hsiclust.errors import InputError
from hsiclust.models.base import Batch
from hsiclust.models.consensus import (
    HALO,
    Teacher,
    correlation_length,
    linked_groups,
    median_windows,
    normalised_information,
    spheres_share,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole(values: torch.Tensor) -> Batch:
    """A tile of `(C, H, W)` all of whose core may be learned from."""
    rows, cols = (length - 2 * HALO for length in values.shape[1:])
    return Batch(values[None], torch.ones(1, rows, cols, dtype=torch.bool))


def planted(seed: int = 0, noise: float = 0.4, side: int = 60) -> tuple[Batch, torch.Tensor]:
    """Square fields of four kinds of ground under noise, and which kind each core pixel is."""
    random, length = generator(seed), side + 2 * HALO
    kinds = torch.randint(4, (length // 18 + 1,) * 2, generator=random)
    kinds = kinds.repeat_interleave(18, 0).repeat_interleave(18, 1)[:length, :length]
    values = 2 * torch.eye(4)[kinds].permute(2, 0, 1)
    values = values + noise * torch.randn(values.shape, generator=random)
    return whole(values), kinds[HALO:-HALO, HALO:-HALO]


def studied(tiles: Sequence[Batch], classes: int = 4, count: int = 6, seed: int = 0) -> Teacher:
    teacher = Teacher(tiles[0].values.shape[1], classes, count)
    teacher.study(tiles, generator(seed))
    return teacher


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return studied([planted()[0]])


@pytest.mark.parametrize("noise", [0.4, 1.0])
def test_planted_regions_are_found(noise: float) -> None:
    tiles, truths = zip(*(planted(seed, noise) for seed in (1, 2)), strict=True)
    found = studied(tiles, count=12)
    labels = torch.stack([found.teach(tile.values[0]).classes for tile in tiles])
    assert found.found == 4
    assert adjusted_rand_score(torch.stack(truths).flatten(), labels.flatten()) > 0.88
    # and in a scene that was not studied
    tile, truth = planted(3, noise)
    assert (
        adjusted_rand_score(truth.flatten(), found.teach(tile.values[0]).classes.flatten()) > 0.88
    )


def test_a_crop_is_judged_as_the_tile_it_comes_from(teacher: Teacher) -> None:
    values = planted(5)[0].values[0]
    assert max(teacher.partitions.used_windows()) // 2 + int(teacher.histogram) // 2 == HALO
    dense = teacher.similarities(values)
    assert dense.shape == (4, 60, 60)
    part = teacher.similarities(values[:, 7 : 7 + 20 + 2 * HALO, 30 : 30 + 11 + 2 * HALO])
    torch.testing.assert_close(part, dense[:, 7:27, 30:41], atol=1e-6, rtol=0)


def test_similarity_is_the_cosine_to_the_prototypes(teacher: Teacher) -> None:
    values = planted(5)[0].values[0]
    shares = torch.stack(list(teacher.histograms(values)))  # (n, most, row, col)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(6, 60, 60))
    found = teacher.similarities(values)
    for row, col in ((0, 0), (17, 44), (59, 30)):
        description = shares[:, :, row, col].flatten()
        for number, prototype in enumerate(teacher.prototypes.flatten(1)):
            cosine = torch.cosine_similarity(description, prototype, dim=0)
            assert float(found[number, row, col]) == pytest.approx(float(cosine), abs=1e-5)


def test_histograms_count_the_labels_around_a_pixel(teacher: Teacher) -> None:
    values = planted(5)[0].values[0]
    edge = int(teacher.histogram) // 2
    for number, shares in enumerate(teacher.histograms(values)):
        window = int(teacher.partitions.windows[number])
        gaussians = teacher.partitions.get(number)
        depth = gaussians.means.shape[1]
        reach = edge + window // 2
        row, col = 21 + HALO, 33 + HALO
        square = values[:depth, row - reach : row + reach + 1, col - reach : col + reach + 1]
        squares = square.unfold(1, window, 1).unfold(2, window, 1)
        medians = squares.flatten(3).median(dim=3).values.flatten(1).T
        counts = torch.bincount(gaussians(medians), minlength=shares.shape[0])
        torch.testing.assert_close(shares[:, 21, 33], counts / counts.sum())


def test_a_lesson_is_the_best_prototype_and_its_lead(teacher: Teacher) -> None:
    values = planted(5)[0].values[0]
    lesson = teacher.teach(values)
    ranked = teacher.similarities(values).sort(dim=0, descending=True)
    assert torch.equal(lesson.classes, ranked.indices[0])
    lead = (ranked.values[0] - ranked.values[1]) / teacher.margin
    torch.testing.assert_close(lesson.trust, lead.clamp(0.1, 1.0))
    assert float(lesson.trust.min()) < 0.5 < float(lesson.trust.max()) == 1.0


def test_reorder_renumbers_the_lessons() -> None:
    tile, _ = planted()
    teacher = studied([tile], count=3)
    before = teacher.teach(tile.values[0])
    order = torch.tensor([2, 0, 3, 1])
    teacher.reorder(order)
    after = teacher.teach(tile.values[0])
    assert torch.equal(order[after.classes], before.classes)
    assert torch.equal(after.trust, before.trust)


def test_a_seed_gives_one_teacher() -> None:
    tile, _ = planted(noise=1.0)
    first, second, other = (studied([tile], count=3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["prototypes"], other["prototypes"])


def test_pixels_that_may_not_be_learned_from_do_not_matter() -> None:
    tile, _ = planted(7)
    fit = tile.fit.clone()
    fit[:, :, 40:] = False
    states = []
    for junk in (0.0, 1e4):
        values = tile.values.clone()
        values[..., 40 + 2 * HALO :] = junk  # further than a median of the last one reaches
        states.append(studied([Batch(values, fit)], count=3).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_wider_context_is_left_out() -> None:
    tile, _ = planted(8)
    wide = Batch(torch.nn.functional.pad(tile.values, (4, 4, 4, 4), value=99.0), tile.fit)
    first, second = (studied([part], count=3).state_dict() for part in (tile, wide))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_fewer_kinds_of_pixels_than_classes(caplog: pytest.LogCaptureFixture) -> None:
    flat = torch.ones(3, 20 + 2 * HALO, 20 + 2 * HALO)
    tiles = [whole(flat), whole(-flat)]
    with caplog.at_level(logging.WARNING, "hsiclust"):
        teacher = studied(tiles, classes=5, count=4)
    assert "only 2 of 5 clusters differ" in caplog.text
    assert teacher.found == 2
    assert teacher.choices()["clusters_found"] == 2
    labels = [teacher.teach(tile.values[0]).classes.unique().tolist() for tile in tiles]
    assert sorted(labels) == [[0], [1]]


def test_too_few_pixels() -> None:
    tile, _ = planted()
    fit = torch.zeros_like(tile.fit)
    fit[0, 3, 5:12] = True
    with pytest.raises(InputError, match="fewer than 8 pixels"):
        studied([Batch(tile.values, fit)])
    fit[0, 3, 5:13] = True
    assert studied([Batch(tile.values, fit)], count=2).found > 1


def test_a_large_sample_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = [planted(seed, side=12)[0] for seed in range(9)]
    whole_sample = module._spread(tiles)
    assert [id(tile) for tile in whole_sample] == [id(tile) for tile in tiles]
    monkeypatch.setattr(module, "_STUDY_PIXELS", 3 * 12 * 12)
    assert [id(tile) for tile in module._spread(tiles)] == [id(tiles[n]) for n in (0, 3, 6)]


def test_a_sparse_mask_over_many_tiles_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = []
    for seed in range(10):
        tile, _ = planted(seed, side=20)
        fit = torch.zeros_like(tile.fit)
        fit[0, 2:5, 4] = True
        tiles.append(Batch(tile.values, fit))
    monkeypatch.setattr(module, "_STUDY_PIXELS", 2 * 20 * 20)
    assert studied(tiles, count=2).found > 1  # 30 pixels, 4 classes


def test_choices_say_what_was_drawn(teacher: Teacher) -> None:
    choices = json.loads(json.dumps(teacher.choices()))
    assert choices["partitions"] == 6
    assert choices["clusters_found"] == 4
    assert choices["histogram_window"] == int(teacher.histogram) == 5
    assert choices["median_windows"] == sorted(set(teacher.partitions.windows.tolist()))
    allowed = median_windows(choices["correlation_length_pixels"])
    assert set(choices["median_windows"]) <= set(allowed)
    share = spheres_share(
        choices["mutual_information_mixtures"], choices["mutual_information_centres"]
    )
    assert choices["centres_share"] == pytest.approx(share, abs=0.01)
    assert 0 < choices["mutual_information_mixtures"] < 1


def test_an_unfitted_teacher_has_found_nothing() -> None:
    assert Teacher(3, 4, 2).found == 0


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (0.0, [1]),
        (1.9, [1]),
        (2.0, [1, 3]),
        (3.0, [1, 3, 5]),
        (4.4, [1, 3, 5]),
        (4.5, [3, 5, 9]),
        (50.0, [3, 5, 9]),
    ],
)
def test_coarser_grain_gets_larger_medians(length: float, expected: list[int]) -> None:
    assert median_windows(length) == expected


@pytest.mark.parametrize(
    ("mixtures", "spheres", "expected"),
    [(0.2, 0.1, 0), (0.2, 0.2, 0), (0.2, 0.225, 0.5), (0.2, 0.24, 1), (0.2, 0.9, 1), (0, 0, 0)],
)
def test_spheres_are_drawn_where_they_say_more(
    mixtures: float, spheres: float, expected: float
) -> None:
    assert spheres_share(mixtures, spheres) == pytest.approx(expected)


def field(length: float, noise: float, seed: int = 0) -> Batch:
    """Components whose correlation falls as `exp(-lag / length)` along rows and columns."""
    random, rho = np.random.default_rng(seed), float(np.exp(-1 / length))
    drawn = random.normal(size=(6, 320, 320))
    for axis in (1, 2):
        drawn = lfilter([1], [1, -rho], drawn, axis=axis)
    values = drawn[:, 100:, 100:] / drawn.std() + noise * random.normal(size=(6, 220, 220))
    return whole(torch.from_numpy(values.astype(np.float32)))


@pytest.mark.parametrize("length", [1.5, 4.0, 7.0])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_correlation_length_of_a_known_field(length: float, noise: float) -> None:
    assert correlation_length([field(length, noise)]) == pytest.approx(length, rel=0.15)


def test_correlation_length_over_several_tiles_and_their_masks() -> None:
    first, second = field(4.0, 0.0, 1), field(4.0, 0.0, 2)
    shifted = Batch(second.values + 5, second.fit.clone())
    shifted.values[..., 120:] = torch.randn(shifted.values[..., 120:].shape, generator=generator())
    shifted.fit[..., 120 - HALO :] = False
    both = correlation_length([Batch(first.values + 5, first.fit), shifted])
    assert both == pytest.approx(4.0, rel=0.2)


def test_correlation_lengths_that_have_none() -> None:
    assert correlation_length([whole(torch.ones(2, 40, 40))]) == 0.0
    board = torch.ones(1, 40, 40)
    board[:, ::2, ::2] = board[:, 1::2, 1::2] = -1  # neighbours are opposite
    assert correlation_length([whole(board)]) == 0.0
    # waves four pixels long: three apart they are as alike as one apart
    wave = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(17).expand(1, 68, 68)
    assert correlation_length([whole(wave)]) == 50.0


def table(first: NDArray[np.int64], second: NDArray[np.int64]) -> torch.Tensor:
    counts = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(counts, (first, second), 1)
    return torch.from_numpy(counts)


@pytest.mark.parametrize("agreeing", [0.0, 0.4, 1.0])
def test_information_is_that_of_scikit_learn(agreeing: float) -> None:
    random = np.random.default_rng(0)
    first = random.integers(0, 5, 600)
    second = np.where(random.random(600) < agreeing, first % 3, random.integers(0, 7, 600))
    expected = normalized_mutual_info_score(first, second)
    assert normalised_information(table(first, second)) == pytest.approx(expected, abs=1e-9)


def test_information_at_its_ends() -> None:
    labels = np.random.default_rng(0).integers(0, 5, 300)
    assert normalised_information(table(labels, 4 - labels)) == pytest.approx(1)
    assert normalised_information(torch.ones(4, 5, dtype=torch.float64)) == pytest.approx(
        0, abs=1e-12
    )
    assert normalised_information(torch.zeros(3, 3)) == 0
    assert normalised_information(torch.tensor([[7.0, 0.0], [0.0, 0.0]])) == 0


def directions(
    sizes: Sequence[int], spread: float, seed: int = 0, depth: int = 20
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors around one axis each, shuffled, and their axes."""
    random = np.random.default_rng(seed)
    names = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = np.abs(np.eye(depth)[names] + spread * random.normal(size=(len(names), depth)))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), names


def plain_linkage(vectors: NDArray[np.float32], classes: int) -> set[frozenset[int]]:
    """Average linkage, pair by pair, until so many clusters are left."""
    distance = 1 - np.clip(vectors.astype(float) @ vectors.T.astype(float), 0, 1) ** 4
    groups = [frozenset([number]) for number in range(len(vectors))]
    while len(groups) > classes:
        pairs = [(a, b) for i, a in enumerate(groups) for b in groups[i + 1 :]]
        near = min(pairs, key=lambda pair: distance[np.ix_(list(pair[0]), list(pair[1]))].mean())
        groups = [group for group in groups if group not in near] + [near[0] | near[1]]
    return set(groups)


@pytest.mark.parametrize("classes", [2, 4, 6])
def test_groups_are_those_of_average_linkage(classes: int) -> None:
    vectors, _ = directions([12, 9, 6, 3], 0.2)
    found = linked_groups(vectors, classes)
    assert {frozenset(group.tolist()) for group in found} == plain_linkage(vectors, classes)
    sizes = [len(group) for group in found]
    assert sizes == sorted(sizes, reverse=True)


def test_outliers_are_no_clusters() -> None:
    vectors, names = directions([60, 40, 20, 1, 1], 0.02)
    vectors[names < 3, 19] += 0.8  # three grounds that are like each other, two pixels like none
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert {frozenset(names[list(group)]) for group in plain_linkage(vectors, 3)} == {
        frozenset({0, 1, 2}),
        frozenset({3}),
        frozenset({4}),
    }
    found = linked_groups(vectors, 3)
    assert [set(names[group]) for group in found] == [{0}, {1}, {2}]
    assert [len(group) for group in found] == [60, 40, 20]


def test_a_small_cluster_far_away_is_kept() -> None:
    vectors, names = directions([150, 140, 10], 0.05)
    assert [set(names[group]) for group in linked_groups(vectors, 3)] == [{0}, {1}, {2}]


def test_fewer_distinct_landmarks_than_classes() -> None:
    vectors, names = directions([300, 200], 0.0)
    found = linked_groups(vectors, 5)
    assert [names[group].tolist() for group in found] == [[0] * 300, [1] * 200]


def test_few_landmarks_that_are_the_same() -> None:
    vectors, names = directions([30, 20], 0.0)
    found = linked_groups(vectors, 5)
    assert [names[group].tolist() for group in found] == [[0] * 30, [1] * 20]


def test_the_same_landmarks_are_not_parted_by_rounding() -> None:
    kinds, _ = directions([1, 1, 1], 0.5, depth=400)
    names = np.random.default_rng(0).integers(0, 3, 500)
    found = linked_groups(kinds[names], 6)
    assert len(found) == 3


def test_agreement_knows_no_names() -> None:
    first = torch.tensor([0, 0, 1, 1, 2, 2])
    assert module._agreement(first, torch.tensor([5, 5, 0, 0, 1, 1])) == pytest.approx(1)
    assert module._agreement(first, torch.tensor([0, 1, 0, 1, 0, 1])) == pytest.approx(0, abs=1e-6)


def test_the_draw_that_the_others_agree_with_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five cuts one goes astray; whichever comes first, it is not taken."""
    right = torch.eye(2)
    astray = torch.tensor([[1.0, 0.9], [0.0, 0.1]])
    described = torch.nn.functional.normalize(torch.rand(200, 2), dim=1)
    for place in range(5):
        cuts = iter([astray if number == place else right for number in range(5)])
        teacher = Teacher(3, 2, 1)
        teacher.prototypes = torch.zeros(2, 2, 1)
        monkeypatch.setattr(teacher, "_describe", lambda *_: described)
        monkeypatch.setattr(teacher, "_prototypes", lambda *_, cuts=cuts: next(cuts))
        teacher._unite([], torch.Generator().manual_seed(place))
        assert torch.equal(teacher.prototypes.flatten(1), right)


def test_even_groups_part_what_lies_apart() -> None:
    random = torch.Generator().manual_seed(0)
    sizes = (60, 30, 10)
    centres = torch.eye(3, 6)
    points = torch.cat(
        [centre.expand(size, 6) for centre, size in zip(centres, sizes, strict=True)]
    )
    noisy = points + 0.05 * torch.rand(100, 6, generator=random)
    landmarks = torch.nn.functional.normalize(noisy, dim=1)
    groups = module.even_groups(landmarks, 3, random)
    assert [sorted(group.tolist()) for group in groups] == [
        list(range(60)),
        list(range(60, 90)),
        list(range(90, 100)),
    ]


def test_even_groups_part_an_even_arc_evenly() -> None:
    angles = torch.linspace(0, torch.pi / 2, 200)
    landmarks = torch.stack([angles.cos(), angles.sin()], dim=1)
    groups = module.even_groups(landmarks, 2, torch.Generator().manual_seed(0))
    assert [len(group) for group in groups] == pytest.approx([100, 100], abs=6)


def test_even_groups_of_fewer_landmarks_than_classes() -> None:
    groups = module.even_groups(torch.eye(2), 5, torch.Generator().manual_seed(0))
    assert sorted(int(group[0]) for group in groups) == [0, 1]
