"""Servers on loopback: one that speaks S3, one of plain files, one that refuses everything.

Each runs in a process of its own: GDAL may ask for bytes while it holds Python's lock, and a
server in a thread of the same process would wait for that lock forever.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import obstore
import pytest
from obstore.store import S3Store

BUCKET = "scenes"


@contextmanager
def serving(kind: str, *arguments: object) -> Iterator[str]:
    """The URL of a server: "s3", "refusing", or "files FOLDER LOG"."""
    command = [sys.executable, __file__, kind, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def lead_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user sets to reach a server of their own, and nothing of the machine's."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_S3_ENDPOINT", "AWS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def bucket(name: str = BUCKET) -> S3Store:
    """A client of its own, independent of the one under test."""
    return S3Store(name, client_options={"allow_http": True})


def put(key: str, content: Path | bytes) -> str:
    """Put an object, or a folder of them, into the bucket; returns the URL."""
    if isinstance(content, bytes):
        obstore.put(bucket(), key, content)
    elif content.is_file():
        obstore.put(bucket(), key, content.read_bytes())
    else:
        for file in content.rglob("*"):
            if file.is_file():
                put(f"{key}/{file.relative_to(content)}", file)
    return f"s3://{BUCKET}/{key}"


def stored(prefix: str | None = None) -> list[str]:
    """What lies in the bucket."""
    return sorted(item["path"] for part in obstore.list(bucket(), prefix) for item in part)


def reset(url: str) -> None:
    """Forget everything; make the bucket anew."""
    for method, path in (("POST", "moto-api/reset"), ("PUT", BUCKET)):
        with urlopen(Request(f"{url}/{path}", method=method)):  # noqa: S310 - loopback
            pass


class _Refusing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names of the base class

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Files(SimpleHTTPRequestHandler):
    """A folder, as web servers give it: parts of a file where they are asked for."""

    folder: str
    log: Path

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments, directory=self.folder)  # type: ignore[misc]

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None or not file.is_file():
            return super().do_GET()
        data = file.read_bytes()
        start, stop = int(asked[1]), min(int(asked[2]) + 1, len(data))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(data[start:stop])
        return None

    def log_message(self, format: str, *args: object) -> None:
        with self.log.open("a") as log:
            log.write(f"{self.command} {self.path}\n")


def _serve(handler: type[BaseHTTPRequestHandler]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


def _serve_s3() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "s3":
        _serve_s3()
    elif sys.argv[1] == "refusing":
        _serve(_Refusing)
    else:
        _Files.folder, _Files.log = sys.argv[2], Path(sys.argv[3])
        _serve(_Files)
