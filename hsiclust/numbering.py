"""The class numbers of a truth as classes 1..K of a model, with names and colours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hsiclust.errors import InputError, NoOverlapError
from hsiclust.features import LARGEST_NUMBER
from hsiclust.grid import Window
from hsiclust.legend import NO_LABELS, listed, printable_name, read_classes
from hsiclust.palette import MOST_CLASSES, Classes, Colour, class_colours
from hsiclust.truth import Truth, is_vector

# Side of the windows that labels are counted in: 2 MiB of class numbers.
_WINDOW = 1024


@dataclass(frozen=True, eq=False)
class Numbering:
    """Which class of a model each class number of a truth is.

    Attributes:
        path: The label file.
        classes: Names and colours of classes 1..K.
        numbers: The truth's own number of each class, `(K,)`, rising.
        present: Whether any pixel has the class, `(K,)`.
        notes: What has to be said, each one line.
    """

    path: str
    classes: Classes
    numbers: tuple[int, ...]
    present: NDArray[np.bool_]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def names(self) -> dict[int, str]:
        """Names of the classes that occur, by class."""
        named = enumerate(self.classes.names, start=1)
        return {at: name for at, name in named if self.present[at - 1]}

    def renumbered(self, truth: Truth) -> Truth:
        """A truth that gives classes 1..K; numbers that are no class are unlabelled."""
        table = np.zeros(LARGEST_NUMBER + 1, np.uint16)
        numbers = np.array(self.numbers)[self.present]
        table[numbers] = np.flatnonzero(self.present) + 1
        return Renumbered(truth, table, self.names)


@dataclass(frozen=True, eq=False)
class Renumbered:
    """A truth under other numbers; see `hsiclust.truth.Truth`.

    Attributes:
        truth: The class numbers.
        table: `(65536,)`, the new number of each.
        names: Names of the new numbers.
    """

    truth: Truth
    table: NDArray[np.uint16]
    names: Mapping[int, str] = field(default_factory=dict)

    @property
    def note(self) -> str | None:
        """That of the truth."""
        return self.truth.note

    def read(self, window: Window) -> NDArray[np.uint16]:
        """As `Truth.read`."""
        renumbered: NDArray[np.uint16] = self.table[self.truth.read(window)]
        return renumbered


def number_classes(path: str | Path, parts: Iterable[tuple[Truth, Window]]) -> Numbering:
    """Number the classes that occur in a label file.

    Numbers up to 255 are kept, so that the map has the truth's own; where there are larger ones,
    all are renumbered 1..K in rising order.

    Args:
        path: The label file: its colours are kept, and messages name it.
        parts: The file's labels on each scene, and which window of it counts.

    Raises:
        InputError: There are more than 255 classes, or scenes name a number differently.
        NoOverlapError: No pixel is labelled.
    """
    seen = np.zeros(LARGEST_NUMBER + 1, bool)
    names: dict[int, str] = {}
    for truth, area in parts:
        _add_names(str(path), names, truth.names)
        for window in area.cut(_WINDOW, _WINDOW):
            seen[truth.read(window)] = True
    found = [int(number) for number in np.flatnonzero(seen) if number > 0]
    if not found:
        raise NoOverlapError(f"{path}: labels no pixel of what is learned from")
    if len(found) > MOST_CLASSES:
        raise InputError(
            f"{path}: {len(found)} different classes; a map holds at most {MOST_CLASSES}"
        )
    notes = _lost_note(path, {number: name for number, name in names.items() if not seen[number]})
    if found[-1] <= MOST_CLASSES:
        numbers = range(1, found[-1] + 1)
        present, colours = seen[1 : len(numbers) + 1], _own_colours(path)
        return _numbering(path, numbers, present, names, colours, notes)
    note = (
        f"{path}: class numbers up to {found[-1]} do not fit a map: "
        f"the {len(found)} classes are renumbered 1 to {len(found)} in rising order"
    )
    return _numbering(path, found, np.ones(len(found), bool), names, {}, (note, *notes))


def _lost_note(path: str | Path, lost: Mapping[int, str]) -> tuple[str, ...]:
    """Which classes of a vector file label nothing; rasters often name more than they hold."""
    if not lost or not is_vector(path):
        return ()
    named = [_class_name(number, name) for number, name in sorted(lost.items())]
    return (
        f"{path}: classes that label no pixel: {listed(named)} (their shapes lie outside the "
        "scenes, under other classes, or cover less than half of each pixel)",
    )


def _add_names(path: str, names: dict[int, str], more: Mapping[int, str]) -> None:
    for number, name in more.items():
        if names.setdefault(number, name) != name:
            raise InputError(f"{path}: class {number} is called {names[number]!r} and {name!r}")


def _numbering(
    path: str | Path,
    numbers: Sequence[int],
    present: NDArray[np.bool_],
    names: Mapping[int, str],
    colours: Mapping[int, Colour],
    notes: tuple[str, ...],
) -> Numbering:
    called = _names(numbers, present, names)
    chosen = class_colours(len(numbers))
    drawn = tuple(colours.get(n, own) for n, own in zip(numbers, chosen, strict=True))
    return Numbering(str(path), Classes(called, drawn), tuple(numbers), present.copy(), notes)


def _names(
    numbers: Sequence[int], present: NDArray[np.bool_], names: Mapping[int, str]
) -> tuple[str, ...]:
    """One printable line a class, no two alike."""
    called: list[str] = []
    taken: set[str] = set()
    for number, occurs in zip(numbers, present, strict=True):
        name = _class_name(number, names.get(number, ""))
        if not occurs:
            name += NO_LABELS
        while name in taken:
            name = f"{name} ({number})"
        taken.add(name)
        called.append(name)
    return tuple(called)


def _class_name(number: int, name: str) -> str:
    """What a class is called in one printable line, whatever its file calls it."""
    name = printable_name(name)
    return f"class {number}" if name in ("", str(number)) else name


def _own_colours(path: str | Path) -> dict[int, Colour]:
    """Colours of a label raster that names its classes, by class number."""
    own = None if is_vector(path) else read_classes(path)
    return {} if own is None else dict(enumerate(own.colours, start=1))
