import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsiclust.bands import (
    Bands,
    bands_of_lists,
    describe_bands,
    match_bands,
    parse_bands,
    unread_lists,
)
from hsiclust.errors import ModelError, UsageError

NONE = [{}, {}, {}]


def test_envi_lists_come_first_and_become_nanometres() -> None:
    header = {
        "wavelength": "{0.46, 0.4650, 2.5}",
        "fwhm": "{ 0.0058, 0.006, .01}",
        "wavelength_units": "Micrometers",
        "bbl": "{1, 0, 1}",
    }
    bands = describe_bands(["", "", ""], header, [{"CENTRAL_WAVELENGTH_UM": "9"}] * 3, NONE)
    assert bands.wavelengths == (460.0, 465.0, 2500.0)
    assert bands.fwhm == (5.8, 6.0, 10.0)
    assert bands.units == "Micrometers"
    assert bands.usable() == (0, 2)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["650.0 Nanometers", "655.5 Nanometers", "660 nm"], (650.0, 655.5, 660.0)),
        (["band 8 (0.46 Micrometers)", "b 9 (0.5 um)", "b (0.6 µm)"], (460.0, 500.0, 600.0)),
        (["red", "650 nm", "700 nm"], None),
        (["band 1", "band 2", "band 3"], None),
    ],
)
def test_wavelengths_in_band_names(names: list[str], expected: tuple[float, ...] | None) -> None:
    assert describe_bands(names, {}, NONE, NONE).wavelengths == expected


@pytest.mark.parametrize(
    ("units", "values", "expected"),
    [
        ("Angstroms", "4000, 5000", (400.0, 500.0)),
        ("Millimeters", "0.0004, 0.0005", (400.0, 500.0)),
        ("m", "4e-7, 5e-7", (400.0, 500.0)),
        ("Index", "1, 2", None),
        ("Wavenumber", "25000, 20000", None),
        ("GHz", "1, 2", None),
    ],
)
def test_units_of_envi(units: str, values: str, expected: tuple[float, ...] | None) -> None:
    header = {"wavelength": f"{{{values}}}", "wavelength_units": units}
    tags = [{"wavelength": value, "wavelength_units": units} for value in values.split(", ")]
    assert describe_bands(["", ""], header, [{}, {}], [{}, {}]).wavelengths == expected
    assert describe_bands(["", ""], header, [{}, {}], tags).wavelengths == expected


@pytest.mark.parametrize("units", ["Index", "Wavenumber", "GHz", "MHz"])
def test_numbers_of_a_container_that_are_no_lengths(units: str) -> None:
    assert bands_of_lists(3, (400.0, 500.0, 600.0), units).wavelengths is None


def test_imagery_and_plain_tags() -> None:
    imagery = [{"CENTRAL_WAVELENGTH_UM": f"0.{i}", "FWHM_UM": "0.01"} for i in (4, 5, 6)]
    bands = describe_bands(["a", "b", "c"], {}, imagery, NONE)
    assert bands.wavelengths == (400.0, 500.0, 600.0)
    assert bands.fwhm == (10.0, 10.0, 10.0)
    plain = [{"Wavelength": str(nm), "wavelength_units": "nm"} for nm in (400, 500, 600)]
    assert describe_bands(["a", "b", "c"], {}, NONE, plain).wavelengths == (400.0, 500.0, 600.0)


@pytest.mark.parametrize(
    ("flags", "usable"), [(("1", "0", "1"), (0, 2)), (("1", "x", "0"), (0, 1, 2))]
)
def test_bad_bands_as_tags(flags: tuple[str, ...], usable: tuple[int, ...]) -> None:
    """As the EnMAP-Box writes them."""
    tags = [{"BBL": flag} for flag in flags]
    assert describe_bands(["", "", ""], {}, NONE, tags).usable() == usable
    header = {"bbl": "{0, 1, 1}"}
    assert describe_bands(["", "", ""], header, NONE, tags).usable() == (1, 2)


def test_tags_that_are_no_wavelengths() -> None:
    tags = [{"wavelength": "400"}, {"wavelength": "nan"}]
    assert describe_bands(["", ""], {}, [{}, {}], tags).wavelengths is None


def test_plain_tags_have_more_digits_than_imagery_tags() -> None:
    """As GDAL writes an ENVI cube to GeoTIFF."""
    imagery = [{"CENTRAL_WAVELENGTH_UM": f"0.{nm}", "FWHM_UM": "0.010"} for nm in (697, 687, 697)]
    plain = [
        {"wavelength": f"0.{digits}", "wavelength_units": "Micrometers"}
        for digits in (69650, 68691, 69655)
    ]
    bands = describe_bands(["", "", ""], {}, imagery, plain)
    assert bands.wavelengths == (696.5, 686.91, 696.55)
    assert bands.fwhm == (10.0, 10.0, 10.0)


@pytest.mark.parametrize("wavelength", ["0.6961", "nan", "696.5"])
def test_plain_tags_that_contradict_imagery_tags(wavelength: str) -> None:
    imagery = [{"CENTRAL_WAVELENGTH_UM": f"0.{nm}"} for nm in (697, 687, 697)]
    plain = [{"wavelength": w} for w in ("0.69650", "0.68691", wavelength)]
    assert describe_bands(["", "", ""], {}, imagery, plain).wavelengths == (697.0, 687.0, 697.0)


def test_imagery_tags_that_are_not_rounded_are_believed() -> None:
    imagery = [{"CENTRAL_WAVELENGTH_UM": f"0.{nm}"} for nm in (6974, 6871, 6968)]
    plain = [{"wavelength": nm} for nm in ("697", "687", "697")]
    bands = describe_bands(["", "", ""], {}, imagery, plain)
    assert bands.wavelengths == (697.4, 687.1, 696.8)
    assert bands.units == "Micrometers"


def test_a_list_of_the_wrong_length_is_not_believed() -> None:
    bands = describe_bands(["", "", ""], {"wavelength": "{1, 2}", "bbl": "{x, 1, 1}"}, NONE, NONE)
    assert bands.wavelengths is None
    assert bands.usable() == (0, 1, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{1, 1}", "2 values between commas are found, 3 expected"),
        ("{1 1 0}", "1 values between commas are found, 3 expected, and '1 1 0' is no number"),
        ("{1,x\n,0}", "3 values between commas are found, 3 expected, and 'x' is no number"),
        ("{1, nan, 0}", "3 values between commas are found, 3 expected, and 'nan' is no number"),
        (
            "{" + "1 " * 400 + "}",
            f"1 values between commas are found, 3 expected, and '{'1 ' * 12}...' is no number",
        ),
    ],
)
@pytest.mark.parametrize("name", ["bbl", "wavelength", "fwhm"])
def test_lists_of_a_header_that_cannot_be_used(name: str, text: str, said: str) -> None:
    header = {"bbl": "{1, 0, 1}", "wavelength": "{4, 5, 6.5}", "fwhm": "{}"}
    assert unread_lists(header, 3) == unread_lists({}, 3) == ()
    assert unread_lists({**header, name: text}, 3) == (f"{name} in its header is ignored: {said}",)


@given(st.lists(st.integers(1, 40), min_size=1, unique=True))
def test_parse_bands_counts_from_one(numbers: list[int]) -> None:
    text = ",".join(map(str, numbers))
    assert parse_bands(text, 40) == tuple(sorted(number - 1 for number in numbers))


def test_parse_bands_ranges() -> None:
    assert parse_bands("1,3..5", 9) == (0, 2, 3, 4)


def test_parse_bands_says_that_a_range_counts_down() -> None:
    with pytest.raises(UsageError, match=r"'5\.\.3' is empty; the lower number comes first"):
        parse_bands("1,5..3", 9)


@pytest.mark.parametrize("text", ["0", "10", "a", "3..2", "1,1", "1..", ""])
def test_parse_bands_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="bands"):
        parse_bands(text, 9)


def test_bands_match_by_wavelength_in_any_order() -> None:
    model = Bands(4, wavelengths=(400.0, 410.0, 420.0, 430.0))
    scene = Bands(5, wavelengths=(431.0, 421.0, 411.0, 401.0, 391.0))
    assert match_bands((0, 2, 3), model, scene, "s") == (3, 1, 0)


def test_a_sensor_of_two_detectors_matches_its_own_rounded_list() -> None:
    """The nearest band of the other detector is as near, or nearer."""
    centres = (677.0, 686.6, 696.5, 686.91, 696.55, 706.19)
    rounded = tuple(float(round(centre)) for centre in centres)
    model, scene = Bands(6, wavelengths=centres), Bands(6, wavelengths=rounded)
    for used in (range(6), (0, 1, 2, 5), (3, 4, 5)):
        assert match_bands(used, model, scene, "s") == tuple(used)
        assert match_bands(used, scene, model, "s") == tuple(used)


@pytest.mark.parametrize(
    "centres",
    [
        (677.0, 686.6, 696.5, 686.91, 696.55, 706.19),
        (667.0, 677.0, 686.91, 686.6, 696.5, 706.19, 716.0),  # moved by less than a rounding
    ],
)
def test_a_list_in_another_order_matches_by_wavelength(centres: tuple[float, ...]) -> None:
    count = len(centres)
    order = sorted(range(count), key=lambda band: centres[band])
    scene = Bands(count, wavelengths=tuple(centres[band] for band in order))
    found = match_bands(range(count), Bands(count, wavelengths=centres), scene, "s")
    assert [order[band] for band in found] == list(range(count))


def test_a_centre_that_stands_there_twice_is_not_exact() -> None:
    model = Bands(6, wavelengths=(677.0, 687.0, 697.0, 687.0, 697.0, 707.0))
    scene = Bands(6, wavelengths=(677.0, 687.0, 697.0, 687.0, 697.0, 707.1))
    assert match_bands((3, 4), model, scene, "s") == (3, 4)


def test_bands_without_wavelengths_match_by_number() -> None:
    assert match_bands((0, 3), Bands(4), Bands(4, wavelengths=(1.0, 2.0, 3.0, 4.0)), "s") == (0, 3)


def test_unlike_bands_are_named() -> None:
    with pytest.raises(ModelError, match=r"s\.tif.*5 bands.*4"):
        match_bands((0, 3), Bands(4), Bands(5), "s.tif")
    model = Bands(3, wavelengths=(400.0, 410.0, 420.0))
    with pytest.raises(ModelError, match="420 nm"):
        match_bands((0, 2), model, Bands(2, wavelengths=(400.0, 410.0)), "s.tif")
    uneven = Bands(3, wavelengths=(400.0, 410.0, 411.0))
    with pytest.raises(ModelError, match="coarse"):
        match_bands((1, 2), uneven, Bands(2, wavelengths=(410.5, 500.0)), "s.tif")
