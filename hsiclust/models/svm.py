"""Support vector machine with a Gaussian kernel (Cortes and Vapnik 1995), one against one.

Of every two classes one machine decides, and the votes are counted: scikit-learn's `SVC` with
`break_ties`, whose labels these are. One against the rest was tried on Indian Pines: 1.3 points
worse with 5 labels a class, 0.6 with 30, five times slower to fit, and as dear to evaluate, since
a support vector takes part in K - 1 machines of the former and in K of the latter.

Votes say little of how sure they are. The scores are therefore sums of decision values, each
bounded at the margin, by which a softmax at its best temperature has 25 to 43 % less log-loss than
by votes; the class with the votes is raised to the top where the two differ (2 to 10 % of the
pixels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsiclust.errors import ModelError
from hsiclust.models.baseline import (
    DEVIATIONS,
    Baseline,
    check_count,
    deviations_of,
    evenly_chosen,
)
from hsiclust.models.classifier import Samples
from hsiclust.models.pointwise import PixelNetwork, PixelStrips

_MOST_LABELS = 10_000  # a pixel is compared with half of them or so
# Pixels that C and gamma are chosen with: the cost of it is quadratic.
_MOST_FOLDED = 2000
_FOLDS = 5
# Parts of scikit-learn's "scale", and costs. The smoothest machine wins a tie: pixels left out lie
# beside those learned from, so that many machines are faultless with them. Four times the scale
# wins such trials and is blind a few pixels on: it labelled nearly all of Berlin as one class.
_WIDTHS = (0.25, 1.0)
_COSTS = (1.0, 10.0, 100.0, 1000.0)
_USUAL_COST = 10.0  # where there are too few labels to choose
# Nothing is random here, but `SVC` without a seed draws one from NumPy's global generator.
_UNUSED_SEED = 0
# Lifts the votes' winner over the best score; less than a label's share in any decision.
_LEAD = 1e-3


@dataclass(frozen=True)
class Kernel:
    """Settings of a machine.

    Attributes:
        cost: C, the price of a pixel on the wrong side.
        gamma: Of the kernel exp(-gamma |x - v|^2).
        accuracy: Of pixels left out while it was chosen, beside those learned from: more than
            it has elsewhere. None where there were too few.
    """

    cost: float
    gamma: float
    accuracy: float | None


class KernelMachine(PixelNetwork):
    """Support vectors and what they weigh.

    Args:
        features: Number of features F.
        support: Support vectors of each class, S in all; 0 for a class without labels.

    Attributes:
        vectors: `(S, F)`, class by class.
        weights: `(S, K)`, for the vector's own class and against each other.
        bias: `(K, K)`, antisymmetric; 1 for a class with labels against one without.
        gamma: Of the kernel.
    """

    vectors: Tensor
    weights: Tensor
    bias: Tensor
    gamma: Tensor

    def __init__(self, features: int, support: Sequence[int]) -> None:
        count, classes = sum(support), len(support)
        super().__init__(classes)
        self.support = tuple(support)
        self.register_buffer("vectors", torch.zeros(count, features))
        self.register_buffer("weights", torch.zeros(count, classes))
        self.register_buffer("bias", torch.zeros(classes, classes))
        self.register_buffer("gamma", torch.ones(()))

    @property
    def floats_per_pixel(self) -> int:
        """The kernel, and the decisions with two copies."""
        return sum(self.support) + 3 * len(self.support) ** 2

    def decide(self, features: Tensor) -> Tensor:
        """`(F, M)` to `(K, M)`."""
        decisions = self.decisions(features)
        # A vote counts 2, so that the sums, brought between -1 and 1, decide between equals alone.
        votes, sums = decisions.sign().sum(dim=1), decisions.sum(dim=1)
        winner = (votes + sums / (sums.abs() + 1)).max(dim=0, keepdim=True).indices
        scores = decisions.clamp_(-1, 1).sum(dim=1)
        return scores.scatter(0, winner, scores.amax(dim=0, keepdim=True) + _LEAD)

    def decisions(self, features: Tensor) -> Tensor:
        """Of each class against each other, positive for the former: `(F, M)` to `(K, K, M)`."""
        norms = self.gamma * self.vectors.square().sum(dim=1, keepdim=True)
        cross = torch.addmm(-norms, 2 * self.gamma * self.vectors, features)
        cross -= self.gamma * features.square().sum(dim=0)
        kernel = cross.clamp_max_(0).exp_()
        # A vector of one class has no say between two others: K small products, not one of K^2.
        groups = zip(self.weights.split(self.support), kernel.split(self.support), strict=True)
        own = torch.stack([weights.T @ similar for weights, similar in groups])
        return own - own.transpose(0, 1) + self.bias[:, :, None]


class Svm(Baseline):
    """Support vector machine on the scale space.

    Args:
        components: Number of components C.
        classes: Number of classes K.
        deviations: Of the scale space, in pixels.
        support: Support vectors of each class; none before it is fitted.
    """

    name = "svm"
    most_labels: ClassVar[int] = _MOST_LABELS

    def __init__(
        self,
        components: int,
        classes: int,
        deviations: Sequence[float] = DEVIATIONS,
        support: Sequence[int] | None = None,
    ) -> None:
        super().__init__(components, classes, deviations)
        self.chosen: Kernel | None = None
        machine = KernelMachine(self.space.features, support or [0] * classes)
        self.strips = PixelStrips(machine)

    @classmethod
    def from_config(cls, components: int, classes: int, config: Mapping[str, Any]) -> Self:
        """Build from `{"deviations": [pixels], "support": [vectors of each class]}`."""
        support = list(config["support"])
        if len(support) != classes:
            raise ModelError(f"support vectors of {len(support)} classes, not of {classes}")
        for count in support:
            check_count(count, "support", _MOST_LABELS)
        if sum(support) > _MOST_LABELS:
            raise ModelError(f"{sum(support)} support vectors: {_MOST_LABELS} at most")
        return cls(components, classes, deviations_of(config), support)

    def config(self) -> dict[str, Any]:
        """Settings as JSON values."""
        return super().config() | {"support": list(self.machine.support)}

    @property
    def machine(self) -> KernelMachine:
        """What scores a pixel."""
        network = self.network
        if not isinstance(network, KernelMachine):
            raise TypeError(f"{type(network).__name__} is no kernel machine")
        return network

    def choices(self) -> dict[str, Any]:
        """Kernel and cost, chosen by cross-validation."""
        if self.chosen is None:
            return {}
        cost, gamma, accuracy = self.chosen.cost, self.chosen.gamma, self.chosen.accuracy
        return {"C": cost, "gamma": gamma, "cross_validated_accuracy": accuracy}

    def check(self) -> None:
        """Refuse machines of classes that are absent, a kernel that grows, bias on both sides."""
        super().check()
        machine = self.machine
        if self.present.tolist() != [count > 0 for count in machine.support]:
            raise ModelError("damaged: the classes with support vectors are not those present")
        if not bool(machine.gamma > 0) or not torch.equal(machine.bias, -machine.bias.T):
            raise ModelError("damaged: the kernel's gamma is not positive, or the biases differ")

    def fit(self, samples: Samples, generator: torch.Generator) -> None:
        """Choose C and gamma, then fit to all samples."""
        from sklearn.svm import SVC

        self.chosen = chosen_kernel(evenly_chosen(samples, _MOST_FOLDED, generator))
        fitted = SVC(C=self.chosen.cost, gamma=self.chosen.gamma, random_state=_UNUSED_SEED)
        fitted.fit(samples.features.numpy(), samples.classes.numpy())
        self.strips = PixelStrips(_machine(fitted, self.classes))


def chosen_kernel(samples: Samples) -> Kernel:
    """C and gamma by stratified cross-validation; the usual ones where classes are too small."""
    from sklearn.model_selection import StratifiedKFold

    values, classes = samples.features.numpy(), samples.classes.numpy()
    scale = 1 / max(values.shape[1] * float(values.var()), 1e-12)
    counts = np.bincount(classes)
    folded = counts[classes] > 1  # a class of one pixel cannot be both learned and left out
    values, classes = values[folded], classes[folded]
    if len(np.unique(classes)) < 2:
        return Kernel(_USUAL_COST, scale, None)
    parts = int(min(_FOLDS, counts[counts > 1].min()))
    folds = list(StratifiedKFold(parts, shuffle=True, random_state=0).split(values, classes))
    tried = [
        Kernel(cost, width * scale, _left_out(values, classes, folds, (cost, width * scale)))
        for width, cost in product(_WIDTHS, _COSTS)
    ]
    return max(tried, key=lambda kernel: kernel.accuracy or 0.0)


def _left_out(
    values: NDArray[np.float32],
    classes: NDArray[np.int64],
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    setting: tuple[float, float],
) -> float:
    """Mean accuracy on the part that each fold leaves out."""
    from sklearn.svm import SVC

    scores = []
    for learned, left in folds:
        machine = SVC(C=setting[0], gamma=setting[1], random_state=_UNUSED_SEED)
        machine.fit(values[learned], classes[learned])
        scores.append(machine.score(values[left], classes[left]))
    return float(np.mean(scores))


def _machine(fitted: Any, classes: int) -> KernelMachine:
    """scikit-learn's `SVC` as tensors.

    Its dual coefficients are `(K' - 1, S)`, of a vector of class i against class j in row j, or
    j - 1 for j > i, and positive for the first class of a pair; with two classes the signs of
    all are turned.
    """
    present = fitted.classes_.tolist()
    sign = -1 if len(present) == 2 else 1
    dual, intercept = sign * fitted.dual_coef_, sign * fitted.intercept_
    support = np.zeros(classes, int)
    support[present] = fitted.n_support_
    machine = KernelMachine(fitted.support_vectors_.shape[1], support.tolist())
    machine.vectors.copy_(torch.from_numpy(fitted.support_vectors_))
    machine.gamma.fill_(fitted.gamma)
    ends = np.cumsum(fitted.n_support_)
    there = (support > 0).astype(float)
    bias = there[:, None] - there
    pair = 0
    for i, first in enumerate(present):
        own = np.s_[ends[i] - fitted.n_support_[i] : ends[i]]
        for j, other in enumerate(present):
            if i == j:
                continue
            weights = dual[j - 1, own] if j > i else -dual[j, own]
            machine.weights[own, other] = torch.from_numpy(weights).float()
            if j > i:
                bias[first, other], bias[other, first] = intercept[pair], -intercept[pair]
                pair += 1
    machine.bias.copy_(torch.from_numpy(bias))
    return machine
