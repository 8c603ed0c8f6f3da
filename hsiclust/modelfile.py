"""The model file: weights, spectral transform and all that a later scene needs, without pickle.

One `.safetensors` file. Its metadata is one JSON text, checked against a schema before a byte of
a tensor is read; the network is built without memory first, and takes memory only for tensors
that the file really holds in the shapes that the settings ask for.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open

from hsiclust.bands import Bands
from hsiclust.errors import ModelError, UsageError
from hsiclust.models.base import LARGEST_CLASSES, Method
from hsiclust.models.contrastdm import ContrastDm
from hsiclust.models.forest import Forest
from hsiclust.models.kmeans import KMeans
from hsiclust.models.sscc import Sscc
from hsiclust.models.svm import Svm
from hsiclust.palette import Classes
from hsiclust.spectra import SpectralTransform
from hsiclust.tensorfile import is_whole, save_tensors

SCHEMA = 1
METHODS: Mapping[str, type[Method]] = {
    method.name: method for method in (KMeans, Sscc, ContrastDm, Svm, Forest)
}
_TRANSFORM_TENSORS = ("mean", "scale", "matrix", "eigenvalues", "weights")
_TRANSFORM_TYPE = "F64"
METADATA_KEY = "hsiclust"
_LARGEST_METADATA = 4 * 2**20
_DEEPEST_METADATA = 64  # lists and objects within each other


@dataclass(frozen=True)
class FittedModel:
    """A fitted method with its spectral transform.

    Attributes:
        method: The network.
        transform: Bands to components.
        sensor: What the scene that it was fitted on said about its bands.
        nodata: Nodata value of that scene.
        classes: Names and colours.
        provenance: Version, seed, scenes, settings and figures of the training, for people.
    """

    method: Method
    transform: SpectralTransform
    sensor: Bands
    nodata: float | None
    classes: Classes
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labelling_transform(self) -> SpectralTransform:
        """Bands to the components that the network sees: all that labelling needs."""
        return self.transform.leading(self.method.seen)


class Strict(BaseModel):
    """A part of a model's metadata: nothing unknown, nothing missing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class SensorFacts(Strict):
    """What the scene that a model was fitted on said about its bands."""

    count: int = Field(ge=1, le=65535)
    wavelengths: list[float] | None
    units: str | None

    @classmethod
    def of(cls, sensor: Bands) -> SensorFacts:
        """As a file holds it."""
        wavelengths = None if sensor.wavelengths is None else list(sensor.wavelengths)
        return cls(count=sensor.count, wavelengths=wavelengths, units=sensor.units)

    def bands(self, path: Path) -> Bands:
        """As the rest of the package knows it.

        Raises:
            ModelError: Not every band has a wavelength.
        """
        if self.wavelengths is None:
            return Bands(self.count, units=self.units)
        found = sum(map(math.isfinite, self.wavelengths))
        if not found == len(self.wavelengths) == self.count:
            raise ModelError(f"{path}: damaged: {found} wavelengths of {self.count} bands")
        return Bands(self.count, wavelengths=tuple(self.wavelengths), units=self.units)


class _Transform(Strict):
    kind: Literal["mnf", "pca"]
    bands: list[int]


class ClassFacts(Strict):
    """Names and colours of classes."""

    names: list[str] = Field(min_length=1, max_length=LARGEST_CLASSES)
    colours: list[tuple[int, int, int]]

    def classes(self, path: Path) -> Classes:
        """As the rest of the package knows them.

        Raises:
            ModelError: A name or a colour cannot be.
        """
        try:
            return Classes(tuple(self.names), tuple(self.colours))
        except UsageError as error:
            raise ModelError(f"{path}: damaged: {error}") from error


class _Metadata(Strict):
    schema_version: Literal[1]
    method: str
    config: dict[str, Any]
    components: int = Field(ge=1, le=4096)
    receptive_field: int = Field(ge=1, le=4097)
    sensor: SensorFacts
    transform: _Transform
    nodata: float | None
    classes: ClassFacts
    provenance: dict[str, Any]


Facts = TypeVar("Facts", bound=Strict)


def save_model(model: FittedModel, path: Path) -> None:
    """Write a model file beside and rename it."""
    tensors = {
        f"transform.{name}": torch.from_numpy(np.ascontiguousarray(getattr(model.transform, name)))
        for name in _TRANSFORM_TENSORS
    }
    for name, value in model.method.state_dict().items():
        tensors[f"network.{name}"] = value
    metadata = {
        "schema_version": SCHEMA,
        "method": model.method.name,
        "config": model.method.config(),
        "components": model.method.components,
        "receptive_field": model.method.receptive_field,
        "sensor": SensorFacts.of(model.sensor).model_dump(),
        "transform": {"kind": model.transform.kind, "bands": list(model.transform.bands)},
        "nodata": model.nodata,
        "classes": asdict(model.classes),
        "provenance": dict(model.provenance),
    }
    save_tensors(path, tensors, {METADATA_KEY: json.dumps(metadata)})


def load_model(path: Path) -> FittedModel:
    """Read a model file.

    Raises:
        ModelError: The file is not there, is no model, is cut short or damaged, or was written by
            a later version.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; `hsiclust train` makes one")
    refuse_unreadable(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
            metadata = checked_metadata(path, text, _Metadata, SCHEMA)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            method = _empty_method(path, metadata, shapes)
            network = {name: file.get_tensor(f"network.{name}") for name in method.state_dict()}
            transform = _transform(path, metadata, shapes, file)
            if not is_whole(file):
                raise ModelError(
                    f"{path}: damaged: it does not hold what was written to it; "
                    "copy it again, or train it again"
                )
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a model file, or cut short: {error}") from error
    _check_values(path, metadata, method, network, transform)
    method.load_state_dict(network, assign=True)
    try:
        method.check()
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    method.eval()
    return FittedModel(
        method,
        transform,
        metadata.sensor.bands(path),
        metadata.nodata,
        metadata.classes.classes(path),
        metadata.provenance,
    )


def refuse_unreadable(path: Path) -> None:
    """Check that the system lets a model be read: safetensors says that such a file is not there.

    Raises:
        ModelError: It does not.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def is_model_file(path: str | Path) -> bool:
    """Whether a file begins as a safetensors file does: a length, then JSON."""
    if not Path(path).is_file():  # to open a pipe waits for who writes to it
        return False
    try:
        with Path(path).open("rb") as file:
            head = file.read(9)
    except OSError:
        return False
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < 2**27


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checked_metadata(path: Path, text: str | None, kind: type[Facts], schema: int) -> Facts:
    """The metadata of a model file, if it is what this version reads.

    Args:
        path: For the message.
        text: JSON; None where the file has none.
        kind: What it has to be.
        schema: The latest version of it.

    Raises:
        ModelError: It is not.
    """
    if text is None or len(text) > _LARGEST_METADATA:
        raise ModelError(f"{path}: can be read, but is not a model of hsiclust")
    try:
        value = json.loads(text)
        if _is_deeper(value, _DEEPEST_METADATA):
            raise ModelError(f"{path}: damaged metadata: deeper than {_DEEPEST_METADATA} levels")
        version = value.get("schema_version") if isinstance(value, dict) else None
        if isinstance(version, int) and version > schema:
            raise ModelError(
                f"{path}: written by a later version (schema {version}, this one reads {schema}); "
                "install a newer hsiclust"
            )
        return kind.model_validate(value)
    except ModelError:
        raise
    except (ValueError, RecursionError) as error:  # numbers of too many digits among them
        first = str(error).splitlines()[:3]
        raise ModelError(f"{path}: damaged metadata: {' '.join(first)}") from error


def _is_deeper(value: object, levels: int) -> bool:
    """Whether lists and objects lie within each other more often: what shows them would fail."""
    inner = [value]
    for _ in range(levels):
        within = [part.values() if isinstance(part, dict) else part for part in _nests(inner)]
        inner = [item for part in within for item in part]
    return bool(_nests(inner))


def _nests(values: Iterable[object]) -> list[dict[str, object] | list[object]]:
    return [value for value in values if isinstance(value, dict | list)]


def _empty_method(path: Path, metadata: _Metadata, shapes: Mapping[str, tuple[int, ...]]) -> Method:
    """The network without memory, checked against the tensors in the file."""
    kind = METHODS.get(metadata.method)
    if kind is None:
        raise ModelError(f"{path}: method {metadata.method!r} is unknown to this version")
    try:
        with torch.device("meta"):
            method = kind.from_config(
                metadata.components, len(metadata.classes.names), metadata.config
            )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: damaged settings of {metadata.method}: {error}") from error
    for name, value in method.state_dict().items():
        found = shapes.get(f"network.{name}")
        if found != tuple(value.shape):
            raise ModelError(
                f"{path}: damaged: tensor {name} has shape {found}, not {tuple(value.shape)}"
            )
    return method


def _check_values(
    path: Path,
    metadata: _Metadata,
    method: Method,
    network: Mapping[str, torch.Tensor],
    transform: SpectralTransform,
) -> None:
    """Refuse what has the right shape and still cannot label: other types, values not finite."""
    for name, wanted in method.state_dict().items():
        found = network[name]
        if found.dtype != wanted.dtype:
            raise ModelError(f"{path}: damaged: tensor {name} holds {found.dtype}")
        if not bool(torch.isfinite(found).all()):
            raise ModelError(f"{path}: damaged: tensor {name} holds values that are not finite")
    arrays = [getattr(transform, name) for name in _TRANSFORM_TENSORS]
    if not all(np.isfinite(array).all() for array in arrays) or not (transform.scale > 0).all():
        raise ModelError(f"{path}: damaged: the transform holds values that cannot be")
    if len(set(transform.bands)) != len(transform.bands):
        raise ModelError(f"{path}: damaged: the transform uses a band twice")
    if metadata.receptive_field != method.receptive_field:
        raise ModelError(
            f"{path}: damaged: a receptive field of {metadata.receptive_field} pixels, "
            f"the network's is {method.receptive_field}"
        )


def _transform(
    path: Path, metadata: _Metadata, shapes: Mapping[str, tuple[int, ...]], file: Any
) -> SpectralTransform:
    bands, depth = len(metadata.transform.bands), metadata.components
    wanted = {
        "mean": (bands,),
        "scale": (bands,),
        "matrix": (depth, bands),
        "eigenvalues": (depth,),
        "weights": (depth,),
    }
    for name, shape in wanted.items():
        if shapes.get(f"transform.{name}") != shape:
            raise ModelError(f"{path}: damaged: transform {name} is not of shape {shape}")
        kind = file.get_slice(f"transform.{name}").get_dtype()
        if kind != _TRANSFORM_TYPE:
            raise ModelError(f"{path}: damaged: transform {name} holds {kind}")
    outside = [band for band in metadata.transform.bands if not 0 <= band < metadata.sensor.count]
    if outside or not bands:
        raise ModelError(f"{path}: damaged: bands {outside} of {metadata.sensor.count}")
    arrays = {name: file.get_tensor(f"transform.{name}").numpy() for name in wanted}
    return SpectralTransform(metadata.transform.kind, tuple(metadata.transform.bands), **arrays)
