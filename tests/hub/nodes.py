"""Hubs on a simulated Redis, and their members."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from twisted_beastws.hub import Hub
from twisted_beastws.hub.backplane import BackplaneState
from twisted_beastws.hub.linked_interfaces import LinkCommands
from twisted_beastws.hub.redis import RedisBackplane

from .simulated import BUDGETS, SimulatedLink, SimulatedRedis
from .stubs import Stub, outcome


class Node(RedisBackplane):
    """A backplane on a `SimulatedLink`, with its hub."""

    def __init__(self, server: SimulatedRedis, *, connected: bool = True, **options: Any) -> None:
        self.clock = Clock()
        super().__init__("redis://h", reactor=self.clock, **options)
        self.link_ = SimulatedLink(server, self)
        self.hub = Hub(self, reactor=self.clock)
        self.hub.start()
        if connected:
            self.returns()
            assert self.state is BackplaneState.CONNECTED

    def _make_link(self) -> LinkCommands:
        return self.link_

    def returns(self) -> None:
        """Connect, and do all that follows."""
        self.link_.connect()
        self.link_.settle()
        self.link_.beat()
        self.link_.settle()

    def joins(self, room: str = "a", *, settle: bool = True, **options: Any) -> Stub:
        stub = Stub()
        joining = self.hub.join(stub.connection, room, **options)
        if settle:
            self.link_.settle()
            assert outcome(joining) is not None
        return stub


def member_of(node: Node, room: str = "a", **options: Any) -> Stub:
    """A member that is informed of gaps: it gets ``GAP``."""
    return node.joins(room, gap=lambda message: "GAP", **options)


def settle(*nodes: Node) -> None:
    while any(node.link_.busy() for node in nodes):
        for node in nodes:
            node.link_.settle()


def elsewhere(server: SimulatedRedis, room: str, *said: str, payload: bytes | None = None) -> None:
    """A third hub publishes, and stops in order."""
    for text in said or ("",):
        server.publish("0-0 ", room, payload or f"other 1 t\n{text}".encode(), 100, "", BUDGETS)
    server.data.hubs.pop("elsewhere", None)
