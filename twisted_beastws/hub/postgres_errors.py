"""PostgreSQL's errors as states and plain English. Its own texts go to the log alone."""

from __future__ import annotations

from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.linked_errors import Refused, Remedy, Trouble

NOT_NOW = "the backplane takes no messages now"
NEVER = "the backplane takes no messages"

_STARTING = Trouble(
    BackplaneState.LOADING, Remedy.RECONNECT, "the backplane is starting", "PostgreSQL is starting or recovering"
)
_READ_ONLY = Trouble(
    BackplaneState.READ_ONLY,
    Remedy.RECONNECT,
    NOT_NOW,
    "PostgreSQL is a replica, or takes no writes: the URL must lead to the primary",
)
_FULL = Trouble(
    BackplaneState.FULL,
    Remedy.WAIT,
    "the backplane is full",
    "PostgreSQL has no disk space, no memory or no room for notifications left",
)
_BUSY = Trouble(
    BackplaneState.REFUSING, Remedy.RECONNECT, "the backplane is busy", "PostgreSQL has no connection left for us"
)
FORBIDDEN = Trouble(
    BackplaneState.REFUSING,
    Remedy.RECONNECT,
    NEVER,
    "the PostgreSQL user lacks a permission; the documentation on rooms lists the grants that suffice",
)
_LOGIN = Trouble(
    BackplaneState.REFUSING,
    Remedy.RECONNECT,
    NEVER,
    "PostgreSQL wants another user or password than the URL has, or has no rule for this user in pg_hba.conf",
)
_NO_DATABASE = Trouble(BackplaneState.REFUSING, Remedy.RECONNECT, NEVER, "PostgreSQL has no database of that name")
NO_SCHEMA = Trouble(
    BackplaneState.REFUSING,
    Remedy.RECONNECT,
    NEVER,
    "the schema is missing or of an earlier version, and the PostgreSQL user may not change that: let its owner run "
    "the SQL that 'python -m twisted_beastws.hub.postgres_schema' prints",
)
NEWER_SCHEMA = Trouble(
    BackplaneState.REFUSING,
    Remedy.GIVE_UP,
    NEVER,
    "a newer version of twisted_beastws made the schema: upgrade this one, or give another prefix",
)

_BY_CODE = {
    "57P03": _STARTING,
    "25006": _READ_ONLY,
    "55000": _READ_ONLY,
    "42501": FORBIDDEN,
    "3D000": _NO_DATABASE,
    "53300": _BUSY,
    "3F000": NO_SCHEMA,
    "42883": NO_SCHEMA,
    "42P01": NO_SCHEMA,
}

_BY_CLASS = {"28": _LOGIN, "53": _FULL, "54": _FULL}

# libpq's texts about a connection that never was: it gives no code.
_BY_PART = (
    ("Connection refused", "nothing listens there"),
    ("No such file or directory", "nothing listens there"),
    ("session is read-only", _READ_ONLY),
    ("certificate verify failed", "its certificate is not signed by an authority that this machine trusts"),
    ("does not match host name", "its certificate is for another name than the URL's"),
    ("does not support SSL", "it does not speak TLS: sslmode=disable is for a trusted network"),
    ("password authentication failed", _LOGIN),
    ("no password supplied", _LOGIN),
    ("no pg_hba.conf entry", _LOGIN),
    ("too many clients", _BUSY),
    ("remaining connection slots", _BUSY),
    ("is starting up", _STARTING),
    ("not yet accepting connections", _STARTING),
    ("is shutting down", _STARTING),
    ("in recovery mode", _STARTING),
    ("does not exist", _NO_DATABASE),
)


def refused(code: str, text: str) -> Refused:
    """Return the exception for an error of PostgreSQL with this SQLSTATE."""
    known = _BY_CODE.get(code) or _BY_CLASS.get(code[:2])
    if known is None:
        shown = " ".join(text.split())[:200]
        known = Trouble(BackplaneState.REFUSING, Remedy.WAIT, NOT_NOW, f"PostgreSQL answers {shown!r}")
    return Refused(text, known)


def not_connected(text: str) -> Exception:
    """Return the exception for a connection that libpq could not make, from its text."""
    for part, meaning in _BY_PART:
        if part in text:
            return Refused(text, meaning) if isinstance(meaning, Trouble) else ConnectionError(meaning)
    return ConnectionError(" ".join(text.split())[:200])
