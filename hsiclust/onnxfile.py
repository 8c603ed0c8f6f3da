"""The ONNX file: a model as one graph from raw bands to classes, with what a later scene needs.

The graph comes from strangers as well. Before ONNX Runtime sees a byte of it, the file is bounded,
its metadata is checked against a schema, and whatever could reach outside the file or outside the
operators that an export writes is refused: external data, functions, control flow, what makes much
of nothing. It is given what was checked, not the file: one may be ONNX to one parser and something
else to another. What an accident did to it a digest tells, as in a model file (`tensorfile`).

Input `bands`, float32 `(band, row, col)`: the model's own bands in their order, any height and
width, halo included; a pixel with a band that is not finite or equals nodata is invalid. Outputs
`classes` and `confidence`, uint8 `(row - 2 halo, col - 2 halo)`, as in `Labels`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hsiclust.bands import Bands
from hsiclust.errors import ModelError
from hsiclust.modelfile import (
    METADATA_KEY,
    ClassFacts,
    FittedModel,
    SensorFacts,
    Strict,
    checked_metadata,
    refuse_unreadable,
)
from hsiclust.models.scalespace import LARGEST_DEVIATION, radius
from hsiclust.palette import Classes

if TYPE_CHECKING:
    import onnx

SCHEMA = 1
INPUT = "bands"
OUTPUTS = ("classes", "confidence")
LARGEST_FILE = 2**31 - 1
"""Bytes; a protobuf message cannot be longer."""
_DIGEST_KEY = f"{METADATA_KEY}.sha256"
_LARGEST_FIELD = 2 * radius(LARGEST_DEVIATION) + 1  # no encoder sees as far as a Gaussian may
_STANDARD_DOMAINS = ("", "ai.onnx")
# What torch writes for all methods; none but Conv, Gemm, MatMul and Concat gives more values than
# it takes, except by broadcasting. The last two other versions of its exporter may leave over.
# fmt: off
_OPERATORS = frozenset((
    "Abs", "Add", "And", "ArgMax", "Cast", "Clip", "Concat", "Conv", "Div", "Equal", "Exp",
    "Gather", "Gemm", "IsInf", "IsNaN", "LogSoftmax", "MatMul", "Max", "Min", "Mul", "Neg",
    "Not", "Pow", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Round",
    "ScatterElements", "Shape", "Sign", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub",
    "TopK", "Transpose", "Unsqueeze", "Where", "Constant", "Identity",
))
# fmt: on


class _Metadata(Strict):
    schema_version: Literal[1]
    method: str
    components: int = Field(ge=1, le=4096)
    receptive_field: int = Field(ge=1, le=_LARGEST_FIELD)
    floats_per_pixel: int = Field(ge=1)
    sensor: SensorFacts
    bands: list[int] = Field(min_length=1, max_length=65535)
    nodata: float | None
    classes: ClassFacts
    provenance: dict[str, Any]


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file that was checked.

    Attributes:
        path: Where it was.
        method: Name of the method.
        components: Number of components C inside.
        receptive_field: Side of the square of pixels that one output pixel depends on.
        floats_per_pixel: Float32 values a pixel that running it holds at once, input included:
            for the memory plan.
        sensor: What the scene that the model was fitted on said about its bands.
        bands: Bands of the sensor that are the input, counted from 0.
        nodata: Nodata value of that scene.
        classes: Names and colours.
        provenance: Of the model; for people.
        graph: The message that was checked, as bytes.
    """

    path: Path
    method: str
    components: int
    receptive_field: int
    floats_per_pixel: int
    sensor: Bands
    bands: tuple[int, ...]
    nodata: float | None
    classes: Classes
    provenance: Mapping[str, Any]
    graph: bytes = field(repr=False)

    @property
    def halo(self) -> int:
        """Pixels that a tile must read around its core."""
        return (self.receptive_field - 1) // 2

    @property
    def depth(self) -> int:
        """Values of a pixel that the graph takes: its bands."""
        return len(self.bands)


def is_onnx_file(path: str | Path) -> bool:
    """Whether a name is that of an ONNX file; the format has no mark at its beginning."""
    return Path(path).suffix.lower() == ".onnx"


@contextmanager
def onnx_libraries() -> Iterator[None]:
    """Around imports of libraries that only the extra `onnx` brings.

    Raises:
        ModelError: One is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise ModelError(
            f"ONNX files need libraries that are not installed ({error.name or error}): "
            'pip install "hsiclust[onnx]"'
        ) from error


def onnx_metadata(model: FittedModel) -> str:
    """What an ONNX file says of its model, as JSON."""
    bands = len(model.transform.bands)
    # The copies are gone when the network is at its most.
    network = max(_copies(bands, model.nodata), model.method.graph_floats_per_pixel)
    facts = _Metadata(
        schema_version=1,
        method=model.method.name,
        components=model.method.seen,
        receptive_field=model.method.receptive_field,
        floats_per_pixel=bands + network + model.method.seen,
        sensor=SensorFacts.of(model.sensor),
        bands=list(model.transform.bands),
        nodata=model.nodata,
        classes=ClassFacts(names=list(model.classes.names), colours=list(model.classes.colours)),
        provenance=dict(model.provenance),
    )
    return json.dumps(facts.model_dump())


def _copies(bands: int, nodata: float | None) -> int:
    """Values of a pixel that are there beside its bands before the network is.

    The bands without their mean, and as ONNX Runtime lays them out for itself; to find nodata it
    takes another copy and a byte a band.
    """
    return 2 * bands + (0 if nodata is None else bands + -(-bands // 4))


def describe(proto: onnx.ModelProto, metadata: str) -> None:
    """Put into a graph what it says of its model, and a digest of both."""
    del proto.metadata_props[:]
    proto.metadata_props.add(key=METADATA_KEY, value=metadata)
    proto.metadata_props.add(key=_DIGEST_KEY, value=_digest(proto))


def _is_whole(proto: onnx.ModelProto) -> bool:
    """Whether it says what was written; one of before there was a digest does."""
    digest = _entry(proto, _DIGEST_KEY)
    return digest is None or digest == _digest(proto)


def _entry(proto: onnx.ModelProto, key: str) -> str | None:
    return next((entry.value for entry in proto.metadata_props if entry.key == key), None)


def _digest(proto: onnx.ModelProto) -> str:
    """SHA-256 of all that decides labels, whatever order the file has it in."""
    metadata = _entry(proto, METADATA_KEY) or ""
    digest = hashlib.sha256()
    for part in (metadata, proto.ir_version, proto.opset_import, proto.graph):
        for piece in _pieces(part):
            digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes]:
    """A message as bytes, its fields by their numbers: protobuf promises no order of its own."""
    if isinstance(value, bytes):
        yield from (b"%d:" % len(value), value)
    elif isinstance(value, str | int | float):
        yield f"{value!a},".encode()
    elif hasattr(value, "ListFields"):
        for kind, inner in value.ListFields():
            yield b"%d=" % kind.number
            yield from _pieces(inner)
        yield b";"
    else:
        for item in value:
            yield from _pieces(item)
        yield b"."


def load_onnx(path: Path) -> OnnxModel:
    """Read and check an ONNX file that `hsiclust export` wrote.

    Raises:
        ModelError: It is not there, is something else, is damaged, or holds what is refused; or
            the libraries for it are not installed.
    """
    proto = _parsed(path)
    text = _entry(proto, METADATA_KEY)
    facts = checked_metadata(path, text, _Metadata, SCHEMA)
    if not _is_whole(proto):
        raise ModelError(
            f"{path}: damaged: it does not hold what was written to it; "
            "copy it again, or export it again"
        )
    if len(set(facts.bands)) != len(facts.bands):
        raise ModelError(f"{path}: damaged: it uses a band twice")
    if outside := [band for band in facts.bands if not 0 <= band < facts.sensor.count]:
        raise ModelError(f"{path}: damaged: band {outside[0]} of {facts.sensor.count}")
    used = len(facts.bands)
    least = used + _copies(used, facts.nodata) + facts.components
    if facts.floats_per_pixel < least:
        raise ModelError(
            f"{path}: damaged: {facts.floats_per_pixel} values a pixel, where its {used} bands and "
            f"{facts.components} components take {least}"
        )
    size = proto.ByteSize()
    if facts.floats_per_pixel > size:  # a value that is held comes of weights, of 4 bytes each
        raise ModelError(
            f"{path}: damaged: floats_per_pixel is {facts.floats_per_pixel}, more than a graph of "
            f"{size} bytes can hold"
        )
    _check_safe(path, proto)
    _check_interface(path, proto, used)
    return OnnxModel(
        path,
        facts.method,
        facts.components,
        facts.receptive_field,
        facts.floats_per_pixel,
        facts.sensor.bands(path),
        tuple(facts.bands),
        facts.nodata,
        facts.classes.classes(path),
        facts.provenance,
        proto.SerializeToString(),
    )


def _parsed(path: Path) -> onnx.ModelProto:
    """The file as a message."""
    with onnx_libraries():
        import onnx
        from google.protobuf.message import DecodeError
    if not path.is_file():
        raise ModelError(f"{path}: no such ONNX file; `hsiclust export` makes one")
    refuse_unreadable(path)
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise ModelError(f"{path}: {size} bytes; an ONNX file holds {LARGEST_FILE} at most")
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError as error:
        raise ModelError(f"{path}: not an ONNX file, or cut short") from error
    return proto


def _check_safe(path: Path, proto: onnx.ModelProto) -> None:
    """Refuse what reaches outside the file or the standard operators, or could run for ever."""
    nodes = proto.graph.node
    domains = {entry.domain for entry in (*proto.opset_import, *nodes)}
    if foreign := sorted(domains.difference(_STANDARD_DOMAINS)):
        raise ModelError(
            f"{path}: uses operators of {foreign[0]!r}; those of the ONNX standard alone are run"
        )
    if proto.functions or proto.training_info or proto.graph.sparse_initializer:
        raise ModelError(f"{path}: holds functions, training steps or sparse tensors: refused")
    attributes = [attribute for node in nodes for attribute in node.attribute]
    if any(entry.HasField("g") or entry.graphs for entry in attributes):
        raise ModelError(f"{path}: holds control flow, which is refused")
    if any(entry.HasField("sparse_tensor") or entry.sparse_tensors for entry in attributes):
        raise ModelError(f"{path}: holds sparse constants, which are refused")
    held = [tensor for entry in attributes for tensor in (entry.t, *entry.tensors)]
    for tensor in (*proto.graph.initializer, *held):
        # The path of external data comes from the file: it could name any file of this machine.
        if tensor.external_data or tensor.data_location == tensor.EXTERNAL:
            raise ModelError(f"{path}: keeps {tensor.name!r} in another file, which is refused")
    if others := sorted({node.op_type for node in nodes}.difference(_OPERATORS)):
        raise ModelError(
            f"{path}: uses the operator {others[0]!r}, which no export writes: refused"
        )


def _check_interface(path: Path, proto: onnx.ModelProto, bands: int) -> None:
    """Refuse a graph whose input and outputs are not those of the module's docstring."""
    from onnx import TensorProto

    inputs = [(value.name, *_form(value)) for value in proto.graph.input]
    outputs = [(value.name, *_form(value)) for value in proto.graph.output]
    free = (None, None)
    if inputs != [(INPUT, TensorProto.FLOAT, (bands, *free))]:
        raise ModelError(f"{path}: damaged: its input is not {bands} bands of any height and width")
    if outputs != [(name, TensorProto.UINT8, free) for name in OUTPUTS]:
        raise ModelError(f"{path}: damaged: its outputs are not {' and '.join(OUTPUTS)}")


def _form(value: onnx.ValueInfoProto) -> tuple[int, tuple[int | None, ...]]:
    """Element type and shape; None where the graph leaves a length free."""
    tensor = value.type.tensor_type
    lengths = (size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
    return tensor.elem_type, tuple(lengths)
