"""The keys of ``beastws:`` endpoint strings that are ours; the others belong to the inner endpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from twisted_beastws.amount import read_amount
from twisted_beastws.options import DerivedSeconds, Settings, Timeouts
from twisted_beastws.wire.origin import check_allowed
from twisted_beastws.wire.url import WebSocketURL

# RFC 9112 §3.2.1: visible ASCII from a slash on; "#" begins a fragment, which is not sent.
_TARGET = re.compile(r"/[!\"$-~]*")
# RFC 6455 §4.1: a subprotocol is a token (RFC 9110 §5.6.2).
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@dataclass(frozen=True)
class Keys:
    """The settings of the WebSocket in an endpoint string. A key that is missing is None or empty.

    Attributes:
        target: The key ``target=``.
        subprotocols: The key ``subprotocols=``.
        origins: The key ``origins=``.
        authority: The key ``authority=``.
        timeouts: The keys ``ping=`` and ``idle=``, by their names in `Timeouts`.
    """

    target: str | None = None
    subprotocols: tuple[str, ...] | None = None
    origins: tuple[str, ...] = ()
    authority: str | None = None
    timeouts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def take(cls, prefix: str, names: Collection[str], arguments: dict[str, str]) -> Keys:
        """Remove the keys called ``names`` from ``arguments``, and return them. A ``ValueError`` names the key."""
        found: dict[str, Any] = {}
        timeouts: dict[str, Any] = {}
        for name in names:
            if name not in arguments:
                continue
            text = arguments.pop(name)
            try:
                value = _READERS[name](text)
            except ValueError as error:
                raise ValueError(f"{prefix}: {name}={text}: {error}") from None
            if name in _TIMEOUTS:
                timeouts[_TIMEOUTS[name]] = value
            else:
                found[name] = value
        _check_pings(prefix, Timeouts(), timeouts, "by default")
        return cls(**found, timeouts=timeouts)

    def check_with(self, settings: Settings) -> None:
        """Raise a ``ValueError`` if a key does not fit the other settings of a server."""
        if self.timeouts:
            _check_pings("beastws", settings.timeouts, self.timeouts, "of the factory")

    def applied_to(self, settings: Settings) -> Settings:
        """Return the settings of a server with these keys: origins are added, all others replace the settings."""
        return replace(
            settings,
            subprotocols=settings.subprotocols if self.subprotocols is None else self.subprotocols,
            origins=replace(settings.origins, allowed=(*settings.origins.allowed, *self.origins)),
            timeouts=replace(settings.timeouts, **self.timeouts),
            target=settings.target if self.target is None else self.target,
        )


def _check_pings(prefix: str, timeouts: Timeouts, keys: Mapping[str, Any], others: str) -> None:
    if "ping_interval" not in keys and isinstance(timeouts.ping_interval, DerivedSeconds):
        # The ping interval follows idle.
        return
    ping, idle = keys.get("ping_interval", timeouts.ping_interval), keys.get("idle", timeouts.idle)
    if ping is not None and idle is not None and idle <= ping:
        pinged = f"ping={ping:g}" + ("" if "ping_interval" in keys else f" {others}")
        idled = f"idle={idle:g}" + ("" if "idle" in keys else f" {others}")
        raise ValueError(
            f"{prefix}: {idled} is not more than {pinged}: a silent peer would be disconnected before it is pinged"
        )


def _target(text: str) -> str:
    if not _TARGET.fullmatch(text):
        raise ValueError("give a path such as /tunnel: from a slash on, percent-encoded")
    return text


def _subprotocols(text: str) -> tuple[str, ...]:
    names = tuple(text.split(",")) if text else ()
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is not a subprotocol's name: give some such as binary, with commas between")
    return names


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(text.split(","))
    try:
        for origin in origins:
            check_allowed(origin)
    except ValueError as error:
        # A colon without a backslash ends the value after the scheme.
        why = f": {error}" if "://" in text else ""
        raise ValueError(
            f"give web sites such as https\\://example.com, with commas between and a backslash before each colon{why}"
        ) from None
    return origins


def _authority(text: str) -> str:
    try:
        url = WebSocketURL.parse(f"ws://{text}/")
    except ValueError:
        url = None
    if url is None or url.target != "/" or url.authorization or "@" in text:
        raise ValueError("give a host such as example.com or example.com\\:8080")
    return text


def _seconds(text: str) -> float | None:
    return read_amount(text, "give seconds, such as 20 or 0.5; 0 is never") or None


_READERS: dict[str, Callable[[str], Any]] = {
    "target": _target,
    "subprotocols": _subprotocols,
    "origins": _origins,
    "authority": _authority,
    "ping": _seconds,
    "idle": _seconds,
}
_TIMEOUTS = {"ping": "ping_interval", "idle": "idle"}
