import torch
from hypothesis import given
from hypothesis import strategies as st

from hsiclust.models.folds import COUNT, coverage, folds


def ground(side: int) -> torch.Tensor:
    """Rows and columns of a square of pixels."""
    rows, cols = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([rows.flatten(), cols.flatten()], dim=1)


def divided(labels: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, int]:
    return folds(classes, labels, ground(100), torch.Generator().manual_seed(0))


def test_labels_spread_over_the_scene_are_left_out_one_by_one() -> None:
    every = ground(100)
    labels = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(1))[:60]]
    fold, places = divided(labels, torch.arange(60) % 3)
    assert places > 30
    assert sorted(fold.unique().tolist()) == list(range(COUNT))


def test_labels_in_a_few_places_are_left_out_as_far_as_the_scene_lies() -> None:
    corners = torch.tensor([[5, 5], [5, 90], [90, 5], [90, 90], [48, 48], [5, 48], [90, 48]])
    random = torch.Generator().manual_seed(2)
    labels = corners.repeat_interleave(8, dim=0)
    labels = labels + torch.randint(0, 4, labels.shape, generator=random)
    fold, places = divided(labels, torch.arange(56) % 4)
    assert places < 56
    apart = torch.cdist(labels.float(), labels.float())
    elsewhere = apart.masked_fill(fold[:, None] == fold[None], torch.inf).amin(dim=1).mean()
    anywhere = torch.cdist(ground(100).float(), labels.float()).amin(dim=1).mean()
    assert 0.5 * anywhere < elsewhere < 2 * anywhere
    at_random = torch.arange(56) % COUNT
    scattered = apart.masked_fill(at_random[:, None] == at_random[None], torch.inf)
    assert scattered.amin(dim=1).mean() < 0.1 * anywhere


def test_labels_on_one_half_are_left_out_further_than_labels_on_both() -> None:
    random = torch.Generator().manual_seed(3)
    every = ground(100)[torch.randperm(10_000, generator=random)]
    half, classes = every[every[:, 0] < 50][:60], torch.arange(60) % 3
    assert divided(half, classes)[1] < divided(every[:60], classes)[1]


def test_of_a_class_as_many_folds_as_there_can_be() -> None:
    every = ground(100)
    chosen = torch.randperm(len(every), generator=torch.Generator().manual_seed(4))[:25]
    classes = torch.tensor([0] * 3 + [1] * 5 + [4] * 17)
    # All of the ground is labelled: no label can be left out further than at random.
    labels = every[chosen]
    fold, places = folds(classes, labels, labels, torch.Generator().manual_seed(0))
    assert places == 25
    sizes = {k: torch.bincount(fold[classes == k], minlength=COUNT).tolist() for k in (0, 1, 4)}
    assert sorted(sizes[0]) == [0, 0, 1, 1, 1]
    assert sizes[1] == [1, 1, 1, 1, 1]
    assert sorted(sizes[4]) == [3, 3, 3, 4, 4]


@given(st.integers(1, 40), st.integers(0, 20))
def test_every_label_has_a_fold_and_the_seed_decides_it(count: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 100, (count, 2), generator=random)
    classes = torch.randint(0, 3, (count,), generator=random)
    one = folds(classes, labels, ground(100), torch.Generator().manual_seed(seed))
    other = folds(classes, labels, ground(100), torch.Generator().manual_seed(seed))
    assert torch.equal(one[0], other[0])
    assert one[1] == other[1]
    assert one[0].shape == (count,)
    assert 0 <= int(one[0].min()) <= int(one[0].max()) < COUNT


def test_coverage_tells_labels_all_over_from_labels_in_a_corner() -> None:
    random = torch.Generator().manual_seed(5)
    every = ground(100)[torch.randperm(10_000, generator=random)]
    corner = every[(every < 25).all(dim=1)][:50]

    def of(labels: torch.Tensor) -> float:
        return coverage(labels, ground(100), torch.Generator().manual_seed(0))

    assert 0.7 < of(every[:50]) < 1.3
    assert of(corner) < 0.1
    assert of(every[:1]) == 0
