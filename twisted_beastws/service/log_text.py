"""What a client sent, as it may stand in a log: one line of printable ASCII of a bounded length."""

from __future__ import annotations

from typing import Any

MAX_SHOWN = 100
"""Characters of a client's text that a log line has: a longer one fills the log, and no one reads it to its end."""


def quoted(text: str | bytes) -> str:
    """Return ``text`` in quotes, with everything but printable ASCII as Python escapes it, cut to `MAX_SHOWN`."""
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    more = "..." if len(decoded) > MAX_SHOWN else ""
    return ascii(decoded[:MAX_SHOWN]) + more


def host_of(address: Any) -> str:
    """Return the host of an ``IAddress``, or what kind of address it is if it has none."""
    host = getattr(address, "host", None)
    if not isinstance(host, str) or not host:
        return "a client without an address" if address is None else f"a client at {type(address).__name__}"
    return host if host.isascii() and host.isprintable() and len(host) <= MAX_SHOWN else quoted(host)
