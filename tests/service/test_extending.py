"""Protocols of a factory that get another class's methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from twisted_beastws import WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.service.extending import extended


class Named(WebSocketProtocol):
    """What a user serves."""

    def __init__(self, name: str = "somebody") -> None:
        self.name = name

    def told(self) -> str:
        return self.name

    def text_received(self, text: str) -> None:
        """It has a hook."""


class Polite(WebSocketProtocol):
    title: str

    def told(self) -> str:
        return f"{self.title} {super().told()}"  # type: ignore[misc]


class Loud(WebSocketProtocol):
    def told(self) -> str:
        return str(super().told()).upper()  # type: ignore[misc]


async def handler(ws: WebSocketProtocol) -> None:
    """A coroutine function."""


class TestExtended:
    @pytest.mark.parametrize(
        ("make", "told"),
        [
            (Named, "Dr somebody"),
            (partial(Named, "a"), "Dr a"),
            (partial(Named, name="b"), "Dr b"),
            (partial(lambda name: Named(name), "c"), "Dr c"),
            (lambda: Named("d"), "Dr d"),
        ],
    )
    def test_whatever_makes_it(self, make: Callable[[], Any], told: str) -> None:
        protocol: Any = extended(make, Polite, title="Dr")()
        assert protocol.told() == told
        assert isinstance(protocol, Named)
        assert (type(protocol).__name__, type(protocol).__doc__) == ("Named", Named.__doc__)

    @pytest.mark.parametrize("make", [Named, lambda: Named("d")])
    def test_all_have_one_class(self, make: Callable[[], Any]) -> None:
        extended_make = extended(make, Polite, title="Dr")
        assert type(extended_make()) is type(extended_make())

    def test_the_class_itself_is_left_alone(self) -> None:
        extended(Named, Polite, title="Dr")
        assert Named().told() == "somebody"

    def test_how_messages_are_received_stays(self) -> None:
        assert extended(Named, Polite, title="Dr")()._in_hook_mode
        assert not extended(WebSocketProtocol, Polite, title="Dr")()._in_hook_mode

    def test_twice(self) -> None:
        told: Any = extended(extended(Named, Polite, title="Dr"), Loud)()
        assert told.told() == "DR SOMEBODY"

    def test_of_a_coroutine(self) -> None:
        factory = WebSocketServerFactory(handler)
        factory.make = extended(factory.make, Polite, title="Dr")
        protocol = factory.buildProtocol(None)
        assert isinstance(protocol, Polite)
        assert type(protocol).__name__ == "handler"
        assert protocol.server is factory
