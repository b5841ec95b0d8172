"""Methods that look like hooks and would never be called: misspelled, or named as in another library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

HOOKS = (
    *("http_requested", "upgrade_requested", "opened", "text_received", "binary_received", "fragment_received"),
    *("ping_received", "pong_received", "closed"),
)

_MESSAGE = "text_received and binary_received"

# The names are in lower case without underscores, so that onMessage and on_message are the same.
_OTHERS: Mapping[str, str] = {
    # Autobahn, ws and Tornado.
    "onconnect": "upgrade_requested",
    "onopen": "opened",
    "onmessage": _MESSAGE,
    "onmessagebegin": "fragment_received",
    "onmessageframe": "fragment_received",
    "onmessageframebegin": "fragment_received",
    "onmessageframedata": "fragment_received",
    "onmessageframeend": "fragment_received",
    "onmessageend": "fragment_received",
    "onping": "ping_received",
    "onpong": "pong_received",
    "onclose": "closed",
    "onconnectionclose": "closed",
    # Other libraries, and names in Twisted's style.
    "ontext": "text_received",
    "onbinary": "binary_received",
    "messagereceived": _MESSAGE,
    "stringreceived": _MESSAGE,
    "linereceived": "text_received",
}


def hook_meant(name: str) -> str | None:
    """Return the hook, or hooks, that the author of a method probably meant, or None.

    Args:
        name: The name of a method that a subclass adds.
    """
    plain = name.lower().replace("_", "")
    if plain in _OTHERS:
        return _OTHERS[plain]
    if name in HOOKS or name.startswith("_"):
        return None
    return next((hook for hook in HOOKS if _is_slip(plain, hook.replace("_", ""))), None)


def lookalikes(names: Iterable[str], known: Iterable[str]) -> list[tuple[str, str]]:
    """Return each of ``names`` that looks like a hook, with that hook. ``known`` names are correct."""
    right = set(known)
    found = ((name, hook_meant(name)) for name in names if name not in right)
    return [(name, meant) for name, meant in found if meant is not None]


def _is_slip(name: str, hook: str) -> bool:
    """Return whether ``name`` is ``hook`` in another style, or with two letters swapped, one missing or one doubled."""
    if name == hook:
        return True
    if len(name) == len(hook):
        at = next(i for i, (one, other) in enumerate(zip(name, hook, strict=True)) if one != other)
        return name == hook[:at] + hook[at + 1 : at + 2] + hook[at] + hook[at + 2 :]
    longer, shorter = (name, hook) if len(name) > len(hook) else (hook, name)
    return len(longer) == len(shorter) + 1 and any(
        longer[:at] + longer[at + 1 :] == shorter for at in range(len(longer))
    )
