"""The error replies of a Redis Cluster's node, as states and plain English."""

from __future__ import annotations

from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.linked_errors import Refused, Remedy, Trouble
from twisted_beastws.hub.redis_errors import trouble_of

_MOVED = Trouble(
    BackplaneState.READ_ONLY,
    Remedy.RECONNECT,
    "the backplane takes no messages now",
    "another node of the Redis Cluster has this part of the data now",
)
_MOVING = Trouble(
    BackplaneState.REFUSING,
    Remedy.WAIT,
    "the backplane takes no messages now",
    "the Redis Cluster is moving this part of the data to another node",
)
_DOWN = Trouble(
    BackplaneState.REFUSING,
    Remedy.WAIT,
    "the backplane takes no messages now",
    "the Redis Cluster is down: look at CLUSTER INFO, which counts the slots without a node",
)
_NO_CLUSTER = Trouble(
    BackplaneState.REFUSING,
    Remedy.GIVE_UP,
    "the backplane takes no messages",
    "this Redis is no node of a Redis Cluster: give redis://host instead of redis+cluster://host",
)
_OLD = Trouble(
    BackplaneState.REFUSING,
    Remedy.RECONNECT,
    "the backplane takes no messages",
    "this Redis Cluster has no sharded pub/sub: it must be of version 7.0 or newer",
)
UNCOVERED = Trouble(
    BackplaneState.REFUSING,
    Remedy.RECONNECT,
    "the backplane takes no messages now",
    "some slots of the Redis Cluster have no node: look at redis-cli --cluster check",
)

_BY_CODE = {"MOVED": _MOVED, "ASK": _MOVING, "TRYAGAIN": _MOVING, "CLUSTERDOWN": _DOWN}

# Parts of replies without a code, also of a script that a command in it ended.
_BY_PART = (
    ("cluster support disabled", _NO_CLUSTER),
    ("SSUBSCRIBE", _OLD),
    ("nknown Redis command", _OLD),
    ("non local key", _MOVING),
)


def refused_by_cluster(text: str) -> Refused:
    """Return the exception for an error reply of a Cluster's node."""
    known = _BY_CODE.get(text.partition(" ")[0].lstrip("-"))
    if known is None and not text.startswith("NOPERM"):
        known = next((trouble for part, trouble in _BY_PART if part in text), None)
    return Refused(text, known or trouble_of(text))
