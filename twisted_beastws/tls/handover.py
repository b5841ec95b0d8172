"""Files that a supervisor reads once and hands to its workers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping

_LATIN_1 = "latin-1"
"""An encoding in which any bytes are a text, for JSON."""

_FILE_KEYS = ("privateKey", "certKey", "extraCertChain", "dhParameters")
_DEFAULT_KEY = "server.pem"

# Parts of an endpoint string stand between colons; a backslash takes a colon's meaning away.
_PART = re.compile(r"(?:[^\\:]|\\.)*")
_NAMED = re.compile(r"(\w+)=(.*)", re.DOTALL)


class Handed:
    """The files whose content the supervisor passed to this process.

    Each gets a path of its own in memory, so that this process can read the content after it has lost its privileges,
    or the file has gone. On systems without such paths, it reads the file itself.
    """

    def __init__(self, contents: Mapping[str, str]) -> None:
        self._paths = {path: made for path, text in contents.items() if (made := _in_memory(text.encode(_LATIN_1)))}

    def path(self, path: str) -> str:
        """Return where to read the file ``path``."""
        return self._paths.get(path, path)

    def description(self, description: str) -> str:
        """Return an endpoint string with the paths of the passed files."""
        return _with_files(description, self.path)


def absolute(description: str) -> str:
    """Return an endpoint string with absolute paths: the working directory may change."""
    return _with_files(description, os.path.abspath)


def read_files(descriptions: Iterable[str], *others: str | None) -> dict[str, str]:
    """Read the files that endpoint strings name, by absolute paths, and others. Raises OSError."""
    paths = [path for path in others if path is not None]

    def note(path: str) -> str:
        paths.append(path)
        return path

    for description in descriptions:
        _with_files(description, note)
    contents = {}
    for path in paths:
        with open(path, "rb") as file:
            contents[path] = file.read().decode(_LATIN_1)
    return contents


def _in_memory(content: bytes) -> str | None:
    if not hasattr(os, "memfd_create") or not os.path.isdir("/proc/self/fd"):
        return None
    # It stays open: parameters for Diffie-Hellman are read at the first connection.
    descriptor = os.memfd_create("beastws")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    return f"/proc/self/fd/{descriptor}"


def _with_files(description: str, change: Callable[[str], str]) -> str:
    """Return an endpoint string with another path in place of that of each file that ``ssl:`` reads."""
    parts = _parts(description)
    if "ssl" not in parts:
        return description
    start = parts.index("ssl")
    # Behind the port may stand the key and the certificate, without their names.
    unnamed = iter(("port", "privateKey", "certKey"))
    has_key = False
    for at, part in enumerate(parts[start + 1 :], start + 1):
        named = _NAMED.fullmatch(part)
        name, value = (named[1], named[2]) if named else (next(unnamed, ""), part)
        if name in _FILE_KEYS:
            has_key = has_key or name == "privateKey"
            parts[at] = f"{name}={_escaped(change(_plain(value)))}"
    if not has_key:
        parts.append(f"privateKey={_escaped(change(_DEFAULT_KEY))}")
    return ":".join(parts)


def _parts(description: str) -> list[str]:
    parts, position = [], 0
    while True:
        match = _PART.match(description, position)
        assert match is not None
        parts.append(match[0])
        position = match.end() + 1
        if position > len(description):
            return parts


def _plain(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value)


def _escaped(path: str) -> str:
    return re.sub(r"([\\:=])", r"\\\1", path)
