import json
import logging
from collections.abc import Sequence

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from hsiclust.errors import InputError
from hsiclust.models import pixels
from hsiclust.models.agreement import spheres_share
from hsiclust.models.base import Batch
from hsiclust.models.consensus import HALO, Teacher
from hsiclust.models.grain import median_windows


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


def test_a_sparse_mask_over_many_tiles_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = []
    for seed in range(10):
        tile, _ = planted(seed, side=20)
        fit = torch.zeros_like(tile.fit)
        fit[0, 2:5, 4] = True
        tiles.append(Batch(tile.values, fit))
    monkeypatch.setattr(pixels, "_STUDY_PIXELS", 2 * 20 * 20)
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
