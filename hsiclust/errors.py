"""What can go wrong, and the exit code that the command line gives each cause.

Every expected failure is a subclass of `HsiclustError`; its message is one line that holds
what failed, which file, which value, and what to do about it.
"""

from __future__ import annotations

# What a message ends with where a run was stopped in the middle.
GO_ON = "what is done is kept, the same command goes on"


class HsiclustError(Exception):
    """Work that could not be done; base of every expected failure."""

    exit_code = 1


class UsageError(HsiclustError, ValueError):
    """Arguments that do not fit together or lie out of range."""

    exit_code = 2


class OutputExistsError(UsageError, FileExistsError):
    """An output that is there already and that nobody asked to overwrite."""


class OutputBusyError(OutputExistsError):
    """An output that another run is writing."""


class InputError(HsiclustError, ValueError):
    """A scene, store, map or label file that cannot be used."""

    exit_code = 3


class StorageError(HsiclustError):
    """Remote storage that does not answer, or that refuses access."""

    exit_code = 3


class NoOverlapError(InputError):
    """Vectors or a raster that do not meet the scene."""


class ModelError(HsiclustError, ValueError):
    """A model file that cannot be read, or that does not fit the scene."""

    exit_code = 4


class DeviceError(HsiclustError, RuntimeError):
    """A computing device that was asked for and is not there."""

    exit_code = 5


class MemoryPlanError(UsageError, MemoryError):
    """A plan that cannot fit the memory it was given."""


class ClusterError(HsiclustError, ConnectionError):
    """A scheduler that went away, or workers that are gone and do not come back."""


class StoppedError(HsiclustError):
    """A run that was asked to stop (SIGTERM, SIGHUP) and can be resumed."""

    exit_code = 75
