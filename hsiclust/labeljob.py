"""What a worker is told of a labelling, and whether what it opens is what the run began with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hsiclust.errors import InputError, ModelError
from hsiclust.modelfile import file_digest
from hsiclust.models.base import Precision
from hsiclust.readplan import ReadPlan
from hsiclust.tilegrid import TileGrid


@dataclass(frozen=True)
class LabelJob:
    """What a worker needs to label tiles; equal only for the same work.

    Attributes:
        source: Path of the scene or tile store.
        nodata: Nodata value of the scene.
        model: Path of the model file.
        labels: Path of the label store.
        reading: How the scene is cut and read.
        run: Hash of all that decides the labels.
        device: Where to compute.
        confidence: Whether the confidence is kept.
        threads: Strips at work at once in one process.
        block: Side of the squares that the network sees at once.
        precision: What the network computes in.
        identity: Hash of the scene or tile store that the run began with.
        digest: That of the model file.
        passing: Whether the system need not keep what is read of the scene.
        begun: Whether an earlier run has labelled some of it: a worker then looks what.
    """

    source: str
    nodata: float | None
    model: str
    labels: str
    reading: ReadPlan
    run: str
    device: str
    confidence: bool
    threads: int
    block: int
    precision: Precision
    identity: str
    digest: str
    passing: bool = False
    begun: bool = False

    @property
    def tiles(self) -> TileGrid:
        """How the scene is cut."""
        return self.reading.tiles

    def check_source(self, identity: str) -> None:
        """Check that a scene is still the one that the run began with, as far as files tell.

        On the machine of the run: through another's network file system a file may have been
        written at another fraction of a second.

        Args:
            identity: What it is by now.

        Raises:
            InputError: It is another.
        """
        if identity != self.identity:
            raise InputError(
                f"{self.source}: is not what it was when the run began: no map is written; "
                "label it again with --overwrite"
            )

    def check_model(self) -> None:
        """Check that the model file is still the one that the run began with.

        Raises:
            ModelError: It is another.
        """
        if file_digest(Path(self.model)) != self.digest:
            raise ModelError(
                f"{self.model}: is not what it was when the run began, or not the same file where "
                "a worker sees it; put it back, or label the scene again with --overwrite"
            )
