"""Settings of the whole process, seen from a process that makes them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import atexit, gc
atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count() > 0))
from hsiclust.process import prepare_process
prepare_process()
"""


def test_the_garbage_collector_looks_seldom_and_not_at_the_end() -> None:
    command = [sys.executable, "-c", SCRIPT]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["10000", "True"]


ENDING = """
import atexit, sys, threading, time
from hsiclust import crew
from hsiclust.crew import Crew
from hsiclust.process import end_process
atexit.register(print, "as Python ends")
crew._END_WITHIN = 0.0
begun = threading.Event()
def task(index):
    if index == 0:
        return begun.wait(60)
    begun.set()
    time.sleep(float(sys.argv[1]))
work = Crew(task, [1, 0], "tile", 2).work()
next(work)
begun.wait()
work.close()
for thread in threading.enumerate():
    if sys.argv[1] == "0" and thread is not threading.main_thread():
        thread.join()
end_process(75)
"""


def test_a_process_ends_although_a_tile_is_at_work() -> None:
    for seconds, said in (("0", "as Python ends\n"), ("600", "")):
        command = [sys.executable, "-c", ENDING, seconds]
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (found.returncode, found.stdout) == (75, said), found.stderr


STOPPED_AT_ITS_END = """
import atexit, signal, sys
from hsiclust.process import end_process
from hsiclust.stopping import stop_on_signals
stop_on_signals()
atexit.register(signal.raise_signal, int(sys.argv[1]))
end_process(75)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_ends_is_not_stopped_once_more(number: int) -> None:
    command = [sys.executable, "-c", STOPPED_AT_ITS_END, str(int(number))]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, found.stderr) == (75, "")


STREAMS = """
import os, sys
for number in map(int, sys.argv[1]):
    os.close(number)
sys.stdin = sys.stdin if "0" not in sys.argv[1] else None
sys.stdout = sys.stdout if "1" not in sys.argv[1] else None
sys.stderr = sys.stderr if "2" not in sys.argv[1] else None
from hsiclust.process import open_standard_streams
open_standard_streams()
with open(sys.argv[2], "w") as file:
    assert file.fileno() > 2
    os.write(1, b"of a library")
    print("said", file=sys.stdout, flush=True)
    print("said", file=sys.stderr, flush=True)
    file.write(repr(sys.stdin.read()))
"""


@pytest.mark.parametrize("closed", ["", "0", "1", "2", "012"])
def test_a_process_without_standard_streams(tmp_path: Path, closed: str) -> None:
    command = [sys.executable, "-c", STREAMS, closed, tmp_path / "file"]
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == "''"


IMPORTING = """
import os, signal, sys, time
from hsiclust.errors import StoppedError
from hsiclust.stopping import stop_on_signals
stop_on_signals()
sys.path.insert(0, sys.argv[1])
try:
    import slow
    time.sleep(20)
except StoppedError:
    print(slow.whole)
"""


def test_sigterm_waits_for_the_end_of_an_import(tmp_path: Path) -> None:
    """A library that was loaded by half cannot be loaded again, perhaps by what says goodbye."""
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(0.2)\nwhole = True\n"
    )
    command = [sys.executable, "-c", IMPORTING, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
