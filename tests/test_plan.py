import pytest

from hsiclust.devices import parse_bytes, resolve_device, total_memory
from hsiclust.engine import EngineOptions
from hsiclust.errors import DeviceError, MemoryPlanError, UsageError
from hsiclust.grid import PixelGrid
from hsiclust.plan import TileLoad, plan_run

LOAD = TileLoad(bands=200, dtype="uint16", components=12, floats=250, halo=7)
GRID = PixelGrid(10_000, 8_000)
GIB = 2**30


def test_the_largest_tile_that_every_thread_can_hold() -> None:
    plan = plan_run(GRID, LOAD, EngineOptions(threads=4), 16 * GIB, None)
    assert (plan.tile_rows, plan.tile_cols, plan.in_flight) == (256, 256, 4)
    smaller = plan_run(GRID, LOAD, EngineOptions(threads=4), GIB + GIB // 2, None)
    assert smaller.tile_rows < 256
    assert smaller.in_flight == 4
    assert smaller.peak_bytes <= GIB + GIB // 2


def test_few_memory_means_fewer_tiles_in_flight() -> None:
    plan = plan_run(GRID, LOAD, EngineOptions(threads=64), GIB + GIB // 4, None)
    assert plan.tile_rows == 64
    assert 1 <= plan.in_flight < 64
    assert plan.peak_bytes <= GIB + GIB // 4


def test_what_cannot_fit_is_refused_with_numbers() -> None:
    with pytest.raises(MemoryPlanError, match=r"500 MiB are too little.*give at least \d+ MiB"):
        plan_run(GRID, LOAD, EngineOptions(threads=4), 500 * 2**20, None)


def test_the_remedy_that_the_refusal_names_works() -> None:
    with pytest.raises(MemoryPlanError) as caught:
        plan_run(GRID, LOAD, EngineOptions(threads=4), 500 * 2**20, 512)
    needed = int(str(caught.value).split("at least ")[1].split(" MiB")[0])
    assert plan_run(GRID, LOAD, EngineOptions(threads=4), (needed + 1) * 2**20, 512).in_flight == 1


def test_tiles_are_no_larger_than_the_scene() -> None:
    plan = plan_run(PixelGrid(100, 60), LOAD, EngineOptions(threads=4), 8 * GIB, None)
    assert (plan.tile_rows, plan.tile_cols) == (100, 60)


def test_bytes_of_a_tile_are_the_sum_of_its_parts() -> None:
    load = TileLoad(bands=10, dtype="float32", components=3, floats=5, halo=2)
    arrays = 10 * 20 * (10 * (4 + 1) + 4 * (2 * 3 + 5))
    assert load.tile_bytes(6, 16) - load.tile_bytes(1, 1) == arrays - 5 * 5 * (50 + 44)
    more = TileLoad(bands=10, dtype="float32", components=3, floats=5, halo=2, fixed=99)
    assert more.tile_bytes(6, 16) == load.tile_bytes(6, 16) + 99


def test_each_process_has_its_own_base() -> None:
    threads = plan_run(GRID, LOAD, EngineOptions(threads=4), 16 * GIB, 64)
    processes = plan_run(GRID, LOAD, EngineOptions(4, threads=4), 16 * GIB, 64)
    assert processes.base_bytes == 5 * threads.base_bytes
    with pytest.raises(MemoryPlanError, match="5 processes"):
        plan_run(GRID, LOAD, EngineOptions(4, threads=4), 2 * GIB, 64)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GiB", 4 * GIB), ("500 MB", 500 * 10**6), ("1073741824", GIB), ("0.5gib", GIB // 2)],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "4 apples", "-1GiB", "0", "GiB"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="size"):
        parse_bytes(text)


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(DeviceError, match="cuda:99"):
        resolve_device("cuda:99")
    with pytest.raises(UsageError, match="gpu"):
        resolve_device("gpu")


def test_there_is_memory() -> None:
    assert total_memory() > 100 * 2**20
