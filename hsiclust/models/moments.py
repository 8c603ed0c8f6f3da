"""What an optimiser has learned of its parameters, as tensors by name: for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def moments(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State by parameter number and name, such as "3.exp_avg"."""
    return {
        f"{index}.{name}": value
        for index, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def load_moments(optimiser: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Take back what `moments` gave."""
    full = optimiser.state_dict()
    full["state"] = {}
    for key, value in state.items():
        index, name = key.split(".")
        full["state"].setdefault(int(index), {})[name] = value
    optimiser.load_state_dict(full)


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    chosen = (name for name in tensors if name.startswith(prefix))
    return {name.removeprefix(prefix): tensors[name] for name in chosen}
