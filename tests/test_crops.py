import pytest
import torch

from hsiclust.crops import TileStack, TrainingPixels
from hsiclust.models.base import Batch, CropShape
from hsiclust.models.kmeans import KMeans
from hsiclust.models.settings import SsccConfig
from hsiclust.models.sscc import Sscc

COLS = 40  # of a tile with its halo


def method(outputs: int = 8) -> Sscc:
    torch.manual_seed(0)
    return Sscc(3, 3, SsccConfig(width=8, crops=30, outputs=outputs, partitions=3))


def stack(rows: int, cols: int, halo: int, tiles: int = 2, seed: int = 0) -> TileStack:
    """Tiles of three grounds; their last component tells each pixel of all from the others."""
    random = torch.Generator().manual_seed(seed)
    height, width = rows + 2 * halo, cols + 2 * halo
    assert width <= COLS
    values = torch.randn(tiles, 3, height, width, generator=random)
    for tile in values:
        tile[0, :, width // 3 :] += 6
        tile[1, : height // 2] += 6
    places = torch.arange(height)[:, None] * COLS + torch.arange(width)
    values[:, 2] = (places / 64).expand(tiles, -1, -1)  # exact in float16 up to 2048
    fit = torch.rand(tiles, rows, cols, generator=random) < 0.8
    return TileStack(values.half(), fit, halo)


def place(values: torch.Tensor) -> tuple[int, int]:
    """Row and column in the tile, halo included, of the first pixel of a crop."""
    number = round(float(values[2, 0, 0]) * 64)
    return number // COLS, number % COLS


def taught(tiles: TileStack, learner: Sscc) -> TrainingPixels:
    pixels = TrainingPixels([tiles])
    learner.study(pixels.tiles(learner.crop_shape.context), False, torch.Generator().manual_seed(0))
    pixels.heed(learner)
    return pixels


@pytest.mark.parametrize(
    ("rows", "cols", "beyond"),
    [
        (20, 18, 0),
        (5, 18, 0),
        (20, 6, 0),
        (5, 6, 0),
        (20, 18, 2),
        (3, 18, 2),
        (5, 6, 2),
        (20, 6, 2),
    ],
)
def test_a_crop_carries_what_the_teacher_says_there(rows: int, cols: int, beyond: int) -> None:
    """Also where a core is smaller than a crop, and a store's halo wider than its context."""
    learner = method()
    shape = learner.crop_shape
    tiles = stack(rows, cols, shape.context + beyond, tiles=1)
    pixels = taught(tiles, learner)
    batch = pixels.draw(shape, torch.Generator().manual_seed(1))
    lesson = learner.teach(tiles.tile(0, shape.context).values[0])
    assert lesson is not None
    assert batch.lesson is not None
    assert batch.values.shape == (30, 3, shape.side, shape.side)
    assert batch.lesson.classes.shape == batch.lesson.trust.shape == batch.fit.shape == (30, 8, 8)
    assert batch.lesson.classes.dtype == torch.int64
    assert batch.lesson.trust.dtype == torch.float32
    seen = set()
    for number, values in enumerate(batch.values):
        row, col = (start - beyond for start in place(values))  # the context's corner is the core's
        inside = (slice(row, min(row + 8, rows)), slice(col, min(col + 8, cols)))
        height, width = lesson.classes[inside].shape
        fit = batch.fit[number]
        assert torch.equal(fit[:height, :width], tiles.fit[0][inside])
        assert not bool(fit[height:].any() or fit[:, width:].any())
        assert bool(fit.any())
        assert torch.equal(batch.lesson.classes[number, :height, :width], lesson.classes[inside])
        assert torch.equal(
            batch.lesson.trust[number, :height, :width], lesson.trust[inside].half().float()
        )
        seen |= set(batch.lesson.classes[number][fit].tolist())
    assert len(seen) > 1


def test_each_tile_has_its_own_lesson() -> None:
    learner = method()
    context = learner.crop_shape.context
    pixels = TrainingPixels([stack(9, 11, context), stack(12, 10, context, tiles=1, seed=4)])
    learner.study(pixels.tiles(context), False, torch.Generator().manual_seed(0))
    pixels.heed(learner)
    for part in pixels.stacks:
        assert part.lesson is not None
        for number in range(len(part.fit)):
            lesson = learner.teach(part.tile(number, context).values[0])
            assert lesson is not None
            assert torch.equal(part.lesson.classes[number].long(), lesson.classes)
    batch = pixels.draw(CropShape(40, 8, context), torch.Generator().manual_seed(0))
    assert batch.lesson is not None
    assert len(batch.lesson.classes) == 40


def test_tiles_are_handed_out_with_the_context_that_is_asked_for() -> None:
    tiles = stack(9, 11, 6)
    pixels = TrainingPixels([tiles])
    for context in (0, 4, 6):
        found = pixels.tiles(context)
        assert len(found) == 2
        for number, tile in enumerate(found):
            assert isinstance(tile, Batch)
            edge = 6 - context
            inner = tiles.values[number, :, edge : 21 - edge, edge : 23 - edge].float()
            assert torch.equal(tile.values[0], inner)
            assert torch.equal(tile.fit[0], tiles.fit[number])


def test_without_a_teacher_there_is_no_lesson() -> None:
    for learner in (KMeans(3, 2), Sscc(3, 3, SsccConfig.contrast_only())):
        shape = CropShape(4, 8, learner.crop_shape.context)
        pixels = TrainingPixels([stack(9, 11, shape.context)])
        pixels.heed(learner)
        assert pixels.draw(shape, torch.Generator().manual_seed(0)).lesson is None
