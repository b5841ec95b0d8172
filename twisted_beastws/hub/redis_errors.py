"""Redis' error replies and connection failures as states and plain English. Redis' own texts go to the log alone."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from twisted.internet.defer import FirstError
from twisted.internet.defer import TimeoutError as Overdue
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)

from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.tls.failures import tls_trouble


class Remedy(Enum):
    """The way out after an error reply."""

    RECONNECT = "another connection may reach a server that is ready"
    WAIT = "the same connection will do once the server has recovered"
    GIVE_UP = "nothing but another URL"


class Trouble(NamedTuple):
    """Why Redis refuses a command.

    Attributes:
        state: the state of the backplane.
        remedy: the way out.
        public: words for publishers.
        logged: the full explanation, for the operator.
    """

    state: BackplaneState
    remedy: Remedy
    public: str
    logged: str


_LOADING = Trouble(
    BackplaneState.LOADING, Remedy.RECONNECT, "the backplane is starting", "Redis is still reading its data"
)
_READ_ONLY = Trouble(
    BackplaneState.READ_ONLY,
    Remedy.RECONNECT,
    "the backplane takes no messages now",
    "Redis is a replica and takes no writes: the URL must lead to the primary",
)
_FULL = Trouble(
    BackplaneState.FULL,
    Remedy.WAIT,
    "the backplane is full",
    "Redis has no memory left: raise its maxmemory, or lower the history's budget",
)
_NOT_SAVING = Trouble(
    BackplaneState.NOT_SAVING,
    Remedy.WAIT,
    "the backplane takes no messages now",
    "Redis cannot write its data to disk and takes no writes: look at its log, and at the space on its disk",
)
_TOO_FEW_REPLICAS = Trouble(
    BackplaneState.REFUSING,
    Remedy.WAIT,
    "the backplane takes no messages now",
    "Redis has fewer replicas than its min-replicas-to-write asks for",
)
_BUSY = Trouble(
    BackplaneState.REFUSING, Remedy.WAIT, "the backplane is busy", "Redis is busy with a script that somebody runs"
)
_CLUSTER = Trouble(
    BackplaneState.REFUSING,
    Remedy.GIVE_UP,
    "the backplane takes no messages",
    "this Redis is a node of a Redis Cluster, which the backplane does not support: give the URL of a Redis of its own",
)
_FORBIDDEN = Trouble(
    BackplaneState.REFUSING,
    Remedy.RECONNECT,
    "the backplane takes no messages",
    "the Redis user lacks a permission; the documentation on rooms lists the rules that suffice",
)
_LOGIN = Trouble(
    BackplaneState.REFUSING,
    Remedy.RECONNECT,
    "the backplane takes no messages",
    "Redis wants a password, or another user and password than the URL has",
)
_OLD = Trouble(
    BackplaneState.REFUSING,
    Remedy.RECONNECT,
    "the backplane takes no messages",
    "this Redis does not know a command that the backplane needs: it must be of version 6.2 or newer",
)

_BY_CODE = {
    "LOADING": _LOADING,
    "MASTERDOWN": _LOADING,
    "READONLY": _READ_ONLY,
    "UNBLOCKED": _READ_ONLY,
    "OOM": _FULL,
    "MISCONF": _NOT_SAVING,
    "NOREPLICAS": _TOO_FEW_REPLICAS,
    "BUSY": _BUSY,
    "MOVED": _CLUSTER,
    "ASK": _CLUSTER,
    "CROSSSLOT": _CLUSTER,
    "CLUSTERDOWN": _CLUSTER,
    "TRYAGAIN": _CLUSTER,
    "NOPERM": _FORBIDDEN,
    "NOAUTH": _LOGIN,
    "WRONGPASS": _LOGIN,
    "DENIED": _LOGIN,
}

# Parts of a reply that has no code of its own, such as the one of a script that a command in it ended.
_BY_PART = (
    ("SELECT is not allowed in cluster mode", _CLUSTER),
    ("different number of keys hash to the same slot", _CLUSTER),
    ("-OOM ", _FULL),
    ("-READONLY ", _READ_ONLY),
    ("-MISCONF ", _NOT_SAVING),
    ("-NOREPLICAS ", _TOO_FEW_REPLICAS),
    ("-NOPERM ", _FORBIDDEN),
    ("can't run this command or subcommand", _FORBIDDEN),
    ("ACL failure", _FORBIDDEN),
    ("max number of clients", _BUSY),
    ("invalid password", _LOGIN),
    ("Protocol error: unauthenticated", _LOGIN),
    ("without any password configured", _LOGIN),
    ("invalid username-password", _LOGIN),
    ("nknown Redis command", _OLD),
    ("nknown command", _OLD),
)


class Refused(Exception):
    """Redis answered with an error.

    Attributes:
        trouble: its meaning; None looks it up.
    """

    def __init__(self, text: str, trouble: Trouble | None = None) -> None:
        super().__init__(text)
        self.trouble = trouble_of(text) if trouble is None else trouble


class NotReplicated(Exception):
    """Redis took a message, and too few replicas confirmed it in time."""


class LinkLost(Exception):
    """The connections ended, or a command's answer did not come in time."""


def trouble_of(text: str) -> Trouble:
    """Return the meaning of an error reply."""
    known = _BY_CODE.get(text.partition(" ")[0].lstrip("-"))
    for part, trouble in _BY_PART:
        if known is None and part in text:
            known = trouble
    if known is not None:
        return known
    shown = " ".join(text.split())[:200]
    return Trouble(
        BackplaneState.REFUSING, Remedy.WAIT, "the backplane takes no messages now", f"Redis answers {shown!r}"
    )


def why_lost(error: BaseException) -> str:
    """Explain in one line why there is no connection to Redis."""
    if isinstance(error, FirstError):
        error = error.subFailure.value  # type: ignore[assignment]
    if isinstance(error, Refused):
        return error.trouble.logged
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, DNSLookupError):
        return "there is no host of that name, or no name server to ask"
    if isinstance(error, (TimeoutError, Overdue)):
        return "it did not answer in time"
    if isinstance(error, (ConnectionDone, ConnectionLost)):
        return "it closed the connection"
    tls = why_no_tls(error)
    if tls is not None:
        return tls
    if isinstance(error, ConnectError) and error.osError:
        return str(error.osError)
    return " ".join(str(error).split()) or type(error).__name__


# Words in OpenSSL's reasons, and their meaning for the connection to Redis.
_TLS = (
    ("certificate required", "it requires a client certificate, which the backplane does not have"),
    ("handshake failure", "it requires a client certificate, or shares no cipher or version of TLS with us"),
    ("certificate verify failed", "its certificate is not signed by an authority that this machine trusts"),
    ("unknown ca", "its certificate is not signed by an authority that this machine trusts"),
    ("expired", "its certificate has expired"),
    ("wrong version number", "it does not speak TLS: redis:// is the scheme without TLS"),
)


def why_no_tls(error: BaseException) -> str | None:
    """Explain in plain English why TLS failed; None if it did not."""
    kind = type(error)
    if kind.__module__.partition(".")[0] == "service_identity":
        return "its certificate is for another name than the URL's"
    reasons = tls_trouble(error)
    if reasons is None:
        return None
    for words, meaning in _TLS:
        if words in reasons:
            return meaning
    return f"TLS failed: {reasons}" if reasons else "it ended the TLS handshake; it may require a client certificate"
