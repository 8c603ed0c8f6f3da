"""Random forest (Breiman 2001): the baseline that asks for no scaling and no kernel.

Fitted by scikit-learn, kept as flat arrays and walked by torch, level by level, for all trees and
many pixels at once. The children of a node lie side by side and after it: one number names both,
and no walk can go in a circle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hsiclust.errors import ModelError
from hsiclust.models.baseline import DEVIATIONS, Baseline, check_count, deviations_of
from hsiclust.models.classifier import Samples
from hsiclust.models.pointwise import FARTHEST, PixelNetwork, PixelStrips

# Of 50, 100, 200 and 300 trees the last are best on Indian Pines: 3 points more than 100 with 5
# labels a class, 1 point with 30. Time grows with them.
_TREES = 300
_MOST_TREES = 4096
_DEEPEST = 64
_MOST_LABELS = 20_000
_MOST_NODES = 2**22
# Of one tree; scikit-learn's own would be as many as half of the labels.
_MOST_LEAVES = 4096
# Values of all leaves' distributions: 64 MB in memory and on disk.
_MOST_LEAF_VALUES = 2**24
# Least probability: a third of one tree's vote.
_LEAST = 1e-3

Integers = NDArray[np.int64]


class Trees(PixelNetwork):
    """The trees of a forest.

    Args:
        trees: Number of trees T.
        nodes: Nodes of all of them, N.
        leaves: Leaves of all of them, L.
        classes: Number of classes K.

    Attributes:
        roots: `(T,)`, int32; the deepest tree first.
        depths: `(T,)`, int32; steps from the root to the deepest leaf.
        feature: `(N,)`, int32; what a node looks at.
        threshold: `(N,)`; it goes on to the second child where the feature is larger.
        child: `(N,)`, int32; first of its two children, the node itself for a leaf.
        leaf: `(N,)`, int32; number of a leaf.
        distribution: `(L, K)`, part of the training pixels of each class.
    """

    exports: ClassVar[bool] = False
    roots: Tensor
    depths: Tensor
    feature: Tensor
    threshold: Tensor
    child: Tensor
    leaf: Tensor
    distribution: Tensor

    def __init__(self, trees: int, nodes: int, leaves: int, classes: int) -> None:
        super().__init__(classes)
        for name, count in (("roots", trees), ("depths", trees)):
            self.register_buffer(name, torch.zeros(count, dtype=torch.int32))
        for name in ("feature", "child", "leaf"):
            self.register_buffer(name, torch.zeros(nodes, dtype=torch.int32))
        self.register_buffer("threshold", torch.zeros(nodes))
        self.register_buffer("distribution", torch.zeros(leaves, classes))

    @property
    def floats_per_pixel(self) -> int:
        """Of each tree the node, what it looks at, the threshold and what comes of them."""
        return 6 * len(self.roots)

    def decide(self, features: Tensor) -> Tensor:
        """`(F, M)` to `(K, M)`, logarithms of mean probabilities."""
        leaves = self.leaf.index_select(0, self.reached(features).flatten())
        reached = leaves.view(len(self.roots), -1).T.contiguous()
        probability = functional.embedding_bag(reached, self.distribution, mode="mean")
        return probability.clamp_min(_LEAST).log().T

    def reached(self, features: Tensor) -> Tensor:
        """The leaf's node that each pixel comes to in each tree: `(F, M)` to `(T, M)`, int32."""
        count, pixels = features.shape
        values = features.T.reshape(-1)  # those of a pixel side by side
        places = torch.arange(pixels, dtype=torch.int32, device=values.device) * count
        nodes = self.roots[:, None].repeat(1, pixels)
        # One step is short: to ask for memory anew for each would take longer.
        looked, second = torch.empty_like(nodes), torch.empty_like(nodes)
        found, threshold = torch.empty(2, *nodes.shape, device=values.device)
        depths = self.depths.tolist()
        for level in range(max(depths, default=0)):
            walking = np.s_[: sum(depth > level for depth in depths)]
            here = nodes[walking].view(-1)
            torch.index_select(self.feature, 0, here, out=looked[walking].view(-1))
            looked[walking] += places
            torch.index_select(values, 0, looked[walking].view(-1), out=found[walking].view(-1))
            torch.index_select(self.threshold, 0, here, out=threshold[walking].view(-1))
            torch.gt(found[walking], threshold[walking], out=second[walking])
            torch.index_select(self.child, 0, here, out=looked[walking].view(-1))
            torch.add(looked[walking], second[walking], out=nodes[walking])
        return nodes


class Forest(Baseline):
    """Random forest on the scale space.

    Args:
        components: Number of components C.
        classes: Number of classes K.
        deviations: Of the scale space, in pixels.
        trees: The trees; without nodes before they are fitted.
    """

    name = "forest"
    most_labels: ClassVar[int] = _MOST_LABELS

    def __init__(
        self,
        components: int,
        classes: int,
        deviations: Sequence[float] = DEVIATIONS,
        trees: Trees | None = None,
    ) -> None:
        super().__init__(components, classes, deviations)
        self.strips = PixelStrips(trees or Trees(_TREES, 0, 0, classes))

    @classmethod
    def from_config(cls, components: int, classes: int, config: Mapping[str, Any]) -> Self:
        """Build from `{"deviations": [pixels], "trees": T, "nodes": N, "leaves": L}`."""
        bounds = {
            "trees": _MOST_TREES,
            "nodes": _MOST_NODES,
            "leaves": _MOST_LEAF_VALUES // classes,
        }
        for name, most in bounds.items():
            check_count(config[name], name, most)
        trees = Trees(config["trees"], config["nodes"], config["leaves"], classes)
        return cls(components, classes, deviations_of(config), trees)

    def config(self) -> dict[str, Any]:
        """Settings as JSON values."""
        trees = self.trees
        counts = {"trees": trees.roots, "nodes": trees.child, "leaves": trees.distribution}
        return super().config() | {name: len(values) for name, values in counts.items()}

    @property
    def trees(self) -> Trees:
        """What scores a pixel."""
        network = self.network
        if not isinstance(network, Trees):
            raise TypeError(f"{type(network).__name__} are no trees")
        return network

    def check(self) -> None:
        """Refuse trees that lead out of themselves or in a circle, and what is no distribution."""
        super().check()
        trees = self.trees
        nodes = torch.arange(len(trees.child))
        inner = trees.child != nodes
        shares = trees.distribution
        sound = (
            _within(trees.roots, len(nodes)),
            _within(trees.depths, _DEEPEST + 1),
            bool((trees.depths.diff() <= 0).all()),
            _within(trees.feature, self.space.features),
            bool((trees.child >= nodes).all()),
            _within(trees.child[inner] + 1, len(nodes)),
            bool((trees.threshold[~inner] > FARTHEST).all()),
            _within(trees.leaf, len(shares)),
            bool((shares >= 0).all()) and bool(((shares.sum(dim=1) - 1).abs() < 1e-3).all()),
        )
        if not len(trees.roots) or not all(sound):
            raise ModelError("damaged: the trees of the forest lead astray")

    def fit(self, samples: Samples, generator: torch.Generator) -> None:
        """Fit the trees."""
        from sklearn.ensemble import RandomForestClassifier

        # With few labels as many as there are.
        leaves = min(_MOST_LEAVES, _MOST_LEAF_VALUES // (_TREES * self.classes))
        forest = RandomForestClassifier(
            _TREES,
            max_features="sqrt",
            max_depth=_DEEPEST,
            max_leaf_nodes=leaves if len(samples.classes) > leaves else None,  # slower to fit
            random_state=int(torch.randint(2**31 - 1, (), generator=generator)),
            n_jobs=1,
        )
        forest.fit(samples.features.numpy(), samples.classes.numpy())
        self.strips = PixelStrips(_trees(forest, self.classes))


def _within(values: Tensor, end: int) -> bool:
    return bool(((values >= 0) & (values < end)).all())


def _trees(forest: Any, classes: int) -> Trees:
    """scikit-learn's forest as flat arrays, the deepest tree first."""
    fitted = [each.tree_ for each in forest.estimators_]
    fitted.sort(key=lambda tree: -tree.max_depth)
    ends = np.cumsum([tree.node_count for tree in fitted])
    leaves = sum(int(tree.n_leaves) for tree in fitted)
    trees = Trees(len(fitted), int(ends[-1]), leaves, classes)
    first_leaf = 0
    for number, (tree, end) in enumerate(zip(fitted, ends, strict=True)):
        start = int(end) - tree.node_count
        trees.roots[number], trees.depths[number] = start, tree.max_depth
        order, child = _by_level(tree.children_left, tree.children_right)
        ends_here = tree.children_left[order] < 0
        mine = np.s_[start : int(end)]
        trees.child[mine] = torch.from_numpy(child + start)
        trees.feature[mine] = torch.from_numpy(np.where(ends_here, 0, tree.feature[order]))
        trees.threshold[mine] = torch.from_numpy(_rounded_down(tree.threshold[order]))
        # A leaf is where its walk ends, whichever way it turns.
        trees.threshold[mine][torch.from_numpy(ends_here)] = torch.finfo(torch.float32).max
        numbers = first_leaf + np.cumsum(ends_here) - 1
        trees.leaf[mine] = torch.from_numpy(np.where(ends_here, numbers, 0))
        shares = tree.value[order[ends_here], 0]
        shares = torch.from_numpy(shares / shares.sum(axis=1, keepdims=True)).float()
        present = torch.from_numpy(forest.classes_)
        trees.distribution[first_leaf : first_leaf + len(shares), present] = shares
        first_leaf += len(shares)
    return trees


def _by_level(left: Integers, right: Integers) -> tuple[Integers, Integers]:
    """Nodes level by level, siblings side by side.

    Returns:
        Which node comes at each place, and the place of its first child, its own for a leaf.
    """
    order, child = [np.zeros(1, np.int64)], []
    placed = 1
    while len(order[-1]):
        level = order[-1]
        inner = left[level] >= 0
        own = placed - len(level) + np.arange(len(level))
        child.append(np.where(inner, placed + 2 * (np.cumsum(inner) - 1), own))
        order.append(np.stack([left[level[inner]], right[level[inner]]], axis=1).ravel())
        placed += len(order[-1])
    return np.concatenate(order), np.concatenate(child)


def _rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 that is not larger: float32 values fall on the same side of it."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)
