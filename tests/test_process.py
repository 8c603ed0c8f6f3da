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
