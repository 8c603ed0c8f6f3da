import copy
import json
from dataclasses import replace
from typing import Literal

import pytest
import torch

from hsiclust.errors import ModelError
from hsiclust.models.base import Batch, Lesson, Progress
from hsiclust.models.consensus import HALO
from hsiclust.models.losses import BarlowTwins, NTXent
from hsiclust.models.settings import SsccConfig
from hsiclust.models.sscc import Sscc

SMALL = replace(
    SsccConfig.contrast_only(), width=8, hidden=16, crops=4, outputs=8, displacement=2, rate=3e-3
)
TAUGHT = SsccConfig(width=8, hidden=16, crops=4, outputs=8, partitions=3, rate=3e-3)


def small(seed: int = 0, settings: SsccConfig = SMALL) -> Sscc:
    torch.manual_seed(seed)
    return Sscc(3, 4, settings)


def quadrants(method: Sscc, seed: int) -> Batch:
    """Crops of two kinds of ground, left and right of a random column, with noise."""
    generator = torch.Generator().manual_seed(seed)
    shape = method.crop_shape
    values = 0.1 * torch.randn(shape.count, 3, shape.side, shape.side, generator=generator)
    for crop in values:
        edge = int(torch.randint(shape.side, (1,), generator=generator))
        crop[0, :, :edge] += 1
        crop[1, :, edge:] += 1
    return Batch(values, torch.ones(shape.count, 8, 8, dtype=torch.bool))


def trained(method: Sscc, steps: int, first: int = 0) -> list[float]:
    losses = []
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        losses.append(method.learn(quadrants(method, step), Progress(step, 60), generator).loss)
    return losses


def test_the_loss_falls_and_the_grounds_are_told_apart() -> None:
    method = small()
    losses = trained(method, 60)
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10])
    network = method.settled()
    flat = torch.zeros(2, 3, 15, 15)
    flat[0, 0] = flat[1, 1] = 1
    with torch.inference_mode():
        first, second = network(flat).argmax(1).flatten().tolist()
    assert first != second


def test_the_objective_is_the_weighted_sum_of_both_losses() -> None:
    method = small()
    logits = torch.randn(2, 30, 4)
    first, second = logits.softmax(-1)
    expected = SMALL.instance_weight * NTXent()(first, second) + BarlowTwins()(first, second)
    batch = quadrants(method, 0)
    found = method.objective(logits[0], logits[1], batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, expected)


def with_lesson(batch: Batch, wrong: float = 0.0, seed: int = 0) -> Batch:
    """The ground on the left is class 2, that on the right class 1; some are told wrongly."""
    generator = torch.Generator().manual_seed(seed)
    edge = (batch.values.shape[-1] - batch.fit.shape[-1]) // 2
    core = batch.values[:, :2, edge:-edge, edge:-edge]
    classes = torch.where(core[:, 0] > core[:, 1], 2, 1)
    mistaken = torch.rand(classes.shape, generator=generator) < wrong
    trust = torch.where(mistaken, 0.0, 1.0)
    return replace(batch, lesson=Lesson(torch.where(mistaken, 0, classes), trust))


@pytest.mark.parametrize("contrast", [True, False])
def test_a_lesson_adds_trusted_cross_entropy(contrast: bool) -> None:
    weights = {} if contrast else {"instance_weight": 0.0, "cluster_weight": 0.0}
    method = small(settings=replace(TAUGHT, instance_pixels=1000, **weights))
    logits = torch.randn(2, 60, 4)
    fit = torch.zeros(4, 8, 8, dtype=torch.bool)
    fit.view(-1)[torch.randperm(256)[:60]] = True
    lesson = Lesson(torch.randint(4, fit.shape), torch.rand(fit.shape))
    batch = Batch(quadrants(method, 0).values, fit, lesson)
    expected = torch.zeros(())
    for view in logits.log_softmax(-1):
        chosen = view[torch.arange(60), lesson.classes[fit]]
        expected = expected - (lesson.trust[fit] * chosen).sum() / 120
    if contrast:
        first, second = logits.softmax(-1)
        expected = expected + TAUGHT.instance_weight * NTXent()(first, second)
        expected = expected + TAUGHT.cluster_weight * BarlowTwins()(first, second)
    found = method.objective(logits[0], logits[1], batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, expected)


def test_what_is_taught_is_learned_by_its_number() -> None:
    """Turned views are held against the pixels that the lesson is about."""
    method = small(settings=TAUGHT)
    for step in range(80):
        batch = with_lesson(quadrants(method, step), wrong=0.4, seed=step)
        method.learn(batch, Progress(step, 80), torch.Generator().manual_seed(step))
    batch = with_lesson(quadrants(method, 1000))
    assert batch.lesson is not None
    with torch.inference_mode():
        found = method.settled()(batch.values).argmax(dim=1)
    assert found.shape == batch.lesson.classes.shape
    assert float((found == batch.lesson.classes).float().mean()) > 0.9


def tiles_of(method: Sscc, count: int = 3) -> list[Batch]:
    """Tiles with the context that training reads."""
    drawn = [quadrants(method, seed) for seed in range(count)]
    return [Batch(batch.values[:1], batch.fit[:1]) for batch in drawn]


def studied(settings: SsccConfig = TAUGHT) -> Sscc:
    method = small(settings=settings)
    method.study(tiles_of(method), False, torch.Generator().manual_seed(0))
    return method


@pytest.mark.parametrize("encoder", ["dense", "original"])
def test_crops_hold_what_network_and_teacher_need(encoder: Literal["dense", "original"]) -> None:
    method = small(settings=replace(TAUGHT, encoder=encoder))
    assert method.crop_shape.context == max(method.halo, HALO)
    assert small(settings=replace(TAUGHT, encoder=encoder, partitions=0)).crop_shape.context == (
        method.halo
    )


@pytest.mark.parametrize("encoder", ["dense", "original"])
def test_lessons_are_of_the_pixels_without_context(
    encoder: Literal["dense", "original"],
) -> None:
    method = studied(replace(TAUGHT, encoder=encoder))
    assert method.teacher is not None
    context = method.crop_shape.context
    values = torch.randn(3, 10 + 2 * context, 13 + 2 * context)
    lesson = method.teach(values)
    assert lesson is not None
    expected = method.teacher.teach(
        values[:, context - HALO : 10 + context + HALO, context - HALO : 13 + context + HALO]
    )
    assert lesson.classes.shape == (10, 13)
    assert torch.equal(lesson.classes, expected.classes)
    assert torch.equal(lesson.trust, expected.trust)


def test_a_fitted_teacher_teaches_on() -> None:
    method = studied()
    before = copy.deepcopy(method.state_dict())
    others = [replace(tile, values=tile.values.flip(1)) for tile in tiles_of(method)]
    method.study(others, True, torch.Generator().manual_seed(5))
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    method.study(others, False, torch.Generator().manual_seed(5))
    after = method.state_dict()
    assert not torch.equal(before["teacher.prototypes"], after["teacher.prototypes"])
    fresh = small(settings=TAUGHT)  # a teacher that was never fitted is fitted in any case
    fresh.study(others, True, torch.Generator().manual_seed(5))
    assert fresh.teacher is not None
    assert fresh.teacher.found > 1


def test_network_and_teacher_are_renumbered_together() -> None:
    method = studied().eval()
    values = torch.randn(3, 30, 30)
    before = method.teach(values)
    with torch.inference_mode():
        scores = method(values[None])
        order = torch.tensor([3, 1, 0, 2])
        method.reorder(order)
        after = method.teach(values)
        torch.testing.assert_close(method(values[None]), scores[:, order])
    assert before is not None
    assert after is not None
    assert torch.equal(order[after.classes], before.classes)


def test_labelling_does_without_the_teacher() -> None:
    method = studied()
    names = dict(method.settled().named_buffers())
    assert not [name for name in names if "teacher" in name or "prototypes" in name]
    assert method.choices()["partitions"] == 3
    assert small().choices() == {}
    assert small().teach(torch.randn(3, 30, 30)) is None


def test_rates_of_the_paper_fall_every_twenty_epochs() -> None:
    settings = replace(SsccConfig.paper(), hidden=8, crops=2, smallest_area=0.5)
    method = small(settings=settings)
    batch = Batch(torch.randn(2, 3, 11, 11), torch.ones(2, 1, 1, dtype=torch.bool))
    for epoch, expected in ((0.0, 2e-4), (19.9, 2e-4), (20.0, 2e-5), (65.0, 2e-7)):
        where = Progress(1, 1000, epoch=epoch)
        method.learn(batch, where, torch.Generator().manual_seed(0))
        assert method.optimiser.param_groups[0]["lr"] == pytest.approx(expected)
    assert isinstance(method.optimiser, torch.optim.Adam)
    assert not isinstance(method.optimiser, torch.optim.AdamW)
    assert method.default_epochs == 200


@pytest.mark.parametrize(
    "settings", [SsccConfig(), SsccConfig.contrast_only(), SsccConfig.paper(), TAUGHT]
)
def test_settings_survive_json(settings: SsccConfig) -> None:
    again = Sscc.from_config(3, 4, json.loads(json.dumps(small(settings=settings).config())))
    assert again.settings == replace(settings, seen=3)
    assert (again.teacher is None) == (settings.partitions == 0)


@pytest.mark.parametrize(
    ("components", "classes", "settings", "seen"),
    [
        (30, 6, SsccConfig(), 16),
        (30, 16, SsccConfig(), 16),
        (40, 17, SsccConfig(), 32),
        (30, 17, SsccConfig(), 30),
        (9, 4, SsccConfig(), 9),
        (30, 6, SsccConfig(seen=5), 5),
        (4, 6, SsccConfig(seen=5), 4),
        (30, 6, SsccConfig.contrast_only(), 30),
        (8, 16, SsccConfig.paper(), 8),
    ],
)
def test_behind_a_teacher_the_network_sees_the_leading_components(
    components: int, classes: int, settings: SsccConfig, seen: int
) -> None:
    method = Sscc(components, classes, settings)
    assert method.seen == method.encoder.components == seen
    if method.teacher is not None:
        assert method.teacher.components == components


def test_a_model_that_does_not_say_what_it_sees_sees_all() -> None:
    config = {key: value for key, value in SsccConfig().__dict__.items() if key != "seen"}
    assert Sscc.from_config(30, 4, config).seen == 30
    assert Sscc.from_config(30, 4, Sscc(30, 4).config()).seen == 16


def test_what_is_not_seen_does_not_count() -> None:
    torch.manual_seed(0)
    method = Sscc(20, 4, SsccConfig(width=8, partitions=3)).eval()
    values = torch.randn(1, 20, 30, 30)
    with torch.inference_mode():
        scores = method(values)
        assert torch.equal(method(values[:, :16]), scores)
        values[:, 16:] = 0
        assert torch.equal(method(values), scores)
        values[:, 15:] = 0
        assert not torch.equal(method(values), scores)


def test_settled_labels_as_the_network_does() -> None:
    method = small()
    trained(method, 5)
    method.eval()
    values = torch.randn(1, 3, 40, 300)
    with torch.inference_mode():
        torch.testing.assert_close(method.settled()(values), method(values), rtol=1e-4, atol=1e-4)


def test_reorder_renumbers_the_outputs() -> None:
    method = small().eval()
    values = torch.randn(1, 3, 20, 20)
    with torch.inference_mode():
        before = method(values)
        method.reorder(torch.tensor([3, 1, 0, 2]))
        torch.testing.assert_close(method(values), before[:, [3, 1, 0, 2]])


def test_a_seed_gives_one_network() -> None:
    first, second = small(), small()
    trained(first, 3)
    trained(second, 3)
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_training_goes_on_from_its_state() -> None:
    whole, half = small(), small()
    trained(whole, 6)
    trained(half, 3)
    again = small(seed=7)
    again.load_state_dict(copy.deepcopy(half.state_dict()))
    again.load_optimiser_state({k: v.clone() for k, v in half.optimiser_state().items()})
    trained(again, 3, first=3)
    for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_the_original_encoder_learns_patch_by_patch() -> None:
    settings = replace(SsccConfig.paper(), hidden=16, crops=6)
    method = small(settings=settings)
    assert method.crop_shape.side == 11
    values = torch.randn(6, 3, 11, 11)
    batch = Batch(values, torch.ones(6, 1, 1, dtype=torch.bool))
    before = copy.deepcopy(method.state_dict())
    learned = method.learn(batch, Progress(10, 100), torch.Generator().manual_seed(0))
    assert int(learned.counts.sum()) == 6
    assert not torch.equal(before["encoder.stem.conv.weight"], method.encoder.stem.conv.weight)


@pytest.mark.parametrize(
    "settings",
    [
        {"width": 10**6},
        {"hidden": -1},
        {"encoder": "huge"},
        {"optimiser": "sgd"},
        {"steps": 0},
        {"colour": 1},
        {"partitions": -1},
        {"seen": 0},
        {"seen": 4097},
        {"partitions": 257},
        {"displacement": 1},
        {"smallest_area": 0.5},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        Sscc.from_config(3, 4, settings)


def test_confidence_is_the_largest_probability() -> None:
    scores = torch.tensor([2.0, 0.0, 1.0, -1.0])[None, :, None, None]
    expected = scores.softmax(1).max()
    assert float(small().confidence(scores)) == pytest.approx(float(expected))
