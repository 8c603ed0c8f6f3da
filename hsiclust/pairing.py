"""Which class of a truth a map's class number means.

The numbers of two files may differ though their classes are the same: text fields of vectors are
numbered in the order of the texts that a file happens to hold. So names go before numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

_MOST_LISTED = 4
_UNLIKE = "the map and the truth share no class name: classes are paired by number"
# How an ENVI header holds what separates its lists.
_AS_ENVI = str.maketrans(",{}", ";()")


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
    """Pair classes by name where both files name theirs and share a name, else by number.

    Where classes are paired by name, one of the truth whose name the map does not have is unknown
    to the map, whatever its number.

    Args:
        pixels: Labelled pixels of each class number of the truth that has any.
        truth_names: Names of the truth's classes, as far as it has them.
        map_numbers: Class numbers that the map has, named or in its pixels.
        map_names: Names of the map's classes, as far as it has them.
    """
    wanted = _numbers({number: truth_names.get(number, "") for number in pixels})
    held = _numbers(map_names)
    shared = wanted.keys() & held.keys()
    if shared:
        matching = {held[name]: wanted[name] for name in shared}
    else:
        matching = {number: number for number in pixels if number in map_numbers}
    matching = dict(sorted(matching.items()))
    names = _names(pixels, truth_names, {n: map_names.get(at, "") for at, n in matching.items()})
    notes = [
        _renumbered(matching, names),
        None if shared or not (wanted and held) else _UNLIKE,
        _unknown({n: pixels[n] for n in pixels if n not in matching.values()}, names),
    ]
    return Pairing(matching, names, "\n".join(note for note in notes if note) or None)


def _numbers(names: Mapping[int, str]) -> dict[str, int]:
    """Numbers by name; empty where one has no name, or not one of its own."""
    spelled = {n: " ".join(name.translate(_AS_ENVI).split()) for n, name in names.items()}
    if not all(_is_name(name, number) for number, name in spelled.items()):
        return {}
    numbers = {name: number for number, name in spelled.items()}
    return numbers if len(numbers) == len(spelled) else {}


def _is_name(name: str, number: int) -> bool:
    """A number as text is none: it is what vectors have whose classes are numbers."""
    return name not in ("", str(number))


def _names(
    numbers: Iterable[int], own: Mapping[int, str], others: Mapping[int, str]
) -> dict[int, str]:
    def name(number: int) -> str:
        known = (names.get(number, "") for names in (own, others))
        return next((name for name in known if _is_name(name, number)), f"class {number}")

    return {number: name(number) for number in numbers}


def _renumbered(matching: Mapping[int, int], names: Mapping[int, str]) -> str | None:
    moved = [
        f"{names[number]} is {number} in the truth and {mapped} in the map"
        for mapped, number in sorted(matching.items(), key=lambda pair: pair[1])
        if mapped != number
    ]
    return f"classes are paired by name: {_listed(moved)}" if moved else None


def _unknown(pixels: Mapping[int, int], names: Mapping[int, str]) -> str | None:
    listed = [f"{names[number]} ({count} pixels)" for number, count in pixels.items()]
    if not listed:
        return None
    return f"classes of the truth that the map does not know count as wrong: {_listed(listed)}"


def _listed(texts: list[str]) -> str:
    rest = len(texts) - _MOST_LISTED
    return ", ".join(texts[:_MOST_LISTED]) + (f" and {rest} more" if rest > 0 else "")
