"""One picture of a map: the scene in false colour, the map, the truth, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hsiclust.accuracy import Accuracy
from hsiclust.comparison import Comparison, compare
from hsiclust.datafile import files_of
from hsiclust.errors import InputError, UsageError
from hsiclust.falsecolour import NO_DATA, Image, false_colour
from hsiclust.grid import PixelGrid, Window
from hsiclust.legend import read_classes
from hsiclust.output import refuse_existing, refuse_inputs, written_alone
from hsiclust.palette import MOST_CLASSES, Classes, Colour, class_colours
from hsiclust.rasters import grid_of, open_raster
from hsiclust.remote import refuse_no_file
from hsiclust.scores import Scores
from hsiclust.tilegrid import TileGrid
from hsiclust.truth import open_truth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Pixels = TypeVar("_Pixels", bound=np.generic)

# Pixels of a panel's longer side: small scenes are enlarged to it, large ones thinned out.
_SIDE = 580
_LONGEST_SIDE = 1450
_INK = "#222222"
_DPI = 150
# Pixels of the page.
_MARGIN, _GAP, _HEADING, _LINE, _PANEL_TITLE, _ENTRY = 30, 30, 56, 30, 36, 30
_ENTRY_WIDTH = 290
_MOST_ENTRIES = 60


@dataclass(frozen=True)
class ReportOptions:
    """What the picture shows beside the map.

    Attributes:
        scene: The scene that the map was made of.
        truth: Raster or vectors. Clusters take the colours of the classes they match; classes keep
            the map's, and the truth takes them.
        field: Vectors: where the class stands.
        layer: Vectors: which layer.
        match: Whether the map's numbers are clusters; as its own tag says when None.
        title: What stands above; the map's file name when None.
        overwrite: Replace a picture that is there already.
    """

    scene: str | Path | None = None
    truth: str | Path | None = None
    field: str | None = None
    layer: str | None = None
    match: bool | None = None
    title: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class _Panel:
    """An image `(row, col, 3)` and what stands above it."""

    title: str
    image: Image


def report(label_map: str | Path, output: str | Path, options: ReportOptions | None = None) -> None:
    """Draw a map beside its scene and its truth, as a PNG.

    Large rasters are thinned out while they are read, so that memory does not grow with them.

    Args:
        label_map: A raster of one band of class numbers.
        output: The picture.
        options: What else to show, and how.

    Raises:
        InputError: A file cannot be used, or the scene does not lie on the map.
        OutputExistsError: The picture is there already.
        UsageError: It is not named `.png`.
    """
    label_map, output = Path(label_map), Path(output)
    chosen = options or ReportOptions()
    if not output.name.lower().endswith(".png"):
        raise UsageError(f"{output}: is not named .png, and the picture is a PNG; name it so")
    refuse_no_file(label_map)
    refuse_existing(output, chosen.overwrite)
    refuse_inputs(output, *files_of(label_map, chosen.scene, chosen.truth))
    with open_raster(str(label_map)) as dataset:
        grid = grid_of(dataset)
    step = -(-max(grid.rows, grid.cols) // _LONGEST_SIDE)
    found = open_truth(label_map, grid)
    labels = _thinned(found.read, grid.window, step)
    panels = []
    if chosen.scene is not None:
        panels.append(_Panel(*false_colour(chosen.scene, grid, step)))
    lines = [chosen.title or label_map.name]
    if chosen.truth is None:
        classes = _classes_of(label_map, labels)
        colours = dict(enumerate(classes.colours, start=1))
        panels.append(_Panel("Map", _painted(labels, colours)))
        names = dict(enumerate(classes.names, start=1))
        legend = [(names[at], colours[at]) for at in np.unique(labels).tolist() if at in names]
    else:
        compared = _compared(label_map, chosen.truth, grid, chosen)
        coloured = _coloured(compared, labels, _classes_of(label_map, labels))
        lines.append(coloured.scores)
        legend = coloured.legend
        panels.append(_Panel(coloured.title, _painted(labels, coloured.numbers)))
        there = _thinned(compared.truth.read, grid.window, step)
        panels.append(_Panel("Truth", _painted(there, coloured.classes)))
    with written_alone(output, chosen.overwrite) as beside:
        _draw(beside, lines, panels, legend)


def _compared(
    label_map: Path, truth: str | Path, grid: PixelGrid, options: ReportOptions
) -> Comparison:
    opened = open_truth(truth, grid, field=options.field, layer=options.layer)
    compared = compare(label_map, opened, grid, options.match)
    if compared is None:
        raise InputError(f"{truth}: labels no pixel of {label_map}")
    return compared


def _line(scores: Scores) -> str:
    return (
        f"accuracy {scores.accuracy:.3f}    kappa {scores.kappa:.3f}    NMI {scores.nmi:.3f}    "
        f"ARI {scores.ari:.3f}    on {scores.pixels} labelled pixels"
    )


def _class_line(accuracy: Accuracy) -> str:
    return (
        f"OA {accuracy.accuracy:.3f}    AA {accuracy.average_accuracy:.3f}    "
        f"kappa {accuracy.kappa:.3f}    macro F1 {accuracy.macro_f1:.3f}    "
        f"on {accuracy.pixels} labelled pixels"
    )


def _thinned(
    read: Callable[[Window], NDArray[_Pixels]], area: Window, step: int
) -> NDArray[_Pixels]:
    """Every `step`-th row and column of an area, read in windows of about a million pixels."""
    side = max(1, 1024 // step) * step
    tiles = TileGrid(area, area, side, side, 0)
    strips = [
        np.concatenate(
            [
                read(tiles[down * tiles.across + at].core)[::step, ::step]
                for at in range(tiles.across)
            ],
            axis=1,
        )
        for down in range(tiles.down)
    ]
    return np.concatenate(strips)


# Colours


def _classes_of(path: Path, labels: NDArray[np.uint16]) -> Classes:
    """A map's own names and colours, as far as it has them."""
    own = read_classes(path)
    return own or Classes.numbered(min(int(labels.max(initial=1)), MOST_CLASSES))


@dataclass(frozen=True)
class _Coloured:
    """How a map and a truth are drawn so that the same class has the same colour in both.

    Attributes:
        title: What stands above the map.
        scores: A line of scores.
        classes: Colours of the truth's class numbers.
        numbers: Colours of the map's numbers.
        legend: Names and colours.
    """

    title: str
    scores: str
    classes: dict[int, Colour]
    numbers: dict[int, Colour]
    legend: list[tuple[str, Colour]]


def _coloured(compared: Comparison, labels: NDArray[np.uint16], own: Classes) -> _Coloured:
    accuracy = compared.accuracy()
    if accuracy is None:
        return _by_class(compared.scores(), labels)
    return _by_number(accuracy, own)


def _by_class(scores: Scores, labels: NDArray[np.uint16]) -> _Coloured:
    """Clusters in the colours of the classes that they were matched with."""
    table = class_colours(MOST_CLASSES)
    known = {c.number: table[at % MOST_CLASSES] for at, c in enumerate(scores.classes)}
    legend = [(c.name, known[c.number]) for c in scores.classes]
    clusters = {cluster: known[number] for cluster, number in scores.matching.items()}
    alone = [at for at in np.unique(labels).tolist() if at > 0 and at not in clusters]
    for at, cluster in enumerate(alone, start=len(known)):
        clusters[cluster] = table[at % MOST_CLASSES]
        legend.append((f"cluster {cluster}, no class", clusters[cluster]))
    title = "Map, in the colours of the truth"
    return _Coloured(title, _line(scores), known, clusters, legend)


def _by_number(accuracy: Accuracy, own: Classes) -> _Coloured:
    """The truth in the colours that the map has for its class numbers."""
    table = class_colours(MOST_CLASSES)
    numbers = dict(enumerate(own.colours, start=1))
    for each in accuracy.classes:
        if each.mapped is not None:
            numbers.setdefault(each.mapped, table[(each.mapped - 1) % MOST_CLASSES])
    known: dict[int, Colour] = {}
    legend, spare = [], max(numbers)  # what the map does not know takes colours beyond its own
    for each in accuracy.classes:
        if each.mapped is None:
            colour = table[spare % MOST_CLASSES]
            spare += 1
        else:
            colour = numbers[each.mapped]
        if each.number is not None:
            known[each.number] = colour
        legend.append((each.name, colour))
    return _Coloured("Map", _class_line(accuracy), known, numbers, legend)


def _painted(labels: NDArray[np.uint16], colours: Mapping[int, Colour]) -> Image:
    table = np.full((max(int(labels.max(initial=0)), *colours, 0) + 1, 3), NO_DATA, np.uint8)
    for number, colour in colours.items():
        table[number] = colour
    return table[labels]


# The page


def _draw(
    path: Path,
    lines: Sequence[str],
    panels: Sequence[_Panel],
    legend: Sequence[tuple[str, Colour]],
) -> None:
    """Lay the page out in pixels, so that no pixel of a map is resampled."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, cols, _ = panels[0].image.shape
    zoom = max(1, _SIDE // max(rows, cols))
    high, wide = rows * zoom, cols * zoom
    width = max(2 * _MARGIN + len(panels) * (wide + _GAP) - _GAP, 2 * _MARGIN + 2 * _ENTRY_WIDTH)
    entries = [*legend[:_MOST_ENTRIES]]
    if len(legend) > len(entries):
        entries.append((f"and {len(legend) - len(entries)} more", (255, 255, 255)))
    across = max(1, (width - 2 * _MARGIN) // _ENTRY_WIDTH)
    top = _HEADING + _LINE * (len(lines) - 1) + _PANEL_TITLE
    height = top + high + _MARGIN + -(-len(entries) // across) * _ENTRY + _MARGIN
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    page.set_axis_off()
    _write(page, _MARGIN, 34, lines[0], size=11, weight="bold")
    for at, line in enumerate(lines[1:]):
        _write(page, _MARGIN, _HEADING + 8 + _LINE * at, line, size=8.5)
    for at, panel in enumerate(panels):
        left = _MARGIN + at * (wide + _GAP)
        _write(page, left, top - 16, panel.title, size=8.5, weight="bold")
        enlarged = panel.image.repeat(zoom, axis=0).repeat(zoom, axis=1)
        figure.figimage(enlarged, left, height - top - high, origin="upper")
    _draw_legend(page, entries, across, top + high + _MARGIN)
    FigureCanvasAgg(figure).print_figure(path, format="png", dpi=_DPI, metadata={"Software": None})


def _draw_legend(
    page: Axes, entries: Sequence[tuple[str, Colour]], across: int, top: float
) -> None:
    """Swatches with names, down the columns."""
    from matplotlib.patches import Rectangle

    down = -(-len(entries) // across)
    for index, (name, colour) in enumerate(entries):
        x, y = _MARGIN + index // down * _ENTRY_WIDTH, top + index % down * _ENTRY
        shade = tuple(value / 255 for value in colour)
        page.add_patch(Rectangle((x, y), 20, 20, facecolor=shade, edgecolor="none"))
        _write(page, x + 29, y + 11, name if len(name) <= 30 else name[:29] + "…", size=8)


def _write(page: Axes, x: float, y: float, text: str, **font: Any) -> None:
    """Text as it stands: `$` in a file name is no formula."""
    page.text(x, y, text, color=_INK, va="center", parse_math=False, **font)
