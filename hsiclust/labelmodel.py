"""A fitted model as labelling needs it, whatever file it came in and whatever computes it.

Two files are known, each with what runs it: `.safetensors` through torch, `.onnx` through ONNX
Runtime. Behind `LabelModel` nothing tells them apart.
"""

from __future__ import annotations

import functools
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch

from hsiclust.bands import Bands, match_bands
from hsiclust.components import SceneComponents
from hsiclust.errors import ModelError, UsageError
from hsiclust.labeller import Labeller, TorchLabeller
from hsiclust.modelfile import FittedModel, load_model
from hsiclust.models.base import Precision
from hsiclust.onnxfile import OnnxModel, is_onnx_file, load_onnx
from hsiclust.palette import Classes
from hsiclust.scene import Scene
from hsiclust.tiles import TileStore

_DTYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Needs:
    """What a pixel of a model takes while it is labelled.

    Attributes:
        kept: Float32 values that are kept of it between reading and labelling.
        floats: Float32 values that the network holds at once.
        fixed: Bytes that the network holds whatever the number of pixels.
    """

    kept: int
    floats: int
    fixed: int


class LabelModel(ABC):
    """A fitted model.

    Attributes:
        method: Name of its method.
        classes: Names and colours.
        sensor: What the scene that it was fitted on said about its bands.
        bands: Bands of that sensor that it uses, counted from 0.
        nodata: Nodata value of that scene.
        halo: Pixels around a tile that its labels depend on.
        needs: Memory of a pixel.
        precisions: What its network can compute in, the first by default.
    """

    method: str
    classes: Classes
    sensor: Bands
    bands: tuple[int, ...]
    nodata: float | None
    halo: int
    needs: Needs
    precisions: tuple[Precision, ...]

    @abstractmethod
    def see(self, scene: Scene, device: torch.device) -> SceneComponents:
        """A scene as this model takes it.

        Raises:
            ModelError: Its bands do not fit the model's.
        """

    @abstractmethod
    def check_store(self, store: TileStore) -> None:
        """Check that a tile store holds what this model takes.

        Raises:
            ModelError: It does not.
        """

    @abstractmethod
    def labeller(
        self, device: torch.device, precision: Precision, confidence: bool = False
    ) -> Labeller:
        """The network, ready on a device; `confidence` asks it to say how sure it is.

        Raises:
            DeviceError: What computes cannot use the device.
        """


class TorchModel(LabelModel):
    """A model file, computed by torch."""

    def __init__(self, fitted: FittedModel) -> None:
        method, transform = fitted.method, fitted.transform
        self.fitted = fitted
        self.method, self.classes = method.name, fitted.classes
        self.precisions = method.precisions
        self.sensor, self.bands, self.nodata = fitted.sensor, transform.bands, fitted.nodata
        self.halo = method.halo
        self.needs = Needs(method.seen, method.floats_per_pixel, method.fixed_bytes)

    def see(self, scene: Scene, device: torch.device) -> SceneComponents:
        """Through the model's spectral transform."""
        return SceneComponents.of(scene, self.fitted.labelling_transform, self.sensor, device)

    def check_store(self, store: TileStore) -> None:
        """Of the same spectral transform, with halo enough."""
        if not store.transform.equals(self.fitted.transform):
            raise ModelError(
                f"{store.path}: this tile store was made with another spectral transform"
            )
        if store.tiles.halo < self.halo:
            raise ModelError(
                f"{store.path}: its tiles have a halo of {store.tiles.halo} pixels and the model "
                f"needs {self.halo}; tile again with --halo {self.halo}"
            )

    def labeller(
        self, device: torch.device, precision: Precision, confidence: bool = False
    ) -> Labeller:
        """The method's network."""
        return TorchLabeller(self.fitted.method, device, _DTYPES[precision], confidence)


class GraphModel(LabelModel):
    """An ONNX file, computed by ONNX Runtime."""

    precisions = ("float32",)

    def __init__(self, graph: OnnxModel) -> None:
        self.graph = graph
        self.method, self.classes = graph.method, graph.classes
        self.sensor, self.bands, self.nodata = graph.sensor, graph.bands, graph.nodata
        self.halo = graph.halo
        self.needs = Needs(graph.depth, graph.floats_per_pixel, 0)

    def see(self, scene: Scene, device: torch.device) -> SceneComponents:  # noqa: ARG002
        """Its bands as they are: the transform is in the graph."""
        from hsiclust.onnxlabeller import RawBands

        bands = match_bands(self.bands, self.sensor, scene.bands, scene.path)
        return SceneComponents(scene, RawBands.of(self.graph), bands, torch.device("cpu"))

    def check_store(self, store: TileStore) -> None:
        """None does: a graph starts from bands."""
        raise ModelError(
            f"{self.graph.path}: an ONNX file labels scenes, not tile stores such as {store.path}; "
            "name the scene, or the model that the file was exported from"
        )

    def labeller(
        self,
        device: torch.device,
        precision: Precision,
        confidence: bool = False,  # noqa: ARG002
    ) -> Labeller:
        """The graph."""
        from hsiclust.onnxlabeller import OnnxLabeller

        if precision != "float32":
            raise UsageError(f"{self.graph.path}: an ONNX file computes as it was exported")
        return OnnxLabeller(self.graph, str(device))


def open_model(path: Path) -> LabelModel:
    """A model by its file; the same object as before while the file is the same.

    Raises:
        ModelError: It is none, or cannot be used, or is only pre-trained.
    """
    return _opened(path, _state(path))


def _state(path: Path) -> tuple[int, ...]:
    """What differs between two states of a file; nothing where whoever reads it says what is wrong.

    It is opened to be asked: of a file on NFS a system may remember an earlier state, but not of
    one that it opens.
    """
    if not path.is_file():
        return ()
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=2)
def _opened(path: Path, _state: tuple[int, ...]) -> LabelModel:
    """Where many scenes are labelled, each asks for it twice."""
    if is_onnx_file(path):
        return GraphModel(load_onnx(path))
    fitted = load_model(path)
    if not fitted.method.knows_classes:
        raise ModelError(
            f"{path}: this model is only pre-trained and knows no classes; train another from it "
            "with --init and --labels"
        )
    return TorchModel(fitted)
