import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hsiclust.bands import Bands
from hsiclust.errors import ModelError
from hsiclust.modelfile import FittedModel, load_model, save_model
from hsiclust.models.kmeans import KMeans
from hsiclust.models.settings import SsccConfig
from hsiclust.models.sscc import Sscc
from hsiclust.palette import Classes
from hsiclust.spectralfit import fit_transform
from hsiclust.tensorfile import DIGEST

Edit = Callable[[dict[str, torch.Tensor], dict[str, object]], None]


@pytest.fixture
def model() -> FittedModel:
    generator = np.random.default_rng(0)
    block = generator.normal(1000, 50, (6, 20, 30))
    transform = fit_transform([(block, np.ones((20, 30), bool))], range(1, 7), components=3)
    torch.manual_seed(0)
    method = Sscc(3, 4, SsccConfig(width=8, hidden=16, partitions=3))
    assert method.teacher is not None
    with torch.no_grad():
        for buffer in method.teacher.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer))
    method.teacher.histogram.fill_(5)
    method.teacher.partitions.depths.copy_(torch.tensor([3, 2, 3]))
    method.teacher.partitions.windows.copy_(torch.tensor([3, 5, 1]))
    sensor = Bands(8, wavelengths=tuple(400.0 + 10 * i for i in range(8)), units="Nanometers")
    return FittedModel(method, transform, sensor, -99.0, Classes.numbered(4), {"seed": 3})


@pytest.fixture
def path(model: FittedModel, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def edited(path: Path, edit: Edit) -> Path:
    """Rewrite a model file with other tensors or metadata, and without a digest."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["hsiclust"])
    del tensors[DIGEST]
    edit(tensors, metadata)
    save_file(tensors, path, {"hsiclust": json.dumps(metadata)})
    return path


def test_a_model_comes_back_as_it_was(model: FittedModel, path: Path) -> None:
    again = load_model(path)
    assert again.transform.equals(model.transform)
    assert again.transform.mean.dtype == np.float64
    assert again.sensor.wavelengths == model.sensor.wavelengths
    assert again.sensor.count == 8
    assert again.nodata == -99.0
    assert again.classes == model.classes
    assert again.provenance == {"seed": 3}
    values = torch.randn(1, 3, 20, 20)
    with torch.inference_mode():
        assert torch.equal(again.method(values), model.method.eval()(values))


def test_a_teacher_comes_back_as_it_was(model: FittedModel, path: Path) -> None:
    again = load_model(path).method
    assert isinstance(model.method, Sscc)
    assert isinstance(again, Sscc)
    assert model.method.teacher is not None
    assert again.teacher is not None
    first, second = model.method.teacher.state_dict(), again.teacher.state_dict()
    assert {"prototypes", "margin", "histogram", "evidence", "partitions.means"} <= set(first)
    for name, value in first.items():
        assert torch.equal(second[name], value)
    assert again.settings == model.method.settings
    assert again.choices() == model.method.choices()


def test_a_model_without_teacher_has_none_of_it(model: FittedModel, tmp_path: Path) -> None:
    method = Sscc(3, 4, SsccConfig(width=8, partitions=0))
    save_model(replace(model, method=method), tmp_path / "plain")
    again = load_model(tmp_path / "plain").method
    assert isinstance(again, Sscc)
    assert again.teacher is None
    with safe_open(tmp_path / "plain", framework="pt") as file:
        assert not [name for name in file.keys() if "teacher" in name]  # noqa: SIM118


def test_the_same_model_is_the_same_file(model: FittedModel, path: Path, tmp_path: Path) -> None:
    save_model(model, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert [file.name for file in tmp_path.iterdir() if "partial" in file.name] == []


def test_kmeans_keeps_its_counts(model: FittedModel, tmp_path: Path) -> None:
    method = KMeans(3, 4, 1.5)
    method.counts += torch.arange(4)
    save_model(
        FittedModel(method, model.transform, model.sensor, None, model.classes), tmp_path / "k"
    )
    again = load_model(tmp_path / "k").method
    assert isinstance(again, KMeans)
    assert torch.equal(again.counts, method.counts)
    assert again.smoothing == 1.5


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.safetensors: no such model file"):
        load_model(tmp_path / "none.safetensors")


def test_a_model_that_nobody_may_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelError, match=r"safetensors: cannot be read: Permission denied"):
        load_model(path)


@pytest.mark.parametrize("keep", [0, 7, 100, -5])
def test_cut_files(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="model"):
        load_model(path)


def test_another_safetensors_file(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="not a model of hsiclust"):
        load_model(tmp_path / "other.safetensors")


def _flipped(path: Path, place: int) -> None:
    """Change the lowest bit of a byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["network.head.2.weight", "transform.matrix", DIGEST])
def test_a_flipped_bit_in_a_tensor(path: Path, name: str) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    begin, _ = json.loads(content[8 : 8 + size])[name]["data_offsets"]
    _flipped(path, 8 + size + begin)
    with pytest.raises(
        ModelError, match=r"model\.safetensors: damaged: .*; copy it again"
    ) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_flipped_bit_in_what_the_file_says(path: Path) -> None:
    _flipped(path, path.read_bytes().index(b'\\"nodata\\": -99') + len(b'\\"nodata\\": -9'))
    with pytest.raises(ModelError, match=r"model\.safetensors: damaged: .*; copy it again"):
        load_model(path)


def test_a_file_of_before_there_was_a_digest(path: Path) -> None:
    whole = load_model(path)
    old = load_model(edited(path, lambda _tensors, _metadata: None))
    with safe_open(path, framework="pt") as file:
        assert DIGEST not in file.keys()  # noqa: SIM118
    assert old.transform.equals(whole.transform)
    assert old.classes == whole.classes


def _drop_tensor(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    del tensors["network.head.2.weight"]


def _reshape_tensor(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    tensors["transform.matrix"] = torch.zeros(3, 7, dtype=torch.float64)


def _grow_network(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    metadata["config"] = {"width": 4000, "hidden": 4000}


def _absurd_network(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    metadata["config"] = {"width": 10**12}


def _unknown_method(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    metadata["method"] = "os.system"


def _band_outside(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    transform = metadata["transform"]
    assert isinstance(transform, dict)
    transform["bands"][0] = 99


def _missing_key(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    del metadata["sensor"]


def _extra_class(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    metadata["classes"] = {"names": ["a"] * 5, "colours": [[0, 0, 0]] * 5}


def _not_finite(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    tensors["transform.matrix"][0, 0] = float("nan")


def _no_scale(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    tensors["transform.scale"][0] = 0


def _no_prototypes(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    del tensors["network.teacher.prototypes"]


def _fewer_partitions(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    tensors["network.teacher.partitions.means"] = torch.zeros(2, 12, 3)


def _teacher_not_finite(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    tensors["network.teacher.partitions.whiten"][0, 0, 0, 0] = float("inf")


def _fractional_windows(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    name = "network.teacher.partitions.windows"
    tensors[name] = tensors[name].float()


def _too_many_partitions(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    config = metadata["config"]
    assert isinstance(config, dict)
    config["partitions"] = 10**9


def _double_weights(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    tensors["network.head.2.weight"] = tensors["network.head.2.weight"].double()


def _band_twice(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    transform = metadata["transform"]
    assert isinstance(transform, dict)
    transform["bands"][0] = transform["bands"][1]


def _other_field(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    metadata["receptive_field"] = 13


def _two_line_name(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    metadata["classes"] = {"names": ["a\nb", "c", "d", "e"], "colours": [[0, 0, 0]] * 4}


def _single_transform(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    tensors["transform.mean"] = tensors["transform.mean"].float()


def _complex_transform(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    tensors["transform.mean"] = tensors["transform.mean"].to(torch.complex64)


def _wavelengths(values: list[float]) -> Edit:
    def edit(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
        metadata["sensor"] = {"count": 8, "wavelengths": values, "units": "Nanometers"}

    return edit


def _deep(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
    value: list[object] = []
    for _ in range(64):
        value = [value]
    metadata["provenance"] = {"a": value}


@pytest.mark.parametrize(
    "edit",
    [
        _single_transform,
        _complex_transform,
        _wavelengths([]),
        _wavelengths([400.0, 410.0]),
        _wavelengths([float("nan")] * 8),
        _wavelengths([400.0] * 7 + [float("inf")]),
        _deep,
        _not_finite,
        _no_scale,
        _double_weights,
        _no_prototypes,
        _fewer_partitions,
        _teacher_not_finite,
        _fractional_windows,
        _too_many_partitions,
        _band_twice,
        _other_field,
        _two_line_name,
        _drop_tensor,
        _reshape_tensor,
        _grow_network,
        _absurd_network,
        _unknown_method,
        _band_outside,
        _missing_key,
        _extra_class,
    ],
)
def test_damaged_models_are_refused_by_name(path: Path, edit: Edit) -> None:
    with pytest.raises(ModelError, match=r"model\.safetensors: ") as caught:
        load_model(edited(path, edit))
    assert "\n" not in str(caught.value)


def test_a_number_of_too_many_digits(path: Path) -> None:
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(b'\\"seed\\": 3', b'\\"seed\\": ' + b"9" * 5000)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    with pytest.raises(ModelError, match=r"model\.safetensors: damaged metadata: .*5000 digits"):
        load_model(path)


def test_a_later_schema_asks_for_a_newer_version(path: Path) -> None:
    def later(tensors: dict[str, torch.Tensor], metadata: dict[str, object]) -> None:
        metadata["schema_version"] = 2

    with pytest.raises(ModelError, match="later version"):
        load_model(edited(path, later))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("partitions.windows", 4),
        ("partitions.windows", 10**6),
        ("partitions.depths", 99),
        ("partitions.depths", 0),
        ("histogram", 7),
        ("margin", 0),
    ],
)
def test_a_teacher_that_cannot_be_is_refused(path: Path, name: str, value: int) -> None:
    def spoil(tensors: dict[str, torch.Tensor], _metadata: dict[str, object]) -> None:
        tensors[f"network.teacher.{name}"].fill_(value)

    with pytest.raises(ModelError, match="teacher"):
        load_model(edited(path, spoil))
