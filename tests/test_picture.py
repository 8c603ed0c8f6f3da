import struct

import numpy as np
import pytest
import rasterio
from affine import Affine
from matplotlib.image import imread
from rasterio.crs import CRS

from hsiclust import picture
from hsiclust.errors import InputError, OutputExistsError, UsageError
from hsiclust.falsecolour import NO_DATA, false_colour
from hsiclust.grid import PixelGrid
from hsiclust.labelmap import write_map
from hsiclust.mapformat import MapFormat
from hsiclust.palette import Classes, class_colours
from hsiclust.picture import ReportOptions, report
from hsiclust.scene import Scene

UTM = CRS.from_epsg(32633).to_wkt()
GRID = PixelGrid(29, 40, Affine(30, 0, 4e5, 0, -30, 5e6), UTM)
ZOOM = 580 // 40


class Held:
    def __init__(self, values):
        self.values = values

    def read(self, window):
        return self.values[window.slices]


def put(path, labels, grid=GRID, classes=None):
    chosen = classes or Classes.numbered(max(int(labels.max()), 1))
    write_map(Held(labels), grid, path, chosen, MapFormat())
    return path


def put_scene(path, cube, grid=GRID, wavelengths=None, **profile):
    count, rows, cols = cube.shape
    place = {} if grid.crs is None else {"crs": grid.crs, "transform": grid.transform}
    shape = {"count": count, "height": rows, "width": cols, "dtype": cube.dtype}
    with rasterio.open(path, "w", **shape, **place, **profile) as dataset:
        dataset.write(cube)
        for band, centre in enumerate(wavelengths or [], start=1):
            dataset.update_tags(band, wavelength=centre, wavelength_units="nm")
    return path


def pixels(path):
    """The picture as bytes, `(row, col, 3)`."""
    return np.round(imread(path)[..., :3] * 255).astype(np.uint8)


def panel(page, index, lines=0, rows=29, cols=40, zoom=ZOOM):
    """The pixels of a panel, each once."""
    top, left = 56 + 36 + 30 * lines, 30 + index * (cols * zoom + 30)
    return page[top : top + rows * zoom : zoom, left : left + cols * zoom : zoom]


def count_of(page, colour):
    return int((page == colour).all(axis=-1).sum())


@pytest.fixture
def labels():
    blocks = np.arange(12).reshape(3, 4) % 6
    return np.kron(blocks, np.ones((10, 10), np.uint8))[:29, :40].astype(np.uint8)


def test_a_map_alone_shows_its_own_colours(tmp_path, labels):
    classes = Classes(("a", "b", "c", "d", "e"), tuple((10 * n, 250 - n, 7) for n in range(1, 6)))
    picture = tmp_path / "map.png"
    report(put(tmp_path / "map.tif", labels, classes=classes), picture)
    page = pixels(picture)
    expected = np.array([NO_DATA, *classes.colours], np.uint8)[labels]
    np.testing.assert_array_equal(panel(page, 0), expected)
    for number, colour in enumerate(classes.colours, start=1):  # and a swatch in the legend
        shown = np.count_nonzero(labels == number) * ZOOM**2
        assert shown + 300 < count_of(page, colour) <= shown + 441
    assert (page == (0x22, 0x22, 0x22)).all(axis=-1).any()
    assert (page[:, :10] == 255).all()


def test_clusters_take_the_colours_of_the_classes_they_match(tmp_path, labels):
    found = np.where(labels > 0, 6 - labels, 0).astype(np.uint8)  # cluster 5 is class 1, and so on
    found[:3, :5] = 9  # a cluster that lies on no labelled pixel
    picture = tmp_path / "picture.png"
    truth = put(tmp_path / "truth.tif", labels)
    report(put(tmp_path / "map.tif", found), picture, ReportOptions(truth=truth))
    page = pixels(picture)
    shown, there = panel(page, 0, lines=1), panel(page, 1, lines=1)
    colours = np.array([NO_DATA, *class_colours(6)], np.uint8)
    np.testing.assert_array_equal(there, colours[labels])
    same = np.where(found == 9, 6, labels)
    np.testing.assert_array_equal(shown, colours[same])


def test_classes_keep_the_colours_of_their_numbers(tmp_path, labels):
    """The truth has other numbers, and a class that the map does not know."""
    shades = tuple((10 * n, 250 - n, 7) for n in range(1, 6))
    tags = {"HSICLUST_LABELS": "classes"}
    classes = Classes(("a", "b", "c", "d", "e"), shades)
    write_map(Held(labels), GRID, tmp_path / "map.tif", classes, MapFormat(tags=tags))
    truth = np.where(labels > 0, labels % 5 + 1, 0).astype(np.uint8)  # class a is 2, and so on
    renamed = Classes(("x", "a", "b", "c", "d"), class_colours(5))
    picture = tmp_path / "picture.png"
    there = put(tmp_path / "truth.tif", truth, classes=renamed)
    report(tmp_path / "map.tif", picture, ReportOptions(truth=there))
    page = pixels(picture)
    drawn = np.array([NO_DATA, *shades], np.uint8)[labels]
    np.testing.assert_array_equal(panel(page, 0, lines=1), drawn)
    unknown = np.array(class_colours(6)[5], np.uint8)
    same = np.where((truth == 1)[..., None], unknown, drawn)
    np.testing.assert_array_equal(panel(page, 1, lines=1), same)
    matched = tmp_path / "matched.png"
    report(tmp_path / "map.tif", matched, ReportOptions(truth=there, match=True))
    colours = np.array([NO_DATA, *class_colours(5)], np.uint8)
    np.testing.assert_array_equal(panel(pixels(matched), 0, lines=1), colours[truth])


def test_size_and_panels(tmp_path, labels):
    scene = put_scene(tmp_path / "scene.tif", np.zeros((4, 29, 40), np.int16))
    picture = tmp_path / "picture.png"
    truth = put(tmp_path / "truth.tif", labels)
    options = ReportOptions(scene=scene, truth=truth, title="A $5 \\map_{x}")
    report(put(tmp_path / "map.tif", labels), picture, options)
    width = 30 + 3 * 40 * ZOOM + 2 * 30 + 30
    entries = -(-5 // ((width - 60) // 290)) * 30
    height = 56 + 30 + 36 + 29 * ZOOM + 30 + entries + 30
    assert pixels(picture).shape == (height, width, 3)
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (width, height)
    assert sorted(p.name for p in tmp_path.glob("*.png*")) == ["picture.png"]


def test_same_files_same_picture(tmp_path, labels):
    label_map = put(tmp_path / "map.tif", labels)
    for name in ("one.png", "two.png"):
        report(label_map, tmp_path / name, ReportOptions(truth=label_map))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_picture_is_not_replaced_unasked(tmp_path, labels):
    label_map, picture = put(tmp_path / "map.tif", labels), tmp_path / "map.png"
    picture.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"map.png: is there already"):
        report(label_map, picture)
    assert picture.read_bytes() == b"mine"
    report(label_map, picture, ReportOptions(overwrite=True))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_another_drew_meanwhile_is_not_replaced(tmp_path, labels, monkeypatch):
    label_map, output = put(tmp_path / "map.tif", labels), tmp_path / "map.png"
    monkeypatch.setattr(picture, "refuse_inputs", lambda *_: output.write_text("of another"))
    with pytest.raises(OutputExistsError, match="--overwrite replaces it"):
        report(label_map, output)
    assert output.read_text() == "of another"


@pytest.mark.parametrize("name", ["a.jpg", "a.pdf", "a.txt", "a"])
def test_a_picture_is_named_png(tmp_path, labels, name):
    label_map = put(tmp_path / "map.tif", labels)
    with pytest.raises(UsageError, match=rf"{name}: is not named \.png"):
        report(label_map, tmp_path / name)
    assert not (tmp_path / name).exists()
    report(label_map, tmp_path / "a.PNG")
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")


def test_a_large_map_is_thinned_out(tmp_path):
    labels = np.random.default_rng(0).integers(1, 5, (1700, 4500)).astype(np.uint8)
    grid = PixelGrid(1700, 4500, GRID.transform, UTM)
    picture = tmp_path / "map.png"
    report(put(tmp_path / "map.tif", labels, grid), picture)
    rows, cols = labels[::4, ::4].shape
    shown = panel(pixels(picture), 0, rows=rows, cols=cols, zoom=1)
    np.testing.assert_array_equal(shown, np.array([NO_DATA, *class_colours(4)])[labels[::4, ::4]])


def test_many_classes_keep_the_page_small(tmp_path):
    labels = (np.arange(29 * 40).reshape(29, 40) % 255 + 1).astype(np.uint8)
    picture = tmp_path / "map.png"
    report(put(tmp_path / "map.tif", labels), picture)
    assert pixels(picture).shape[0] < 2000
    np.testing.assert_array_equal(
        panel(pixels(picture), 0), np.array(class_colours(255))[labels - 1]
    )


# The scene


def ramp(rows=29, cols=40, count=5):
    """Bands that are straight ramps along the columns, each twice as steep as the one before."""
    return np.stack([np.tile(np.arange(cols) * 2**b, (rows, 1)) for b in range(count)]).astype("i2")


def test_false_colour_takes_the_bands_of_near_infrared_red_and_green(tmp_path):
    cube = ramp()
    cube[1] = cube[1, :, ::-1]  # green falls
    waves = [450.0, 555.0, 660.0, 850.0, 2200.0]
    title, image = false_colour(put_scene(tmp_path / "s.tif", cube, wavelengths=waves), GRID, 1)
    assert title == "Scene at 850, 660, 555 nm"
    assert image.shape == (29, 40, 3)
    assert image[0, 0].tolist() == [0, 0, 255]
    assert image[0, -1].tolist() == [255, 255, 0]
    inner = image[3, 1:-1, 0].astype(int)
    low, high = np.percentile(cube[3] / 8, (2, 98))
    expected = np.clip(np.round(255 * (np.arange(1, 39) - low) / (high - low)), 0, 255)
    assert np.abs(inner - expected).max() <= 1


@pytest.mark.parametrize("waves", [None, [8000.0, 8500.0, 9000.0, 9500.0, 10000.0]])
def test_without_such_bands_spread_ones_are_taken(tmp_path, waves):
    title, _ = false_colour(put_scene(tmp_path / "s.tif", ramp(), wavelengths=waves), GRID, 1)
    assert title == "Scene, bands 4, 3, 2"
    one = put_scene(tmp_path / "one.tif", ramp(count=1))
    assert false_colour(one, GRID, 1)[0] == "Scene, bands 1, 1, 1"


def test_pixels_without_data_are_grey(tmp_path):
    cube = ramp()
    cube[:, 4:6, 7:9] = -99
    _, image = false_colour(put_scene(tmp_path / "s.tif", cube, nodata=-99), GRID, 1)
    assert (image[4:6, 7:9] == NO_DATA).all()
    assert count_of(image, NO_DATA) == 4
    empty = put_scene(tmp_path / "e.tif", np.full_like(cube, -99), nodata=-99)
    assert (false_colour(empty, GRID, 1)[1] == NO_DATA).all()


@pytest.mark.parametrize("step", [1, 3, 7])
@pytest.mark.parametrize(
    "layout",
    [
        {"driver": "ENVI", "interleave": "bil"},
        {"tiled": True, "blockxsize": 32, "blockysize": 32},
        {"blockysize": 5},
    ],
)
def test_thinned_scenes_are_every_nth_pixel(tmp_path, step, layout, monkeypatch):
    cube = np.random.default_rng(0).integers(0, 3000, (3, 100, 90)).astype(np.int16)
    grid = PixelGrid(100, 90, GRID.transform, UTM)
    path = put_scene(tmp_path / "s", cube, grid, **{"driver": "GTiff", **layout})
    asked = []
    read = Scene.read
    monkeypatch.setattr(
        Scene, "read", lambda self, window, bands: asked.append(window) or read(self, window, bands)
    )
    _, whole = false_colour(path, grid, 1)
    asked.clear()
    _, image = false_colour(path, grid, step)
    assert image.shape == whole[::step, ::step].shape
    ranks = np.argsort(cube[2, ::step, ::step], axis=None, kind="stable")
    assert (np.diff(image[..., 0].ravel()[ranks].astype(int)) >= 0).all()
    if layout.get("driver") == "ENVI":  # where rows can be passed over, they are
        assert [window.row for window in asked] == list(range(0, 100, step))
        assert {window.rows for window in asked} == {1}


def test_part_of_a_scene_is_shown_for_a_map_of_that_part(tmp_path):
    cube = np.random.default_rng(0).integers(0, 3000, (3, 29, 40)).astype(np.int16)
    path = put_scene(tmp_path / "s.tif", cube)
    part = GRID.crop(type(GRID.window)(5, 8, 20, 30))
    _, image = false_colour(path, part, 1)
    ranks = np.argsort(cube[2, 5:25, 8:38], axis=None, kind="stable")
    assert (np.diff(image[..., 0].ravel()[ranks].astype(int)) >= 0).all()


@pytest.mark.parametrize(
    "other",
    [
        PixelGrid(30, 40, GRID.transform, UTM),
        PixelGrid(29, 40, GRID.transform @ Affine.translation(0.5, 0), UTM),
        PixelGrid(29, 40, GRID.transform @ Affine.scale(0.5), UTM),
        PixelGrid(5, 5, GRID.transform @ Affine.translation(-3, 0), UTM),
    ],
)
def test_another_scene_is_refused(tmp_path, other):
    path = put_scene(tmp_path / "s.tif", ramp())
    with pytest.raises(InputError, match=r"s.tif: its pixels are not those of the map"):
        false_colour(path, other, 1)


def test_a_truth_without_labels_is_refused(tmp_path, labels):
    empty = put(tmp_path / "truth.tif", np.zeros_like(labels))
    label_map = put(tmp_path / "map.tif", labels)
    with pytest.raises(InputError, match=r"truth.tif: labels no pixel of .*map.tif"):
        report(label_map, tmp_path / "p.png", ReportOptions(truth=empty))
    assert not list(tmp_path.glob("*.png*"))
