"""Giving the protocols that a factory makes the methods of another class, whatever makes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import isclass
from typing import Any, cast

from twisted_beastws.protocol import WebSocketProtocol

Maker = Callable[[], WebSocketProtocol]


def extended(make: Maker, mixin: type, **attributes: Any) -> Maker:
    """A maker of what ``make`` makes, in a subclass of ``mixin`` and of its class, with these class attributes.

    A class, also one in a ``partial``, has its subclass made once; what any other callable makes changes its class
    when it is made, which costs each connection some hundred octets.
    """
    if isclass(make):
        return cast(Maker, _joined(make, mixin, attributes))
    if isinstance(make, partial) and isclass(make.func):
        return partial(_joined(make.func, mixin, attributes), *make.args, **make.keywords)
    classes: dict[type, type] = {}

    def make_extended() -> WebSocketProtocol:
        protocol = make()
        kind = type(protocol)
        if kind not in classes:
            classes[kind] = _joined(kind, mixin, attributes)
        protocol.__class__ = classes[kind]
        return protocol

    return make_extended


def _joined(base: type, mixin: type, attributes: dict[str, Any]) -> Any:
    return type(base.__name__, (mixin, base), {"__module__": base.__module__, "__doc__": base.__doc__, **attributes})
