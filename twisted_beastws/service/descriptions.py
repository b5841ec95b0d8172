"""Endpoints' descriptions, as the service changes them before Twisted parses them."""

from __future__ import annotations

import re

UNIX_MODE = "660"
"""Mode of a UNIX socket without ``mode=``: its user and group may connect, where Twisted lets everyone (666)."""

# An argument ends at a colon that has no backslash before it.
_UNIX = re.compile(r"(?:(?:beastws|haproxy):)*unix:")
_ARGUMENT = re.compile(r"((?:[^:\\]|\\.)*)(?::|$)", re.DOTALL)


def with_unix_mode(description: str) -> str:
    """Return ``description`` with ``mode=660``, if it is of a UNIX socket and says none."""
    prefix = _UNIX.match(description)
    if prefix is None:
        return description
    arguments = [match[1] for match in _ARGUMENT.finditer(description, prefix.end())]
    # The last match is empty, after the end. The mode is the second positional argument.
    positional = [argument for argument in arguments if argument and not re.match(r"\w+=", argument)]
    named = any(argument.startswith("mode=") for argument in arguments)
    return description if named or len(positional) > 1 else f"{description}:mode={UNIX_MODE}"
