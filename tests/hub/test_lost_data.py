"""Redis loses acknowledged messages: each member that misses one is informed of a gap."""

from __future__ import annotations

import pytest

from twisted_beastws.hub.backplane import order_of
from twisted_beastws.hub.linked_interfaces import GRACE

from .nodes import Node, member_of, settle
from .simulated import SimulatedRedis
from .stubs import Stub, done


@pytest.mark.usefixtures("quiet")
class TestLostData:
    """Data is lost while the hubs are connected."""

    @pytest.mark.parametrize("back", [0, 5000])
    def test_an_emptied_dataset_is_a_gap_and_ids_rise_with_any_clock(self, server: SimulatedRedis, back: int) -> None:
        one, two = Node(server), Node(server)
        members = [member_of(one), member_of(two)]
        first = one.hub.publish("a", "before")
        settle(one, two)
        for node in (one, two):
            node.link_.cut()
        server.flush()
        server.now -= back
        for node in (one, two):
            node.returns()
        second = two.hub.publish("a", "after")
        settle(one, two)
        assert [member.heard for member in members] == [["before", "GAP", "after"]] * 2
        assert order_of(done(second)) > order_of(done(first))
        late = Stub()
        joining = one.hub.join(late.connection, "a", after=done(first))
        settle(one)
        assert (done(joining), late.heard) == (False, ["after"])

    def test_a_flush_on_an_open_connection_is_noticed_by_the_next_sign_of_life(self, server: SimulatedRedis) -> None:
        one = Node(server)
        members = [member_of(one, "a"), member_of(one, "b")]
        one.hub.publish("a", "before")
        settle(one)
        server.flush()
        one.link_.beat()
        settle(one)
        assert [member.heard for member in members] == [["before", "GAP"], ["GAP"]]

    def test_an_older_dataset_is_a_gap_even_if_others_published_in_it(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        members = [member_of(one), member_of(two)]
        settle(one, two)
        server.save()
        one.hub.publish("a", "lost")
        settle(one)
        for node in (one, two):
            node.link_.cut()
        server.restore()
        server.now += 1000
        # The hub that knows nothing of the loss is back first.
        two.returns()
        two.hub.publish("a", "new")
        settle(two)
        one.returns()
        two.link_.beat()
        settle(one, two)
        assert members[0].heard == ["lost", "GAP", "new", "GAP"]
        assert members[1].heard == ["new", "GAP"]

    def test_an_evicted_history_is_a_gap_only_for_readers_that_need_it(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        members = [member_of(one), member_of(two)]
        first = one.hub.publish("a", "1")
        settle(one, two)
        one.link_.cut()
        second = two.hub.publish("a", "2")
        settle(two)
        server.data.evict("a")
        one.returns()
        two.hub.publish("a", "3")
        settle(one, two)
        assert members[0].heard == ["1", "GAP", "3"]
        assert members[1].heard == ["1", "2", "3"]
        for after, complete in ((first, False), (second, True)):
            back = Stub()
            joining = two.hub.join(back.connection, "a", after=done(after))
            settle(two)
            assert (done(joining), back.heard) == (complete, ["3"])

    def test_an_unknown_id_delays_no_message(self, server: SimulatedRedis) -> None:
        one = Node(server)
        back = Stub()
        joining = one.hub.join(back.connection, "a", after="9999999999999999999-0")
        settle(one)
        one.hub.publish("a", "now")
        settle(one)
        assert (done(joining), back.heard) == (False, ["now"])


def restarted(server: SimulatedRedis, *nodes: Node) -> None:
    """Redis restarts with the data that it saved last."""
    for node in nodes:
        node.link_.cut()
    server.restore()


def returned_with(node: Node, after: str) -> bool:
    """Return whether a client that returns with an id gets every message since, as far as the hub knows."""
    joining = node.hub.join(Stub().connection, "a", after=after)
    settle(node)
    return bool(done(joining))


def confirmed_later(server: SimulatedRedis, node: Node) -> None:
    """The time passes in which other hubs can return."""
    server.now += (GRACE + 1) * 1000
    # By the hub's own clock, too: it may then acknowledge messages.
    node.clock.advance(GRACE + 1)
    node.link_.beat()
    settle(node)


@pytest.mark.usefixtures("quiet")
class TestRestart:
    """Redis restarts with an old snapshot, or a replica that lagged takes over."""

    def test_a_loss_of_messages_that_no_living_hub_knew_is_a_gap(self, server: SimulatedRedis) -> None:
        one = Node(server)
        seen = done_publish(one, "seen")
        server.save()
        done_publish(one, "lost")
        one.link_.crash(True)
        restarted(server)
        two = Node(server)
        member = member_of(two)
        assert not returned_with(two, seen)
        confirmed_later(server, two)
        # It stays a gap for all clients that may have missed the message.
        assert not returned_with(two, seen)
        assert member.heard == ["GAP"]
        newer = done_publish(two, "new")
        assert returned_with(two, newer)

    def test_a_loss_of_messages_that_the_returning_hub_did_not_know_is_a_gap(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        member = member_of(two, "a")
        settle(one, two)
        seen = done_publish(one, "seen", two)
        server.save()
        two.link_.cut()
        done_publish(one, "lost")
        one.link_.crash(True)
        restarted(server, two)
        two.returns()
        assert not returned_with(two, seen)
        confirmed_later(server, two)
        assert member.heard == ["seen", "GAP"]

    def test_a_restart_is_no_gap_once_all_hubs_have_confirmed_the_data(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        members = [member_of(one), member_of(two)]
        seen = done_publish(one, "seen", two)
        last = done_publish(one, "last", two)
        server.save()
        restarted(server, one, two)
        two.returns()
        assert not returned_with(two, seen)
        one.returns()
        assert returned_with(two, seen) and returned_with(one, last)
        confirmed_later(server, two)
        assert [member.heard for member in members] == [["seen", "last"]] * 2

    def test_a_hub_that_was_stopped_in_order_before_need_not_confirm_it(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        seen = done_publish(one, "seen", two)
        one.hub.stop()
        server.save()
        restarted(server, two)
        two.returns()
        assert returned_with(two, seen)

    def test_a_restart_is_a_gap_if_no_hub_in_the_data_could_confirm_it(self, server: SimulatedRedis) -> None:
        one = Node(server)
        seen = done_publish(one, "seen")
        one.hub.stop()
        server.save()
        two = Node(server)
        done_publish(two, "lost")
        two.link_.crash(True)
        restarted(server)
        assert not returned_with(Node(server), seen)

    def test_a_hub_that_died_long_before_need_not_confirm_it(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        seen = done_publish(one, "seen", two)
        one.link_.crash(True)
        confirmed_later(server, two)
        server.save()
        restarted(server, two)
        two.returns()
        assert returned_with(two, seen)

    def test_a_hub_notices_that_the_data_is_from_before_another_was_registered(self, server: SimulatedRedis) -> None:
        one = Node(server)
        member = member_of(one)
        seen = done_publish(one, "seen")
        server.save()
        two = Node(server)
        settle(one)
        done_publish(two, "lost", room="b")
        two.link_.crash(True)
        restarted(server, one)
        one.returns()
        assert member.heard == ["seen", "GAP"]
        assert not returned_with(one, seen)

    def test_a_dataset_that_begins_with_a_message_names_its_server(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        member = member_of(two)
        server.flush()
        seen = done_publish(one, "seen", two)
        server.save()
        done_publish(one, "lost")
        one.link_.crash(True)
        restarted(server, two)
        two.returns()
        assert not returned_with(two, seen)
        confirmed_later(server, two)
        assert member.heard == ["GAP", "seen", "GAP"]

    def test_a_hub_whose_registration_expired_is_registered_by_its_next_message(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        member = member_of(one)
        seen = done_publish(one, "seen", two)
        confirmed_later(server, one)
        server.save()
        assert list(server.data.hubs) == [one.hub_name]
        done_publish(two, "lost", room="b")
        settle(one)
        two.link_.crash(True)
        restarted(server, one)
        one.returns()
        assert not returned_with(one, seen)
        assert member.heard == ["seen", "GAP"]

    def test_neither_a_lost_connection_nor_a_hub_that_restarts_is_a_gap(self, server: SimulatedRedis) -> None:
        one, two = Node(server), Node(server)
        member = member_of(two)
        seen = done_publish(one, "seen", two)
        two.link_.cut()
        one.link_.crash(True)
        one = Node(server)
        two.returns()
        assert returned_with(one, seen) and returned_with(two, seen)
        two.hub.stop()
        two = Node(server)
        assert returned_with(two, seen)
        confirmed_later(server, one)
        assert returned_with(one, seen)
        assert member.heard == ["seen"]


def done_publish(node: Node, text: str, *others: Node, room: str = "a") -> str:
    """Publish, and return the id of the acknowledgement."""
    published = node.hub.publish(room, text)
    settle(node, *others)
    return str(done(published))
