"""ONNX: the file gives what the model gives, and a file from a stranger can do no harm."""

import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio
import torch
from conftest import write_raster
from onnx import TensorProto, helper

from hsiclust import onnxexport
from hsiclust.api import predict
from hsiclust.bands import Bands
from hsiclust.components import Components
from hsiclust.errors import DeviceError, ModelError, OutputExistsError, UsageError
from hsiclust.facts import info
from hsiclust.labeller import Labels, TorchLabeller
from hsiclust.modelfile import METHODS, FittedModel, load_model, save_model
from hsiclust.models.base import Method
from hsiclust.models.contrastdm import ContrastDm
from hsiclust.models.contrastdm_settings import ContrastDmConfig
from hsiclust.models.kmeans import LARGEST_SMOOTHING, KMeans
from hsiclust.models.sscc import Sscc, SsccConfig
from hsiclust.onnxexport import export
from hsiclust.onnxfile import load_onnx
from hsiclust.onnxlabeller import OnnxLabeller, RawBands
from hsiclust.palette import Classes
from hsiclust.spectralfit import fit_transform

Edit = Callable[[onnx.ModelProto], None]
_BANDS, _CLASSES, _NODATA = 6, 4, -99.0


def fitted(name: str) -> FittedModel:
    """A small model of a method whose values are random and whose classes are all in use."""
    generator = np.random.default_rng(0)
    block = generator.normal(1000, 50, (_BANDS, 20, 30))
    transform = fit_transform(
        [(block, np.ones((20, 30), bool))], range(1, _BANDS + 1), components=3
    )
    torch.manual_seed(0)
    method = METHODS[name](3, _CLASSES)
    with torch.no_grad():
        for value in (*method.parameters(), *method.buffers()):
            if value.is_floating_point():
                value.copy_(torch.randn_like(value))
        for key, value in method.named_buffers():
            if key.endswith("running_var"):
                value.fill_(1.0)
    sensor = Bands(8, wavelengths=tuple(400.0 + 10 * i for i in range(8)), units="Nanometers")
    return FittedModel(method, transform, sensor, _NODATA, Classes.numbered(4), {"seed": 3})


# Whose random values are a model; supervised methods are exported where they are fitted.
@pytest.fixture(scope="module", params=["kmeans", "sscc"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FittedModel, Path]:
    """A model of each method, and its ONNX file."""
    folder = tmp_path_factory.mktemp(request.param)
    model = fitted(request.param)
    if hasattr(model.method, "teacher"):  # it does not label, and random values are not one
        model = replace(model, method=_without_teacher(model.method))
    save_model(model, folder / "model.safetensors")
    export(folder / "model.safetensors", folder / "model.onnx")
    return load_model(folder / "model.safetensors"), folder / "model.onnx"


def _without_teacher(method: torch.nn.Module) -> Sscc:
    plain = Sscc(3, _CLASSES, SsccConfig(partitions=0))
    plain.load_state_dict(
        {key: value for key, value in method.state_dict().items() if "teacher" not in key}
    )
    return plain


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file of k-means; its model lies beside it."""
    folder = tmp_path_factory.mktemp("kmeans")
    save_model(fitted("kmeans"), folder / "model.safetensors")
    export(folder / "model.safetensors", folder / "model.onnx")
    return folder / "model.onnx"


def scene(halo: int, rows: int, cols: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A block with its halo, a tenth of it invalid in one of the ways that there are."""
    generator = np.random.default_rng(rows)
    shape = (rows + 2 * halo, cols + 2 * halo)
    block = generator.normal(1000, 50, (_BANDS, *shape)).astype(np.float32)
    band = generator.integers(0, _BANDS, shape)
    kind = generator.integers(0, 30, shape)
    for number, value in enumerate((np.nan, -np.inf, _NODATA)):
        at = kind == number
        block[band[at], *np.nonzero(at)] = value
    return torch.from_numpy(block), torch.from_numpy(kind >= 3)


def label_with_torch(model: FittedModel, block: torch.Tensor, valid: torch.Tensor) -> Labels:
    components = Components(model.transform.apply(block, valid), valid)
    return TorchLabeller(model.method, torch.device("cpu"), confidence=True)(components)


def same(one: Labels, other: Labels) -> bool:
    """Same classes; confidence within one per cent."""
    difference = np.abs(one.percent - other.percent)
    return bool((one.classes == other.classes).all() and (difference <= 1).all())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 3), (37, 53)])
def test_onnx_runtime_gives_the_labels_of_torch(
    exported: tuple[FittedModel, Path], size: tuple[int, int]
) -> None:
    model, path = exported
    labeller = OnnxLabeller(load_onnx(path), "cpu")
    block, valid = scene(labeller.halo, *size)
    wanted = label_with_torch(model, block, valid)
    prepared = RawBands.of(labeller.model).apply(block, valid)
    found = labeller(Components(prepared, valid))
    assert found.classes.shape == size
    assert same(found, wanted)
    if size == (37, 53):
        assert len(np.unique(found.classes)) > 2  # unclassified and two classes at least
        assert (found.confidence[found.classes == 0] == 255).all()


def test_a_block_without_a_valid_pixel_needs_no_graph(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labeller = OnnxLabeller(load_onnx(path), "cpu")
    block, valid = scene(labeller.halo, 6, 7)
    valid = torch.zeros_like(valid)
    wanted = labeller(Components(RawBands.of(labeller.model).apply(block, valid), valid))
    monkeypatch.setattr(labeller, "_session", None)
    found = labeller(Components(RawBands.of(labeller.model).apply(block, valid), valid))
    assert found.classes.shape == wanted.classes.shape == (6, 7)
    assert same(found, wanted)
    assert not found.classes.any()
    assert (found.confidence == 255).all()


def test_the_graph_alone_finds_invalid_pixels(exported: tuple[FittedModel, Path]) -> None:
    """Any program that runs ONNX gets the same labels without preparing anything."""
    import onnxruntime

    model, path = exported
    block, valid = scene(model.method.halo, 30, 20)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    classes, confidence = session.run(None, {"bands": block.numpy()})
    assert same(Labels(classes, confidence), label_with_torch(model, block, valid))


def test_the_scene_decides_what_is_nodata(path: Path) -> None:
    """A value that was nodata in the model's scene is a measurement in one that says so."""
    model = load_model(path.with_suffix(".safetensors"))
    labeller = OnnxLabeller(load_onnx(path), "cpu")
    block, _ = scene(labeller.halo, 20, 20)
    block = block.nan_to_num(_NODATA, neginf=_NODATA).to(torch.int16)
    valid = torch.ones(block.shape[1:], dtype=torch.bool)
    found = labeller(Components(RawBands.of(labeller.model).apply(block, valid), valid))
    assert found.classes.min() > 0
    assert same(found, label_with_torch(model, block, valid))


def test_metadata_comes_back(path: Path) -> None:
    model, again = load_model(path.with_suffix(".safetensors")), load_onnx(path)
    assert again.method == "kmeans"
    assert again.bands == model.transform.bands == tuple(range(1, 7))
    assert (again.sensor, again.nodata, again.classes) == (
        model.sensor,
        model.nodata,
        model.classes,
    )
    assert (again.halo, again.depth, again.components) == (model.method.halo, 6, 3)
    assert again.provenance == {"seed": 3}
    facts = info(str(path))
    assert (facts["kind"], facts["method"], facts["bands_used"]) == ("onnx", "kmeans", 6)


def test_the_file_says_nothing_of_the_machine(path: Path) -> None:
    content = path.read_bytes()
    assert str(Path(onnxexport.__file__).parent).encode() not in content
    assert b".py" not in content


def test_the_command(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hsiclust", "export", str(path.with_suffix(".safetensors"))]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    done = run("out.onnx", "--json", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert (result["onnx"], result["bands"], result["agreement"]) == ("out.onnx", 6, 1.0)
    assert (tmp_path / "out.onnx").read_bytes() == path.read_bytes()  # the same model, the same
    assert [file.name for file in tmp_path.iterdir()] == ["out.onnx"]
    again = run("out.onnx")
    assert again.returncode == 2
    assert again.stderr == "hsiclust: out.onnx: is there already; --overwrite replaces it\n"


def test_what_the_exporter_tells_itself_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("onnxscript.optimizer._constant_folding")
    with onnxexport._quiet():
        logger.warning("Skipping constant folding")
    assert not caplog.records
    logger.warning("what the application does with it")
    assert len(caplog.records) == 1


def test_outputs_that_are_refused(path: Path, tmp_path: Path) -> None:
    model = path.with_suffix(".safetensors")
    with pytest.raises(UsageError, match=r"out\.bin: is not named \.onnx"):
        export(model, tmp_path / "out.bin")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        export(model, path)


def test_a_file_that_another_wrote_meanwhile_is_not_replaced(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.onnx"
    monkeypatch.setattr(onnxexport, "refuse_inputs", lambda *_: output.write_text("of another"))
    with pytest.raises(OutputExistsError, match="--overwrite replaces it"):
        export(path.with_suffix(".safetensors"), output)
    assert output.read_text() == "of another"
    assert [file.name for file in tmp_path.iterdir()] == ["out.onnx"]


def test_a_file_that_disagrees_is_not_left_behind(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*arguments: object) -> Labels:
        labels = honest(*arguments)  # type: ignore[arg-type]
        labels.classes[:2] = 1 + labels.classes[:2] % _CLASSES
        return labels

    honest = onnxexport._labels
    monkeypatch.setattr(onnxexport, "_labels", other)
    (tmp_path / "out.onnx").write_bytes(b"an earlier one")
    with pytest.raises(ModelError, match=r"0\.97\d+ of 14545 pixels"):
        export(path.with_suffix(".safetensors"), tmp_path / "out.onnx", overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["out.onnx"]
    assert (tmp_path / "out.onnx").read_bytes() == b"an earlier one"


def test_the_original_encoder_is_not_exported(tmp_path: Path) -> None:
    paper = replace(fitted("kmeans"), method=Sscc(3, _CLASSES, SsccConfig.paper()))
    save_model(paper, tmp_path / "paper.safetensors")
    with pytest.raises(ModelError, match=r"paper\.safetensors: the original encoder"):
        export(tmp_path / "paper.safetensors", tmp_path / "paper.onnx")


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_extra_its_name_is_said(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelError, match=rf'\({name}\): pip install "hsiclust\[onnx\]"'):
        export(path.with_suffix(".safetensors"), tmp_path / "out.onnx")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx: no such ONNX file"):
        load_onnx(tmp_path / "none.onnx")


def test_a_graph_that_nobody_may_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelError, match=r"onnx: cannot be read: Permission denied"):
        load_onnx(path)


@pytest.mark.parametrize("keep", [0, 1, 100, 1000, -1, -100])
def test_cut_files(path: Path, tmp_path: Path, keep: int) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"cut\.onnx: (not an ONNX file|can be read, but)"):
        load_onnx(cut)


@pytest.mark.parametrize("content", [b"\x00" * 64, b"II*\x00" * 99, b"\xff" * 1000])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"other\.onnx: not an ONNX file"):
        load_onnx(tmp_path / "other.onnx")


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(2**31)  # a hole: takes no space
    with pytest.raises(ModelError, match=r"large\.onnx: 2147483648 bytes"):
        load_onnx(tmp_path / "large.onnx")


def _set(**values: object) -> Edit:
    """Change the metadata."""

    def edit(proto: onnx.ModelProto) -> None:
        facts = json.loads(proto.metadata_props[0].value) | values
        proto.metadata_props[0].value = json.dumps(facts)

    return edit


def _no_metadata(proto: onnx.ModelProto) -> None:
    del proto.metadata_props[:]


def _long_metadata(proto: onnx.ModelProto) -> None:
    proto.metadata_props[0].value += " " * 2**22


def _other_domain(proto: onnx.ModelProto) -> None:
    proto.opset_import.add(domain="com.example", version=1)


def _node_of_another_domain(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].domain = "com.microsoft"


def _function(proto: onnx.ModelProto) -> None:
    proto.functions.add(name="Conv", domain="")


def _external(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _external_constant(proto: onnx.ModelProto) -> None:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], name="aside")
    tensor.external_data.add(key="location", value="../aside")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["aside"], value=tensor))


def _loop(proto: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    proto.graph.node.insert(0, helper.make_node("Loop", ["", ""], [], body=body))


def _sparse(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.add(name="sparse_value").sparse_tensor.dims.append(2**40)


def _unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = "Nothing"


def _much_of_nothing(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [1], [10**9]))
    proto.graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["much"]))


def _fixed_height(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 99


def _second_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def _float_classes(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_no_metadata, "not a model of hsiclust"),
        (_long_metadata, "not a model of hsiclust"),
        (_set(schema_version=2), "later version"),
        (_set(weights="/etc/passwd"), "damaged metadata"),
        (_set(receptive_field=10**9), "damaged metadata"),
        (_set(receptive_field=387), "receptive_field .*input_value=387"),
        (_set(floats_per_pixel=10**5), "floats_per_pixel is 100000, more than a graph of"),
        (_set(bands=[1, 2, 3, 4, 5, 8]), "band 8 of 8"),
        (_set(bands=[1, 2, 3, 4, 5, 5]), "a band twice"),
        (_set(bands=[1, 2]), "not 2 bands"),
        (_set(classes={"names": ["a\nb"], "colours": [[0, 0, 0]]}), "not one line"),
        (_other_domain, "operators of 'com.example'"),
        (_node_of_another_domain, "operators of 'com.microsoft'"),
        (_function, "functions"),
        (_external, "in another file"),
        (_external_constant, "'aside' in another file"),
        (_loop, "control flow"),
        (_sparse, "sparse"),
        (_unknown_operator, "the operator 'Nothing'"),
        (_much_of_nothing, "the operator 'ConstantOfShape'"),
        (
            _set(floats_per_pixel=28),
            "28 values a pixel, where its 6 bands and 3 components take 29",
        ),
        (_fixed_height, "any height and width"),
        (_second_input, "input"),
        (_float_classes, "outputs"),
    ],
)
def test_files_of_strangers_are_refused(
    path: Path, tmp_path: Path, edit: Edit, message: str
) -> None:
    with pytest.raises(ModelError, match=rf"edited\.onnx: .*{message}") as caught:
        load_onnx(_edited(path, tmp_path, edit))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "method",
    [
        Sscc(3, _CLASSES, SsccConfig(hidden=8, seen=2)),
        ContrastDm(3, _CLASSES, ContrastDmConfig(widths=(8, 8, 4), nets=2)),
    ],
    ids=["sscc", "contrastdm"],
)
def test_what_an_export_writes_may_be_loaded(path: Path, method: Method) -> None:
    model = replace(fitted("kmeans"), method=method.eval(), nodata=None)
    path = path.with_name("other.onnx")
    path.write_bytes(onnxexport._content(model, path))
    assert load_onnx(path).method == method.name


def test_a_file_of_another_format_to_another_parser(path: Path, tmp_path: Path) -> None:
    """The mark of ONNX Runtime's own format stands where it looks for it, in an ONNX file."""
    import onnxruntime

    def mark(proto: onnx.ModelProto) -> None:
        proto.producer_name = "ORTM"

    model = load_onnx(_edited(path, tmp_path, mark))
    assert model.graph[4:8] == b"ORTM"
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail):
        onnxruntime.InferenceSession(model.graph, providers=["CPUExecutionProvider"])
    labeller = OnnxLabeller(model, "cpu")
    block, valid = scene(labeller.halo, 9, 9)
    bands = RawBands.of(model).apply(block, valid)
    assert labeller(Components(bands, valid)).classes.max() > 0


def test_onnx_runtime_sees_what_was_checked_alone(path: Path, tmp_path: Path) -> None:
    twice = tmp_path / "twice.onnx"
    content = path.read_bytes()
    twice.write_bytes(b"\x28\x00\x12\x04ORTM" + content)  # its version and producer, said before
    assert b"ORTM" not in load_onnx(twice).graph


def _rewritten(path: Path, folder: Path, edit: Edit) -> Path:
    """A copy with other contents."""
    proto = onnx.ModelProto.FromString(path.read_bytes())
    edit(proto)
    (folder / "edited.onnx").write_bytes(proto.SerializeToString())
    return folder / "edited.onnx"


def _edited(path: Path, folder: Path, edit: Edit) -> Path:
    """The same, without a digest."""

    def edit_what_has_none(proto: onnx.ModelProto) -> None:
        assert [entry.key for entry in proto.metadata_props] == ["hsiclust", "hsiclust.sha256"]
        del proto.metadata_props[1]
        edit(proto)

    return _rewritten(path, folder, edit_what_has_none)


def _weights(proto: onnx.ModelProto) -> TensorProto:
    return next(tensor for tensor in proto.graph.initializer if tensor.name == "projection")


def _flipped_bit(proto: onnx.ModelProto) -> None:
    content = _weights(proto).raw_data
    _weights(proto).raw_data = bytes([content[0] ^ 1]) + content[1:]


def _not_numbers(proto: onnx.ModelProto) -> None:
    values = np.full(len(_weights(proto).raw_data) // 4, np.nan, np.float32)
    _weights(proto).raw_data = values.tobytes()


def _other_operator(proto: onnx.ModelProto) -> None:
    next(node for node in proto.graph.node if node.op_type == "ArgMax").op_type = "ArgMin"


def _other_axis(proto: onnx.ModelProto) -> None:
    node = next(node for node in proto.graph.node if node.op_type == "ArgMax")
    next(entry for entry in node.attribute if entry.name == "axis").i += 1


@pytest.mark.parametrize(
    "edit",
    [_flipped_bit, _not_numbers, _other_operator, _other_axis, _fixed_height, _set(nodata=-98.0)],
)
def test_a_damaged_file(path: Path, tmp_path: Path, edit: Edit) -> None:
    damaged = _rewritten(path, tmp_path, edit)
    with pytest.raises(ModelError, match=r"edited\.onnx: damaged: .*; copy it again") as caught:
        load_onnx(damaged)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_file_of_before_there_was_a_digest(path: Path, tmp_path: Path) -> None:
    old = load_onnx(_edited(path, tmp_path, lambda _proto: None))
    assert replace(old, path=path, graph=b"") == replace(load_onnx(path), graph=b"")


def test_a_file_in_another_order_is_not_damaged(path: Path, tmp_path: Path) -> None:
    proto = onnx.ModelProto.FromString(path.read_bytes())
    graph = onnx.ModelProto(graph=proto.graph).SerializeToString()
    proto.ClearField("graph")
    proto.metadata_props.reverse()
    (tmp_path / "turned.onnx").write_bytes(proto.SerializeToString() + graph)
    assert (tmp_path / "turned.onnx").read_bytes() != path.read_bytes()
    assert load_onnx(tmp_path / "turned.onnx").method == "kmeans"


def _unknown_input(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "nothing"


def test_a_graph_that_onnx_runtime_refuses(path: Path, tmp_path: Path) -> None:
    model = load_onnx(_edited(path, tmp_path, _unknown_input))
    with pytest.raises(ModelError, match=r"edited\.onnx: ONNX Runtime refuses it"):
        OnnxLabeller(model, "cpu")


def _no_confidence(proto: onnx.ModelProto) -> None:
    (last,) = (node for node in proto.graph.node if "confidence" in node.output)
    last.output[0] = "nothing"


def test_onnx_runtime_says_why_in_a_line_and_not_where_in_its_sources(
    path: Path, tmp_path: Path
) -> None:
    model = load_onnx(_edited(path, tmp_path, _no_confidence))
    with pytest.raises(ModelError, match=r"output \(confidence\) does not exist") as refused:
        OnnxLabeller(model, "cpu")
    assert "graph.cc" in str(refused.value.__cause__)
    with pytest.raises(ModelError, match=r"fails on .*invalid dimensions") as failed:
        OnnxLabeller(load_onnx(path), "cpu")(
            Components(torch.zeros(_BANDS + 1, 60, 60), torch.ones(60, 60, dtype=torch.bool))
        )
    assert "\n" in str(failed.value.__cause__)
    for message in (str(refused.value), str(failed.value)):
        assert "\n" not in message
        assert ".cc:" not in message


def test_the_largest_smoothing_may_be_exported(path: Path) -> None:
    method = KMeans(3, _CLASSES, LARGEST_SMOOTHING).eval()
    model = replace(fitted("kmeans"), method=method, nodata=None)
    path = path.with_name("smooth.onnx")
    path.write_bytes(onnxexport._content(model, path))
    assert load_onnx(path).halo == 192


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_set(classes={"names": ["a"], "colours": [[0, 0, 0]]}), "gives class [234] of 1"),
        (_set(receptive_field=11), "gives labels of shape"),
    ],
)
def test_a_graph_that_gives_no_labels(path: Path, tmp_path: Path, edit: Edit, message: str) -> None:
    labeller = OnnxLabeller(load_onnx(_edited(path, tmp_path, edit)), "cpu")
    with pytest.raises(ModelError, match=message):
        labeller(Components(*scene(labeller.halo, 20, 20)))


def test_a_block_that_the_graph_cannot_take(path: Path) -> None:
    labeller = OnnxLabeller(load_onnx(path), "cpu")
    block = torch.zeros(_BANDS + 1, 40, 40)
    with pytest.raises(ModelError, match=r"ONNX Runtime fails on \(7, 40, 40\)"):
        labeller(Components(block, torch.ones(40, 40, dtype=torch.bool)))


@pytest.fixture
def promised_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch says that there is a GPU, and ONNX Runtime finds none."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.usefixtures("promised_cuda")
def test_no_falling_back_without_a_word(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DeviceError, match=r"device cuda: .* CPUExecutionProvider") as caught:
        OnnxLabeller(load_onnx(path), "cuda")
    assert caught.value.exit_code == 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("promised_cuda")
def test_auto_takes_what_runs(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    labeller = OnnxLabeller(load_onnx(path), "auto")
    block, valid = scene(labeller.halo, 9, 9)
    bands = RawBands.of(labeller.model).apply(block, valid)
    assert labeller(Components(bands, valid)).classes.max() > 0
    assert capfd.readouterr() == ("", "")


def test_the_documented_program_gives_the_map(
    exported: tuple[FittedModel, Path], tmp_path: Path
) -> None:
    """ONNX Runtime alone, a whole scene at once, as docs/onnx.md has it."""
    page = (Path(__file__).parent.parent / "docs" / "onnx.md").read_text("utf-8")
    program = page.partition("```python\n")[2].partition("```")[0]
    cube = np.random.default_rng(1).normal(1000, 50, (8, 45, 60)).astype(np.float32)
    cube[2, 5:9, 50:] = _NODATA
    write_raster(tmp_path / "scene.tif", cube, nodata=_NODATA)
    (tmp_path / "model.onnx").write_bytes(exported[1].read_bytes())
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=100)
    predict(
        str(tmp_path / "scene.tif"), exported[1].with_suffix(".safetensors"), tmp_path / "m.tif"
    )
    with rasterio.open(tmp_path / "m.tif") as label_map:
        labels = label_map.read(1)
    assert len(np.unique(labels)) > 2
    assert (labels[5:9, 50:] == 0).all()
    assert (np.load(tmp_path / "classes.npy") == labels).mean() > 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_gives_the_same_labels(path: Path) -> None:
    model = load_onnx(path)
    try:
        labeller = OnnxLabeller(model, "cuda")
    except DeviceError as error:
        pytest.skip(str(error))
    block, valid = scene(model.halo, 100, 150)
    components = Components(RawBands.of(model).apply(block, valid), valid)
    found, wanted = labeller(components), OnnxLabeller(model, "cpu")(components)
    assert (found.classes == wanted.classes).mean() > 0.999
