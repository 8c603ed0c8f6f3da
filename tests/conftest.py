"""Small scenes made by a script, and the real one that the package carries."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

# Before any library reads it. Tests that run side by side have a thread each: libraries that share
# a processor among all their threads would mostly wait for each other.
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
import rasterio
import s3server
from affine import Affine
from hypothesis import settings
from numpy.typing import NDArray
from rasterio.crs import CRS

from hsiclust.process import prepare_process

# A machine that is busy with other things must not fail a test.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
prepare_process()  # as the command line does, before torch is imported
# What `nohup` has the system ignore would be ignored by every command that a test starts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
UTM = CRS.from_epsg(32633).to_wkt()
TRANSFORM = Affine(30.0, 0.0, 400000.0, 0.0, -30.0, 5800000.0)


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def killed_after(tiles: int) -> Callable[[int, int], None]:
    """A progress callback that dies when so many tiles are done, or somewhat more."""

    def progress(done: int, total: int) -> None:
        if done >= tiles:
            raise Killed

    return progress


def fields_cube(
    rows: int = 60, cols: int = 70, bands: int = 12, classes: int = 4, seed: int = 0
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A cube `(band, row, col)` of square fields of `classes` spectra with noise, and its truth."""
    generator = np.random.default_rng(seed)
    spectra = generator.uniform(500, 3000, (classes, bands))
    blocks = generator.integers(0, classes, (-(-rows // 15), -(-cols // 15)))
    truth = np.kron(blocks, np.ones((15, 15), int))[:rows, :cols]
    cube = spectra[truth].transpose(2, 0, 1) + generator.normal(0, 40, (bands, rows, cols))
    return cube.round().astype(np.int16), (truth + 1).astype(np.uint8)


def write_raster(path: Path, cube: NDArray[np.generic], **profile: object) -> Path:
    """Write `(band, row, col)` as a GeoTIFF (or another driver) in UTM zone 33."""
    settings: dict[str, object] = {"driver": "GTiff", "crs": UTM, "transform": TRANSFORM, **profile}
    with rasterio.open(
        path,
        "w",
        count=len(cube),
        height=cube.shape[1],
        width=cube.shape[2],
        dtype=cube.dtype,
        **settings,
    ) as dataset:
        dataset.write(cube)
    return path


@pytest.fixture
def fields(tmp_path: Path) -> tuple[Path, Path]:
    """A scene of fields and its truth."""
    cube, truth = fields_cube()
    return (
        write_raster(tmp_path / "scene.tif", cube, nodata=-9999),
        write_raster(tmp_path / "truth.tif", truth[None], nodata=0),
    )


@pytest.fixture
def write() -> Callable[..., Path]:
    """`write_raster`, for tests that make rasters of their own."""
    return write_raster


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of a server that speaks S3."""
    with s3server.serving("s3") as url:
        yield url


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an S3 server with an empty bucket, to which the environment leads."""
    s3server.lead_to(s3_server, monkeypatch)
    s3server.reset(s3_server)
    return s3_server


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """URL of a server that says 403 to everything."""
    with s3server.serving("refusing") as url:
        yield url
