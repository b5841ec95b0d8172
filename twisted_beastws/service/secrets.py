"""Other ways to give options that hold a password: the list of processes shows command lines to every user."""

from __future__ import annotations

from twisted_beastws.hub.planes import parse_url

ENVIRONMENT = {"backplane": "BEASTWS_BACKPLANE", "auth": "BEASTWS_AUTH"}
"""Variables of the environment that stand for options."""

FILE = "file:"
MAX_SIZE = 1 << 16
"""Bytes of a file with one secret, 64 KiB: a larger one is another file."""


def read_secret(text: str) -> str:
    """Return the first line of the file, if ``text`` is ``file:PATH``; else ``text``.

    Raises:
        ValueError: the file cannot be read, or has no first line.
    """
    if not text.startswith(FILE):
        return text
    path = text.removeprefix(FILE)
    try:
        with open(path, "rb") as file:
            lines = file.read(MAX_SIZE).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8") from None
    if not lines or not lines[0].strip():
        raise ValueError(f"{path}: its first line is empty")
    return lines[0].strip()


def has_password(option: str, value: str) -> bool:
    """Return whether the value of an option has a password."""
    if option == "auth":
        return value.startswith("memory:")
    return parse_url(value).password is not None
