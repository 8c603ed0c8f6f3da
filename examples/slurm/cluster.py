"""A Dask cluster of SLURM jobs, for commands that take --scheduler-file.

    python examples/slurm/cluster.py scheduler.json --jobs 8 --cores 16 --memory 32GiB -- \
        hsiclust predict scene.tif --scheduler-file scheduler.json

The command starts when the first job runs, and its exit code is that of this script. Without a
command the cluster stands until it is stopped. SIGTERM stops the command, then the jobs. Workers
need the same environment, and see the scene, the model and the output's folder under the same
names.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from dask.distributed import Client
from dask_jobqueue import SLURMCluster
from dask_jobqueue.local import LocalCluster

SECONDS_IN_THE_QUEUE = 24 * 3600


def parse_arguments(words: list[str]) -> argparse.Namespace:
    """The command line of this script, without the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="scheduler file to write")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--cores", type=int, default=8, help="of a job")
    parser.add_argument("--memory", default="16GiB", help="of a job")
    parser.add_argument("--walltime", default="02:00:00")
    parser.add_argument("--queue")
    parser.add_argument("--directive", action="append", default=[], help="more of #SBATCH")
    parser.add_argument("--local", action="store_true", help="jobs on this machine, to try it")
    return parser.parse_args(words)


def cluster_of(arguments: argparse.Namespace) -> Any:
    """The cluster, without workers yet: one process a job, so that neighbouring strips meet."""
    common = {
        "cores": arguments.cores,
        "memory": arguments.memory,
        "processes": 1,
        "scheduler_options": {"dashboard": False},
        "worker_extra_args": ["--no-dashboard"],
    }
    if arguments.local:
        return LocalCluster(**common)
    return SLURMCluster(
        walltime=arguments.walltime,
        queue=arguments.queue,
        job_extra_directives=arguments.directive,
        **common,
    )


def exit_code_of(command: list[str]) -> int:
    """Run a command to its end; SIGTERM is passed on, and its end is waited for."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except SystemExit:  # SIGTERM
            process.terminate()
            return process.wait()


def main() -> int:
    """Start the cluster, run the command, stop the cluster."""
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    arguments, command = parse_arguments(words[:end]), words[end + 1 :]
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with cluster_of(arguments) as cluster, Client(cluster) as client:
        cluster.scale(jobs=arguments.jobs)
        client.wait_for_workers(1, timeout=SECONDS_IN_THE_QUEUE)
        partial = arguments.file.with_name(f"{arguments.file.name}.partial")
        partial.write_text(json.dumps({"address": cluster.scheduler_address}))
        partial.replace(arguments.file)
        try:
            if command:
                return exit_code_of(command)
            threading.Event().wait()
            return 0
        finally:
            arguments.file.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
