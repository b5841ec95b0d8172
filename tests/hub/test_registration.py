"""A new hub acknowledges messages when others know of it, and a hub vouches for a dataset only within its lease."""

from __future__ import annotations

from typing import Any

import pytest

from twisted_beastws.hub import PublishUnknown
from twisted_beastws.hub.linked_interfaces import GRACE
from twisted_beastws.hub.linked_registration import MARGIN

from .nodes import Node, member_of, settle
from .simulated import SimulatedRedis
from .stubs import Stub, done


def published(node: Node, text: str, ref: str | None = None) -> list[Any]:
    """Publish; Redis takes the message and answers. The outcome is added to the list when the publisher gets it."""
    outcomes: list[Any] = []
    node.hub.publish("a", text, ref=ref).addCallbacks(outcomes.append, lambda failure: outcomes.append(failure.value))
    settle(node)
    return outcomes


def wait(seconds: float, *nodes: Node) -> None:
    """Advance the hubs' own clocks, and answer their commands."""
    for node in nodes:
        node.clock.advance(seconds)
    settle(*nodes)


@pytest.mark.usefixtures("quiet")
class TestAcknowledging:
    """When a new hub begins to acknowledge messages."""

    def test_the_only_hub_can_acknowledge_at_once(self, server: SimulatedRedis) -> None:
        one = Node(server)
        assert one.ready
        assert published(one, "1")

    def test_a_new_hub_acknowledges_when_another_has_confirmed_it(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        member = member_of(two)
        publications = [published(two, "1"), published(two, "2")]
        # Members have the messages at once.
        assert member.heard == ["1", "2"] and not two.ready
        assert publications == [[], []]
        settle(one, two)
        assert two.ready and publications == [[entry[0]] for entry in server.data.streams["a"]]
        assert published(two, "3")

    def test_a_hub_that_stopped_in_order_need_not_confirm_it(self, server: SimulatedRedis) -> None:
        one = Node(server)
        one.hub.stop()
        assert Node(server).ready

    def test_two_workers_can_restart_one_by_one_without_a_wait(self, server: SimulatedRedis) -> None:
        workers = [Node(server), Node(server)]
        settle(*workers)
        for number in range(2):
            workers[number].hub.stop()
            workers[number] = Node(server)
            settle(*workers)
            assert workers[number].ready
            assert published(workers[number], "after a restart")

    def test_a_killed_worker_is_replaced_without_a_wait_while_another_runs(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        settle(one, two)
        one.link_.crash(True)
        one = Node(server)
        settle(one, two)
        assert one.ready

    @pytest.mark.parametrize(("waited", "ready"), [(GRACE + MARGIN - 0.01, False), (GRACE + MARGIN, True)])
    def test_a_new_hub_waits_for_the_lease_of_one_that_does_not_answer(
        self, server: SimulatedRedis, waited: float, ready: bool
    ) -> None:
        one = Node(server)
        one.link_.cut()
        two = Node(server)
        # The clock of Redis says nothing about the lease.
        server.now += 10 * GRACE * 1000
        two.link_.beat()
        settle(two)
        publication = published(two, "1")
        two.clock.advance(waited - 0.5)
        wait(0.5, two)
        two.link_.beat()
        settle(two)
        assert (two.ready, bool(publication)) == (ready, ready)

    def test_hubs_that_wait_for_a_dead_one_are_confirmed_by_each_other(self, server: SimulatedRedis) -> None:
        Node(server).link_.crash(True)
        two = Node(server)
        wait(GRACE / 2, two)
        three = Node(server)
        settle(two, three)
        assert not two.ready and not three.ready
        wait(GRACE / 2 + 2 * MARGIN, two)
        settle(two, three)
        assert two.ready and three.ready

    def test_a_wait_longer_than_a_second_is_logged_once(self, server: SimulatedRedis, lines: list[str]) -> None:
        Node(server).link_.crash(True)
        two = Node(server)
        for _ in range(10):
            two.clock.advance(1)
        said = [line for line in lines if "acknowledges messages" in line]
        assert len(said) == 1 and said[0].endswith("this hub acknowledges messages in 31 seconds at the latest")

    def test_a_hub_that_waits_removes_no_other_hub(self, server: SimulatedRedis) -> None:
        one = Node(server)
        one.link_.cut()
        server.now += 10 * GRACE * 1000
        two = Node(server)
        two.link_.beat()
        settle(two)
        two.hub.stop()
        assert list(server.data.hubs) == [one.hub_name]
        assert not Node(server).ready

    def test_a_lost_connection_ends_the_wait_with_an_unknown_outcome(self, server: SimulatedRedis) -> None:
        Node(server).link_.crash(True)
        two = Node(server)
        publication = published(two, "1", ref="r")
        assert two.in_flight > 0 and not publication
        two.link_.cut()
        assert isinstance(publication[0], PublishUnknown)
        assert (two.in_flight, two.failures["unknown"]) == (0, 1)
        two.returns()
        again = published(two, "1", ref="r")
        wait(GRACE + MARGIN, two)
        assert again == [server.data.streams["a"][0][0]]

    def test_the_wait_goes_on_while_the_link_is_lost(self, server: SimulatedRedis) -> None:
        Node(server).link_.crash(True)
        two = Node(server)
        two.link_.cut()
        wait(GRACE + MARGIN, two)
        two.returns()
        assert two.ready

    def test_a_hub_without_its_registration_is_registered_by_its_message_and_waits_again(
        self, server: SimulatedRedis
    ) -> None:
        one, two = Node(server), Node(server)
        settle(one, two)
        del server.data.hubs[two.hub_name]
        publication = published(two, "1")
        assert not publication
        settle(one, two)
        assert publication

    def test_an_emptied_dataset_does_not_end_the_wait(self, server: SimulatedRedis) -> None:
        Node(server).link_.crash(True)
        two = Node(server)
        server.flush()
        assert not published(two, "1")
        two.link_.beat()
        settle(two)
        assert not two.ready
        wait(GRACE + MARGIN, two)
        assert two.ready

    def test_a_hub_that_confirmed_nothing_meanwhile_confirms_when_it_is_back(self, server: SimulatedRedis) -> None:
        one = Node(server)
        one.link_.cut()
        two = Node(server)
        one.returns()
        settle(one, two)
        assert two.ready


@pytest.mark.usefixtures("quiet")
class TestVouching:
    """A hub confirms a dataset only within its lease."""

    def test_messages_of_an_unknown_hub_that_is_lost_with_redis_are_a_gap(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        settle(one, two)
        members = [member_of(one), member_of(two)]
        seen = published(one, "seen")
        settle(one, two)
        server.save()
        for node in (one, two):
            node.link_.cut()
        new = Node(server)
        lost = published(new, "lost")
        wait(GRACE + MARGIN, new, one, two)
        assert lost
        new.link_.crash(True)
        server.restore()
        for node in (one, two):
            node.returns()
        settle(one, two)
        assert [member.heard for member in members] == [["seen", "GAP"]] * 2
        back = one.hub.join(Stub().connection, "a", after=seen[0])
        settle(one)
        assert done(back) is False

    @pytest.mark.parametrize(("away", "heard"), [(GRACE - 0.01, ["1", "2"]), (GRACE, ["1", "GAP", "2"])])
    def test_a_redis_that_restarts_is_no_gap_within_the_lease(
        self, server: SimulatedRedis, away: float, heard: list[str]
    ) -> None:
        one = Node(server)
        member = member_of(one)
        published(one, "1")
        one.link_.beat()
        settle(one)
        one.link_.cut()
        server.save()
        server.restore()
        one.clock.advance(away)
        one.returns()
        published(one, "2")
        assert member.heard == heard

    def test_a_long_loss_of_the_link_alone_is_no_gap(self, server: SimulatedRedis) -> None:
        one = Node(server)
        member = member_of(one)
        published(one, "1")
        one.link_.cut()
        one.clock.advance(100 * GRACE)
        one.returns()
        published(one, "2")
        assert member.heard == ["1", "2"]

    def test_a_second_restart_of_redis_does_not_let_an_expired_hub_confirm_the_data(
        self, server: SimulatedRedis
    ) -> None:
        one, two = Node(server), Node(server)
        settle(one, two)
        member = member_of(one)
        published(one, "1")
        server.save()
        one.link_.cut()
        server.restore()
        wait(GRACE + MARGIN, one)
        one.link_.connect()
        one.link_.execute()
        one.link_.answer()
        # It has seen the new server, and could not say yet that it does not vouch.
        one.link_.cut()
        server.restart()
        one.returns()
        published(one, "2")
        assert member.heard == ["1", "GAP", "2"]
