import pytest
import torch

from hsiclust.models import encoder as encoders
from hsiclust.models.featurenet import (
    ClassNet,
    Coder,
    Committee,
    DenseCommittee,
    as_image,
    as_rows,
    chances,
)
from hsiclust.models.scalespace import ScaleSpace

_ABSENT = 1


def committee(nets: int = 3) -> tuple[ScaleSpace, Committee, torch.Tensor]:
    """Networks whose norms have seen something, a space that standardises, present classes."""
    torch.manual_seed(0)
    space = ScaleSpace(3, (0.0, 1.0))
    space.mean.copy_(torch.randn(6) * 5)
    space.scale.copy_(torch.rand(6) * 4 + 0.2)
    members = [ClassNet(6, (16, 12, 8), 4) for _ in range(nets)]
    for net in members:
        net(torch.randn(1, 6, 20, 20) * 2 + 1)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.normal_(module.weight, 1, 0.3)
                torch.nn.init.normal_(module.bias, 0, 0.3)
    present = torch.ones(4, dtype=torch.bool)
    present[_ABSENT] = False
    return space, Committee(members).eval(), present


def values() -> torch.Tensor:
    return 5 * torch.randn(2, 3, 31, 27, generator=torch.Generator().manual_seed(1)) + 2


def test_the_dense_committee_gives_the_committees_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    space, members, present = committee()
    before = {name: value.clone() for name, value in members.state_dict().items()}
    dense = DenseCommittee(space, members, present)
    with torch.inference_mode():
        wanted = members(space(values()), present)
        found = dense(values())
        assert found.shape == (2, 4, 31 - 2 * space.halo, 27 - 2 * space.halo)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        monkeypatch.setattr(encoders, "_STRIP_VALUES", 1000)
        torch.testing.assert_close(dense(values()), found)
    # what was folded is a copy
    assert all(torch.equal(value, before[name]) for name, value in members.state_dict().items())


def test_an_absent_class_never_wins() -> None:
    space, members, present = committee()
    with torch.no_grad():
        for net in members.nets:
            list(net.children())[-1].bias[_ABSENT] = 1e3
    dense = DenseCommittee(space, members, present)
    with torch.inference_mode():
        for scores in (members(space(values()), present), dense(values())):
            assert _ABSENT not in scores.argmax(dim=1)
            assert bool(torch.isfinite(scores).all())
            assert float(scores.softmax(dim=1)[:, _ABSENT].max()) == 0


def test_scores_are_mean_log_probabilities() -> None:
    _, members, present = committee(2)
    features = torch.randn(1, 6, 4, 5)
    with torch.inference_mode():
        found = members(features, present)
        each = [chances(net(features), present) for net in members.nets]
    torch.testing.assert_close(found, (each[0] + each[1]) / 2)
    for said in each:
        torch.testing.assert_close(said.exp().sum(dim=1), torch.ones(1, 4, 5))


def test_rows_of_a_table_and_pixels_of_a_tile_get_the_same_logits() -> None:
    _, members, _ = committee()
    tile = torch.randn(1, 6, 9, 7)
    rows = tile[0].flatten(1).T
    assert torch.equal(as_rows(as_image(rows)), rows)
    with torch.inference_mode():
        for net in members.nets:
            dense = net(tile)[0].flatten(1).T
            torch.testing.assert_close(as_rows(net(as_image(rows))), dense)


def test_a_coder_gives_codes_and_what_pretraining_compares() -> None:
    torch.manual_seed(0)
    coder = Coder(6, (16, 12, 8), 10).eval()
    pixels = torch.randn(11, 6)
    with torch.inference_mode():
        codes, projected = coder(pixels), coder.project(pixels)
        torch.testing.assert_close(codes[3:5], coder(pixels[3:5]))
    assert codes.shape == projected.shape == (11, 8)
    assert float(codes.min()) < 0  # not bent
    assert not torch.allclose(codes, projected)
