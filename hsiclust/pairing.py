"""Which class of a truth a map's class number means.

The numbers of two files may differ though their classes are the same: text fields of vectors are
numbered in the order of the texts that a file happens to hold. So names go before numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hsiclust.legend import NO_LABELS, listed, printable_name
from hsiclust.palette import AS_ENVI

_MOST_LISTED = 4
_UNLIKE = "the map and the truth share no class name: classes are paired by number"
_NAMELESS = "only the {} has names to pair by: classes are paired by number"


@dataclass(frozen=True)
class Pairing:
    """Classes of a map and of a truth that are the same.

    Attributes:
        matching: Class number of the truth, by class number of the map; one to one.
        names: What the truth's classes are called, by the truth or else by the map.
        note: What is to be known about it, or None.
    """

    matching: Mapping[int, int]
    names: Mapping[int, str]
    note: str | None


def pair_classes(
    pixels: Mapping[int, int],
    truth_names: Mapping[int, str],
    map_numbers: Collection[int],
    map_names: Mapping[int, str],
) -> Pairing:
    """Pair classes by name where the files share one, else by number.

    A class without a name, or with a number for a name, is called `class 7`. That is a name to pair
    by where one of the files has it at another number: a map whose classes were renumbered.

    Where classes are paired by name, one of the truth whose name the map does not have is unknown
    to the map, whatever its number.

    Args:
        pixels: Labelled pixels of each class number of the truth that has any.
        truth_names: Names of the truth's classes, as far as it has them.
        map_numbers: Class numbers that the map has, named or in its pixels.
        map_names: Names of the map's classes, as far as it has them.
    """
    wanted = _spelled(pixels, truth_names)
    held = _spelled({*map_numbers, *map_names}, map_names)
    shared = wanted.keys() & held.keys()
    by_name = any(_tells(name, wanted[name]) or _tells(name, held[name]) for name in shared)
    if by_name:
        matching = {held[name]: wanted[name] for name in shared}
    else:
        matching = {number: number for number in pixels if number in map_numbers}
    matching = dict(sorted(matching.items()))
    names = _names(pixels, truth_names, {n: map_names.get(at, "") for at, n in matching.items()})
    notes = [
        _renumbered(matching, names),
        None if by_name else _unnamed(wanted, held),
        _unknown({n: pixels[n] for n in pixels if n not in matching.values()}, names),
    ]
    return Pairing(matching, names, "\n".join(note for note in notes if note) or None)


def _spelled(numbers: Iterable[int], names: Mapping[int, str]) -> dict[str, int]:
    """Class numbers by what the classes are called; a name that stands twice is none."""
    spelled = {number: _spelling(names.get(number, ""), number) for number in numbers}
    times = Counter(spelled.values())
    found = {name if times[name] == 1 else _spelling("", n): n for n, name in spelled.items()}
    if len(found) < len(spelled):  # another class is called as one without a name is
        return {_spelling("", number): number for number in spelled}
    return found


def _spelling(name: str, number: int) -> str:
    """A name as maps hold it, whatever their format."""
    text = printable_name(name).translate(AS_ENVI)
    is_number = text.isdecimal() and text == str(int(text))
    return f"class {text if is_number else number}" if is_number or not text else text


def _tells(name: str, number: int) -> bool:
    """Whether a name says more than the number that it stands at."""
    return name.removesuffix(NO_LABELS) != f"class {number}"


def _unnamed(wanted: Mapping[str, int], held: Mapping[str, int]) -> str | None:
    truth, label_map = (any(_tells(*item) for item in side.items()) for side in (wanted, held))
    if truth and label_map:
        return _UNLIKE
    if truth or label_map:
        return _NAMELESS.format("truth" if truth else "map")
    return None


def _names(
    numbers: Iterable[int], own: Mapping[int, str], others: Mapping[int, str]
) -> dict[int, str]:
    def name(number: int) -> str:
        known = (names.get(number, "") for names in (own, others))
        telling = (name for name in known if _tells(_spelling(name, number), number))
        return next(telling, f"class {number}")

    return {number: name(number) for number in numbers}


def _renumbered(matching: Mapping[int, int], names: Mapping[int, str]) -> str | None:
    moved = [
        f"{names[number]} is {number} in the truth and {mapped} in the map"
        for mapped, number in sorted(matching.items(), key=lambda pair: pair[1])
        if mapped != number
    ]
    return f"classes are paired by name: {listed(moved, _MOST_LISTED)}" if moved else None


def _unknown(pixels: Mapping[int, int], names: Mapping[int, str]) -> str | None:
    unknown = [f"{names[number]} ({count} pixels)" for number, count in pixels.items()]
    if not unknown:
        return None
    said = "classes of the truth that the map does not know count as wrong"
    return f"{said}: {listed(unknown, _MOST_LISTED)}"
