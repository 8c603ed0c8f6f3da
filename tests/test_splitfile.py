import numpy as np
import pytest
import rasterio
from affine import Affine

from hsiclust.evaluation import evaluate
from hsiclust.grid import PixelGrid, Window
from hsiclust.numbering import number_classes
from hsiclust.split import Site, SplitOptions, split_labels
from hsiclust.splitfile import earlier_files, split_files, write_split
from hsiclust.truth import open_truth

UTM = rasterio.CRS.from_epsg(32633).to_wkt()
PLACE = Affine(30.0, 0.0, 383472.37, 0.0, -30.0, 5818302.35) @ Affine.rotation(25)
GRID = PixelGrid(70, 90, PLACE, UTM)


class Given:
    """Labels that are an array."""

    def __init__(self, values, names):
        self.values = values
        self.names = names
        self.note = None

    def read(self, window):
        return self.values[window.slices]


def everywhere(window):
    return np.ones((window.rows, window.cols), bool)


@pytest.fixture
def made():
    """Sites, numbering and split of two scenes with fields of classes 1, 3 and 4."""
    coarse = np.random.default_rng(0).choice([0, 1, 3, 4], (2, 7, 9))
    scenes = np.kron(coarse, np.ones((1, 10, 10), np.uint16)).astype(np.uint16)
    truths = [Given(scene, {1: "oats", 3: "corn"}) for scene in scenes]
    numbering = number_classes("labels.gpkg", [(truth, GRID.window) for truth in truths])
    sites = [Site(truth, GRID, Window(0, 0, 70, 85), everywhere) for truth in truths]

    def split(count=2, **options):
        chosen = sites[:count]
        return chosen, numbering, split_labels(chosen, numbering, SplitOptions(buffer=3, **options))

    return split


def test_maps_hold_the_split_on_the_scenes_grid(made, tmp_path):
    sites, numbering, split = made()
    write_split(split, sites, numbering, tmp_path / "model.safetensors")
    names = [f"model_{n}_{part}.tif" for n in (1, 2) for part in ("training", "held_out")]
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".tif") == sorted(names)
    files = split_files(tmp_path / "model.safetensors", 2)
    assert [file.name for file in files] == names
    expected = [t for pair in zip(split.training, split.held_out, strict=True) for t in pair]
    for file, truth in zip(files, expected, strict=True):
        written = open_truth(file, GRID)
        assert written.note is None
        assert written.names[1] == "oats"
        assert written.names[2] == "class 2 (no labels)"
        np.testing.assert_array_equal(written.read(GRID.window), truth.read(GRID.window))
        with rasterio.open(file) as dataset:
            assert dataset.dtypes == ("uint8",)
            assert dataset.colormap(1)[3][:3] == numbering.classes.colours[2]


def test_a_map_is_scored_on_what_was_held_out(made, tmp_path):
    """A map that is wrong on the pixels that were learned from alone is without fault."""
    sites, numbering, split = made(1)
    write_split(split, sites, numbering, tmp_path / "out.tif")
    values = sites[0].truth.values.astype(np.uint8)
    values[split.training[0].read(GRID.window) > 0] = 2
    profile = {"crs": GRID.crs, "transform": GRID.transform, "height": 70, "width": 90}
    with rasterio.open(
        tmp_path / "map.tif", "w", driver="GTiff", count=1, dtype="uint8", **profile
    ) as dataset:
        dataset.write(values, 1)
    found = evaluate(tmp_path / "map.tif", tmp_path / "out_held_out.tif")
    assert found.scores.accuracy == 1.0


def test_nothing_held_out_gives_one_file(made, tmp_path):
    sites, numbering, split = made(1, kind="none")
    write_split(split, sites, numbering, tmp_path / "out.tif")
    assert (tmp_path / "out_training.tif").exists()
    assert not (tmp_path / "out_held_out.tif").exists()
    assert split_files(tmp_path / "out.tif", 1, held_out=False) == (tmp_path / "out_training.tif",)


def test_earlier_files_are_those_of_the_same_model(made, tmp_path):
    model = tmp_path / "a+b.safetensors"
    sites, numbering, split = made(2)
    write_split(split, sites, numbering, model)
    write_split(split, sites, numbering, tmp_path / "a+b_2.safetensors")
    (tmp_path / "a+b_held_out.tif").write_text("mine")
    names = [f"a+b_{n}_{part}.tif" for n in (1, 2) for part in ("held_out", "training")]
    assert [path.name for path in earlier_files(model, ())] == names
    assert [p.name for p in earlier_files(model, split_files(model, 1))] == names
    assert earlier_files(model, split_files(model, 2)) == []
    assert len(earlier_files(tmp_path / "a+b_2.safetensors", ())) == 4


def test_the_split_is_maps_whatever_the_model_is_called(made, tmp_path):
    """Never the model's own name, which the model is written to next."""
    sites, numbering, split = made(1)
    write_split(split, sites, numbering, tmp_path / "model.gpkg")
    names = {path.name.removesuffix(".aux.xml") for path in tmp_path.iterdir()}
    assert names == {"model_training.tif", "model_held_out.tif"}
