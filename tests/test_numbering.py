import numpy as np
import pytest
import rasterio
from affine import Affine

from hsiclust.errors import InputError, NoOverlapError
from hsiclust.grid import PixelGrid, Window
from hsiclust.numbering import number_classes
from hsiclust.palette import class_colours
from hsiclust.truth import open_truth

GRID = PixelGrid(2, 4, Affine(10, 0, 4e5, 0, -10, 5e6), rasterio.CRS.from_epsg(32633).to_wkt())


class Given:
    """Labels that are an array."""

    def __init__(self, values, names=None):
        self.values = np.asarray(values, np.uint16)
        self.names = names or {}
        self.note = None

    @property
    def area(self):
        return Window(0, 0, *self.values.shape)

    def read(self, window):
        return self.values[window.slices]


def numbered(*truths, path="labels.gpkg"):
    return number_classes(path, [(truth, truth.area) for truth in truths])


def test_numbers_up_to_255_are_kept():
    truth = Given([[0, 2, 5], [5, 255, 0]], {2: "oats", 3: "corn", 5: "5"})
    numbering = numbered(truth)
    assert len(numbering) == 255
    assert numbering.numbers == tuple(range(1, 256))
    assert np.flatnonzero(numbering.present).tolist() == [1, 4, 254]
    assert numbering.classes.names[:5] == (
        "class 1 (no labels)",
        "oats",
        "corn (no labels)",
        "class 4 (no labels)",
        "class 5",
    )
    assert numbering.names == {2: "oats", 5: "class 5", 255: "class 255"}
    assert numbering.classes.colours == class_colours(255)
    assert numbering.notes == (
        "labels.gpkg: classes that label no pixel: corn (their shapes lie outside the scenes, "
        "under other classes, or cover less than half of each pixel)",
    )
    np.testing.assert_array_equal(numbering.renumbered(truth).read(truth.area), truth.values)


def test_larger_numbers_are_renumbered_in_rising_order():
    truths = Given([[0, 65535, 7]], {7: "oats"}), Given([[256, 0, 7]])
    numbering = numbered(*truths)
    assert numbering.numbers == (7, 256, 65535)
    assert numbering.classes.names == ("oats", "class 256", "class 65535")
    assert numbering.present.all()
    assert numbering.notes == (
        "labels.gpkg: class numbers up to 65535 do not fit a map: the 3 classes are renumbered "
        "1 to 3 in rising order",
    )
    assert numbering.renumbered(truths[0]).read(truths[0].area).tolist() == [[0, 3, 1]]
    assert numbering.renumbered(truths[1]).read(truths[1].area).tolist() == [[2, 0, 1]]


def test_numbers_that_did_not_count_are_unlabelled():
    truth = Given([[1, 2, 9]])
    numbering = number_classes("labels.gpkg", [(truth, Window(0, 0, 1, 2))])
    assert len(numbering) == 2
    assert numbering.renumbered(truth).read(truth.area).tolist() == [[1, 2, 0]]


def test_names_are_one_line_and_differ():
    names = {1: "wet\nland", 2: "wet land", 3: " ", 4: "x" * 500, 5: "wet land (2)"}
    called = numbered(Given([[1, 2, 3, 4, 5]], names)).classes.names
    assert called[:3] == ("wet land", "wet land (2)", "class 3")
    assert called[3] == "x" * 80
    assert called[4] == "wet land (2) (5)"


def test_more_classes_than_a_map_holds_are_refused():
    numbered(Given(np.arange(1, 256)[None] * 200))
    with pytest.raises(InputError, match=r"labels.gpkg: 256 different classes; .* at most 255"):
        numbered(Given(np.arange(1, 257)[None] * 200))


def test_no_label_at_all_is_refused():
    with pytest.raises(NoOverlapError, match=r"labels.gpkg: labels no pixel"):
        numbered(Given([[0, 0]]))


def test_one_number_has_one_name():
    with pytest.raises(InputError, match="class 1 is called 'oats' and 'corn'"):
        numbered(Given([[1, 2]], {1: "oats"}), Given([[1, 2]], {1: "corn"}))


def test_a_raster_may_name_more_than_it_holds(tmp_path):
    place = {"crs": GRID.crs, "transform": GRID.transform, "height": 1, "width": 1, "count": 1}
    with rasterio.open(tmp_path / "labels.tif", "w", dtype="uint8", **place) as dataset:
        dataset.write(np.ones((1, 1, 1), np.uint8))
    truth = Given([[1]], {1: "oats", 2: "rye"})
    assert numbered(truth, path=tmp_path / "labels.tif").notes == ()
    assert "label no pixel: rye (" in numbered(truth, path="labels.gpkg").notes[0]
    # a number stands for its name, whatever is renumbered
    notes = numbered(Given([[300]], {7: "7", 300: "300"}), path="labels.gpkg").notes
    assert len(notes) == 2
    assert "label no pixel: class 7 (" in notes[1]


def test_a_raster_keeps_its_names_and_colours(tmp_path):
    path = tmp_path / "labels.tif"
    place = {"crs": GRID.crs, "transform": GRID.transform, "height": 2, "width": 4, "count": 1}
    values = np.array([[0, 1, 3, 3], [1, 0, 0, 4]], np.uint8)
    with rasterio.open(path, "w", driver="GTiff", dtype="uint8", **place) as dataset:
        dataset.write(values, 1)
        dataset.write_colormap(1, {0: (0, 0, 0, 0), 1: (10, 20, 30, 255), 3: (200, 0, 9, 255)})
    names = "".join(f"<Category>{name}</Category>" for name in ("none", "oats", "", "corn"))
    band = f"<PAMRasterBand band='1'><CategoryNames>{names}</CategoryNames></PAMRasterBand>"
    (tmp_path / "labels.tif.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")
    numbering = number_classes(path, [(open_truth(path, GRID), GRID.window)])
    assert numbering.classes.names == ("oats", "class 2 (no labels)", "corn", "class 4")
    assert numbering.classes.colours[0] == (10, 20, 30)
    assert numbering.classes.colours[2] == (200, 0, 9)
    assert numbering.classes.colours[3] == class_colours(4)[3]
