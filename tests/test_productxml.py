"""Images of EnMAP and DESIS in miniature, with the XML that lies beside each."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import fields_cube, write_raster

from hsiclust.bands import Bands
from hsiclust.facts import info
from hsiclust.grid import Window
from hsiclust.productxml import with_metadata
from hsiclust.scene import Scene

ENMAP = "ENMAP01-____L2A-DT0000001867_20220724T104526Z_008_V010302_20230628T165614Z"
DESIS = "DESIS-HSI-L2A-DT0865788448_017-20230607T153935-V0220"
CENTRES = (418.42, 424.04, 902.25, 900.5, 911.57)
WIDTHS = (6.9, 6.75, 12.1, 11.9, 12.0)


def enmap(specific: str = "", numbers: Sequence[int] = (1, 2, 3, 4, 5)) -> str:
    """The metadata of an EnMAP product, bands in any order."""
    bands = "".join(
        f'<bandID number="{number}"><wavelengthCenterOfBand>{CENTRES[number - 1]}'
        f"</wavelengthCenterOfBand><FWHMOfBand>{WIDTHS[number - 1]}</FWHMOfBand>"
        "<GainOfBand>0.0001</GainOfBand><OffsetOfBand>0</OffsetOfBand></bandID>"
        for number in numbers
    )
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
        '<level_X xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><base><level>L2A</level>'
        f"</base><specific>{specific}<bandCharacterisation>{bands}</bandCharacterisation></specific>"
        '<product><bandStatistics><bandID number="1"><mean>7</mean></bandID></bandStatistics>'
        "</product></level_X>"
    )


def desis() -> str:
    """The metadata of a DESIS product; bands are described a second time, by their geometry."""
    bands = "".join(
        f"<band><bandNumber>{number}</bandNumber><response>0.1,0.9</response>"
        f"<wavelengthCenterOfBand>{centre}</wavelengthCenterOfBand>"
        f"<wavelengthWidthOfBand>{width}</wavelengthWidthOfBand><wavelengths>1,2</wavelengths></band>"
        for number, (centre, width) in enumerate(zip(CENTRES, WIDTHS, strict=True), start=1)
    )
    return (
        f"<hsi_doc><specific><bandCharacterisation>{bands}</bandCharacterisation>"
        "<interiorOrientation><band><bandNumber>1</bandNumber></band></interiorOrientation>"
        "</specific></hsi_doc>"
    )


def image(folder: Path, name: str, bands: int = 5, **profile: object) -> Path:
    return write_raster(folder / name, fields_cube(20, 20, bands)[0], **profile)


def test_wavelengths_of_an_enmap_image(tmp_path: Path) -> None:
    (tmp_path / f"{ENMAP}-METADATA.XML").write_text(enmap(numbers=(5, 1, 2, 3, 4)))
    bands = Scene.open(image(tmp_path, f"{ENMAP}-SPECTRAL_IMAGE.TIF")).bands
    assert (bands.wavelengths, bands.fwhm, bands.units) == (CENTRES, WIDTHS, "nm")


def test_wavelengths_of_a_desis_image(tmp_path: Path) -> None:
    (tmp_path / f"{DESIS}-METADATA.xml").write_text(desis())
    bands = Scene.open(image(tmp_path, f"{DESIS}-SPECTRAL_IMAGE.tif")).bands
    assert (bands.wavelengths, bands.fwhm, bands.units) == (CENTRES, WIDTHS, "nm")


@pytest.mark.parametrize(
    ("name", "driver"),
    [("SPECTRAL_IMAGE.BSQ", "ENVI"), ("SPECTRAL_IMAGE_COG.tiff", "GTiff")],
)
def test_other_formats_of_an_enmap_image(tmp_path: Path, name: str, driver: str) -> None:
    (tmp_path / f"{ENMAP}-METADATA.XML").write_text(enmap())
    bands = Scene.open(image(tmp_path, f"{ENMAP}-{name}", driver=driver)).bands
    assert bands.wavelengths == CENTRES


@pytest.mark.parametrize(("detector", "part"), [("VNIR", slice(3)), ("SWIR", slice(3, 5))])
def test_bands_of_one_detector(tmp_path: Path, detector: str, part: slice) -> None:
    said = enmap('<numberOfVNIRBands unit="none">3</numberOfVNIRBands>')
    (tmp_path / f"{ENMAP}-METADATA.XML").write_text(said)
    count = len(CENTRES[part])
    bands = Scene.open(image(tmp_path, f"{ENMAP}-SPECTRAL_IMAGE_{detector}.TIF", count)).bands
    assert (bands.wavelengths, bands.fwhm) == (CENTRES[part], WIDTHS[part])


@pytest.mark.parametrize(("own", "expected"), [(None, -32768.0), (-1.0, -1.0)])
def test_nodata_stands_in_the_xml_alone(tmp_path: Path, own: float | None, expected: float) -> None:
    said = enmap("<backgroundValue>-32768</backgroundValue>")
    (tmp_path / f"{ENMAP}-METADATA.XML").write_text(said)
    cube = fields_cube(20, 20, 5)[0]
    cube[:, 0, 0] = expected
    path = write_raster(tmp_path / f"{ENMAP}-SPECTRAL_IMAGE.TIF", cube, nodata=own)
    scene = Scene.open(path)
    window = Window(0, 0, 1, 2)
    assert scene.nodata == expected
    assert scene.valid(scene.read(window), window).tolist() == [[False, True]]
    assert Scene.open(path, nodata=-5.0).nodata == -5.0


def test_what_the_image_says_itself_counts(tmp_path: Path) -> None:
    (tmp_path / f"{ENMAP}-METADATA.XML").write_text(enmap())
    own = Bands(5, ("",) * 5, (1.0, 2.0, 3.0, 4.0, 5.0), None, "nm")
    facts = with_metadata(str(tmp_path / f"{ENMAP}-SPECTRAL_IMAGE.TIF"), own)
    assert facts.bands is own


@pytest.mark.parametrize("name", ["scene.tif", f"{ENMAP}-QL_QUALITY_CLOUD.TIF"])
def test_the_xml_of_another_file_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{ENMAP}-METADATA.XML").write_text(enmap())
    (tmp_path / "scene-METADATA.XML").write_text(enmap())
    scene = Scene.open(image(tmp_path, name))
    assert (scene.bands.wavelengths, scene.unread) == (None, ())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (enmap(numbers=(1, 2, 3)), "it describes 3 bands, the image has 5"),
        (enmap().replace("6.75", "-1"), "a wavelength or width in it is not above 0"),
        (enmap().replace("6.75", "inf"), "a wavelength or width in it is not above 0"),
        (enmap().replace("424.04", "blue"), "it cannot be read: could not convert"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><a/>', "document type 'a' declared"),
        ("<level_X>", "it cannot be read: no element found"),
        (" " * (8 * 2**20 + 1), "it has 8388609 bytes, at most 8388608 are read"),
    ],
)
def test_an_xml_that_does_not_fit_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, why: str
) -> None:
    (tmp_path / f"{ENMAP}-METADATA.XML").write_text(text)
    path = image(tmp_path, f"{ENMAP}-SPECTRAL_IMAGE.TIF")
    with caplog.at_level(logging.WARNING):
        facts = info(str(path))
    assert facts["wavelengths_nm"] is None
    assert f"{path}: {ENMAP}-METADATA.XML beside it is ignored: {why}" in caplog.text


def test_a_detector_whose_bands_are_not_told_apart(tmp_path: Path) -> None:
    (tmp_path / f"{ENMAP}-METADATA.XML").write_text(enmap())
    scene = Scene.open(image(tmp_path, f"{ENMAP}-SPECTRAL_IMAGE_VNIR.TIF", 3))
    assert scene.bands.wavelengths is None
    assert "does not say how many of its bands are VNIR" in str(scene.unread)
