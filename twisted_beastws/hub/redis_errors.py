"""Redis' error replies as states and plain English. Redis' own texts go to the log alone."""

from __future__ import annotations

from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.linked_errors import Refused, Remedy, Trouble

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
    "this Redis is a node of a Redis Cluster: give redis+cluster://host:port, or the URL of a Redis of its own",
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


def refused(text: str) -> Refused:
    """Return the exception for an error reply."""
    return Refused(text, trouble_of(text))
