"""Support vector machine and random forest: scikit-learn's labels, dense, from a safe file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC

from hsiclust.bands import Bands
from hsiclust.errors import InputError, ModelError
from hsiclust.facts import info
from hsiclust.modelfile import METHODS, FittedModel, load_model, save_model
from hsiclust.models import pointwise
from hsiclust.models.base import Batch, Lesson, Progress
from hsiclust.models.baseline import Baseline, evenly_chosen
from hsiclust.models.classifier import Samples, labelled_samples
from hsiclust.models.svm import Svm
from hsiclust.onnxexport import export
from hsiclust.palette import Classes
from hsiclust.spectralfit import fit_transform
from hsiclust.tensorfile import DIGEST
from hsiclust.training import train
from hsiclust.trainoptions import TrainOptions

NAMES = ("svm", "forest")
_COMPONENTS, _CLASSES, _ROWS, _COLS = 3, 5, 40, 50
_ABSENT = 2  # a class number that no label has
Edit = Callable[[dict[str, torch.Tensor], dict[str, object]], None]


def tile(
    halo: int, per_class: int = 12, classes: tuple[int, ...] = (0, 1, 3, 4), seed: int = 0
) -> Batch:
    """Fields of some classes with noise, so that classes overlap; some pixels are labelled."""
    generator = np.random.default_rng(seed)
    fields = generator.integers(0, len(classes), (-(-_ROWS // 10), -(-_COLS // 10)))
    fields.flat[: len(classes)] = np.arange(len(classes))
    truth = np.asarray(classes)[np.kron(fields, np.ones((10, 10), int))[:_ROWS, :_COLS]]
    means = generator.normal(0, 1, (_CLASSES, _COMPONENTS))
    values = means[np.pad(truth, halo, mode="edge")].transpose(2, 0, 1)
    values = values + generator.normal(0, 1.2, values.shape)
    trust = np.zeros((_ROWS, _COLS), np.float32)
    for number in classes:
        places = np.flatnonzero(truth == number)
        trust.flat[generator.choice(places, min(per_class, len(places)), replace=False)] = 1
    lesson = Lesson(torch.from_numpy(truth)[None], torch.from_numpy(trust)[None])
    fit = torch.ones(1, _ROWS, _COLS, dtype=torch.bool)
    return Batch(torch.from_numpy(values.astype(np.float32))[None], fit, lesson)


def studied(name: str, batch: Batch | None = None, seed: int = 7) -> Baseline:
    """A method that has studied a tile."""
    method = METHODS[name](_COMPONENTS, _CLASSES, (1.0, 2.0))
    assert isinstance(method, Baseline)
    batch = tile(method.halo) if batch is None else batch
    with torch.no_grad():
        method.study([batch], False, torch.Generator().manual_seed(seed))
    method.eval()
    return method


def model_of(method: Baseline) -> FittedModel:
    block = np.random.default_rng(0).normal(1000, 50, (6, 20, 30))
    transform = fit_transform([(block, np.ones((20, 30), bool))], range(6), components=3)
    return FittedModel(method, transform, Bands(6), None, Classes.numbered(_CLASSES), {})


@pytest.fixture(scope="module", params=NAMES)
def fitted(request: pytest.FixtureRequest) -> Baseline:
    return studied(request.param)


@pytest.fixture(scope="module")
def saved(fitted: Baseline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(fitted.name) / "model.safetensors"
    save_model(model_of(fitted), path)
    return path


def reference(method: Baseline, samples: Samples, seed: int = 7) -> SVC | RandomForestClassifier:
    """scikit-learn's own, with the settings of a method."""
    if isinstance(method, Svm):
        assert method.chosen is not None
        own = SVC(C=method.chosen.cost, gamma=method.chosen.gamma, break_ties=True)
    else:
        drawn = torch.randint(2**31 - 1, (), generator=torch.Generator().manual_seed(seed))
        own = RandomForestClassifier(300, random_state=int(drawn))
    return own.fit(samples.features.numpy(), samples.classes.numpy())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("per_class", "classes"),
    [(12, (0, 1, 3, 4)), (60, (1, 4)), (1, (0, 1, 2, 3, 4)), (3, (0, 3))],
)
def test_labels_are_those_of_scikit_learn(
    name: str, per_class: int, classes: tuple[int, ...]
) -> None:
    batch = tile(6, per_class, classes, seed=per_class)
    method = studied(name, batch)
    samples = labelled_samples(method.space, [batch])
    assert len(samples.classes) == per_class * len(classes)
    with torch.inference_mode():
        found = method(batch.values).max(dim=1).indices.flatten().numpy()
        features = method.space(batch.values).movedim(1, -1).flatten(0, 2).numpy()
    wanted = reference(method, samples).predict(features)
    assert len(np.unique(wanted)) == len(classes)
    assert (found == wanted).mean() >= 0.9999
    assert method.present.nonzero().flatten().tolist() == list(classes)


def test_the_forests_scores_are_log_probabilities() -> None:
    method, batch = studied("forest"), tile(6)
    samples = labelled_samples(method.space, [batch])
    wanted = reference(method, samples).predict_proba(samples.features.numpy())
    with torch.inference_mode():
        scores = method.score(samples.features.T[None, :, :, None])[0, :, :, 0].T
    found = scores[:, method.present].exp().numpy()
    np.testing.assert_allclose(found, np.maximum(wanted, 1e-3), atol=1e-5)


def test_the_machines_decisions_are_those_of_scikit_learn() -> None:
    method, batch = studied("svm"), tile(6)
    assert isinstance(method, Svm)
    samples = labelled_samples(method.space, [batch])
    own = reference(method, samples).set_params(decision_function_shape="ovo", break_ties=False)
    wanted = own.decision_function(samples.features.numpy())
    with torch.inference_mode():
        found = method.machine.decisions(samples.features.T)
    pairs = [(0, 1), (0, 3), (0, 4), (1, 3), (1, 4), (3, 4)]
    for number, (first, second) in enumerate(pairs):
        np.testing.assert_allclose(found[first, second], wanted[:, number], atol=1e-4)
        assert torch.equal(found[first, second], -found[second, first])


def test_a_pixels_scores_do_not_depend_on_the_tile(fitted: Baseline) -> None:
    values = tile(fitted.halo).values
    with torch.inference_mode():
        whole = fitted(values)
        part = fitted(values[:, :, 9:, 4:-3])
    torch.testing.assert_close(part, whole[:, :, 9:, 4:-3], atol=1e-4, rtol=1e-4)
    same = part.max(1).indices == whole[:, :, 9:, 4:-3].max(1).indices
    assert same.float().mean() >= 0.9999


def test_strips_give_the_same(fitted: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    values = tile(fitted.halo).values.expand(2, -1, -1, -1)
    with torch.inference_mode():
        whole = fitted(values)
        # 7 pixels at once: strips end within rows
        monkeypatch.setattr(pointwise, "_STRIP_VALUES", 14 * fitted.network.floats_per_pixel)
        strips = fitted(values.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(strips, whole, atol=1e-5, rtol=1e-5)
    assert torch.equal(whole[0], whole[1])


def test_values_that_are_far_off_get_a_class(fitted: Baseline) -> None:
    values = torch.full((1, _COMPONENTS, 13, 14), 3e38)
    values[:, :, :, 7:] *= -1
    with torch.inference_mode():
        scores = fitted(values)
    assert not bool(scores.isnan().any())
    assert bool(fitted.present[scores.max(dim=1).indices].all())


def test_an_absent_class_never_wins(fitted: Baseline) -> None:
    with torch.inference_mode():
        scores = fitted(tile(fitted.halo, seed=3).values)
    assert _ABSENT not in scores.max(dim=1).indices
    confidence = fitted.confidence(scores)
    assert float(confidence.min()) > 1 / _CLASSES
    assert float(confidence.max()) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_one_fit(name: str) -> None:
    first, second = studied(name).state_dict(), studied(name).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_one_class_cannot_be_learned(name: str) -> None:
    with pytest.raises(InputError, match="12 labelled pixels of 1 classes"):
        studied(name, tile(6, classes=(3,)))
    bare = tile(6)
    with pytest.raises(InputError, match="0 labelled pixels"):
        studied(name, Batch(bare.values, bare.fit))


def test_there_are_no_steps(fitted: Baseline) -> None:
    assert fitted.default_steps == 0
    with pytest.raises(NotImplementedError, match="no steps"):
        fitted.learn(tile(fitted.halo), Progress(0, 1), torch.Generator())


def test_a_class_is_not_crowded_out() -> None:
    classes = torch.tensor([0] * 1000 + [1] * 3 + [2] * 50)
    samples = Samples(torch.arange(1053.0)[:, None], classes)
    chosen = evenly_chosen(samples, 43, torch.Generator().manual_seed(0))
    assert torch.bincount(chosen.classes).tolist() == [20, 3, 20]
    assert torch.equal(classes[chosen.features[:, 0].long()], chosen.classes)
    assert len(chosen.features.unique()) == 43
    assert evenly_chosen(samples, 1053, torch.Generator()) is samples


def test_the_cap_on_labels_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Svm, "most_labels", 20)
    with caplog.at_level("INFO"):
        method = studied("svm")
    assert isinstance(method, Svm)
    assert "svm is fitted to 20 of 48 labelled pixels" in caplog.text
    assert max(method.machine.support) <= 5


@pytest.mark.parametrize("name", NAMES)
def test_the_callers_random_numbers_stay_as_they_are(name: str) -> None:
    before = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    studied(name)
    after = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    assert before["pos"] == after["pos"]
    np.testing.assert_array_equal(before["key"], after["key"])


def test_a_model_comes_back_as_it_was(fitted: Baseline, saved: Path) -> None:
    again = load_model(saved).method
    assert isinstance(again, Baseline)
    assert again.config() == fitted.config()
    values = tile(fitted.halo, seed=5).values
    with torch.inference_mode():
        assert torch.equal(again(values), fitted(values))
    assert info(str(saved))["config"] == fitted.config()


def edited(saved: Path, path: Path, edit: Edit) -> Path:
    """A copy of a model file with other tensors or settings, and without a digest."""
    with safe_open(saved, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["hsiclust"])
    del tensors[DIGEST]
    edit(tensors, metadata)
    save_file(tensors, path, {"hsiclust": json.dumps(metadata)})
    return path


def _setting(name: str, value: object) -> Edit:
    def edit(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
        config = metadata["config"]
        assert isinstance(config, dict)
        config[name] = value

    return edit


def _value(name: str, place: int, value: float) -> Edit:
    def edit(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
        tensors[f"network.{name}"].view(-1)[place] = value

    return edit


SETTINGS = [
    ("deviations", [-1.0], "deviations"),
    ("deviations", [1e9], "deviations"),
    ("deviations", [], "deviations"),
    ("deviations", [float("nan")], "deviations"),
    ("deviations", "x", "settings"),
]
OF_SVM = [
    ("support", [10**12] * 5, "support"),
    ("support", [9_000] * 5, "support vectors"),
    ("support", [1, 2], "2 classes"),
    ("support", [-1, 1, 1, 1, 1], "support is -1"),
    ("support", [1.5, 1, 1, 1, 1], "support is 1.5"),
    ("support", 3, "settings"),
]
OF_FOREST = [
    ("trees", 10**9, "trees is"),
    ("nodes", 10**12, "nodes is"),
    ("leaves", 2**24, "leaves is"),
    ("leaves", True, "leaves is True"),
    ("nodes", None, "nodes is None"),
    ("nodes", 5, "shape"),
]


def test_settings_that_cannot_be(fitted: Baseline, saved: Path, tmp_path: Path) -> None:
    for name, value, told in SETTINGS + (OF_SVM if fitted.name == "svm" else OF_FOREST):
        path = edited(saved, tmp_path / "bad.safetensors", _setting(name, value))
        with pytest.raises(ModelError, match=told):
            load_model(path)


VALUES_OF_SVM = [
    ("strips.network.gamma", 0, -1.0),
    ("strips.network.bias", 1, 5.0),
    ("present", _ABSENT, True),
    ("space.scale", 0, 0.0),
]
VALUES_OF_FOREST = [
    ("strips.network.roots", 0, -1),
    ("strips.network.roots", 5, 2**30),
    ("strips.network.depths", 0, 10**6),
    ("strips.network.depths", 299, 40),  # not the deepest
    ("strips.network.feature", 0, 6),
    ("strips.network.child", 3, 2),  # upwards: a circle
    ("strips.network.child", 0, 10**9),
    ("strips.network.threshold", -1, 0.0),  # the last node is a leaf: what comes after it?
    ("strips.network.leaf", -1, 10**6),
    ("strips.network.distribution", 0, -1.0),
    ("strips.network.distribution", 0, 9.0),
]


def test_values_that_cannot_be(fitted: Baseline, saved: Path, tmp_path: Path) -> None:
    for name, place, value in VALUES_OF_SVM if fitted.name == "svm" else VALUES_OF_FOREST:
        path = edited(saved, tmp_path / "bad.safetensors", _value(name, place, value))
        with pytest.raises(ModelError, match=r"damaged: (the|no|a) "):
            load_model(path)


def test_a_machine_is_exported_and_a_forest_is_not(
    fitted: Baseline, saved: Path, tmp_path: Path
) -> None:
    if fitted.name == "svm":
        assert export(saved, tmp_path / "svm.onnx").agreement >= 0.9999
        return
    with pytest.raises(ModelError, match="export it is not possible; predict with the model file"):
        export(saved, tmp_path / "forest.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_training_takes_no_steps(name: str, fields: tuple[Path, Path], tmp_path: Path) -> None:
    options = TrainOptions(method=name, labels=fields[1], device="cpu")
    seen: list[object] = []
    result = train([str(fields[0])], tmp_path / "model.safetensors", options, seen.append)
    assert result.steps == 0
    assert seen == []
    assert result.held_out is not None
    model = load_model(result.model)
    assert model.provenance["steps"] == 0
    assert model.provenance["loss"] is None
    assert ("C" in model.provenance["choices"]) == (name == "svm")
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
