"""A split on disk: what was learned from and what was held out, to look at and to score on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsiclust.grid import Window
from hsiclust.labelmap import write_map
from hsiclust.legend import LABELS_TAG, SPLIT_TAG, split_owner
from hsiclust.mapformat import MapFormat
from hsiclust.numbering import Numbering
from hsiclust.split import Site, Split
from hsiclust.truth import Truth


def split_files(beside: Path, sites: int, held_out: bool = True) -> tuple[Path, ...]:
    """The files that a split is written to.

    Args:
        beside: Their folder and the start of their names.
        sites: How many scenes there are; of several, their number stands in the names.
        held_out: Whether anything is held out.
    """
    return tuple(file for site in range(sites) for file in _of_site(beside, site, sites, held_out))


def _of_site(beside: Path, site: int, sites: int, held_out: bool) -> tuple[Path, ...]:
    stem = beside.stem if sites == 1 else f"{beside.stem}_{site + 1}"
    parts = ("training", "held_out") if held_out else ("training",)
    return tuple(beside.with_name(f"{stem}_{part}.tif") for part in parts)


def earlier_files(beside: Path, written: Sequence[Path]) -> list[Path]:
    """Files of an earlier split of the same model that a new one does not replace.

    Args:
        beside: The model; its folder is there.
        written: What the new split is written to.
    """
    name = re.compile(rf"{re.escape(beside.stem)}(_\d+)?_(training|held_out)\.tif")
    named = sorted(path for path in beside.parent.iterdir() if name.fullmatch(path.name))
    return [path for path in named if path not in written and split_owner(path) == beside.name]


def write_split(split: Split, sites: Sequence[Site], classes: Numbering, beside: Path) -> None:
    """Write a split, so that `hsiclust evaluate` scores a map on what was held out.

    Beside `out.safetensors` stand `out_training.tif` and `out_held_out.tif`, class numbers on the
    scene's grid. Files that are there are replaced.

    Args:
        split: What is written.
        sites: The scenes that it was made of.
        classes: Names and colours.
        beside: Names the files; see `split_files`.

    Raises:
        HsiclustError: A file cannot be written.
    """
    form = MapFormat(tags={LABELS_TAG: "classes", SPLIT_TAG: beside.name})
    held_out = split.held_out or (None,) * len(sites)
    for number, (site, training, held) in enumerate(
        zip(sites, split.training, held_out, strict=True)
    ):
        parts = (training,) if held is None else (training, held)
        files = _of_site(beside, number, len(sites), held is not None)
        for file, truth in zip(files, parts, strict=True):
            write_map(_Bytes(truth), site.grid, file, classes.classes, form)


@dataclass(frozen=True, eq=False)
class _Bytes:
    """Class numbers of a truth as those of a map."""

    truth: Truth

    def read(self, window: Window) -> NDArray[np.uint8]:
        return self.truth.read(window).astype(np.uint8)
