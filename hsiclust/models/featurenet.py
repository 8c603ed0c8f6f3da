"""Networks that see one pixel's features: to a code, or to classes.

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

_ABSENT = -1e4  # logit of a class that has no labels: no probability, and finite


def as_image(pixels: Tensor) -> Tensor:
    """Pixels in rows as an image of one line: `(M, F)` to `(1, F, 1, M)`, nothing is moved."""
    return pixels.T[None, :, None, :]


def as_rows(image: Tensor) -> Tensor:
    """The way back: `(1, F, 1, M)` to `(M, F)`."""
    return image[0, :, 0].T


def encoder(features: int, widths: Sequence[int]) -> nn.Sequential:
    """Layers from features to a code of `widths[-1]`, which is not bent."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((features, *widths[:-1])):
        layers += [NormConv(inputs, outputs, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(widths[-2], widths[-1], 1))


class Coder(nn.Module):
    """An encoder that is pre-trained by contrast, and the projector that it then does without.

    Args:
        features: Features of a pixel F.
        widths: Channels of the encoder's layers; the last is the size E of the code.
        projected: Channels of the projector's hidden layer.
    """

    def __init__(self, features: int, widths: Sequence[int], projected: int) -> None:
        super().__init__()
        size = widths[-1]
        self.encoder = encoder(features, widths)
        self.projector = nn.Sequential(
            NormConv(size, projected, 1), nn.ReLU(), nn.Conv2d(projected, size, 1)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Codes: `(M, F)` to `(M, E)`."""
        return as_rows(self.encoder(as_image(pixels)))

    def project(self, pixels: Tensor) -> Tensor:
        """What pre-training compares: `(M, F)` to `(M, E)`."""
        return as_rows(self.projector(self.encoder(as_image(pixels))))


class ClassNet(nn.Sequential):
    """An encoder and a head: `(N, F, H, W)` to logits `(N, K, H, W)`.

    Args:
        features: Features of a pixel F.
        widths: Channels of the encoder's layers.
        classes: Number of classes K.
    """

    def __init__(self, features: int, widths: Sequence[int], classes: int) -> None:
        super().__init__(encoder(features, widths), nn.ReLU(), nn.Conv2d(widths[-1], classes, 1))


class Committee(nn.Module):
    """Several networks whose log-probabilities are averaged; absent classes have none in any."""

    def __init__(self, nets: Sequence[ClassNet]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Mean log-probabilities, `(N, F, H, W)` to `(N, K, H, W)`; `present` is `(K,)`, bool."""
        said = [chances(net(features), present) for net in self.nets]
        return torch.stack(said).mean(dim=0)


def chances(logits: Tensor, present: Tensor) -> Tensor:
    """Log-probabilities of the classes that are present: `(N, K, H, W)`."""
    return logits.masked_fill(~present[:, None, None], _ABSENT).log_softmax(dim=1)


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
            _standardising(next(m for m in net.modules() if isinstance(m, nn.Conv2d)), space)
        layers = (module for module in folded.modules() if isinstance(module, nn.Conv2d))
        widest = max(layer.out_channels for layer in layers)
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


def _standardising(first: nn.Conv2d, space: ScaleSpace) -> None:
    """Let a convolution take features x as they are.

    `W (x - m) / s + b = V x + (b - V m)` with `V = W / s`.
    """
    if first.bias is None:
        raise TypeError(f"{first} has no bias: its norm was not folded")
    with torch.no_grad():
        first.weight /= space.scale[:, None, None]
        first.bias -= first.weight[:, :, 0, 0] @ space.mean
