from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsiclust.devices import parse_bytes, resolve_device, total_memory
from hsiclust.engine import EngineOptions
from hsiclust.errors import DeviceError, MemoryPlanError, UsageError
from hsiclust.grid import Window
from hsiclust.load import Decoding, Load, Share
from hsiclust.plan import Limits, RunPlan, plan_run, plan_tiles
from hsiclust.predictoptions import PredictOptions, placed
from hsiclust.readplan import ReadPlan
from hsiclust.tilegrid import TileGrid

LOAD = Load(
    bands=200,
    dtype="uint16",
    blocks=(1, 8000),
    piece=(1, 8000),
    components=20,
    floats=250,
    halo=7,
    block=128,
)
TILED = replace(LOAD, blocks=(256, 256), piece=(256, 256))
AREA = Window(0, 0, 10_000, 8_000)
FOUR = EngineOptions(threads=4)
GIB = 2**30


def test_the_best_strips_that_every_thread_can_hold() -> None:
    plan = plan_run(AREA, LOAD, FOUR, Limits(16 * GIB, 0), None)
    assert (plan.tile_rows, plan.tile_cols, plan.panel, plan.in_flight) == (125, 4000, 2, 4)
    smaller = plan_run(AREA, LOAD, FOUR, Limits(GIB, 0), None)
    assert smaller.tile_rows < 125
    assert smaller.in_flight == 4
    assert smaller.peak_bytes <= GIB


def test_strips_are_whole_blocks() -> None:
    assert plan_run(AREA, TILED, FOUR, Limits(16 * GIB, 0), None).tile_rows == 256
    strips = replace(LOAD, blocks=(48, 8000), piece=(48, 8000))
    assert plan_run(AREA, strips, FOUR, Limits(16 * GIB, 0), None).tile_rows == 96
    narrow = plan_run(AREA, TILED, FOUR, Limits(GIB + GIB // 2, 0), None)
    width = narrow.panel * narrow.tile_cols
    assert narrow.tile_rows == 256
    assert width < 8000
    assert width % 256 == 0


def test_strips_of_lines_are_even() -> None:
    for rows, height in (
        (5243, 110),
        (1311, 120),
        (1200, 100),
        (1000, 125),
        (640, 80),
        (328, 82),
        (300, 100),
        (145, 73),
        (100, 100),
        (50_000, 125),
    ):
        plan = plan_run(Window(0, 0, rows, 800), LOAD, FOUR, Limits(8 * GIB, 0), None)
        assert plan.tile_rows == height
        strips = -(-rows // height)
        assert strips % 16 == 0 or rows < 2048
        assert strips % 4 == 0 or not 640 <= rows <= 1280


def test_little_memory_means_fewer_strips_in_flight() -> None:
    engine = EngineOptions(threads=64)
    plan = plan_run(AREA, LOAD, engine, Limits(GIB, 0), None)
    assert plan.tile_rows == 16
    assert 1 <= plan.in_flight < 64
    assert plan.peak_bytes <= GIB


@given(
    st.integers(1, 60_000),
    st.integers(1, 60_000),
    st.sampled_from([(1, 60_000), (16, 60_000), (256, 256), (64, 512)]),
    st.integers(1, 500),
    st.integers(1, 32),
    st.integers(1, 64),
)
def test_what_is_planned_fits_or_is_refused(
    rows: int, cols: int, blocks: tuple[int, int], bands: int, threads: int, gib: int
) -> None:
    area = Window(0, 0, rows, cols)
    blocks = min(blocks[0], rows), min(blocks[1], cols)
    load = replace(LOAD, blocks=blocks, piece=blocks, bands=bands)
    try:
        plan = plan_run(area, load, EngineOptions(threads=threads), Limits(gib * GIB, 0), None)
    except MemoryPlanError:
        assert gib < 16 or blocks[0] * blocks[1] * bands > 10**9
        return
    assert plan.peak_bytes <= gib * GIB
    assert 1 <= plan.in_flight <= threads
    tiles = TileGrid(area, area, plan.tile_rows, plan.tile_cols, 7)
    reading = ReadPlan.of(tiles, plan.panel, blocks[0])
    assert len(reading) * reading.panel >= len(tiles)


def test_what_cannot_fit_is_refused_with_numbers() -> None:
    with pytest.raises(MemoryPlanError, match=r"300 MiB are too little.*give at least \d+ MiB"):
        plan_run(AREA, LOAD, FOUR, Limits(300 * 2**20, 0), None)


def test_the_remedy_that_the_refusal_names_works() -> None:
    with pytest.raises(MemoryPlanError) as caught:
        plan_run(AREA, LOAD, FOUR, Limits(300 * 2**20, 0), 512)
    needed = int(str(caught.value).split("at least ")[1].split(" MiB")[0])
    assert plan_run(AREA, LOAD, FOUR, Limits(needed * 2**20, 0), 512).in_flight == 1


def test_tiles_are_no_larger_than_the_scene() -> None:
    plan = plan_run(Window(0, 0, 100, 60), LOAD, FOUR, Limits(8 * GIB, 0), 512)
    assert (plan.tile_rows, plan.tile_cols, plan.panel) == (100, 60, 1)


def test_bytes_are_the_sum_of_their_parts() -> None:
    load = Load(10, "float32", (1, 16), (2, 16), 3, 5, 2, 8)
    # A block of a low tile has as many pixels as a square; three components fill up to 16.
    network, labels = 12 * 12 * 4 * (2 * 3 + 5), 4 * 6 * 16
    rest, raw = network + labels, 2 * 16 * (10 * (4 + 1) + (10 + 16) * 4)
    assert load.host(6, 16) == Share((6 + 4) * 20 * (4 * 3 + 1), raw + rest)
    assert replace(load, fixed=99).host(6, 16).strip == raw + rest + 99
    assert load.host(6, 4).strip < 10 * 8 * 4 * (2 * 3 + 5) + raw + labels  # a narrow one has fewer
    high = replace(load, piece=(6, 16), bands=100)
    assert high.host(6, 16).strip == 6 * 16 * (100 * (4 + 1) + 116 * 4) + rest
    large = replace(high, bands=2**15)  # transformed in parts of 2**20 values, two rows
    assert large.host(6, 16).strip == 6 * 16 * 2**15 * 5 + 2 * 16 * (2**15 + 16) * 4 + rest
    assert load.device(6, 16) == Share(0, 0)
    plan = RunPlan(6, 16, 1, 4, Share(7, 11), workers=2, leader=True)
    assert plan.peak_bytes - plan.base_bytes == (4 + 2 * 3) * 7 + 4 * 11
    cached = replace(plan, decoding=Decoding(cache=5, kept=2))  # two threads a process
    assert cached.peak_bytes - plan.peak_bytes == 2 * 5
    assert replace(plan, decoding=Decoding(cache=5, kept=3)).cache_bytes == 2 * 2 * 3
    # Of a scene of one step no process holds more than that, and one that it used before.
    assert replace(plan, steps=1).peak_bytes - plan.base_bytes == 2 * 2 * 7 + 4 * 11
    assert plan.device_bytes == 0


def test_tiles_lower_than_the_blocks_of_the_file_are_read_in_whole_blocks() -> None:
    high = replace(LOAD, blocks=(1024, 8000), piece=(1024, 8000), bands=10)
    low = plan_run(AREA, high, FOUR, Limits(64 * GIB, 0), 64)
    assert low.tile_rows == 64
    assert low.host.step == LOAD.host(64, 8000, 1024).step > 1024 * 8000 * LOAD.components * 4
    assert low.host.strip > 1024 * 8000 * 10 * 2
    # Blocks reach beyond an area; what lies there is not read.
    part = plan_run(Window(100, 0, 50, 8000), high, FOUR, Limits(64 * GIB, 0), None)
    assert part.host.step == LOAD.host(50, 8000, 50 + 2 * 7).step


def test_blocks_that_are_decoded_are_cut_only_where_nothing_else_fits() -> None:
    lines = replace(LOAD, decoding=Decoding(2**26, block=8000 * 400, width=8000))
    for memory in (16 * GIB, 2 * GIB, 750 * 2**20):
        plan = plan_run(AREA, lines, FOUR, Limits(memory, 0), None)
        assert plan.panel * plan.tile_cols >= 8000
        assert plan.peak_bytes <= memory
    assert plan.in_flight < 4
    little = plan_run(AREA, lines, FOUR, Limits(680 * 2**20, 0), None)
    # Fewer threads rather than blocks that are decoded more often.
    assert (little.panel * little.tile_cols, little.in_flight) == (4000, 1)
    # What lies as it is read is cut sooner: all threads have a strip.
    assert plan_run(AREA, LOAD, FOUR, Limits(GIB, 0), None).in_flight == 4


def test_room_for_decoded_blocks_is_that_of_the_threads_at_work() -> None:
    block = 256 * 256 * 400
    decoding = Decoding(2**26, kept=2 * block, block=block, width=8000)
    load = replace(TILED, decoding=decoding)
    many = plan_run(AREA, load, EngineOptions(threads=64), Limits(2 * GIB, 0), None)
    assert 1 <= many.in_flight < 64
    assert many.cache_bytes == max(2**26, many.in_flight * 2 * block)
    plain = replace(TILED, decoding=replace(decoding, block=0))
    assert load.host(256, 8000).strip - plain.host(256, 8000).strip == 2 * block
    with pytest.raises(MemoryPlanError, match=r"takes 512 MiB, decoded blocks 64 MiB, and strips"):
        plan_run(AREA, load, FOUR, Limits(600 * 2**20, 0), None)


def test_chunks_beside_the_one_that_is_read_cost_nothing() -> None:
    chunks = Decoding(block=256 * 256 * 400, width=256, piece=2**25)
    load = replace(TILED, decoding=chunks)
    one, many = (load.host(256, cols).strip - TILED.host(256, cols).strip for cols in (256, 8000))
    assert one == many == 2 * 256 * 256 * 400


def test_what_is_decoded_beside_what_is_asked_for() -> None:
    chunks = Decoding(block=100, width=10, piece=5000)
    assert chunks.beside(cols=35, nbytes=300) == 2 * 400  # chunks that are read are read whole
    assert chunks.beside(cols=35, nbytes=10_000) == 2 * 5000  # several rows of chunks at once


def test_no_more_strips_are_at_work_than_there_are() -> None:
    few = plan_run(Window(0, 0, 100, 60), LOAD, EngineOptions(threads=64), Limits(GIB, 0), None)
    assert few.in_flight == few.threads == 1
    processes = plan_run(Window(0, 0, 100, 60), LOAD, EngineOptions(3), Limits(8 * GIB, 0), None)
    assert processes.in_flight == 3


def test_strips_of_narrow_scenes_are_higher() -> None:
    for cols, rows in ((1000, 125), (256, 250), (5, 10_000), (1, 10_000)):
        plan = plan_run(Window(0, 0, 20_000, cols), LOAD, FOUR, Limits(8 * GIB, 0), None)
        assert 0.4 * rows <= plan.tile_rows <= rows


def test_tiles_that_are_cut_already_are_kept_within_the_memory_that_is_given() -> None:
    begun = plan_run(AREA, LOAD, FOUR, Limits(16 * GIB, 0), None)
    tiles = TileGrid(AREA, AREA, begun.tile_rows, begun.tile_cols, 7)
    reading = ReadPlan.of(tiles, begun.panel, 1)
    assert plan_tiles(LOAD, FOUR, Limits(16 * GIB, 0), reading) == begun
    least = replace(begun, in_flight=1).peak_bytes
    rest = plan_tiles(LOAD, FOUR, Limits(least, 0), reading)
    assert (rest.tile_rows, rest.tile_cols, rest.panel) == (125, 4000, 2)
    assert rest.peak_bytes <= least
    with pytest.raises(MemoryPlanError, match=r"give at least \d+ MiB"):
        plan_tiles(LOAD, FOUR, Limits(least - 1, 0), reading)


def test_each_tile_of_a_store_is_a_strip_for_a_thread() -> None:
    area = Window(0, 0, 256, 256 * 6)
    reading = ReadPlan.of(TileGrid(area, area, 256, 256, 7), 1, 1)
    load = replace(LOAD, bands=0, blocks=(1, 1), piece=(1, 1))
    assert plan_tiles(load, FOUR, Limits(GIB, 0), reading).in_flight == 4


def test_a_device_holds_what_it_computes() -> None:
    cuda = replace(LOAD, cuda=True, block=1024)
    plan = plan_run(AREA, cuda, FOUR, Limits(4 * GIB, 60 * GIB), None)
    assert plan.host.step == 0
    assert plan.device.step == LOAD.host(plan.tile_rows, plan.panel * plan.tile_cols).step
    assert 0 < plan.device_bytes <= 60 * GIB
    little = plan_run(AREA, cuda, FOUR, Limits(4 * GIB, GIB), None)
    assert little.device_bytes <= GIB
    assert little.tile_rows < plan.tile_rows
    with pytest.raises(MemoryPlanError, match=r"500 MiB of the device.*MiB with --gpu-memory"):
        plan_run(AREA, cuda, FOUR, Limits(4 * GIB, 500 * 2**20), None)


def test_limits_that_nobody_set() -> None:
    assert Limits.of(None, None, None) == Limits(total_memory() // 2, 0)
    assert Limits.of(7, None, 1000) == Limits(7, 800)
    assert Limits.of(7, 9, 1000) == Limits(7, 9)


def test_each_process_has_its_own_base() -> None:
    threads = plan_run(AREA, LOAD, FOUR, Limits(16 * GIB, 0), 64)
    processes = plan_run(AREA, LOAD, EngineOptions(4, threads=4), Limits(16 * GIB, 0), 64)
    # The one that leads labels nothing.
    assert 4 * threads.base_bytes < processes.base_bytes < 5 * threads.base_bytes
    with pytest.raises(MemoryPlanError, match="5 processes"):
        plan_run(AREA, LOAD, EngineOptions(4, threads=4), Limits(2 * GIB, 0), 64)


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


def test_each_of_several_devices_holds_its_part() -> None:
    load = replace(LOAD, cuda=True)
    roomy = Limits(64 * GIB, 64 * GIB)
    one = plan_run(AREA, load, EngineOptions(2, threads=4), roomy, None)
    two = plan_run(AREA, load, EngineOptions(2, threads=4, devices=("0", "1")), roomy, None)
    assert two.device_bytes * 2 == one.device_bytes
    assert two.peak_bytes == one.peak_bytes


def test_several_devices_are_used_by_processes_unless_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6,7")
    for name in ("auto", "cuda"):
        assert placed(PredictOptions(device=name)).engine == EngineOptions(
            3, devices=("5", "6", "7")
        )
    two = placed(PredictOptions(device="cuda", engine=EngineOptions(2))).engine
    assert two == EngineOptions(2, devices=("5", "6", "7"))
    assert placed(placed(PredictOptions())) == placed(PredictOptions())
    for name in ("cuda:1", "cpu"):
        assert placed(PredictOptions(device=name)).engine == EngineOptions()
