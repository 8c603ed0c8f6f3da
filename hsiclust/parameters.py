"""Parameters that commands share, and how their text becomes values."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hsiclust.errors import UsageError

if TYPE_CHECKING:
    from hsiclust.engine import EngineOptions


class MethodName(StrEnum):
    """Methods that `train` knows."""

    SSCC = "sscc"
    KMEANS = "kmeans"
    CONTRASTDM = "contrastdm"
    SVM = "svm"
    FOREST = "forest"


class SplitName(StrEnum):
    """How labels are divided."""

    SEPARATED = "separated"
    RANDOM = "random"
    NONE = "none"


class RecipeName(StrEnum):
    """Recipes of SSCC."""

    DEFAULT = "default"
    PAPER = "paper"


class TransformName(StrEnum):
    """Spectral transforms."""

    MNF = "mnf"
    PCA = "pca"


class PrecisionName(StrEnum):
    """What a network computes in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class DriverName(StrEnum):
    """Formats of a map."""

    COG = "COG"
    GTIFF = "GTiff"
    ENVI = "ENVI"


# Of files. Whether one can be read is said by what reads it, with the exit code that fits.
file_option = partial(typer.Option, readable=False)
file_argument = partial(typer.Argument, readable=False)

Output = Annotated[Path | None, file_option("-o", "--output", help="File to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "-j", "--workers", min=1, help="Worker processes; threads of this one by default."
    ),
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", help="Address of a standing Dask scheduler.")
]
SchedulerFile = Annotated[
    Path | None,
    file_option("--scheduler-file", help="File in which a standing scheduler wrote its address."),
]
Scenes = Annotated[
    list[str],
    typer.Argument(help="Scenes or tile stores; @FILE lists some, - lists them on standard input."),
]
Model = Annotated[Path, file_option("-m", "--model", help="Model file.")]
Maps = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        help="Map to write, or folder/ for <scene>_labels.tif. Of several scenes, maps that the "
        "same model made before are left as they are.",
    ),
]
Confidence = Annotated[
    bool, typer.Option("--confidence", help="Also write <output>_confidence, 0 to 100.")
]
Driver = Annotated[
    DriverName | None, typer.Option("--of", "--driver", help="By the suffix when not given.")
]
Creation = Annotated[
    list[str] | None, typer.Option("--co", help="GDAL creation option K=V; repeatable.")
]
TileSize = Annotated[
    int | None, typer.Option("--tile-size", min=16, help="Pixels a side; by --memory if not given.")
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="Memory to stay below, such as 4GiB; of each worker of a standing cluster.",
    ),
]
GpuMemory = Annotated[str | None, typer.Option("--gpu-memory", help="The same of a CUDA device.")]
Precision = Annotated[
    PrecisionName, typer.Option("--precision", help="Of the network; auto keeps its labels.")
]
Store = Annotated[
    str | None, typer.Option("--store", help="Zarr store, or s3:// URL, for labels meanwhile.")
]
ShardText = Annotated[
    str | None,
    typer.Option("--shard", help="i/n: label the i-th of n parts and write no map; see merge."),
]
Ignored = Annotated[
    str | None,
    typer.Option(
        "--tile-size",
        "--memory",
        "--gpu-memory",
        "--device",
        "-j",
        "--workers",
        "--scheduler",
        "--scheduler-file",
        hidden=True,
    ),
]
Nodata = Annotated[
    float | None, typer.Option("--nodata", help="Nodata value instead of the file's own.")
]
BoundsText = Annotated[
    str | None, typer.Option("--bounds", help="west,south,east,north in map units.")
]
BandsText = Annotated[
    str | None, typer.Option("-b", "--bidx", help="Bands to use, from 1, such as 1,3..50.")
]
Components = Annotated[
    int | None, typer.Option("--components", min=1, help="Components of the transform to keep.")
]
Transform = Annotated[
    TransformName | None, typer.Option("--transform", help="Spectral transform; MNF by default.")
]
Field = Annotated[
    str | None, typer.Option("--field", help="Field of the vectors that holds the class.")
]
Layer = Annotated[str | None, typer.Option("--layer", help="Layer of the vector file.")]
Match = Annotated[
    bool | None,
    typer.Option(
        "--match/--no-match",
        help="Match the map's numbers with classes, as for clusters, or take them for classes; "
        "as the map's own tag says by default.",
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")]


def bounds_of(text: str | None) -> tuple[float, float, float, float] | None:
    """West, south, east, north."""
    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--bounds {text!r} is not west,south,east,north") from None
    return west, south, east, north


def value_of(choice: StrEnum | None) -> Any:
    """The text of a choice, if one was made."""
    return None if choice is None else choice.value


def engine_of(workers: int | None, scheduler: str | None, file: Path | None) -> EngineOptions:
    """Where tiles are worked on."""
    from hsiclust.api import EngineOptions

    return EngineOptions(workers=workers, scheduler=scheduler, scheduler_file=file)


def bytes_of(memory: str | None) -> int | None:
    """Bytes of a size such as `4GiB`."""
    from hsiclust.devices import parse_bytes

    return None if memory is None else parse_bytes(memory)


def creation_of(texts: list[str] | None) -> dict[str, str]:
    """GDAL creation options."""
    return dict(key_value(text) for text in texts or [])


def suffix_of(driver: DriverName | None) -> str:
    """Suffix of maps that are named by their scenes."""
    return ".img" if driver is DriverName.ENVI else ".tif"


def key_value(text: str) -> tuple[str, str]:
    """The two sides of `KEY=VALUE`."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UsageError(f"--co {text!r} is not KEY=VALUE")
    return key, value
