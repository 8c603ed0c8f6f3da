"""Labels from an ONNX file: the same as from the model it was made from, through ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hsiclust.components import Components
from hsiclust.devices import resolve_device
from hsiclust.errors import DeviceError, ModelError
from hsiclust.labeller import Labels
from hsiclust.onnxfile import INPUT, OUTPUTS, OnnxModel, onnx_libraries
from hsiclust.palette import UNSURE

if TYPE_CHECKING:
    import onnxruntime

_FATAL = 4  # of ONNX Runtime's levels of logging
_SOURCE_LINE = re.compile(r"\S+\.(?:cc|cpp|cu|cuh|h):\d+ ")
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class RawBands:
    """What an ONNX file takes of a scene: its bands as they are. A `Preparation`.

    Attributes:
        components: Number of bands B.
        nodata: What the graph takes for a pixel without data, or None.
    """

    components: int
    nodata: float | None

    @classmethod
    def of(cls, model: OnnxModel) -> RawBands:
        """For this file."""
        return cls(model.depth, model.nodata)

    def apply(
        self, block: torch.Tensor, valid: torch.Tensor, into: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`(B, row, col)`, any real type, and `(row, col)` to `(B, row, col)`, float32.

        Invalid pixels are NaN, which the graph knows for invalid.
        """
        bands = torch.empty(block.shape, dtype=torch.float32) if into is None else into
        bands.copy_(block)
        values, inside = bands.numpy(), valid.cpu().numpy()
        if self.nodata is not None:
            # The scene decides what is nodata. Where it has another value than the model's scene
            # had, that value is a measurement here: its nearest neighbour stands for it.
            nodata = np.float32(self.nodata)
            clash = values == nodata
            if clash.any():
                values[clash & inside] = _neighbour(nodata)
        if not inside.all():
            values[:, ~inside] = np.nan
        return bands


class OnnxLabeller:
    """An ONNX file, ready to label blocks from any thread. A `Labeller`.

    Args:
        model: From `load_onnx`.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        DeviceError: The device that was asked for is not there, or ONNX Runtime cannot use it.
        ModelError: ONNX Runtime refuses the graph, or is not installed.
    """

    def __init__(self, model: OnnxModel, device: str = "auto") -> None:
        self.model = model
        self._session = _open_session(model, device)

    @property
    def halo(self) -> int:
        """That of the method inside."""
        return self.model.halo

    def __call__(self, components: Components) -> Labels:
        """Label a block.

        Args:
            components: The block with its halo, its values from `RawBands.apply`.

        Raises:
            ModelError: The graph fails, or gives what cannot be labels.
        """
        outside = ~components.trimmed(self.halo).valid.cpu().numpy()
        if outside.all():
            return Labels.none(outside.shape, confidence=True)
        classes, confidence = self._run(components.values.cpu().contiguous().numpy())
        if not classes.shape == confidence.shape == outside.shape:
            raise ModelError(
                f"{self.model.path}: gives labels of shape {classes.shape}, not {outside.shape}"
            )
        if classes.max() > len(self.model.classes):
            raise ModelError(
                f"{self.model.path}: gives class {classes.max()} of {len(self.model.classes)}"
            )
        classes[outside] = 0
        confidence[outside] = UNSURE
        return Labels(classes, confidence)

    def _run(self, values: NDArray[np.float32]) -> Sequence[NDArray[np.uint8]]:
        try:
            found: Sequence[NDArray[np.uint8]] = self._session.run(OUTPUTS, {INPUT: values})
        except _failures() as error:
            raise ModelError(
                f"{self.model.path}: ONNX Runtime fails on {values.shape}: {_in_short(error)}"
            ) from error
        return found


def _neighbour(value: np.float32) -> np.float32:
    """The nearest number towards zero; for zero the least that no processor rounds to zero."""
    if value == 0:
        return np.float32(np.finfo(np.float32).tiny)
    return np.float32(np.nextafter(value, np.float32(0)))


def _open_session(model: OnnxModel, name: str) -> onnxruntime.InferenceSession:
    """A session on the device that was asked for, and on no other."""
    with onnx_libraries():
        import onnxruntime
    device = resolve_device(name)
    # What it would log to standard error is either raised or found out below.
    onnxruntime.set_default_logger_severity(_FATAL)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    # Left to guess, it would take a message with the mark of its own format for a graph of that.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # The tiles are the parallelism: each run stays in the thread that calls it.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    providers = _providers(device)
    try:
        session = onnxruntime.InferenceSession(
            model.graph, options, providers=providers, enable_fallback=0
        )
    except _failures() as error:
        raise ModelError(f"{model.path}: ONNX Runtime refuses it: {_in_short(error)}") from error
    # Without the libraries that a provider needs, ONNX Runtime takes another one and goes on:
    # https://github.com/microsoft/onnxruntime/issues/23372
    running = session.get_providers()[0]
    if name != "auto" and running != providers[0][0]:
        raise DeviceError(
            f"device {name}: ONNX Runtime would run on {running}; it needs the CUDA libraries that "
            f"onnxruntime-gpu {onnxruntime.__version__} names; try --device cpu"
        )
    return session


def _providers(device: torch.device) -> list[tuple[str, dict[str, str]]]:
    """What ONNX Runtime is to run on, the first that it can."""
    if device.type == "cpu":
        return [(_CPU, {})]
    cuda = {
        "device_id": str(device.index or 0),
        "use_tf32": "0",  # 10 bits of mantissa are too few for bands less their mean
        "cudnn_conv_algo_search": "HEURISTIC",  # no search for each new size of a block
    }
    return [(_CUDA, cuda), (_CPU, {})]


def _in_short(error: Exception) -> str:
    """What ONNX Runtime says, in one line and without the lines of its sources."""
    first = next(iter(str(error).splitlines()), "")
    return _SOURCE_LINE.sub("", first).strip()


def _failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; its exceptions have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found: list[Any] = [getattr(state, name) for name in dir(state)]
    raised = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*raised, RuntimeError, ValueError)
