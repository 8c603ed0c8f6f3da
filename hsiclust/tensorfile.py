"""Tensors in a file that knows when it was damaged: safetensors with a digest of all it holds.

The digest is against accidents, a bad copy or a bad disk. It is not against people: who changes a
file on purpose can write the digest that fits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hsiclust.output import written_beside

# A tensor, not metadata: safetensors writes two entries of metadata in any order, and the same
# model is to be the same file.
DIGEST = "sha256"


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors, metadata and their digest beside and rename the file."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    digest = torch.tensor(list(_digest(sorted(whole.items()), metadata)), dtype=torch.uint8)
    with written_beside(path) as beside:
        save_file({**whole, DIGEST: digest}, beside, dict(metadata))


def is_whole(file: Any) -> bool:
    """Whether an open file holds what was written to it; one of before there was a digest does."""
    names = sorted(file.keys())
    if DIGEST not in names:
        return True
    held = ((name, file.get_tensor(name)) for name in names if name != DIGEST)
    wanted: list[int] = file.get_tensor(DIGEST).tolist()
    return wanted == list(_digest(held, file.metadata() or {}))


def _digest(tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str]) -> bytes:
    """SHA-256 of the metadata, and of each tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(ascii(sorted(metadata.items())).encode())
    for name, value in tensors:
        digest.update(ascii((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()
