"""The values of options: text from the command line or a file becomes a number, a path or a URL."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from twisted.python.usage import UsageError

from twisted_beastws.amount import read_amount
from twisted_beastws.hub.planes import missing_extra, parse_url
from twisted_beastws.server.gates.forwarded import HEADERS
from twisted_beastws.server.observers.access_log import FORMATS
from twisted_beastws.service import worker
from twisted_beastws.service.deflating import read_deflate
from twisted_beastws.service.faults import noted
from twisted_beastws.service.secrets import read_secret

# RFC 3986 §3.3: the characters of a path. A browser would send any other path in another spelling.
PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*")

DRAIN_REASONS = {1001: "the server is shutting down", 1012: "the server is restarting"}

MIN_SILENCE = 4 * worker.BEAT
"""Seconds of --worker-timeout, at least: four heartbeats. A busy, healthy process can miss fewer of them."""


def converter(option: str, read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return ``read`` for a value on the command line: its ``ValueError`` becomes a ``UsageError``."""

    def convert(text: str) -> Any:
        with noted(option):
            try:
                return read(text)
            except ValueError as error:
                raise UsageError(f"--{option}={text}: {error}") from None

    return convert


def seconds(text: str) -> float:
    """Read seconds; 0 is never."""
    return read_amount(text, "give seconds, such as 5 or 0.5; 0 is never")


def silence(text: str) -> float:
    """Read the seconds after which a silent worker is killed."""
    expected = f"give seconds, {MIN_SILENCE:g} or more, such as 30; 0 is never"
    seconds = read_amount(text, expected)
    if 0 < seconds < MIN_SILENCE:
        raise ValueError(expected)
    return seconds


def drain_seconds(text: str) -> float:
    """Read the seconds of a graceful shutdown."""
    return read_amount(text, "give seconds, such as 8 or 0.5; 0 drops everyone")


def count(text: str) -> int:
    """Read a number; 0 is no limit."""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError("give a number; 0 is no limit")
    return int(text)


def workers(text: str) -> int:
    """Read a number of processes."""
    if not re.fullmatch("[0-9]{1,3}", text):
        raise ValueError("give a number of processes, such as 4; 0 is this one alone")
    return int(text)


def rate(text: str) -> float:
    """Read a number a second; 0 is no limit."""
    return read_amount(text, "give a number a second, such as 10 or 0.5; 0 is no limit")


def proxy_header(text: str) -> str:
    """Read the name of a field that proxies set."""
    if text.lower() not in HEADERS:
        raise ValueError(f"give {' or '.join(HEADERS)}")
    return text.lower()


def size(text: str) -> int:
    """Read a number of bytes, 1 or more."""
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise ValueError("give a number of bytes, 1 or more")
    return int(text)


def memory(text: str) -> int:
    """Read a number of bytes; 0 is no limit."""
    if not re.fullmatch("[0-9]{1,18}", text):
        raise ValueError("give a number of bytes, such as 268435456; 0 is no limit")
    return int(text)


def chat_path(text: str) -> str:
    """Read a path as browsers send it."""
    if not PATH.fullmatch(text):
        raise ValueError("give a path such as /chat: from a slash on, without a query, percent-encoded")
    return text


def root_path(text: str) -> str:
    """Read the path below which an application is mounted."""
    if not PATH.fullmatch(text) or text.endswith("/"):
        raise ValueError("give a path such as /app, with no slash at its end, percent-encoded")
    return unquote(text)


def key_prefix(text: str) -> str:
    """Read the beginning of keys in Redis, or the name of a schema in PostgreSQL."""
    if not re.fullmatch("[!-~]{1,64}", text):
        raise ValueError("give 1 to 64 printable ASCII characters, without a space")
    return text


def messages(text: str) -> int:
    """Read a number of messages."""
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError("give a number of messages; 0 keeps none")
    return int(text)


def deflate(text: str) -> str:
    """Check the parameters of permessage-deflate."""
    read_deflate(text)
    # A worker reads it again.
    return text


def backplane(text: str) -> str | None:
    """Read the URL of a Redis or a PostgreSQL, or the file that has it."""
    with noted("backplane"):
        # The text may have a password.
        try:
            url = read_secret(text)
            parse_url(url).check_files()
        except ValueError as error:
            raise UsageError(f"--backplane: {error}") from None
        extra = missing_extra(url)
        if extra is not None:
            raise UsageError(f"--backplane needs an extra: pip install 'twisted_beastws[{extra}]'")
        return url
    return None


def authorities(text: str) -> str:
    """Check a file of certificates; return its absolute path."""
    from twisted_beastws.tls.pem import read_authorities

    try:
        read_authorities(text if worker.membership is None else worker.membership.handed.path(text))
    except OSError as error:
        raise ValueError(error.strerror) from None
    # The directory may change before it is read again.
    return os.path.abspath(text)


def drain_code(text: str) -> int:
    """Read the close code of a graceful shutdown."""
    if text not in map(str, DRAIN_REASONS):
        raise ValueError("give 1001, the server goes away, or 1012, it comes back at once")
    return int(text)


def log_format(text: str) -> str:
    """Read the format of the access log."""
    if text not in FORMATS:
        raise ValueError(f"give {' or '.join(FORMATS)}")
    return text
