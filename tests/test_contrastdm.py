"""ContrastDM with trainings of a few steps: what is tested hangs on no recipe."""

import dataclasses
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from conftest import Killed, fields_cube, write_raster

import hsiclust.training as loop
from hsiclust.api import plan_prediction, predict
from hsiclust.engine import EngineOptions
from hsiclust.errors import InputError, ModelError, UsageError
from hsiclust.modelfile import load_model, save_model
from hsiclust.models import jury, sights
from hsiclust.models.base import Batch, Lesson, Progress
from hsiclust.models.contrastdm import ContrastDm
from hsiclust.models.contrastdm_parts import DIFFUSION, DISTILLATION, PRETRAINING, phases
from hsiclust.models.contrastdm_settings import ContrastDmConfig
from hsiclust.models.contrastdm_training import balanced
from hsiclust.models.encoder import count_multiply_adds
from hsiclust.models.settings import SsccConfig
from hsiclust.models.sscc import Sscc
from hsiclust.newmethod import _heir
from hsiclust.predictoptions import PredictOptions
from hsiclust.trained import Step
from hsiclust.training import train
from hsiclust.trainoptions import TrainOptions

ENGINE = EngineOptions(threads=1)
# Whatever is learned, for so many steps from small batches.
LENGTH = 5
QUICK = {
    field.name: LENGTH if field.name.endswith("steps") else 24
    for field in dataclasses.fields(ContrastDmConfig)
    if field.name.endswith(("steps", "batch"))
}
DIFFUSING = replace(
    ContrastDmConfig(**QUICK),
    deviations=(0.0, 1.0, 2.0),
    widths=(24, 24, 8),
    coders=2,
    nets=2,
    projected=16,
    refined=True,
    synthetic=3,
)
SHORT = replace(DIFFUSING, diffusion_steps=0, refined=False, synthetic=0)
PHASES = phases(DIFFUSING)
# In the middle of each phase, and where some begin.
KILLED_AT = [LENGTH + 1, 3 * LENGTH + 1, *(LENGTH * number + 3 for number in range(len(PHASES)))]


def stages(settings: ContrastDmConfig) -> list[str]:
    """What a training is told to do, in turn."""
    return [f"{phase.kind} {phase.net + 1}" for phase in phases(settings)]


@pytest.fixture(autouse=True)
def few_jurors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sights, "_VIEWS", sights._VIEWS[:2])
    monkeypatch.setattr(sights, "_DIFFUSED", ())
    monkeypatch.setattr(jury, "_SPREADS", jury._SPREADS[:2])


def scene_and_truth(folder: Path) -> tuple[Path, Path]:
    cube, truth = fields_cube(45, 45)
    return (
        write_raster(folder / "scene.tif", cube, nodata=-9999),
        write_raster(folder / "truth.tif", truth[None], nodata=0),
    )


@pytest.fixture
def fields(tmp_path: Path) -> tuple[Path, Path]:
    """Smaller than those of other tests: many trainings are to be quick."""
    return scene_and_truth(tmp_path)


@pytest.fixture
def options(fields: tuple[Path, Path]) -> TrainOptions:
    return TrainOptions(
        labels=fields[1], per_class=8, contrastdm=SHORT, device="cpu", engine=ENGINE
    )


def pretraining(options: TrainOptions) -> TrainOptions:
    return replace(options, method="contrastdm", labels=None, per_class=None)


def method_of(path: Path) -> ContrastDm:
    found = load_model(path).method
    assert isinstance(found, ContrastDm)
    return found


def same(one: Path, other: Path) -> bool:
    first, second = method_of(one).state_dict(), method_of(other).state_dict()
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def coders(path: Path) -> dict[str, torch.Tensor]:
    return dict(method_of(path).parts.coders.state_dict())


def test_settings_come_back_as_they_were() -> None:
    settings = replace(DIFFUSING, deviations=(0.0, 2.5), synthesis="gaussians", guest_width=7)
    settings = replace(settings, guest_seen=2)
    method = ContrastDm(5, 3, settings)
    assert method.parts.guest is not None
    assert method.parts.guest.stem.conv.weight.shape == (7, 2, 1, 1)
    config = json.loads(json.dumps(method.config()))
    again = ContrastDm.from_config(5, 3, config)
    assert again.settings == settings
    assert {n: v.shape for n, v in again.state_dict().items()} == {
        n: v.shape for n, v in method.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("colour", "red"),
        ("nets", 0),
        ("nets", 10**9),
        ("nets", "three"),
        ("nets", 2.5),
        ("coders", -1),
        ("coders", 10**9),
        ("widths", [64]),
        ("widths", [10**9, 64]),
        ("widths", 5),
        ("widths", ["a", "b"]),
        ("projected", 0),
        ("steps", -1),
        ("steps", 10**12),
        ("diffusion_steps", None),
        ("deviations", [0.0]),
        ("deviations", []),
        ("deviations", [-1.0, 2.0]),
        ("deviations", [1e9]),
        ("deviations", [float("nan"), 1.0]),
        ("deviations", [float("inf")]),
        ("deviations", [1.0] * 99),
        ("deviations", "12"),
        ("guest_width", -1),
        ("guest_width", 10**12),
        ("guest_seen", -1),
        ("guest_seen", 10**12),
        ("synthesis", "magic"),
    ],
)
def test_settings_that_cannot_be_are_refused(name: str, value: object) -> None:
    config = {**ContrastDm(3, 4, SHORT).config(), name: value}
    with torch.device("meta"), pytest.raises(ModelError) as caught:
        ContrastDm.from_config(3, 4, config)
    assert "\n" not in str(caught.value)


def test_settings_that_are_missing_are_refused() -> None:
    with pytest.raises(ModelError, match="not understood"):
        ContrastDm.from_config(3, 4, {})


def test_a_pixel_takes_few_operations() -> None:
    method = ContrastDm(24, 16).eval()
    side = 2 * method.halo + 40
    counted = count_multiply_adds(method.settled(), 24, side) + method.space.multiply_adds
    assert counted <= 400_000
    widths = (method.space.features, *method.settings.widths, 16)
    layers = sum(one * other for one, other in itertools.pairwise(widths))
    assert counted == method.settings.nets * layers + method.space.multiply_adds


def test_a_label_hangs_on_its_window_and_no_more() -> None:
    torch.manual_seed(0)
    method = ContrastDm(2, 3, SHORT).eval()
    network, side = method.settled(), 41 + 2 * method.halo
    assert method.receptive_field == 2 * method.halo + 1 == 13
    values = torch.randn(1, 2, side, side)
    with torch.inference_mode():
        before = network(values)
        assert before.shape == (1, 3, 41, 41)
        values[..., side // 2, side // 2] += 100
        changed = (network(values) != before).any(dim=1)[0]
    rows, cols = torch.nonzero(changed).T
    reach = method.halo
    assert (int(rows.min()), int(rows.max())) == (20 - reach, 20 + reach)
    assert (int(cols.min()), int(cols.max())) == (20 - reach, 20 + reach)


def test_settled_it_gives_the_same_scores() -> None:
    torch.manual_seed(0)
    method = ContrastDm(2, 4, SHORT)
    method.space.mean.normal_()
    method.space.scale.uniform_(0.5, 2)
    method.present[2] = False
    method.eval()
    values = torch.randn(2, 2, 30, 31)
    with torch.inference_mode():
        wanted, found = method(values), method.settled()(values)
    known = method.present
    torch.testing.assert_close(found[:, known], wanted[:, known], atol=1e-4, rtol=1e-4)
    assert torch.equal(found.argmax(1), wanted.argmax(1))
    torch.testing.assert_close(method.confidence(found), method.confidence(wanted))


def test_labels_of_one_class_cannot_be_learned_from() -> None:
    method = ContrastDm(3, 4, SHORT)
    side = 10 + 2 * method.crop_shape.context
    fit = torch.ones(1, 10, 10, dtype=torch.bool)
    lesson = Lesson(torch.ones(1, 10, 10, dtype=torch.int64), fit.float())
    with pytest.raises(InputError, match="100 labelled pixels of 1 classes"):
        method.study([Batch(torch.randn(1, 3, side, side), fit, lesson)], False, torch.Generator())


def test_steps_come_after_pixels() -> None:
    method = ContrastDm(3, 4, SHORT)
    nothing = Batch(torch.zeros(0, 3, 1, 1), torch.zeros(0, 1, 1, dtype=torch.bool))
    with pytest.raises(RuntimeError, match="gathered"):
        method.learn(nothing, Progress(0, 5), torch.Generator())


def test_a_batch_is_balanced() -> None:
    classes = torch.tensor([3] * 500 + [0] * 2 + [1] * 40)
    drawn = balanced(classes, 6000, torch.Generator().manual_seed(0))
    shares = torch.bincount(classes[drawn], minlength=4) / 6000
    torch.testing.assert_close(shares, torch.tensor([1, 1, 0, 1]) / 3, atol=0.03, rtol=0)
    assert len(drawn.unique()) > 500


def test_a_training_goes_through_its_phases(
    fields: tuple[Path, Path], options: TrainOptions, tmp_path: Path
) -> None:
    seen: list[Step] = []
    asked = replace(options, contrastdm=DIFFUSING)
    result = train([str(fields[0])], tmp_path / "m", asked, seen.append)
    assert [step.stage for step in seen] == [
        name for name in stages(DIFFUSING) for _ in range(LENGTH)
    ]
    kinds = [*dict.fromkeys(phase.kind for phase in PHASES)]
    assert (kinds[0], kinds[-1]) == (PRETRAINING, DISTILLATION)
    assert DIFFUSION in kinds
    assert all(np.isfinite(step.loss) for step in seen)
    assert result.steps == LENGTH * len(PHASES)
    assert result.supervised
    assert {"cross_validated_accuracy", "spreads"} <= set(result.choices)
    assert load_model(result.model).provenance["choices"] == result.choices


def test_a_seed_gives_one_model(
    fields: tuple[Path, Path], options: TrainOptions, tmp_path: Path
) -> None:
    asked = replace(options, contrastdm=DIFFUSING)
    for name in ("a", "b"):
        train([str(fields[0])], tmp_path / name, asked)
    train([str(fields[0])], tmp_path / "c", replace(asked, seed=1))
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("at", KILLED_AT)
def test_a_killed_training_goes_on_to_the_same_model_in_each_phase(
    fields: tuple[Path, Path],
    options: TrainOptions,
    tmp_path: Path,
    at: int,
    monkeypatch: pytest.MonkeyPatch,
    whole: Path,
) -> None:
    asked = replace(options, contrastdm=DIFFUSING, labels=whole.parent / "truth.tif")
    scene = str(whole.parent / "scene.tif")
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY", 0.0)

    def kill(step: Step) -> None:
        if step.step == at:
            raise Killed

    with pytest.raises(Killed):
        train([scene], tmp_path / "model", asked, kill)
    seen: list[int] = []
    train([scene], tmp_path / "model", asked, lambda step: seen.append(step.step))
    assert seen[0] == at  # the checkpoint was of the step before
    assert same(whole, tmp_path / "model")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    scene, labels = scene_and_truth(folder)
    options = TrainOptions(
        labels=labels, per_class=8, contrastdm=DIFFUSING, device="cpu", engine=ENGINE
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sights, "_VIEWS", sights._VIEWS[:2])
        patch.setattr(sights, "_DIFFUSED", ())
        patch.setattr(jury, "_SPREADS", jury._SPREADS[:2])
        train([str(scene)], folder / "model", options)
    return folder / "model"


def test_a_training_of_some_steps_finds_the_fields(
    fields: tuple[Path, Path], options: TrainOptions, tmp_path: Path
) -> None:
    longer = replace(DIFFUSING, steps=60, rate=5e-3)
    result = train([str(fields[0])], tmp_path / "m", replace(options, contrastdm=longer))
    assert result.held_out is not None
    assert result.held_out.accuracy.accuracy > 0.95


def test_labels_do_not_depend_on_tiles_or_threads(options: TrainOptions, tmp_path: Path) -> None:
    cube, truth = fields_cube(110, 120)
    scene = str(write_raster(tmp_path / "large.tif", cube, nodata=-9999))
    labels = write_raster(tmp_path / "labels.tif", truth[None], nodata=0)
    model = tmp_path / "m"
    train([scene], model, replace(options, labels=labels))
    maps, files = [], []
    for side, threads in ((32, 1), (32, 3), (100, 1), (None, 1)):
        output = tmp_path / f"{side}_{threads}.tif"
        engine = EngineOptions(threads=threads)
        asked = PredictOptions(device="cpu", tile=side, confidence=True, engine=engine)
        predict(scene, model, output, asked)
        files.append((output.read_bytes(), output.with_name(f"{output.stem}_confidence.tif")))
        with rasterio.open(output) as dataset:
            maps.append(dataset.read(1))
    assert len(np.unique(maps[0])) > 1
    for other in maps[1:]:
        assert (other == maps[0]).mean() >= 0.9999
    assert files[0][0] == files[1][0]
    assert files[0][1].read_bytes() == files[1][1].read_bytes()


def test_without_labels_it_pretrains_and_no_more(
    fields: tuple[Path, Path], options: TrainOptions, tmp_path: Path
) -> None:
    seen: list[str] = []
    result = train(
        [str(fields[0])],
        tmp_path / "pre",
        pretraining(options),
        lambda step: seen.append(step.stage),
    )
    assert [*dict.fromkeys(seen)] == stages(SHORT)[:2]
    assert (result.steps, result.held_out, result.choices) == (2 * LENGTH, None, {})
    assert not result.collapsed
    assert {file.name for file in tmp_path.iterdir()} == {"pre", "scene.tif", "truth.tif"}


def test_a_model_that_knows_no_classes_labels_nothing(
    fields: tuple[Path, Path], options: TrainOptions, tmp_path: Path
) -> None:
    train([str(fields[0])], tmp_path / "pre", pretraining(options))
    before = set(tmp_path.iterdir())
    with pytest.raises(ModelError, match=r"pre: this model is only pre-trained .* --init") as found:
        plan_prediction(
            str(fields[0]), tmp_path / "pre", tmp_path / "map.tif", PredictOptions(device="cpu")
        )
    assert found.value.exit_code == 4
    assert "\n" not in str(found.value)
    assert set(tmp_path.iterdir()) == before


def test_what_was_pretrained_is_taken_over(
    fields: tuple[Path, Path], options: TrainOptions, tmp_path: Path
) -> None:
    train([str(fields[0])], tmp_path / "pre", pretraining(options))
    seen: list[str] = []
    train(
        [str(fields[0])],
        tmp_path / "m",
        replace(options, init=tmp_path / "pre", contrastdm=replace(DIFFUSING, widths=(9, 9))),
        lambda step: seen.append(step.stage),
    )
    assert [*dict.fromkeys(seen)] == stages(DIFFUSING)[2:]  # no pre-training again
    pre, model = method_of(tmp_path / "pre"), method_of(tmp_path / "m")
    assert model.settings.widths == pre.settings.widths
    assert model.settings.pretrained
    for name, value in coders(tmp_path / "pre").items():
        assert torch.equal(value, coders(tmp_path / "m")[name])
    assert torch.equal(pre.space.mean, model.space.mean)
    first, second = load_model(tmp_path / "pre"), load_model(tmp_path / "m")
    assert first.transform.equals(second.transform)


def test_pretraining_goes_on_without_labels(
    fields: tuple[Path, Path], options: TrainOptions, tmp_path: Path
) -> None:
    train([str(fields[0])], tmp_path / "pre", pretraining(options))
    result = train(
        [str(fields[0])], tmp_path / "on", replace(pretraining(options), init=tmp_path / "pre")
    )
    assert result.steps == 2 * LENGTH
    assert not method_of(tmp_path / "on").knows_classes
    before, after = coders(tmp_path / "pre"), coders(tmp_path / "on")
    weights = [key for key in before if key.endswith("weight")]
    assert weights
    assert not any(torch.equal(before[key], after[key]) for key in weights)


def test_a_model_of_other_classes_is_gone_on_from(
    fields: tuple[Path, Path], options: TrainOptions, tmp_path: Path
) -> None:
    train([str(fields[0])], tmp_path / "old", options)
    with rasterio.open(fields[1]) as dataset:
        truth = dataset.read(1)
    other = write_raster(tmp_path / "two.tif", (truth > 2).astype(np.uint8)[None] * 6 + 1, nodata=0)
    train([str(fields[0])], tmp_path / "m", replace(options, labels=other, init=tmp_path / "old"))
    model = load_model(tmp_path / "m")
    assert model.method.classes == len(model.classes.names) == 7
    assert isinstance(model.method, ContrastDm)
    assert model.method.present.nonzero().flatten().tolist() == [0, 6]
    for name, value in coders(tmp_path / "old").items():
        assert torch.equal(value, coders(tmp_path / "m")[name])


@pytest.mark.parametrize("seen", [6, 3])
def test_the_encoder_of_a_clustering_is_one_more_coder(
    fields: tuple[Path, Path], options: TrainOptions, tmp_path: Path, seen: int
) -> None:
    clustering = TrainOptions(
        method="sscc", classes=4, steps=2, components=6, device="cpu", engine=ENGINE
    )
    train([str(fields[0])], tmp_path / "sscc", clustering)
    if seen < 6:
        fewer = Sscc(6, 4, SsccConfig(partitions=0, seen=seen))
        save_model(replace(load_model(tmp_path / "sscc"), method=fewer), tmp_path / "sscc")
    result = train([str(fields[0])], tmp_path / "m", replace(options, init=tmp_path / "sscc"))
    assert result.steps == LENGTH * len(phases(SHORT))
    own, heir = load_model(tmp_path / "sscc").method, method_of(tmp_path / "m")
    assert isinstance(own, Sscc)
    assert heir.parts.guest is not None
    assert heir.components == 6
    guest = heir.parts.guest.state_dict()
    for name, value in own.encoder.state_dict().items():
        assert torch.equal(value, guest[name])
    predict(str(fields[0]), tmp_path / "m", tmp_path / "map.tif", PredictOptions(device="cpu"))


def refused(scene: Path, options: TrainOptions, model: Path, *words: str) -> None:
    """Going on from a model is refused in one line, and leaves nothing behind."""
    before = set(model.parent.iterdir())
    with pytest.raises(UsageError) as found:
        train([str(scene)], model.parent / "new", replace(options, init=model))
    for word in words:
        assert word in str(found.value)
    assert "\n" not in str(found.value)
    assert set(model.parent.iterdir()) == before


def test_models_that_have_no_coders_are_not_gone_on_from(
    fields: tuple[Path, Path], options: TrainOptions, tmp_path: Path
) -> None:
    others = {
        "kmeans": TrainOptions(method="kmeans", classes=4, steps=2, engine=ENGINE),
        "svm": replace(options, method="svm", contrastdm=None),
    }
    for name, asked in others.items():
        train([str(fields[0])], tmp_path / name, asked)
        refused(fields[0], options, tmp_path / name, "--init", name)


def test_the_papers_encoder_is_not_taken_over(options: TrainOptions) -> None:
    paper = Sscc(3, 4, SsccConfig.paper())
    with pytest.raises(UsageError, match="with the dense encoder, not from sscc"):
        _heir(paper, 4, options)


def test_other_methods_do_not_go_on_from_a_contrastdm(
    fields: tuple[Path, Path], options: TrainOptions, tmp_path: Path
) -> None:
    train([str(fields[0])], tmp_path / "old", pretraining(options))
    for method in ("kmeans", "sscc", "svm", "forest"):
        asked = TrainOptions(
            method=method,
            device="cpu",
            engine=ENGINE,
            labels=(options.labels if method in ("svm", "forest") else None),
        )
        refused(fields[0], asked, tmp_path / "old", str(tmp_path / "old"), method)


@pytest.mark.parametrize("labelled", ["first", "second"])
def test_several_scenes_of_which_one_has_no_labels(
    options: TrainOptions, tmp_path: Path, labelled: str
) -> None:
    cube, truth = fields_cube(45, 45)
    far = rasterio.Affine(30.0, 0.0, 500000.0, 0.0, -30.0, 5800000.0)
    here = write_raster(tmp_path / "here.tif", cube, nodata=-9999)
    there = write_raster(tmp_path / "there.tif", cube + np.int16(20), nodata=-9999, transform=far)
    labels = write_raster(tmp_path / "labels.tif", truth[None], nodata=0)
    scenes = [here, there] if labelled == "first" else [there, here]
    result = train([*map(str, scenes)], tmp_path / "m", replace(options, labels=labels))
    assert result.pixels == 2 * 45 * 45
    assert result.held_out is not None
    provenance = load_model(result.model).provenance
    assert provenance["labels"]["training"] == [8, 8, 0, 8]
    assert [path.name for path in result.split] == [
        f"m_{number}_{part}.tif" for number in (1, 2) for part in ("training", "held_out")
    ]
    for path in result.split:
        with rasterio.open(path) as dataset:
            number = 1 if labelled == "first" else 2
            assert bool(dataset.read(1).any()) == path.name.startswith(f"m_{number}")
            assert (dataset.transform == far) != path.name.startswith(f"m_{number}")
