import json

import pytest
import torch

from hsiclust.models import jury as module
from hsiclust.models import sights
from hsiclust.models.base import Batch, Lesson
from hsiclust.models.jury import Jury, Synthetic
from hsiclust.models.pixeltable import PixelTable
from hsiclust.models.sights import CONTEXT, Sights, Spread

_ROWS, _COLS = 24, 26


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer jurors and ways to spread; what is tested hangs on none of them."""
    monkeypatch.setattr(sights, "_VIEWS", (sights._VIEWS[0], sights._VIEWS[4]))
    monkeypatch.setattr(sights, "_DIFFUSED", ((3, Spread("ground", 0.9, 10)),))
    graphs = ("bare ground", "features", "fine", "coarse")
    monkeypatch.setattr(module, "_SPREADS", tuple(Spread(name, 0.5, 8) for name in graphs))


def fields(
    per_class: int = 6, apart: float = 4.0, seed: int = 0
) -> tuple[PixelTable, torch.Tensor, torch.Tensor]:
    """Fields of classes 0, 1 and 3; their pixels, `(M,)` true classes, and noise `(M, 4)`."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.tensor([[0, 1, 3], [3, 0, 1]]).repeat_interleave(12, 0).repeat_interleave(9, 1)
    truth = coarse[:_ROWS, :_COLS]
    means = apart * torch.tensor([[0.0, 0, 0], [1, 0, 1], [9, 9, 9], [0, 1, 1]])
    rows = torch.arange(-CONTEXT, _ROWS + CONTEXT).clamp(0, _ROWS - 1)
    cols = torch.arange(-CONTEXT, _COLS + CONTEXT).clamp(0, _COLS - 1)
    values = means[truth[rows][:, cols]].movedim(-1, 0)
    values = values + torch.randn(values.shape, generator=random)
    trust = torch.zeros(_ROWS, _COLS)
    for number in (0, 1, 3):
        places = torch.nonzero((truth == number).flatten())[:, 0]
        trust.view(-1)[places[torch.randperm(len(places), generator=random)[:per_class]]] = 1
    fit = torch.ones(1, _ROWS, _COLS, dtype=torch.bool)
    fit[0, 3, 4:9] = False
    table = PixelTable.of([Batch(values[None], fit, Lesson(truth[None], trust[None]))])
    known = truth[fit[0]]
    return table, known, torch.randn(len(known), 4, generator=random)


def jury_of(table: PixelTable, seed: int = 0) -> Jury:
    return Jury(table, 5, torch.Generator().manual_seed(seed))


def test_on_easy_fields_the_jury_finds_the_truth() -> None:
    table, truth, _ = fields()
    verdict = jury_of(table).hear()
    assert verdict.chances.shape == (len(table), 5)
    torch.testing.assert_close(verdict.chances.sum(dim=1), torch.ones(len(table)))
    assert float((verdict.chances.argmax(dim=1) == truth).float().mean()) > 0.95
    assert verdict.accuracy > 0.9
    assert sum(verdict.spreads.values()) == pytest.approx(1, abs=0.1)


def test_a_class_without_labels_gets_no_chance() -> None:
    table, truth, noise = fields(apart=1.0)
    for verdict in (jury_of(table).hear(), jury_of(table).hear([codes_of(truth, noise)])):
        assert bool((verdict.chances[:, [2, 4]] == 0).all())
        assert bool((verdict.chances >= 0).all())


def test_the_same_seed_gives_the_same_verdict() -> None:
    table, truth, noise = fields(apart=1.0)
    codes = codes_of(truth, 5 * noise)
    one, other = jury_of(table).hear([codes]), jury_of(table).hear([codes])
    assert torch.equal(one.chances, other.chances)
    assert one.choices() == other.choices()
    assert not torch.equal(jury_of(table, seed=1).hear([codes]).chances, one.chances)


def test_labels_of_chance_are_not_found_again() -> None:
    """Where pixels say nothing of their class, accuracy on the labels left out is that of chance:
    more would mean that a fold has heard its own labels."""
    table, _, _ = fields(per_class=40, apart=0.0)
    random = torch.Generator().manual_seed(1)
    mixed = table.classes.clone()
    mixed[table.labelled] = mixed[table.labelled][torch.randperm(120, generator=random)]
    table = PixelTable(**{**table.__dict__, "classes": mixed})
    jury = jury_of(table)
    assert jury.hear([jury.table.features(lambda values: values, 0)]).accuracy < 0.5


def codes_of(truth: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Codes that know the classes, `(M, 4)`."""
    return 3 * torch.nn.functional.one_hot(truth, 5).float()[:, :4] + 0.3 * noise


def test_a_juror_never_hears_the_labels_of_the_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    table, truth, noise = fields(apart=1.0)
    codes = codes_of(truth, noise)
    # One juror a bench: what jurors weigh against each other is learned from all labels.
    monkeypatch.setattr(Sights, "each", lambda self: iter([module.ridge.scaled(codes + noise)]))
    heard: list[list[torch.Tensor]] = []
    spread = Jury._spread

    def watched(self: Jury, votes: list[torch.Tensor], *rest: float) -> module.Verdict:
        heard.append([vote.clone() for vote in votes])
        return spread(self, votes, *rest)

    monkeypatch.setattr(Jury, "_spread", watched)
    jury = jury_of(table)
    label = 7
    own = int(jury.fold[label])
    made = Synthetic(codes[:10], torch.arange(10) % 2)
    weights = [jury.hear([codes], synthetic=made).codes]
    jury.known[label] = (jury.known[label] + 1) % 2
    weights.append(jury.hear([codes], synthetic=made).codes)
    assert weights == [1, 1]
    for fold, (before, after) in enumerate(zip(*heard, strict=True)):
        assert torch.equal(before, after) == (fold == own)


def test_a_juror_who_does_worse_is_hardly_heard() -> None:
    table, truth, noise = fields(apart=1.0)
    jury = jury_of(table)
    clear = torch.nn.functional.one_hot(truth, 5).float() + 0.05 * noise.repeat(1, 2)[:, :5]
    alone = jury._bench([clear])[0][-1]
    for seen in ([clear, noise], [noise, clear]):
        together = jury._bench(seen)[0][-1]
        torch.testing.assert_close(together, alone, atol=0.02, rtol=0)
    useless = jury._bench([noise])[0][-1]
    assert float((useless - alone).abs().max()) > 0.3


def test_codes_that_know_the_classes_are_heard() -> None:
    table, truth, noise = fields(apart=0.3)
    without, having = jury_of(table).hear(), jury_of(table).hear([codes_of(truth, noise)])
    assert (without.codes, having.codes) == (0, 1)
    right = [float((v.chances.argmax(1) == truth).float().mean()) for v in (without, having)]
    assert right[0] < 0.8
    assert right[1] > 0.95


def test_codes_that_say_nothing_are_not_heard() -> None:
    table, _, noise = fields()
    without, having = jury_of(table).hear(), jury_of(table).hear([noise])
    assert having.codes == 0
    assert torch.equal(without.chances, having.chances)


def test_codes_count_less_the_less_accurate_they_are() -> None:
    found = [module._gate(advantage / 100) for advantage in range(-100, 101)]
    assert found == sorted(found)
    assert (found[0], found[100], found[-1]) == (0, 1, 1)
    assert any(0 < weight < 1 for weight in found)


def test_synthetic_codes_are_heard_like_labelled_ones() -> None:
    """Those of real pixels give what labels of these pixels would have given."""
    table, truth, noise = fields(per_class=3, apart=0.3)
    codes = 4 + 3 * torch.nn.functional.one_hot(truth, 5).float()[:, :4] + 2 * noise
    extra = torch.arange(20, len(table), 12)
    found = jury_of(table)._with_synthetic(codes, Synthetic(codes[extra], truth[extra]))
    features = module.ridge.scaled(module.standardised(codes))
    heard = features[torch.cat([jury_of(table).rows, extra])]
    known = torch.cat([jury_of(table).known, truth[extra]])
    weights = module.ridge.solved(module.ridge.kernel(heard, heard), known, 5)
    wanted = module.ridge.scores(features, heard, weights).clamp(0, 1)
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)


def test_of_many_labels_some_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LABELS", 21)
    table, _, _ = fields(per_class=20)
    jury = jury_of(table)
    assert len(jury.rows) == 21
    assert torch.bincount(jury.known).tolist() == [7, 7, 0, 7]
    assert torch.equal(table.classes[jury.rows], jury.known)


def test_choices_are_plain_values() -> None:
    table, _, _ = fields()
    choices = json.loads(json.dumps(jury_of(table).hear().choices()))
    assert 0 <= choices["cross_validated_accuracy"] <= 1
    assert set(choices["spreads"]) <= {
        "none",
        "bare ground 0.5",
        "features 0.5",
        "fine 0.5",
        "coarse 0.5",
    }


def test_the_whole_jury_finds_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all its jurors and graphs."""
    monkeypatch.undo()
    table, truth, _ = fields(apart=2.0)
    verdict = jury_of(table).hear()
    assert float((verdict.chances.argmax(dim=1) == truth).float().mean()) > 0.95
