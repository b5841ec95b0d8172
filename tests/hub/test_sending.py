"""Tests of how a `Hub` sends to members over TCP and TLS, where the compiled codec sends past the write buffers."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import pytest_twisted

from twisted_beastws import Hub, WebSocketProtocol, WebSocketServerFactory, connect

from ..support.certificates import trusting
from ..support.loopback import listening


class Quiet(WebSocketProtocol):
    """Takes messages by ``receive``."""


class Member(Quiet):
    """A server's connection; ``opened_ones`` gets it when it opens."""

    def __init__(self, opened_ones: list[Any]) -> None:
        super().__init__()
        self.opened_ones = opened_ones

    def opened(self) -> None:
        self.opened_ones.append(self)


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@pytest_twisted.ensureDeferred
async def test_members_get_the_messages_in_order_except_for_those_that_left_or_are_excluded(secure: bool) -> None:
    hub, members = Hub(), list[Any]()
    factory = WebSocketServerFactory(partial(Member, members))
    async with listening(factory, secure) as port:
        url, tls = f"ws{'s' * secure}://localhost:{port}/", trusting() if secure else None
        clients = [await connect(url, protocol=Quiet, tls=tls) for _ in range(4)]
        for member in members:
            await hub.join(member, "room")
        hub.leave(members[0], "room")
        members[1].close()
        await hub.publish("room", "first", exclude=members[2])
        await hub.publish("room", "second" * 10_000)
        await hub.publish_to_all("third")
        assert [await clients[2].receive() for _ in range(2)] == ["second" * 10_000, "third"]
        assert [await clients[3].receive() for _ in range(3)] == ["first", "second" * 10_000, "third"]
        await factory.drain()
        for client in clients[:2]:
            assert [message async for message in client] == []


@pytest_twisted.ensureDeferred
async def test_a_member_that_leaves_while_the_message_is_rendered_does_not_get_it() -> None:
    hub, members = Hub(), list[Any]()
    factory = WebSocketServerFactory(partial(Member, members))
    async with listening(factory) as port:
        clients = [await connect(f"ws://localhost:{port}/", protocol=Quiet) for _ in range(2)]
        first, second = members

        def render(message: Any) -> Any:
            hub.leave(second, "room")
            return message.data

        for member in first, second:
            await hub.join(member, "room", render=render)
        await hub.publish("room", "secret")
        assert await clients[0].receive() == "secret"
        await factory.drain()
        assert [message async for message in clients[1]] == []
