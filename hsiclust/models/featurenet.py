"""The networks of ContrastDM: from the features of a pixel to a code, and from the code to classes.

1 x 1 convolutions alone, so that pixels in a table and pixels of a tile pass through the same
layers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from hsiclust.models.encoder import NormConv, RowStrips, fold_norms
from hsiclust.models.scalespace import ScaleSpace


def as_image(pixels: Tensor) -> Tensor:
    """Pixels in rows as an image of one line: `(M, F)` to `(1, F, 1, M)`, nothing is moved."""
    return pixels.T[None, :, None, :]


def as_rows(image: Tensor) -> Tensor:
    """The way back: `(1, F, 1, M)` to `(M, F)`."""
    return image[0, :, 0].T


class FeatureNet(nn.Module):
    """Encoder, projector and head of one network.

    Args:
        features: Features of a pixel F.
        widths: Channels of the encoder's layers; the last is the size of the code.
        projected: Channels of the projector's hidden layer, which pre-training alone uses.
        classes: Number of classes K.
    """

    def __init__(self, features: int, widths: Sequence[int], projected: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((features, *widths[:-1])):
            layers += [NormConv(inputs, outputs, 1), nn.ReLU()]
        size = widths[-1]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(widths[-2], size, 1))
        self.projector = nn.Sequential(
            NormConv(size, projected, 1), nn.ReLU(), nn.Conv2d(projected, size, 1)
        )
        self.head = nn.Conv2d(size, classes, 1)

    def code(self, features: Tensor) -> Tensor:
        """`(N, F, H, W)` to `(N, E, H, W)`."""
        found: Tensor = self.encoder(features)
        return found

    def project(self, features: Tensor) -> Tensor:
        """What pre-training compares: `(M, F)` to `(M, E)`."""
        return as_rows(self.projector(self.encoder(as_image(features))))

    def forward(self, features: Tensor) -> Tensor:
        """Logits: `(N, F, H, W)` to `(N, K, H, W)`."""
        logits: Tensor = self.head(self.encoder(features))
        return logits


class Committee(nn.Module):
    """Several networks whose log-probabilities are averaged.

    Absent classes have no probability in any of them.
    """

    def __init__(self, nets: Sequence[FeatureNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Mean log-probabilities, `(N, F, H, W)` to `(N, K, H, W)`; `present` is `(K,)`, bool."""
        absent = ~present[:, None, None]
        total = torch.zeros(())
        for net in self.nets:
            logits = net(features).masked_fill(absent, -1e4)
            total = total.to(logits) + logits.log_softmax(dim=1)
        return total / len(self.nets)


class DenseCommittee(nn.Module):
    """A committee as it labels tiles: the same scores, in fewer operations.

    Norms and the standardisation of the features are parts of the first convolutions, and hidden
    layers exist for some rows at a time.
    """

    def __init__(self, space: ScaleSpace, committee: Committee, present: Tensor) -> None:
        super().__init__()
        self.space = copy.deepcopy(space)
        folded = copy.deepcopy(committee).eval()
        fold_norms(folded)
        for net in folded.nets:
            if isinstance(net, FeatureNet):
                del net.projector
                _standardising(net.encoder[0], space)
        widest = max(
            module.out_channels for module in folded.modules() if isinstance(module, nn.Conv2d)
        )
        self.strips = RowStrips(_OfPresent(folded, present.clone()), widest)

    def forward(self, values: Tensor) -> Tensor:
        """`(N, C, H, W)` to `(N, K, H - 2 halo, W - 2 halo)`."""
        scores: Tensor = self.strips(self.space.raw(values))
        return scores


class _OfPresent(nn.Module):
    """A committee that is told which classes are present."""

    present: Tensor

    def __init__(self, committee: Committee, present: Tensor) -> None:
        super().__init__()
        self.committee = committee
        self.register_buffer("present", present)

    def forward(self, features: Tensor) -> Tensor:
        """`(N, F, H, W)` to `(N, K, H, W)`."""
        scores: Tensor = self.committee(features, self.present)
        return scores


def _standardising(first: nn.Module, space: ScaleSpace) -> None:
    """Let a convolution take features as they are: `W (x - m) / s + b = V x + b - V m`, `V = W / s`."""
    if not isinstance(first, nn.Conv2d) or first.bias is None:
        raise TypeError(f"{first} is no convolution with a bias")
    with torch.no_grad():
        first.weight /= space.scale[:, None, None]
        first.bias -= first.weight[:, :, 0, 0] @ space.mean
