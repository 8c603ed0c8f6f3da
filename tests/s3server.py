"""A server on loopback that speaks S3, and the environment that leads to it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

import obstore
import pytest
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

BUCKET = "scenes"


@contextmanager
def served() -> Iterator[str]:
    """The server's URL, with an empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


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


@contextmanager
def refusing() -> Iterator[str]:
    """The URL of a server that refuses everything."""
    with serving(_Refusing) as url:
        yield url


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of an HTTP server on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
