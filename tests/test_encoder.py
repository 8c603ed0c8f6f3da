import copy

import pytest
import torch
from torch import nn

from hsiclust.models.encoder import (
    DenseEncoder,
    Encoder,
    OriginalEncoder,
    ResidualBlock,
    count_multiply_adds,
    fold_norms,
    fold_skips,
)
from hsiclust.models.settings import SsccConfig
from hsiclust.models.sscc import Sscc


def used(network: nn.Module) -> nn.Module:
    """A network whose norms have seen data, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                shape = module.num_features
                module.running_mean = 0.1 * torch.randn(shape, generator=generator)
                module.running_var = 0.5 + torch.rand(shape, generator=generator)
                module.weight.copy_(0.5 + torch.rand(shape, generator=generator))
                module.bias.copy_(0.1 * torch.randn(shape, generator=generator))
    return network.eval()


ENCODERS = [lambda: DenseEncoder(5, 16), lambda: OriginalEncoder(5)]


@pytest.mark.parametrize("make", ENCODERS)
def test_a_patch_gives_the_dense_output_at_its_pixel(make: object) -> None:
    assert callable(make)
    torch.manual_seed(0)
    encoder: Encoder = make()
    used(encoder)
    field = encoder.receptive_field
    tile = torch.randn(1, 5, field + 6, field + 8)
    with torch.inference_mode():
        dense = encoder(tile)
        assert dense.shape == (1, encoder.features, 7, 9)
        for row, col in [(0, 0), (3, 5), (6, 8)]:
            patch = encoder(tile[:, :, row : row + field, col : col + field])
            assert patch.shape == (1, encoder.features, 1, 1)
            torch.testing.assert_close(patch[0, :, 0, 0], dense[0, :, row, col])


@pytest.mark.parametrize("make", ENCODERS)
def test_nothing_outside_the_receptive_field_matters(make: object) -> None:
    assert callable(make)
    torch.manual_seed(0)
    encoder: Encoder = make()
    used(encoder)
    field = encoder.receptive_field
    tile = torch.randn(1, 5, field + 2, field + 2, requires_grad=True)
    encoder(tile)[0, :, 1, 1].sum().backward()
    assert tile.grad is not None
    seen = tile.grad.abs().sum(1)[0] > 0
    assert bool(seen[1:-1, 1:-1].any())
    assert not bool(seen[0].any() or seen[-1].any() or seen[:, 0].any() or seen[:, -1].any())
    # every pixel within it does matter
    assert bool(seen[1, 1] and seen[-2, -2])


def test_folding_changes_nothing() -> None:
    torch.manual_seed(0)
    for encoder in (DenseEncoder(5, 16), OriginalEncoder(5)):
        used(encoder)
        values = torch.randn(2, 5, 19, 20)
        with torch.inference_mode():
            expected = encoder(values)
            folded = fold_norms(copy.deepcopy(encoder))
            assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
            torch.testing.assert_close(folded(values), expected, rtol=1e-4, atol=1e-5)


def test_a_folded_skip_changes_nothing() -> None:
    torch.manual_seed(0)
    encoder = fold_norms(used(DenseEncoder(5, 16)).eval())
    values = torch.randn(2, 5, 19, 20)
    with torch.inference_mode():
        expected = encoder(values)
        folded = fold_skips(copy.deepcopy(encoder))
        assert not any(isinstance(module, ResidualBlock) for module in folded.modules())
        torch.testing.assert_close(folded(values), expected, rtol=1e-4, atol=1e-5)


def test_cost_of_the_networks() -> None:
    dense = count_multiply_adds(Sscc(12, 16), 12, 400)
    original = count_multiply_adds(Sscc(8, 16, SsccConfig.paper()), 8, 11)
    assert dense < 120_000
    assert original == pytest.approx(330e6, rel=0.05)
