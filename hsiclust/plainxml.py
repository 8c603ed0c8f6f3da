"""XML from strangers: read without the declarations that would make a small file large."""

from __future__ import annotations

from xml.etree import ElementTree

from hsiclust.errors import InputError

XML_ERRORS = (ElementTree.ParseError, LookupError, ValueError)
"""What reading a damaged text raises."""


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses the declarations by which a small XML file grows without bound."""

    def doctype(self, name: str, _pubid: str | None, _system: str | None) -> None:
        raise InputError(f"document type {name!r} declared")


def parsed(text: bytes) -> ElementTree.Element:
    """The root of a text, whose size the caller has bounded.

    Raises:
        InputError: It declares a document type.
        ParseError: It is no XML; `XML_ERRORS` are all that it raises.
    """
    parser = ElementTree.XMLParser(target=_NoDoctype())  # noqa: S314 - no DTD, size is bounded
    return ElementTree.fromstring(text, parser)  # noqa: S314 - as above
