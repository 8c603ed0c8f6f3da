"""The client of S3: what the environment says of it, and what its errors say in short."""

from __future__ import annotations

import functools
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from hsiclust.errors import StorageError

if TYPE_CHECKING:
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import S3Config, S3Store

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_S3_ENDPOINT")
_ENDPOINT = re.compile(r"https?://[^\s/?#@]+(/\S*)?")
_NO_SIGNATURE = ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE")
_TRUE = frozenset({"1", "yes", "true", "on"})
_MOST_RETRIES = 5
# A server that takes the question and says nothing is given up after this and one more question.
_TRIED_FOR = timedelta(seconds=30)


def s3_client(bucket: str, prefix: str | None = None) -> S3Store:
    """A client of a bucket, or of a prefix in it, as the environment says (`AWS_*`).

    Raises:
        StorageError: The endpoint that it names is no URL of a server, or there is no such profile.
    """
    environment = tuple(item for item in sorted(os.environ.items()) if item[0].startswith("AWS_"))
    return _cached_client(bucket, prefix, environment)


@functools.lru_cache(maxsize=32)
def _cached_client(
    bucket: str, prefix: str | None, environment: tuple[tuple[str, str], ...]
) -> S3Store:
    """A client, made once a process: it holds the connections.

    The environment is part of the key, so that no client outlives a change of it. Most of it the
    client reads itself.

    Raises:
        StorageError: As `s3_client`.
    """
    from obstore.store import S3Store

    known = dict(environment)
    unsigned = any(known.get(name, "").lower() in _TRUE for name in _NO_SIGNATURE)
    endpoint = next((known[name] for name in _ENDPOINTS if known.get(name)), None)
    if endpoint is not None and "://" not in endpoint:  # as GDAL wants it
        secure = known.get("AWS_HTTPS", "YES").lower() in _TRUE
        endpoint = f"{'https' if secure else 'http'}://{endpoint}"
    if endpoint is not None and _ENDPOINT.fullmatch(endpoint) is None:  # the client would panic
        raise StorageError(
            f"AWS_ENDPOINT_URL: {endpoint!r} is no server's; http://host:port is expected"
        )
    config: S3Config = {"skip_signature": unsigned}
    if endpoint is not None and known.get(_ENDPOINTS[0]):  # the client takes it before the other
        config["aws_endpoint_url_s3"] = endpoint
    elif endpoint is not None:
        config["endpoint"] = endpoint
    return S3Store(
        bucket,
        prefix=prefix,
        config=config,
        credential_provider=None if unsigned or "AWS_ACCESS_KEY_ID" in known else _profile(),
        # Without TLS only where the endpoint itself says so.
        client_options={"allow_http": (endpoint or "").startswith("http://")},
        retry_config={"max_retries": _MOST_RETRIES, "retry_timeout": _TRIED_FOR},
    )


def _profile() -> Boto3CredentialProvider | None:
    """Credentials of the user's profile (files, SSO), where there are any and boto3 is there.

    Raises:
        StorageError: The profile that is named is not there, or its file cannot be understood.
    """
    files = (
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
    )
    if "AWS_PROFILE" not in os.environ and not any(map(_is_there, files)):
        return None
    try:
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:  # no boto3
        return None
    try:
        return Boto3CredentialProvider()
    except ValueError:  # a profile without credentials
        return None
    except BotoCoreError as error:
        raise StorageError(
            f"no credentials: {' '.join(str(error).split())}; mend AWS_PROFILE or the file"
        ) from error


def _is_there(name: str) -> bool:
    """Whether a file is there; none is in a home that is nowhere or that is another user's."""
    try:
        return Path(name).expanduser().is_file()
    except (OSError, RuntimeError):
        return False


def in_short(error: BaseException) -> str:
    """What a client's error says, in one line: its own goes on over dozens."""
    text = str(error).partition("Debug source")[0]
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (\d+ [A-Za-z ]+)", text)
    if "169.254.169.254" in text:
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if code is not None and code[1] == "NoSuchBucket":
        return "there is no such bucket"
    if status is not None and status[1].startswith(("401", "403")):
        return f"the server refuses access ({status[1].strip()}); check the AWS_* credentials"
    if status is not None:  # such as ExpiredToken
        return f"the server answers {status[1].strip()}{f' ({code[1]})' if code else ''}"
    if "HTTP error" in text:
        url = re.search(r"https?://[^/\s]+", text)
        return f"no answer from {url[0] if url else 'the server'}; check AWS_ENDPOINT_URL"
    return " ".join(text.split()) or type(error).__name__
