"""Names and colours of classes 1..K; class 0, unclassified, is black and transparent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hsiclust.errors import UsageError

MOST_CLASSES = 255
"""A map is one byte a pixel, and 0 is taken."""

UNCLASSIFIED = "Unclassified"
"""What ENVI calls class 0."""

AS_ENVI = str.maketrans(",{}=", ";():")
"""For names in an ENVI header, which has no way to quote what separates its lists and entries."""

UNSURE = 255
"""Confidence of pixels that have no class; that of others is 0 to 100 per cent."""

Colour = tuple[int, int, int]

# Ten colours chosen by eye, then each the colour that lies farthest in OKLab
# (https://bottosson.github.io/posts/oklab) from all before it, from white and from black. A table
# rather than the search itself, so that a colour hangs on no rounding and never changes.
_TABLE = (
    "1f77b4e6552d3ca046f0be328c56af784b2d46bed2eb78b496be3c193c6e780069004b00d2c3ffc300694b2dc3"
    "a587ff00f0b4b4967800785a690f0fffa5961e96ff967800b4d2b4f000ff9600ff00ff000000a5005affff00a5"
    "c3f04b3c00698787b4b41e00a55a692d2d1eb400b4ff96ff0000f0ff87002d969669f0ff5a5a78c35ad200d200"
    "ffd2c3ff005a00c3877869f0c3a5c3781ea5873c69787869ff5ae1005a5a87b4ff004ba54b0f3cb496004b5a0f"
    "5a1effd25a875a3c4b5a7800ff78784b2d87b45a1e78e15a87b496c300f096003ce1e1874b5ac37896690f1e69"
    "d27800783cd2e1000f4b3c00c3b469c3e1f0d22da5ffa5d269d2ffc3a5ff5ad2b4b478873c00a500b400960f87"
    "87a5c300a5d2a55aff69ff87c387d2a5f0b4006987e178ff2d78f0c3d23c871e00786996694b963c2d4ba53c87"
    "0069000f2dc378692d87a500e19669c33c4bb45aa51eb4ff96d2875a0078e12dd2963c3cf0c387d2b4a5a53cd2"
    "7896f0002d4b1eb4a596c3d2a5785a9678d24b78874b87d2008700d24bffff4b879600c34b1e00e11e784b875a"
    "ffa55a3c4b6978003cffc3f0d28787783cffe1a5005a695ae15ab42d3ce14bc34bff1e0f2dffe1003c1e5a0fa5"
    "ff692d5a1e5a789696e196d21e2d9678b4694b4b3c87f0006900d2f0e12d00e1e1e1c3d2a52d5a782d3cd26969"
    "692d78785a5a5a5aff964b003c5a96873c96692d00004b3c5a87a51e3c4b6969c33ca57800e187e13c5a788700"
    "1e0087b40087ff4b5a0f5a2d4b2d2d87e1d2a596a5d2e1c3ff1ee100f05aff87a5c3b400b478b4a5a5e10069d2"
    "c33c87a5d2ffc33c00ff87d2a5a55a965ad2b4873c3c00e196693cff5ab4875a789669a5ffd25a5a4be1e196a5"
    "3c1e2de15ae15a3ca5c378f01e782d1eb45a871e5ac3d287e1785aa500697800f05aa5b4a5f087f0b4ffd2963c"
    "a5c3962d1e5ab43ca5c35a4b694b5a2d4bc369ffb4877887a500e1f069873c2d69008778c3003c0087a5963cb4"
    "c32dd23c693c3c0087696978ff78f05a96c36987fff04bff5a5a3c2d4b8769a5e12d1eff5a001e78d20087963c"
)


def class_colours(count: int) -> tuple[Colour, ...]:
    """Colours of classes 1..`count`, as red, green, blue; a class keeps its colour in any count.

    Raises:
        UsageError: There are not that many colours.
    """
    if not 0 <= count <= MOST_CLASSES:
        raise UsageError(f"{count} classes: a map holds 1 to {MOST_CLASSES}")
    values = bytes.fromhex(_TABLE)
    return tuple((values[at], values[at + 1], values[at + 2]) for at in range(0, 3 * count, 3))


@dataclass(frozen=True)
class Classes:
    """What classes 1..K are called and how they are drawn.

    Attributes:
        names: One line of text a class.
        colours: Red, green, blue of each class, 0 to 255.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MOST_CLASSES:
            raise UsageError(f"{len(self.names)} classes: a map holds 1 to {MOST_CLASSES}")
        if len(self.colours) != len(self.names):
            raise UsageError(f"{len(self.names)} class names but {len(self.colours)} colours")
        for name, colour in zip(self.names, self.colours, strict=True):
            if not name or not name.isprintable():
                raise UsageError(f"class name {name!r} is not one line of text")
            if not _is_colour(colour):
                raise UsageError(f"colour {colour} of class {name!r} is not three of 0 to 255")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def numbered(cls, count: int) -> Classes:
        """Classes that nobody has named yet: "cluster 1", "cluster 2", ..."""
        names = tuple(f"cluster {number}" for number in range(1, count + 1))
        return cls(names, class_colours(count))


def _is_colour(values: Sequence[int]) -> bool:
    return len(values) == 3 and all(0 <= value <= 255 for value in values)
