"""Checkpoints of a training: what it needs to go on after a kill."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

from hsiclust.models.base import Method
from hsiclust.models.moments import below
from hsiclust.tensorfile import is_whole, save_tensors


def save_checkpoint(
    path: Path, method: Method, run: str, step: int, loss: float = math.nan
) -> None:
    """Write weights and optimiser after `step` steps, of which the last had this loss."""
    tensors = {f"network.{name}": value for name, value in method.state_dict().items()}
    tensors |= {f"optimiser.{name}": value for name, value in method.optimiser_state().items()}
    save_tensors(path, tensors, {"run": run, "step": str(step), "loss": repr(loss)})


def load_checkpoint(path: Path, method: Method, run: str) -> int | None:
    """Restore a method; returns how many steps it has taken, None if nothing can be restored.

    A checkpoint of another run (other scenes, settings, seed) is not touched by a training that
    cannot use it; it is replaced when that training writes its own.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("run") != run or not is_whole(file):
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
    method.load_state_dict(below("network.", tensors))
    method.load_optimiser_state(below("optimiser.", tensors))
    return int(metadata["step"])


def loss_of(path: Path) -> float:
    """The loss that a checkpoint tells, which `load_checkpoint` restored."""
    with safe_open(path, framework="pt") as file:
        return float(file.metadata().get("loss", "nan"))
