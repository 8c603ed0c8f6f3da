"""What a scene says about its bands, and how the bands of two scenes are matched."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsiclust.errors import ModelError, UsageError

_NANOMETRES = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1e3,
    "µm": 1e3,  # micro sign
    "\u03bcm": 1e3,  # Greek mu
    "micron": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "angstrom": 0.1,
    "mm": 1e6,
    "millimeter": 1e6,
    "millimetre": 1e6,
    "cm": 1e7,
    "centimeter": 1e7,
    "centimetre": 1e7,
    "m": 1e9,
    "meter": 1e9,
    "metre": 1e9,
}
# What ENVI calls numbers of bands that are no lengths.
_NO_LENGTHS = frozenset({"index", "wavenumber", "ghz", "mhz"})
_NAMED_WAVELENGTH = re.compile(
    r"(?P<value>\d+(?:\.\d+)?)\s*"
    r"(?P<unit>nm|[uµ\u03bc]m|nanomet(?:er|re)s?|micro(?:n|met(?:er|re))s?)\b",
    re.IGNORECASE,
)
# Above this a wavelength without a unit must be nanometres: no optical sensor sees 100 um.
_LARGEST_MICROMETRE = 100.0
# GDAL writes its `IMAGERY` tags in whole nanometres.
_IMAGERY_ROUNDING = 0.5
# Lists of one sensor, one with fewer digits or of a new calibration, differ by no more than
# this part of the band spacing.
_SAME_SENSOR = 0.1
# A scene's band stands for a model's band when their centres differ by less than this part of
# the model's band spacing: re-calibration moves centres by less, another band lies further off.
_MATCH_SPACING = 0.5

# Lists of an ENVI header that have an entry a band.
_HEADER_LISTS = ("bbl", "wavelength", "fwhm")
_LONGEST_ENTRY = 24  # letters that a message has of one

Tags = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Bands:
    """What a scene says about its bands; each sequence has one entry a band, or is None.

    Attributes:
        count: Number of bands.
        names: Band names as the file has them, "" where it has none.
        wavelengths: Centre wavelengths in nanometres.
        fwhm: Full widths at half maximum in nanometres.
        units: The wavelength unit that the file itself uses.
        good: False for bands that the file's bad-bands list (bbl) excludes.
    """

    count: int
    names: tuple[str, ...] = ()
    wavelengths: tuple[float, ...] | None = None
    fwhm: tuple[float, ...] | None = None
    units: str | None = None
    good: tuple[bool, ...] | None = None

    def usable(self) -> tuple[int, ...]:
        """Bands that the bad-bands list leaves, counted from 0."""
        good = self.good or (True,) * self.count
        return tuple(index for index, is_good in enumerate(good) if is_good)


def describe_bands(
    names: Sequence[str], header: Mapping[str, str], imagery: Tags, tags: Tags
) -> Bands:
    """Collect what a file says about its bands, from the most to the least exact source.

    Args:
        names: Band names, "" where there is none.
        header: Fields of an ENVI header; empty for other formats.
        imagery: GDAL's `IMAGERY` tags of each band.
        tags: Plain tags of each band.
    """
    count = len(names)
    found = (
        _header_wavelengths(header, count)
        or _sharpened(_imagery_wavelengths(imagery), _tagged_wavelengths(tags))
        or _named_wavelengths(names)
    )
    flags = _numbers(header.get("bbl"), count) or _column(_lower(tags), "bbl", 1.0)
    good = None if flags is None else tuple(flag > 0 for flag in flags)
    if found is None:
        return Bands(count, tuple(names), good=good)
    wavelengths, fwhm, units = found
    return Bands(count, tuple(names), wavelengths, fwhm, units, good)


def unread_lists(header: Mapping[str, str], count: int) -> tuple[str, ...]:
    """Lists of an ENVI header that cannot be what they are called, and why, in words.

    Args:
        header: Its fields; empty for other formats.
        count: Number of bands.
    """
    found = []
    for name in _HEADER_LISTS:
        entries = _entries(header.get(name, ""))
        if entries and _numbers(header[name], count) is None:
            wrong = next((entry for entry in entries if not _is_finite(entry)), None)
            found.append(
                f"{name} in its header is ignored: {len(entries)} values between commas are found, "
                f"{count} expected"
                + ("" if wrong is None else f", and {_in_short(wrong)} is no number")
            )
    return tuple(found)


def bands_of_lists(
    count: int,
    wavelengths: Sequence[float],
    units: str,
    fwhm: Sequence[float] | None = None,
    good: Sequence[float] | None = None,
) -> Bands:
    """Bands as the arrays of a container describe them.

    Args:
        count: Number of bands.
        wavelengths: Centres; left out unless there are `count` finite ones.
        units: Their unit; by the size of the values where it is none that is known.
        fwhm: Full widths at half maximum, in the same unit.
        good: Above zero for bands that are to be used.
    """
    names = ("",) * count
    flags = None if good is None or len(good) != count else tuple(flag > 0 for flag in good)
    centres = _in_nanometres(wavelengths, units, wavelengths, count)
    if centres is None:
        return Bands(count, names, good=flags)
    widths = None if fwhm is None else _in_nanometres(fwhm, units, wavelengths, count)
    return Bands(count, names, centres, widths, units.strip() or "unknown", flags)


def is_wavelength_unit(text: str) -> bool:
    """Whether a text is a unit that hardly anything but wavelengths comes in."""
    return _NANOMETRES.get(_singular(text), math.inf) <= _NANOMETRES["um"]


def _in_nanometres(
    values: Sequence[float], units: str, centres: Sequence[float], count: int
) -> tuple[float, ...] | None:
    if len(values) != count or not bool(np.isfinite(values).all()):
        return None
    factor = _factor(units, centres)
    return None if factor is None else _scaled(values, factor)


_Spectral = tuple[tuple[float, ...], tuple[float, ...] | None, str]


def _header_wavelengths(header: Mapping[str, str], count: int) -> _Spectral | None:
    """Lists of an ENVI header."""
    centres = _numbers(header.get("wavelength"), count)
    if centres is None:
        return None
    units = header.get("wavelength_units", "").strip()
    factor = _factor(units, centres)
    if factor is None:
        return None
    fwhm = _numbers(header.get("fwhm"), count)
    widths = None if fwhm is None else _scaled(fwhm, factor)
    return _scaled(centres, factor), widths, units or "unknown"


def _imagery_wavelengths(imagery: Tags) -> _Spectral | None:
    """GDAL's `IMAGERY` tags, always micrometres."""
    centres = _column(imagery, "CENTRAL_WAVELENGTH_UM", 1e3)
    if centres is None:
        return None
    return centres, _column(imagery, "FWHM_UM", 1e3), "Micrometers"


def _tagged_wavelengths(tags: Tags) -> _Spectral | None:
    """Band tags "wavelength", "fwhm", "wavelength_units", in any case, as many tools write."""
    lower = _lower(tags)
    centres = _column(lower, "wavelength", 1.0)
    if centres is None:
        return None
    units = lower[0].get("wavelength_units", "")
    factor = _factor(units, centres)
    if factor is None:
        return None
    return _scaled(centres, factor), _column(lower, "fwhm", factor), units or "unknown"


def _sharpened(imagery: _Spectral | None, tagged: _Spectral | None) -> _Spectral | None:
    """GDAL's tags with the digits of the plain ones, where it has rounded its own to nanometres.

    A sensor of two detectors has bands that lie closer than that.
    """
    if imagery is None or tagged is None:
        return imagery or tagged
    rounded = all(centre == round(centre) for centre in imagery[0])
    if not rounded or not _all_within(_IMAGERY_ROUNDING + 1e-6, imagery[0], tagged[0]):
        return imagery
    return tagged[0], tagged[1] or imagery[1], imagery[2]


def _named_wavelengths(names: Sequence[str]) -> _Spectral | None:
    """Band names such as "650.0 Nanometers" or "band 8 (0.46 Micrometers)"."""
    matches = [match for match in map(_NAMED_WAVELENGTH.search, names) if match]
    if len(matches) != len(names) or not matches:
        return None
    centres = (float(match["value"]) * (_factor(match["unit"], ()) or 1.0) for match in matches)
    return tuple(round(centre, 6) for centre in centres), None, matches[0]["unit"]


def _singular(units: str) -> str:
    return units.strip().lower().removesuffix("s")


def _scaled(values: Sequence[float], factor: float) -> tuple[float, ...]:
    return tuple(round(float(value) * factor, 6) for value in values)


def _factor(units: str, values: Sequence[float]) -> float | None:
    """Nanometres in one unit; without a known unit, from the size of the values.

    None where the numbers are no wavelengths.
    """
    unit = _singular(units)
    if unit in _NO_LENGTHS:
        return None
    if unit in _NANOMETRES:
        return _NANOMETRES[unit]
    return 1e3 if values and max(values) < _LARGEST_MICROMETRE else 1.0


def _entries(text: str) -> list[str]:
    return [entry for entry in text.strip().strip("{}").split(",") if entry.strip()]


def _is_finite(entry: str) -> bool:
    try:
        return math.isfinite(float(entry))
    except ValueError:
        return False


def _in_short(entry: str) -> str:
    text = " ".join(entry.split())
    return repr(text if len(text) <= _LONGEST_ENTRY else f"{text[:_LONGEST_ENTRY]}...")


def _numbers(text: str | None, count: int) -> list[float] | None:
    """Numbers of an ENVI list such as "{ 0.46, 0.47 }", if there are `count` finite ones."""
    if text is None:
        return None
    try:
        numbers = [float(entry) for entry in _entries(text)]
    except ValueError:
        return None
    return numbers if len(numbers) == count and bool(np.isfinite(numbers).all()) else None


def _lower(tags: Tags) -> Tags:
    """Tags by their names in lower case."""
    return [{key.lower(): value for key, value in tag.items()} for tag in tags]


def _column(tags: Tags, key: str, factor: float) -> tuple[float, ...] | None:
    """A tag of every band, if all are finite numbers."""
    try:
        numbers = tuple(round(float(tag[key]) * factor, 6) for tag in tags)
    except (KeyError, ValueError):
        return None
    return numbers if bool(np.isfinite(numbers).all()) else None


def parse_bands(text: str, count: int) -> tuple[int, ...]:
    """Bands of an option such as "1,3..50", counted from 1, as indices counted from 0.

    Raises:
        UsageError: A part is no number or range, lies outside the scene, or comes twice.
    """
    chosen: list[int] = []
    for part in text.split(","):
        first, dots, last = part.strip().partition("..")
        try:
            start = int(first)
            stop = int(last) if dots else start
        except ValueError:
            raise UsageError(f"bands {text!r}: {part!r} is neither a number nor a range") from None
        if start > stop:
            raise UsageError(f"bands {text!r}: {part!r} is empty; the lower number comes first")
        if not (start >= 1 and stop <= count):
            raise UsageError(f"bands {text!r}: {part!r} is not within 1..{count}")
        chosen.extend(range(start - 1, stop))
    if len(set(chosen)) != len(chosen):
        raise UsageError(f"bands {text!r}: a band is named twice")
    return tuple(sorted(chosen))


def match_bands(
    used: Sequence[int], model: Bands, scene: Bands, scene_name: str
) -> tuple[int, ...]:
    """Bands of a scene that stand for the bands that a model uses.

    By wavelength when both have them; otherwise by number, when both have as many bands.

    Args:
        used: The model's bands, counted from 0.
        model: Bands of the sensor that the model was fitted on.
        scene: Bands of the scene to be labelled.
        scene_name: For the message.

    Raises:
        ModelError: The bands cannot be matched; the message names both.
    """
    if model.wavelengths is not None and scene.wavelengths is not None:
        return _match_wavelengths(used, model.wavelengths, scene.wavelengths, scene_name)
    if model.count != scene.count:
        raise ModelError(
            f"{scene_name}: has {scene.count} bands and the model was fitted on {model.count}; "
            "they can only be matched by wavelength, which "
            f"{'the scene' if scene.wavelengths is None else 'the model'} does not have"
        )
    return tuple(used)


def _match_wavelengths(
    used: Sequence[int], model: Sequence[float], scene: Sequence[float], scene_name: str
) -> tuple[int, ...]:
    if tuple(model) == tuple(scene):  # repeated centres are fine within one sensor
        return tuple(used)
    centres = np.asarray(scene)
    steps = np.abs(np.diff(np.asarray(model)))
    spacing = float(np.median(steps)) if len(steps) else float(model[0])
    # Where two detectors overlap, the band nearest to a rounded centre may be the other one's.
    exact = all(model.count(model[index]) == scene.count(model[index]) == 1 for index in used)
    if not exact and len(model) == len(scene) and _all_within(_SAME_SENSOR * spacing, model, scene):
        return tuple(used)
    matched = []
    for index in used:
        nearest = int(np.abs(centres - model[index]).argmin())
        if abs(centres[nearest] - model[index]) >= _MATCH_SPACING * spacing:
            raise ModelError(
                f"{scene_name}: no band near {model[index]:g} nm, which the model needs "
                f"(nearest is {centres[nearest]:g} nm; the model's bands are {spacing:g} nm apart)"
            )
        matched.append(nearest)
    if len(set(matched)) != len(matched):
        raise ModelError(
            f"{scene_name}: its {len(scene)} bands are too coarse for the model's {len(model)}: "
            "two bands of the model fall into one"
        )
    return tuple(matched)


def _all_within(most: float, model: Sequence[float], scene: Sequence[float]) -> bool:
    return bool((np.abs(np.subtract(model, scene)) <= most).all())
