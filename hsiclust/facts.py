"""What a path holds: a scene, a tile store, a model or a map, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsiclust.bands import Bands
from hsiclust.caveats import warn_of_header
from hsiclust.datafile import data_file, is_container
from hsiclust.legend import describe_map
from hsiclust.modelfile import is_model_file, load_model
from hsiclust.onnxfile import is_onnx_file, load_onnx
from hsiclust.scene import Scene
from hsiclust.tiles import TileStore, is_tile_store

Facts = dict[str, Any]


def info(path: str) -> Facts:
    """Describe what a path holds.

    Returns:
        JSON values; "kind" is "scene", "store", "model", "onnx" or "map".

    Raises:
        InputError: It is none of these.
        ModelError: It is a model file that cannot be read.
    """
    if is_onnx_file(path):
        return _onnx(Path(path))
    if is_tile_store(path):
        return _store(path)
    if Path(path).suffix == ".safetensors" or is_model_file(path):
        return _model(Path(path))
    raster = data_file(path)
    facts = None if is_container(raster) else describe_map(raster)
    return {"kind": "map", **facts} if facts is not None else _scene(raster)


def _scene(path: str) -> Facts:
    scene = Scene.open(path)
    warn_of_header(scene)
    return {
        "kind": "scene",
        "path": scene.path,
        **scene.grid.facts,
        **_bands(scene.bands),
        "dtype": scene.dtype,
        "nodata": scene.nodata,
        "layout": scene.layout,
        "bytes": scene.nbytes,
    }


def _store(path: str) -> Facts:
    store = TileStore.open(path)
    return {
        "kind": "store",
        "path": path,
        "scene": store.scene,
        **store.grid.facts,
        "tiles": len(store.tiles),
        "tiles_written": len(store.written()),
        "tile": [store.tiles.tile_rows, store.tiles.tile_cols],
        "halo": store.tiles.halo,
        "transform": store.transform.kind,
        "components": store.transform.components,
        "bands_used": len(store.transform.bands),
    }


def _model(path: Path) -> Facts:
    model = load_model(path)
    return {
        "kind": "model",
        "path": str(path),
        "method": model.method.name,
        "classes": list(model.classes.names),
        "config": model.method.config(),
        "receptive_field": model.method.receptive_field,
        "halo": model.method.halo,
        "transform": model.transform.kind,
        "components": model.transform.components,
        "bands_used": len(model.transform.bands),
        **_bands(model.sensor),
        "nodata": model.nodata,
        **_provenance(model.provenance),
    }


def _onnx(path: Path) -> Facts:
    model = load_onnx(path)
    return {
        "kind": "onnx",
        "path": str(path),
        "method": model.method,
        "classes": list(model.classes.names),
        "receptive_field": model.receptive_field,
        "halo": model.halo,
        "components": model.components,
        "bands_used": len(model.bands),
        **_bands(model.sensor),
        "nodata": model.nodata,
        **_provenance(model.provenance),
    }


def _provenance(provenance: Mapping[str, Any]) -> Facts:
    """What the training said of itself; its choices by themselves."""
    rest = {name: value for name, value in provenance.items() if name != "choices"}
    return {"provenance": rest, "choices": provenance.get("choices")}


def _bands(bands: Bands) -> Facts:
    return {
        "bands": bands.count,
        "bands_usable": len(bands.usable()),
        "wavelengths_nm": None if bands.wavelengths is None else list(bands.wavelengths),
        "fwhm_nm": None if bands.fwhm is None else list(bands.fwhm),
        "wavelength_unit": bands.units,
    }
