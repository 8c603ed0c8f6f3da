"""Settings of the whole process, seen from a process that makes them."""

import subprocess
import sys

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
