"""Files that lie on servers: what GDAL calls them, what it needs to know, and what marks a change.

GDAL reads parts of remote files itself (`/vsis3/`, `/vsicurl/`). This module gives it the names,
and the settings without which it asks a server for dozens of files that are not there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from hsiclust.errors import InputError, StorageError
from hsiclust.hdf5 import split_name
from hsiclust.location import is_virtual, location, stamp

_PREFIXES = {
    "s3://": "/vsis3/",
    "gs://": "/vsigs/",
    "az://": "/vsiaz/",
    "http://": "/vsicurl/http://",
    "https://": "/vsicurl/https://",
}
_SERVERS = ("/vsis3/", "/vsigs/", "/vsiaz/", "/vsiadls/", "/vsioss/", "/vsiswift/", "/vsicurl/")
_FOLDED = re.compile(r"^(s3|gs|az|https?):/(?!/)")
_TIMEOUT = 30.0  # seconds
# A TIFF holds all that matters: asking for its neighbours by name took 82 requests where 3 do, and
# listing the folder fails on most servers. Other formats (ENVI) live by their neighbours.
_ALONE = (".tif", ".tiff", ".jp2")
# Raw files are asked for in pieces of this size: GDAL's own, of 16 KiB, are thousands of requests.
# A piece of each of 250 bands has to find room, or those of BSQ would be asked for again and again.
# GDAL takes both from the first remote file that a process opens.
_RAW_PIECES = {"CPL_VSIL_CURL_CHUNK_SIZE": str(2**18), "CPL_VSIL_CURL_CACHE_SIZE": str(2**26)}
_DATA_SUFFIXES = ("", ".img", ".dat", ".bsq", ".bil", ".bip", ".raw", ".bin", ".hyspex")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def absolute_name(name: str) -> str:
    """A name that means the same file in whatever folder a process works."""
    file = split_name(name)[0]
    if is_virtual(file) or file.startswith("/"):
        return name
    before = name.index(":") + 1 if file != name else 0
    return name[:before] + name[before:].replace(file, str(Path(file).absolute()), 1)


def is_remote(name: str) -> bool:
    """Whether a name means a file on a server."""
    return name.startswith((*_PREFIXES, *_SERVERS))


def spelled(path: str | Path) -> str:
    """A name as text; `pathlib` folds the two slashes of a URL into one, which is undone."""
    return _FOLDED.sub(r"\1://", str(path))


def refuse_no_file(path: str | Path) -> None:
    """Check that a path is none that was made of a URL, and nothing that to open may never end.

    Raises:
        InputError: It is; only scenes and stores are read where they lie.
    """
    name = spelled(path)
    if name != str(path) and not Path(path).exists():
        raise InputError(f"{name}: is read from disk alone; copy it there first")
    file = Path(split_name(name)[0])
    if file.exists() and not file.is_file() and not file.is_dir():
        raise InputError(f"{name}: is a pipe or a device; save what comes from it as a file first")


def gdal_name(name: str) -> str:
    """What GDAL calls a file: `s3://bucket/key` is `/vsis3/bucket/key`, a URL `/vsicurl/URL`."""
    for prefix, virtual in _PREFIXES.items():
        if name.startswith(prefix):
            return virtual + name.removeprefix(prefix)
    return name


def gdal_settings(name: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """GDAL's settings for a file. What the user has set stays.

    Of a compressed ENVI file GDAL would leave a note of its size beside it. On servers, it does not
    know `AWS_ENDPOINT_URL`, which every other client of S3 goes by; it is told in its own words.
    """
    if not is_remote(name):
        settings = {"CPL_VSIL_GZIP_WRITE_PROPERTIES": "NO"}
        return {key: value for key, value in settings.items() if key not in environment}
    alone = urlsplit(name).path.lower().endswith(_ALONE)
    settings = {
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR" if alone else "TRUE",
        # A worker outlives its runs: what it has of a file must not outlive the file.
        "CPL_VSIL_CURL_NON_CACHED": ":".join(_SERVERS),
        "GDAL_HTTP_MAX_RETRY": "5",
        "GDAL_HTTP_RETRY_DELAY": "1",
        "GDAL_HTTP_CONNECTTIMEOUT": str(int(_TIMEOUT)),
        # Of a server that takes the question and says nothing GDAL would wait for ever.
        "GDAL_HTTP_LOW_SPEED_LIMIT": "1",  # bytes a second
        "GDAL_HTTP_LOW_SPEED_TIME": str(int(_TIMEOUT)),
        **({} if alone else _RAW_PIECES),
    }
    endpoint = next((environment[key] for key in _ENDPOINTS if environment.get(key)), None)
    if endpoint is not None:
        url = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        settings |= {
            "AWS_S3_ENDPOINT": (url.netloc + url.path).rstrip("/"),
            "AWS_HTTPS": "NO" if url.scheme == "http" else "YES",
            "AWS_VIRTUAL_HOSTING": "FALSE",
        }
    return {key: value for key, value in settings.items() if key not in environment}


def data_file_names(stem: str) -> list[str]:
    """Names that the data file of an ENVI header may have, the likely ones first."""
    return [stem + suffix for suffix in _DATA_SUFFIXES]


def explain(message: str) -> str:
    """What GDAL says of a remote file that it cannot open, in words that say what to do."""
    if re.search(r"response code: 404|not exist in the file system|key does not exist", message):
        return "there is nothing of this name on the server"
    if re.search(r"response code: 40[13]|AccessDenied|Access Denied", message):
        return f"the server refuses access ({message}); check the credentials"
    if "AWS_SECRET_ACCESS_KEY" in message:
        return (
            "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_NO_SIGN_REQUEST=YES for a public bucket"
        )
    return message


def source_stamp(name: str) -> tuple[object, ...]:
    """What differs between two states of a file, wherever it lies: sizes, times, tags.

    Raises:
        StorageError: A server does not answer, or refuses.
    """
    virtual = gdal_name(name)
    if virtual.startswith("/vsis3/"):
        return stamp(location("s3://" + virtual.removeprefix("/vsis3/")))
    if virtual.startswith("/vsicurl/http"):
        return _http_stamp(virtual.removeprefix("/vsicurl/"))
    return stamp(Path(split_name(name)[0]))


def _http_stamp(url: str) -> tuple[object, ...]:
    try:
        with urlopen(Request(url, method="HEAD"), timeout=_TIMEOUT) as answer:  # noqa: S310 - http(s) by its callers
            fields = ("Content-Length", "ETag", "Last-Modified")
            return tuple(answer.headers.get(field) for field in fields)
    except (URLError, OSError, ValueError) as error:
        raise StorageError(f"{url}: cannot be asked for its size and time: {error}") from error
