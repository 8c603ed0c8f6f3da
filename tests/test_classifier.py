import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hsiclust.errors import ModelError
from hsiclust.models.base import Batch, Lesson
from hsiclust.models.classifier import evenly_drawn, labelled_counts, labelled_samples
from hsiclust.models.scalespace import ScaleSpace
from hsiclust.models.svm import Svm


def tile(seed: int, lesson: bool = True) -> Batch:
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(1, 2, 20, 21, generator=random)
    fit = torch.rand(1, 10, 11, generator=random) < 0.8
    classes = torch.randint(0, 4, (1, 10, 11), generator=random)
    trust = (torch.rand(1, 10, 11, generator=random) < 0.3).float()
    return Batch(values, fit, Lesson(classes, trust) if lesson else None)


def test_samples_are_the_labelled_pixels_that_may_be_learned_from() -> None:
    space = ScaleSpace(2, (0.0, 1.0))
    tiles = [tile(0), tile(1, lesson=False), tile(2)]
    samples = labelled_samples(space, tiles)
    wanted = []
    for one in (tiles[0], tiles[2]):
        assert one.lesson is not None
        for _, row, col in torch.nonzero(one.fit & (one.lesson.trust > 0)).tolist():
            window = one.values[:, :, row + 2 : row + 9, col + 2 : col + 9]
            wanted.append((space(window)[0, :, 0, 0], one.lesson.classes[0, row, col]))
    torch.testing.assert_close(samples.features, torch.stack([features for features, _ in wanted]))
    assert torch.equal(samples.classes, torch.stack([number for _, number in wanted]))
    counts = labelled_counts(tiles, 6)
    assert counts.tolist() == torch.bincount(samples.classes, minlength=6).tolist()
    empty = labelled_samples(space, [tiles[1]])
    assert (empty.features.shape, empty.classes.shape) == ((0, 4), (0,))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 9))
def test_labels_are_drawn_evenly(classes: list[int], most: int, seed: int) -> None:
    known = torch.tensor(classes)
    drawn = evenly_drawn(known, most, torch.Generator().manual_seed(seed))
    assert len(drawn) == min(most, len(classes))
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    counts, there = torch.bincount(known[drawn], minlength=6), torch.bincount(known, minlength=6)
    # a class of which labels are left has as many as any other, or one less
    left = counts < there
    if bool(left.any()):
        assert int(counts[left].min()) >= int(counts.max()) - 1


def test_a_model_without_classes_or_temperature_is_refused() -> None:
    def spoiled(name: str, value: float) -> Svm:
        method = Svm(3, 4)
        method.get_buffer(name).fill_(value)
        return method

    for name, value in (("present", 0), ("temperature", 0), ("temperature", -1)):
        with pytest.raises(ModelError, match="damaged"):
            super(Svm, spoiled(name, value)).check()
    with pytest.raises(ModelError, match="deviation"):
        super(Svm, spoiled("space.scale", -1)).check()


def test_classes_keep_their_numbers() -> None:
    method = Svm(3, 4)
    method.reorder(torch.arange(4))
    with pytest.raises(ModelError, match="keep their numbers"):
        method.reorder(torch.tensor([1, 0, 2, 3]))


def test_temperature_changes_how_sure_it_is() -> None:
    method = Svm(3, 4)
    scores = torch.randn(1, 4, 5, 6)
    plain = method.confidence(scores)
    torch.testing.assert_close(plain, scores.softmax(1).amax(1))
    method.temperature.fill_(3.0)
    assert bool((method.confidence(scores) < plain).all())
    torch.testing.assert_close(method.confidence(3 * scores), plain)
