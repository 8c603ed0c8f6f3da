"""Export: a model becomes one ONNX graph, and proves on the spot that it gives the same labels."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hsiclust.components import Components
from hsiclust.errors import ModelError, UsageError
from hsiclust.labeller import Labels
from hsiclust.modelfile import METADATA_KEY, FittedModel, load_model
from hsiclust.models.encoder import OriginalEncoder, RowStrips
from hsiclust.models.pointwise import PixelStrips
from hsiclust.onnxfile import (
    INPUT,
    LARGEST_FILE,
    OUTPUTS,
    describe,
    is_onnx_file,
    load_onnx,
    onnx_libraries,
    onnx_metadata,
)
from hsiclust.onnxlabeller import OnnxLabeller, RawBands
from hsiclust.output import refuse_existing, refuse_inputs, written_alone
from hsiclust.palette import UNSURE

if TYPE_CHECKING:
    import onnx

_OPSET = 20
# Rows and columns of the blocks that the file has to prove itself on: one that lies, one that
# stands, neither of the size that the graph was traced with.
_PROOFS = ((96, 128), (61, 37))
_LEAST_AGREEMENT = 0.9999
# Pixels a side of an even patch of the blocks' ground, and part of the pixels without data.
_PATCH = 8
_INVALID = 0.02


@dataclass(frozen=True)
class Export:
    """A model as an ONNX file.

    Attributes:
        onnx: The file.
        method: Name of the method.
        classes: Number of classes.
        bands: Number of bands that it takes.
        receptive_field: Side of the square of pixels that one output pixel depends on.
        bytes: Size of the file.
        pixels: Pixels that it was compared on with the model.
        agreement: Part of them with the same class, and a confidence that differs by 1 at most.
    """

    onnx: Path
    method: str
    classes: int
    bands: int
    receptive_field: int
    bytes: int
    pixels: int
    agreement: float


def export(model: str | Path, output: str | Path, *, overwrite: bool = False) -> Export:
    """Write a model as an ONNX file: one graph from raw bands to classes and confidence.

    The file is loaded again and compared with the model before it gets its name.

    Args:
        model: The model file.
        output: The ONNX file.
        overwrite: Replace it if it is there.

    Raises:
        ModelError: The model cannot be read or exported, or ONNX Runtime does not give the
            model's labels.
        UsageError: The output exists, or is not named `.onnx`.
    """
    model, output = Path(model), Path(output)
    if not is_onnx_file(output):
        raise UsageError(f"{output}: is not named .onnx, by which `predict` knows such a file")
    refuse_existing(output, overwrite)
    refuse_inputs(output, model)
    fitted = load_model(model)
    content = _content(fitted, model)
    with written_alone(output, overwrite) as beside:
        beside.write_bytes(content)
        agreement, pixels = _proved(fitted, beside)
        if agreement < _LEAST_AGREEMENT:
            raise ModelError(
                f"{model}: ONNX Runtime gives the model's label to {agreement:.6f} of "
                f"{pixels} pixels, less than {_LEAST_AGREEMENT}; nothing was written"
            )
    return Export(
        onnx=output,
        method=fitted.method.name,
        classes=len(fitted.classes),
        bands=len(fitted.transform.bands),
        receptive_field=fitted.method.receptive_field,
        bytes=len(content),
        pixels=pixels,
        agreement=agreement,
    )


class Graph(nn.Module):
    """The whole function of a model, from raw bands to labels, in operations that export."""

    mean: Tensor
    projection: Tensor

    def __init__(self, model: FittedModel) -> None:
        super().__init__()
        transform = model.labelling_transform
        self.nodata = model.nodata
        self.halo = model.method.halo
        self.network = _without_strips(copy.deepcopy(model.method.settled()))
        self.confidence = model.method.confidence
        mean = torch.as_tensor(transform.mean, dtype=torch.float32)
        projection = torch.as_tensor(transform.projection, dtype=torch.float32)
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("projection", projection[:, :, None, None])

    def forward(self, bands: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, row, col)` to classes and confidence, each `(row - 2 halo, col - 2 halo)`."""
        if self.nodata is not None:
            bands = torch.where(bands == self.nodata, torch.nan, bands)
        components = functional.conv2d((bands - self.mean)[None], self.projection)
        # One band that is not finite makes every component so: C values are looked at, not B.
        valid = torch.isfinite(components.sum(dim=1, keepdim=True))
        classes, confidence = self.labels_of(torch.where(valid, components, 0.0))
        rows, cols = (slice(self.halo, length - self.halo) for length in valid.shape[2:])
        core = valid[0, 0, rows, cols]
        return torch.where(core, classes, 0), torch.where(core, confidence, UNSURE)

    def labels_of(self, components: Tensor) -> tuple[Tensor, Tensor]:
        """The same from components, `(1, C, row, col)`, as if every pixel were valid."""
        scores = self.network(components)
        best = scores[0].argmax(dim=0) + 1
        sure = (self.confidence(scores)[0] * 100).round().clamp(0, 100)
        return best.to(torch.uint8), sure.to(torch.uint8)


def _without_strips(network: nn.Module) -> nn.Module:
    """A network without loops over its rows, whose number tracing would hold fast."""
    if isinstance(network, OriginalEncoder):
        raise ModelError(
            "the original encoder cuts a patch for every pixel, 0.7 MB each: it has no graph of "
            "free height and width; train with the dense encoder to export"
        )
    if isinstance(network, PixelStrips) and not network.network.exports:
        raise ModelError(
            "a forest walks from node to node: to export it is not possible; predict with the "
            "model file"
        )
    if isinstance(network, RowStrips | PixelStrips):
        return network.network
    for name, child in network.named_children():
        setattr(network, name, _without_strips(child))
    return network


def traced(graph: nn.Module, depth: int, halo: int) -> onnx.ModelProto:
    """A module as an ONNX graph of free height and width.

    Args:
        graph: Maps `(depth, row, col)` to classes and confidence.
        depth: Values of a pixel.
        halo: What it takes off each side.

    Raises:
        ModelError: It cannot be exported, or the libraries for it are not installed.
    """
    with onnx_libraries():
        import onnxscript  # noqa: F401 - torch exports through it
    side = 2 * halo + _PATCH
    free = {1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                graph.eval(),
                (torch.zeros(depth, side, side + 1),),
                dynamo=True,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=(free,),
                opset_version=_OPSET,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            first = " ".join(str(error).strip().splitlines()[:1])
            raise ModelError(f"torch cannot export this network: {first}") from error
    if program is None:
        raise ModelError("torch exported nothing")
    return program.model_proto


def _content(model: FittedModel, path: Path) -> bytes:
    """The ONNX file's content."""
    try:
        proto = traced(Graph(model), len(model.transform.bands), model.method.halo)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    _finish(proto, onnx_metadata(model))
    if (size := proto.ByteSize()) > LARGEST_FILE:
        raise ModelError(f"{path}: takes {size} bytes as ONNX, which holds {LARGEST_FILE} at most")
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _finish(proto: onnx.ModelProto, metadata: str) -> None:
    """Add metadata and names for people; drop what tracing left: paths, line numbers."""
    graph = proto.graph
    graph.name = METADATA_KEY
    del graph.value_info[:], graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    for value, lengths in (
        (graph.input[0], ("rows_and_halo", "cols_and_halo")),
        *((output, ("rows", "cols")) for output in graph.output),
    ):
        for size, name in zip(value.type.tensor_type.shape.dim[-2:], lengths, strict=True):
            size.dim_param = name
    describe(proto, metadata)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's exporter from telling of operators and trees that nobody asked about."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _proved(model: FittedModel, path: Path) -> tuple[float, int]:
    """Part of the pixels on which the file agrees with the model, and how many there are."""
    labeller = OnnxLabeller(load_onnx(path), "cpu")
    generator = np.random.default_rng(0)
    same = pixels = 0
    for rows, cols in _PROOFS:
        block, valid = _ground(model, rows, cols, generator)
        inside = torch.from_numpy(valid)
        bands = RawBands.of(labeller.model).apply(torch.from_numpy(block), inside)
        found = labeller(Components(bands, inside))
        wanted = _labels(model, block, valid)
        sure = np.abs(found.percent - wanted.percent) <= 1
        same += int(((found.classes == wanted.classes) & sure).sum())
        pixels += wanted.classes.size
    return same / pixels, pixels


def _ground(
    model: FittedModel, rows: int, cols: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A block as a scene of the model might be, with its halo: even patches, noise, holes.

    Components of the deviations that the transform was fitted to, turned back into bands.
    """
    transform, halo = model.labelling_transform, model.method.halo
    shape = (rows + 2 * halo, cols + 2 * halo)
    coarse = tuple(-(-length // _PATCH) for length in shape)
    patches = generator.normal(size=(transform.components, *coarse))
    even = patches.repeat(_PATCH, axis=1).repeat(_PATCH, axis=2)[:, : shape[0], : shape[1]]
    unit = even + 0.3 * generator.normal(size=even.shape)
    back = np.linalg.pinv(transform.projection) * transform.weights
    block = np.tensordot(back, unit, axes=1) + transform.mean[:, None, None]
    return block.astype(np.float32), generator.random(shape) >= _INVALID


def _labels(model: FittedModel, block: NDArray[np.float32], valid: NDArray[np.bool_]) -> Labels:
    """What the model itself says, with components in float64: independent of the graph."""
    transform, halo = model.labelling_transform, model.method.halo
    centred = np.where(valid, block - transform.mean[:, None, None], 0)
    components = np.tensordot(transform.projection, centred, axes=1).astype(np.float32)
    with torch.inference_mode():
        scores = model.method.settled()(torch.from_numpy(components)[None])
        classes = scores[0].argmax(dim=0).numpy() + 1
        sure = (model.method.confidence(scores)[0] * 100).round().clamp(0, 100).numpy()
    core = valid[halo : valid.shape[0] - halo, halo : valid.shape[1] - halo]
    return Labels(
        np.where(core, classes, 0).astype(np.uint8), np.where(core, sure, UNSURE).astype(np.uint8)
    )
