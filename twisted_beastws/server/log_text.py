"""Text from a client, made safe for a log: one line of printable ASCII of a bounded length."""

from __future__ import annotations

from typing import Any

MAX_SHOWN = 100
"""The most characters of a client's text in a log line: a longer text would fill the log."""


def quoted(text: str | bytes) -> str:
    """Return ``text`` in quotes, cut to `MAX_SHOWN`. Python escapes replace all but printable ASCII."""
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    more = "..." if len(decoded) > MAX_SHOWN else ""
    return ascii(decoded[:MAX_SHOWN]) + more


def host_of(address: Any) -> str:
    """Return the host of an ``IAddress``, or how it describes itself if it has none."""
    host = str(getattr(address, "host", None) or address)
    return host if host.isascii() and host.isprintable() and len(host) <= MAX_SHOWN else quoted(host)
