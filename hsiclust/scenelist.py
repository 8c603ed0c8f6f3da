"""Names of scenes, from words, lists and standard input, and where each one's map goes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from hsiclust.errors import InputError, UsageError
from hsiclust.output import refuse_long_name


@dataclass(frozen=True)
class SceneList:
    """Scenes and their maps.

    Attributes:
        pairs: Each scene with its map.
        folder: The folder of the maps, where one was named or several were asked for.
        many: Whether a list was given or several scenes, of which one may fail.
    """

    pairs: tuple[tuple[str, Path], ...]
    folder: Path | None
    many: bool

    @contextmanager
    def folder_in_use(self) -> Iterator[None]:
        """The folder of the maps, made where it is not there, and gone again if it stays empty.

        Raises:
            UsageError: The folder above it is not there or takes nothing, or a file has its name.
        """
        if self.folder is None or self.folder.is_dir():
            yield
            return
        above = self.folder.absolute().parent
        writable = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
        if os.path.lexists(self.folder) or not writable:
            raise UsageError(f"{self.folder}: no folder can be made there; name another --output")
        self.folder.mkdir(exist_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):
                self.folder.rmdir()


def scene_names(words: Sequence[str], stdin: TextIO) -> list[str]:
    """Scenes that the command line names, lists among them.

    Args:
        words: Scenes, `@FILE` for a list of them, `-` for a list from standard input.
        stdin: Standard input.

    Raises:
        InputError: A list cannot be read.
        UsageError: No scene is named.
    """
    names = [name for word in words for name in _names(word, stdin)]
    if not names:
        raise UsageError("no scene is named: the list is empty")
    return names


def scene_list(words: Sequence[str], output: str | None, suffix: str, stdin: TextIO) -> SceneList:
    """What the command line names.

    Args:
        words: As `scene_names` takes them.
        output: A map, or the folder of several; ends in `/` or is there when it is a folder.
        suffix: Of maps that are named by their scenes.
        stdin: Standard input.

    Raises:
        InputError: A list cannot be read.
        UsageError: No scene, two whose maps would have one name, or a name that is too long.
    """
    names = scene_names(words, stdin)
    if output is not None:
        refuse_long_name(Path(output))
    many = len(names) > 1 or any(word == "-" or word.startswith("@") for word in words)
    if output is None or many or output.endswith("/") or Path(output).is_dir():
        folder = None if output is None else Path(output)
        pairs = [(name, (folder or Path()) / map_name(name, suffix)) for name in names]
    else:
        folder, pairs = None, [(names[0], Path(output))]
    _refuse_same(pairs)
    return SceneList(tuple(pairs), folder, many)


def map_name(scene: str, suffix: str = ".tif") -> str:
    """`<scene>_labels.tif`."""
    return f"{Path(scene.rstrip('/')).stem}_labels{suffix}"


def _names(word: str, stdin: TextIO) -> list[str]:
    """Scenes that a word stands for."""
    if word != "-" and not word.startswith("@"):
        return [word]
    name = "standard input" if word == "-" else word[1:]
    try:
        if word == "-":
            return _lines(stdin.read().removeprefix("\ufeff"))
        return _lines(Path(name).read_text("utf-8-sig"))  # Windows marks it
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}; a list of scenes is expected") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: is no list of scenes: it is not UTF-8 text") from error


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _refuse_same(pairs: Sequence[tuple[str, Path]]) -> None:
    seen: dict[Path, str] = {}
    for scene, output in pairs:
        if output in seen:
            raise UsageError(
                f"{scene}: its map {output} would be that of {seen[output]} as well; "
                "label them in two runs, into two folders"
            )
        seen[output] = scene
