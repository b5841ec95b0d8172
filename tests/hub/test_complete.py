"""Whether a room's history is complete from its beginning, on the servers that join hubs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import pytest_twisted

from twisted_beastws.hub import Hub
from twisted_beastws.hub.linked_interfaces import GRACE
from twisted_beastws.hub.redis_cluster_part import part_of

from ..support.loopback import until
from .nodes import Node
from .planes import Plane
from .simulated import SimulatedRedis
from .stubs import Stub, connected, done


async def complete(hub: Hub, room: str) -> bool:
    """Join as a newcomer without a message."""
    return await hub.join(Stub().connection, room, after="0-0")


async def publish(hub: Hub, room: str, *said: str) -> None:
    for text in said:
        await hub.publish(room, text)


class TestServers:
    """Real servers: Redis, a Redis Cluster and PostgreSQL."""

    @pytest_twisted.ensureDeferred
    async def test_a_history_is_complete_until_a_message_is_dropped(
        self, plane: Plane, real_hub: Callable[..., Hub]
    ) -> None:
        hub = real_hub(plane.url, history=3)
        await connected(hub)
        assert await complete(hub, "a")
        for number in range(1, 5):
            await publish(hub, "a", f"{number}")
            assert await complete(hub, "a") is (number <= 3)
        await publish(hub, "b", "1")
        assert await complete(hub, "b")

    @pytest_twisted.ensureDeferred
    async def test_a_restart_of_the_service_loses_nothing(self, plane: Plane, real_hub: Callable[..., Hub]) -> None:
        hub = real_hub(plane.url)
        await connected(hub)
        await publish(hub, "a", "1", "2")
        await hub.stop()
        again, member = real_hub(plane.url), Stub()
        await connected(again)
        assert await again.join(member.connection, "a", after="0-0")
        assert member.heard == ["1", "2"]

    @pytest_twisted.ensureDeferred
    async def test_a_room_that_was_dropped_for_others_is_not_complete(
        self, plane: Plane, real_hub: Callable[..., Hub]
    ) -> None:
        # Both rooms are in one part of a Cluster, which has a sixteenth of the budget.
        one, other = "a", next(f"{number}" for number in range(1000) if part_of(f"{number}") == part_of("a"))
        hub = real_hub(plane.url, max_room_history=48_000, max_history=48_000)
        await connected(hub)
        await publish(hub, one, "x" * 1500)
        assert await complete(hub, one)
        for number in range(2, 40):
            await publish(hub, other, f"{number}" * 700)
        assert [await complete(hub, room) for room in (one, other)] == [False, False]
        await publish(hub, one, "y")
        assert not await complete(hub, one)

    @pytest_twisted.ensureDeferred
    async def test_a_message_beyond_the_budget_of_its_room_is_missing(
        self, plane: Plane, real_hub: Callable[..., Hub]
    ) -> None:
        hub = real_hub(plane.url, max_room_history=1000)
        await connected(hub)
        await publish(hub, "a", "x" * 2000)
        assert not await complete(hub, "a")

    @pytest_twisted.ensureDeferred
    async def test_no_history_is_complete_after_a_loss_that_a_hub_noticed(
        self, plane: Plane, real_hub: Callable[..., Hub]
    ) -> None:
        hub = real_hub(plane.url)
        await connected(hub)
        member = Stub()
        await hub.join(member.connection, "a")
        await publish(hub, "a", "1")
        await until(lambda: member.heard == ["1"])
        plane.flush()
        assert not await complete(hub, "a")
        await publish(hub, "a", "2")
        assert not await complete(hub, "a")

    @pytest_twisted.ensureDeferred
    async def test_no_room_is_complete_without_a_history(self, plane: Plane, real_hub: Callable[..., Hub]) -> None:
        hub = real_hub(plane.url, history=0)
        await connected(hub)
        assert not await complete(hub, "a")


class TestSimulation:
    """The simulated Redis, for faults that a real server does not show on demand."""

    def complete(self, node: Node, room: str = "a") -> bool:
        joining = node.hub.join(Stub().connection, room, after="0-0")
        node.link_.settle()
        return bool(done(joining))

    def publish(self, node: Node, room: str, text: str) -> None:
        node.hub.publish(room, text)
        node.link_.settle()

    def test_an_evicted_history_is_not_complete(self, server: SimulatedRedis) -> None:
        node = Node(server)
        self.publish(node, "a", "1")
        self.publish(node, "b", "1")
        server.data.evict("a")
        assert not self.complete(node, "a")
        self.publish(node, "a", "2")
        assert not self.complete(node, "a")
        assert self.complete(node, "b")

    def test_no_history_is_complete_while_a_hub_that_may_know_more_is_away(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        self.publish(one, "a", "1")
        for node in (one, two):
            node.link_.cut()
        server.restart()
        one.returns()
        assert not self.complete(one)
        two.returns()
        assert self.complete(one)

    def test_no_history_is_complete_after_a_hub_that_may_know_more_was_given_up(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        self.publish(one, "a", "1")
        one.link_.cut()
        two.link_.crash(executed=False)
        server.restart()
        one.returns()
        server.now += 1000 * (GRACE + 1)
        one.link_.beat()
        one.link_.settle()
        assert not self.complete(one)
        assert not self.complete(one, "new")

    def test_an_emptied_server_is_complete_only_for_hubs_that_know_of_no_message(self, server: SimulatedRedis) -> None:
        one = Node(server)
        self.publish(one, "a", "1")
        one.link_.cut()
        server.flush()
        new = Node(server)
        # It cannot know; the other hub informs all members as soon as it is back.
        member = new.joins("a", gap=lambda message: "GAP", after="0-0")
        one.returns()
        new.link_.beat()
        new.link_.settle()
        assert member.heard == ["GAP"]
        assert not self.complete(new)

    @pytest.mark.parametrize("first_call", ["publish", "read", "sweep"])
    def test_any_call_of_a_hub_that_knows_another_dataset_informs_the_members(
        self, server: SimulatedRedis, first_call: str
    ) -> None:
        one = Node(server)
        self.publish(one, "a", "1")
        server.flush()
        server.now += 1000
        new = Node(server)
        member = new.joins("a", gap=lambda message: "GAP", after="0-0")
        self.publish(new, "a", "2")
        if first_call == "publish":
            self.publish(one, "b", "3")
        else:
            # A member that returns reads the history, and one in a new room sweeps it.
            one.joins("b", after="0-0" if first_call == "read" else None)
        new.link_.beat()
        new.link_.settle()
        assert member.heard == ["2", "GAP"]
        assert not self.complete(new)
