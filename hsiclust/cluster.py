"""Where the work is done, and Dask's part of it: workers of this machine, a standing cluster."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hsiclust import controlgroups, slurm
from hsiclust.errors import ClusterError, UsageError

# Seconds that a standing scheduler has to answer.
_ANSWER_WITHIN = 15.0
# Times that workers of this machine are started until all of them are ready.
_STARTS = 3
_LARGEST_SCHEDULER_FILE = 2**20
_LOOPBACK = "127.0.0.1:0"
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class EngineOptions:
    """Where tiles are worked on.

    Attributes:
        workers: Worker processes on this machine; None works in threads of this process. Each
            begins by importing the script that runs, which so has to keep its work behind
            `if __name__ == "__main__":`.
        scheduler: Address of a standing Dask scheduler instead.
        scheduler_file: File in which a standing scheduler wrote its address, instead.
        threads: Most threads at work, over all workers of this machine, or of each worker of a
            standing cluster; the processors by default.
        devices: CUDA devices by their names in CUDA_VISIBLE_DEVICES, which the workers of this
            machine take in turn, one each; when empty, all of them see what this process sees.
    """

    workers: int | None = None
    scheduler: str | None = None
    scheduler_file: str | Path | None = None
    threads: int | None = None
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"{self.workers} workers: at least one is needed")
        if self.workers is not None and self.standing:
            raise UsageError("workers are made here or found behind a scheduler, not both")
        if self.scheduler is not None and self.scheduler_file is not None:
            raise UsageError("a scheduler is found by its address or by its file, not both")

    @property
    def standing(self) -> bool:
        """Whether the workers are those of a standing cluster."""
        return self.scheduler is not None or self.scheduler_file is not None

    @property
    def in_process(self) -> bool:
        """Whether threads of this process do the work, without Dask."""
        return self.workers is None and not self.standing

    @property
    def parallel(self) -> int:
        """Threads at work on this machine."""
        wanted = self.threads or available_processors()
        if self.workers is None:
            return max(1, wanted)
        return self.workers * self.threads_per_worker

    @property
    def threads_per_worker(self) -> int:
        """Threads of one worker process."""
        wanted = self.threads or available_processors()
        return max(1, wanted // (self.workers or 1))

    def limited_to(self, threads: int) -> EngineOptions:
        """The same place with at most so many threads at work."""
        workers = None if self.workers is None else min(self.workers, threads)
        return replace(self, threads=threads, workers=workers)

    def one_process_a_device(self, devices: Sequence[str]) -> EngineOptions:
        """The same place with a device for each worker; several devices make several workers.

        Args:
            devices: Names for CUDA_VISIBLE_DEVICES.
        """
        if self.standing or len(devices) < 2:
            return self
        return replace(self, workers=self.workers or len(devices), devices=tuple(devices))


def available_processors() -> int:
    """Processors that this process may use: those it is bound to, or what its job allows."""
    can_be_bound = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if can_be_bound else os.cpu_count() or 1
    return min([count, *controlgroups.processor_limits(), *slurm.processor_limits()])


def visible_devices(count: int, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Names of this process's CUDA devices, as CUDA_VISIBLE_DEVICES spells them.

    Args:
        count: Devices that CUDA finds here: a list may name more.
        environment: Where the list may stand.
    """
    listed = environment.get(_VISIBLE)
    names = [str(at) for at in range(count)] if listed is None else listed.split(",")
    return tuple(name.strip() for name in names[:count])


@dataclass(frozen=True)
class Worker:
    """What workers of a standing cluster are like.

    Attributes:
        threads: Threads of the one that has most.
        memory: Bytes of the one that may take least; None where no limit is set.
    """

    threads: int
    memory: int | None


def survey(options: EngineOptions) -> Worker | None:
    """Ask a standing scheduler for its workers; None where there are none yet, or no scheduler.

    Raises:
        UsageError: It does not answer.
    """
    if not options.standing:
        return None
    with connected(options) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if not workers:
        return None
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return Worker(max(worker["nthreads"] for worker in workers), min(limits, default=None))


@contextmanager
def connected(options: EngineOptions) -> Iterator[Any]:
    """A Dask client; a cluster that was made here ends with it.

    Args:
        options: Worker processes, or a standing cluster.

    Raises:
        ClusterError: Workers of this machine cannot be started.
        UsageError: No standing scheduler answers.
    """
    import dask

    _import_distributed()
    quiet = {
        # What watches the workers takes the interpreter from those who work: the profiler walks the
        # stack of every thread a hundred times a second.
        "distributed.worker.profile.enabled": False,
        "distributed.admin.tick.interval": "500ms",
        "distributed.admin.system-monitor.interval": "10s",
        # A run's memory is planned before it starts; workers must not stop to spill.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.worker.memory.terminate": False,
    }
    with dask.config.set(quiet), _client(options) as client:
        yield client


def _import_distributed() -> None:
    """Bring its settings, which are changed here, and leave the levels of its loggers alone.

    It sets them when it is imported, over those that the application has set. The handlers are
    silenced while a cluster stands, but connections may end, and be told of, after that.
    """
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    chosen = [logger.level for logger in loggers]
    import distributed  # noqa: F401

    for logger, level in zip(loggers, chosen, strict=True):
        if level != logging.NOTSET:
            logger.setLevel(level)


@contextmanager
def _client(options: EngineOptions) -> Iterator[Any]:
    from distributed import Client
    from distributed.utils import silence_logging_cmgr

    if options.workers is not None:
        with (
            _cluster(options, options.workers) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    address, named = _address(options)
    with silence_logging_cmgr(logging.CRITICAL):  # what matters becomes an error here
        try:
            client = Client(address, set_as_default=False, timeout=_ANSWER_WITHIN)
        except (OSError, ValueError) as error:
            raise UsageError(f"{named}: no Dask scheduler answers there") from error
        with client:
            yield client


def _cluster(options: EngineOptions, count: int) -> Any:
    """Workers of this machine; only this machine may reach them."""
    from distributed import Nanny, Scheduler, SpecCluster

    # Dask serves HTTP in any case, on any free port.
    here = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": _LOOPBACK}
    common = {
        **here,
        "nthreads": options.threads_per_worker,
        "preload": ["hsiclust.process"],  # what each worker does first
        "silence_logs": logging.CRITICAL,
    }
    workers = {
        number: {"cls": Nanny, "options": {**common, "env": _environment(options.devices, number)}}
        for number in range(count)
    }
    scheduler = {"cls": Scheduler, "options": {**here, "port": 0}}
    for _ in range(_STARTS):
        # A worker that dies before it is ready takes the cluster with it.
        with suppress(RuntimeError):
            return SpecCluster(workers, scheduler, silence_logs=logging.CRITICAL)
    raise ClusterError(
        f"{count} worker processes could not be started, {_STARTS} times: one died each "
        "time, killed or out of memory; with fewer --workers each has more memory"
    )


def _environment(devices: Sequence[str], worker: int) -> dict[str, str]:
    """What is special to a worker: the device that it sees."""
    return {_VISIBLE: devices[worker % len(devices)]} if devices else {}


def _address(options: EngineOptions) -> tuple[str, str]:
    """Where a standing scheduler is, and how the user named it.

    Raises:
        UsageError: The scheduler file does not tell.
    """
    if options.scheduler_file is None:
        return str(options.scheduler), str(options.scheduler)
    path = Path(options.scheduler_file)
    if path.exists() and not path.is_file():  # to open a pipe waits for who writes to it
        raise UsageError(f"{path}: is no file; the scheduler writes one when it starts")
    try:
        with path.open("rb") as file:
            address = json.loads(file.read(_LARGEST_SCHEDULER_FILE))["address"]
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; the scheduler writes it when it starts"
        ) from error
    except (ValueError, KeyError, TypeError):
        address = None
    if not isinstance(address, str):
        raise UsageError(f"{path}: is no scheduler file: JSON with an address is expected")
    return address, f"{path}: {address}"
