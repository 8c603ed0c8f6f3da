from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hsiclust.models.landmarks import even_groups, linked_groups


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


def test_even_groups_part_what_lies_apart() -> None:
    random = torch.Generator().manual_seed(0)
    sizes = (60, 30, 10)
    centres = torch.eye(3, 6)
    points = torch.cat(
        [centre.expand(size, 6) for centre, size in zip(centres, sizes, strict=True)]
    )
    noisy = points + 0.05 * torch.rand(100, 6, generator=random)
    landmarks = torch.nn.functional.normalize(noisy, dim=1)
    groups = even_groups(landmarks, 3, random)
    assert [sorted(group.tolist()) for group in groups] == [
        list(range(60)),
        list(range(60, 90)),
        list(range(90, 100)),
    ]


def test_even_groups_part_an_even_arc_evenly() -> None:
    angles = torch.linspace(0, torch.pi / 2, 200)
    landmarks = torch.stack([angles.cos(), angles.sin()], dim=1)
    groups = even_groups(landmarks, 2, torch.Generator().manual_seed(0))
    assert [len(group) for group in groups] == pytest.approx([100, 100], abs=6)


def test_even_groups_of_fewer_landmarks_than_classes() -> None:
    groups = even_groups(torch.eye(2), 5, torch.Generator().manual_seed(0))
    assert sorted(int(group[0]) for group in groups) == [0, 1]
