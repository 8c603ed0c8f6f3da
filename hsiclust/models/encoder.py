"""Encoders: from components to features, one feature vector a pixel.

`DenseEncoder` is built from *valid* convolutions: it pads nothing, so its output for a patch is
the output of the same network run over a whole tile at that pixel, and training on crops and
labelling tiles are one function. `OriginalEncoder` is the patch-wise network of the paper.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hsiclust.models.base import trimmed

_PATCH = 11
# Patches that the patch-wise encoder takes at once: bounds its memory, 0.7 MB a patch.
_PATCHES_AT_ONCE = 512
# Values of a hidden layer that exist at once when a tile is labelled: they stay in the cache.
_STRIP_VALUES = 2**20


class NormConv(nn.Module):
    """A convolution and a batch normalisation."""

    def __init__(
        self, inputs: int, outputs: int, size: int, dilation: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, 1, padding, dilation, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, values: Tensor) -> Tensor:
        """`(N, inputs, H, W)` to `(N, outputs, H', W')`."""
        normed: Tensor = self.norm(self.conv(values))
        return normed

    def folded(self) -> nn.Conv2d:
        """One convolution that does the same, with the running statistics."""
        return fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())


class ResidualBlock(nn.Module):
    """A dilated valid 3 x 3 convolution with a centre-cropped skip."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.conv = NormConv(width, width, 3, dilation)

    def forward(self, values: Tensor) -> Tensor:
        """`(N, width, H, W)` to `(N, width, H - 2 dilation, W - 2 dilation)`."""
        outputs: Tensor = self.conv(values)
        outputs += trimmed(values, self.dilation)
        return outputs.relu_()  # in place: new memory costs more than the sum

    def without_skip(self) -> nn.Module:
        """The same as one convolution, when its norm is folded; its weights are changed.

        The skip is what the convolution does if each channel has a weight of one for itself in the
        middle, and none for anything else (Ding et al. 2021, RepVGG).
        """
        weights = self.conv.get_parameter("weight")
        with torch.no_grad():
            weights.add_(nn.init.dirac_(torch.empty_like(weights)))
        return nn.Sequential(self.conv, nn.ReLU(inplace=True))


class DenseEncoder(nn.Module):
    """1 x 1 stem and dilated residual blocks; 62 000 + 48 C multiply-adds a pixel at width 48.

    Args:
        components: Leading components that it sees, C; it is given these, or more.
        width: Channels.
    """

    dilations = (1, 2, 4)

    def __init__(self, components: int, width: int) -> None:
        super().__init__()
        self.components = components
        self.features = width
        self.stem = NormConv(components, width, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(width, step) for step in self.dilations))

    @property
    def receptive_field(self) -> int:
        """Side of the square that one output pixel sees."""
        return 1 + 2 * sum(self.dilations)

    def forward(self, values: Tensor) -> Tensor:
        """`(N, C or more, H, W)` to `(N, width, H - 14, W - 14)`."""
        # The kernels of every library are fastest with the channels of a pixel side by side.
        values = values[:, : self.components].contiguous(memory_format=torch.channels_last)
        values = self.stem(values).relu_()
        for block in self.blocks:  # what a block was given is free when it is done
            values = block(values)
        return values


class BasicBlock(nn.Module):
    """The zero-padded basic block of a residual network (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = NormConv(inputs, outputs, 3, padding=1)
        self.second = NormConv(outputs, outputs, 3, padding=1)
        self.skip: nn.Module = nn.Identity()
        if inputs != outputs:
            self.skip = NormConv(inputs, outputs, 1)

    def forward(self, values: Tensor) -> Tensor:
        """`(N, inputs, H, W)` to `(N, outputs, H, W)`."""
        inner = functional.relu(self.first(values))
        return functional.relu(self.second(inner) + self.skip(values))


class OriginalEncoder(nn.Module):
    """The paper's encoder: an 11 x 11 patch a pixel through a zero-padded residual network.

    1 x 1 stem of 32 channels, three stages of two basic blocks with 64, 128 and 256 channels, all
    of stride 1, global average: 330 million multiply-adds a pixel. For comparison only.
    """

    features = 256
    receptive_field = _PATCH

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components = components
        self.stem = NormConv(components, 32, 1)
        widths = (32, 64, 128, 256)
        stages = []
        for inputs, outputs in pairwise(widths):
            stages += [BasicBlock(inputs, outputs), BasicBlock(outputs, outputs)]
        self.stages = nn.Sequential(*stages)

    def forward(self, values: Tensor) -> Tensor:
        """`(N, C, H, W)` to `(N, 256, H - 10, W - 10)`, patch by patch, a row at a time."""
        rows = values.shape[2] - _PATCH + 1
        encoded = [self._encode_row(values[:, :, row : row + _PATCH]) for row in range(rows)]
        return torch.stack(encoded, dim=2)

    def _encode_row(self, strip: Tensor) -> Tensor:
        """`(N, C, 11, W)` to `(N, 256, W - 10)`."""
        patches = strip.unfold(3, _PATCH, 1).permute(0, 3, 1, 2, 4)  # (N, W', C, 11, 11)
        count, cols = patches.shape[:2]
        flat = patches.reshape(count * cols, -1, _PATCH, _PATCH)
        encoded = torch.cat([self._encode(part) for part in flat.split(_PATCHES_AT_ONCE)])
        return encoded.reshape(count, cols, -1).movedim(1, 2)

    def _encode(self, patches: Tensor) -> Tensor:
        """`(M, C, 11, 11)` to `(M, 256)`."""
        encoded: Tensor = self.stages(functional.relu(self.stem(patches)))
        return encoded.mean(dim=(2, 3))


class RowStrips(nn.Module):
    """A network that sees one pixel at a time, run over strips of rows.

    The same values as in one go, but a wide hidden layer never exists for a whole tile.
    """

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network = network
        self.width = width

    def forward(self, values: Tensor) -> Tensor:
        """`(N, F, H, W)` to `(N, K, H, W)`."""
        count, _, _, cols = values.shape
        rows = max(1, _STRIP_VALUES // (self.width * count * cols))
        return torch.cat([self.network(strip) for strip in values.split(rows, dim=2)], dim=2)


def fold_norms(network: nn.Module) -> nn.Module:
    """Replace every `NormConv` below a network by one convolution, in place."""
    for name, child in network.named_children():
        setattr(network, name, child.folded() if isinstance(child, NormConv) else fold_norms(child))
    return network


def fold_skips(network: nn.Module) -> nn.Module:
    """Replace every `ResidualBlock` below a network without norms by one convolution, in place.

    Not for weights of few digits: what is left of a small one beside the one of the skip is less.
    """
    for name, child in network.named_children():
        plain = child.without_skip() if isinstance(child, ResidualBlock) else fold_skips(child)
        setattr(network, name, plain)
    return network


def count_multiply_adds(network: nn.Module, components: int, side: int) -> float:
    """Multiply-adds of a network's convolutions for one output pixel.

    Args:
        network: Maps `(1, components, side, side)` to one score map.
        components: Number of input components.
        side: Side of the input; the larger, the less the halo counts.
    """
    total = 0

    def count(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += module.weight[0].numel() * output.numel()

    handles = [
        module.register_forward_hook(count)
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.inference_mode():
        scores = network(torch.zeros(1, components, side, side))
    for handle in handles:
        handle.remove()
    return total / float(scores.shape[-1] * scores.shape[-2])


Encoder = DenseEncoder | OriginalEncoder
