"""A method as it labels: the network in fewer operations, compared with the method itself."""

import pytest
import torch

from hsiclust.components import Components
from hsiclust.labeller import TorchLabeller
from hsiclust.labels import UNSURE
from hsiclust.models.base import Method
from hsiclust.models.encoder import ResidualBlock
from hsiclust.models.settings import SsccConfig
from hsiclust.models.sscc import Sscc

CPU = torch.device("cpu")


def method_with_head(hidden: int) -> Method:
    torch.manual_seed(0)
    return Sscc(5, 7, SsccConfig(hidden=hidden, partitions=0)).eval()


@pytest.mark.parametrize("hidden", [0, 24])
def test_it_gives_the_scores_of_the_method(hidden: int) -> None:
    method = method_with_head(hidden)
    side = 9 + 2 * method.halo
    block = Components(torch.randn(5, side, side), torch.ones(side, side, dtype=torch.bool))
    wanted = method(block.values[None]).detach()
    found = TorchLabeller(method, CPU).scores(block)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_pixel_that_is_not_valid_has_no_class() -> None:
    method = method_with_head(0)
    halo, side = method.halo, 4 + 2 * method.halo
    valid = torch.ones(side, side, dtype=torch.bool)
    valid[halo, halo + 1] = False
    labels = TorchLabeller(method, CPU, confidence=True)(
        Components(torch.randn(5, side, side), valid)
    )
    assert labels.confidence is not None
    assert (labels.classes == 0).sum() == (labels.confidence == UNSURE).sum() == 1
    assert labels.classes[0, 1] == 0
    assert labels.classes.max() <= method.classes


@pytest.mark.parametrize("confidence", [False, True])
def test_a_block_without_a_valid_pixel_needs_no_network(confidence: bool) -> None:
    """A margin without data would take as long as the scene."""
    method = method_with_head(0)
    rows, cols = 4 + 2 * method.halo, 5 + 2 * method.halo
    valid = torch.ones(rows, cols, dtype=torch.bool)
    valid[method.halo : -method.halo, method.halo : -method.halo] = False
    labeller = TorchLabeller(method, CPU, confidence=confidence)
    block = Components(torch.randn(5, rows, cols), valid)
    wanted = labeller(Components(block.values, torch.ones_like(valid)))
    labeller.network = torch.nn.Identity()  # its scores would be of another shape
    found = labeller(block)
    assert found.classes.shape == wanted.classes.shape
    assert found.classes.dtype == wanted.classes.dtype
    assert not found.classes.any()
    if not confidence:
        assert found.confidence is None
        return
    assert found.confidence is not None
    assert (found.confidence == UNSURE).all()


def test_the_method_keeps_its_network() -> None:
    """What is made quicker is a copy: the method may train on, or be exported."""
    method = method_with_head(24)
    before = {
        name: module.dilation
        for name, module in method.named_modules()
        if hasattr(module, "dilation")
    }
    TorchLabeller(method, CPU)
    after = {
        name: module.dilation
        for name, module in method.named_modules()
        if hasattr(module, "dilation")
    }
    assert before == after
    assert (1, 1) in before.values()


def test_a_network_of_few_digits_keeps_its_skips() -> None:
    """A small weight beside the one of the skip would lose most of them."""
    method = method_with_head(0)
    kept = {
        dtype: any(
            isinstance(module, ResidualBlock)
            for module in TorchLabeller(method, CPU, dtype).network.modules()
        )
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert kept == {torch.float32: False, torch.bfloat16: True}
