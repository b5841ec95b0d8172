"""Rooms and their members."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock

from twisted_beastws import (
    BufferFull,
    CloseReason,
    ConnectionClosed,
    Deflate,
    Hub,
    Limits,
    LocalError,
    State,
    WebSocketProtocol,
)
from twisted_beastws.hub import LocalBackplane, Message

from ..support.inside import inside
from .stubs import Stub, outcome


@pytest.fixture
def hub() -> Hub:
    return Hub()


def joined(hub: Hub, *rooms: str, **options: Any) -> Stub:
    stub = Stub()
    for room in rooms:
        assert outcome(hub.join(stub.connection, room, **options)) is True
    return stub


class TestPublish:
    """`Hub.publish` and `Hub.publish_to_all`."""

    def test_a_message_is_sent_to_all_members_of_its_room_alone(self, hub: Hub) -> None:
        one, two, other = joined(hub, "a"), joined(hub, "a", "b"), joined(hub, "b")
        assert outcome(hub.publish("a", "hello")) is not None
        assert [one.heard, two.heard, other.heard] == [["hello"], ["hello"], []]

    def test_a_message_can_be_sent_to_all_but_one(self, hub: Hub) -> None:
        one, two = joined(hub, "a"), joined(hub, "a")
        hub.publish("a", "hello", exclude=one.connection)
        assert [one.heard, two.heard] == [[], ["hello"]]

    def test_a_message_for_all_rooms_is_sent_to_each_connection_once(self, hub: Hub) -> None:
        one, two, gone = joined(hub, "a"), joined(hub, "a", "b"), joined(hub, "a")
        hub.leave(gone.connection, "a")
        assert outcome(hub.publish_to_all("hello", exclude=one.connection)) is None
        hub.publish_to_all(b"\0")
        assert [one.heard, two.heard, gone.heard] == [[b"\0"], ["hello", b"\0"], []]

    def test_bytes_are_sent_as_binary(self, hub: Hub) -> None:
        one = joined(hub, "a")
        hub.publish("a", b"\x00\xff")
        assert one.frames == [b"\x82\x02\x00\xff"]

    def test_a_message_of_another_type_is_refused(self, hub: Hub) -> None:
        one = joined(hub, "a")
        with pytest.raises(TypeError, match="str or bytes, not dict"):
            hub.publish("a", {"a": 1})  # type: ignore[arg-type]
        assert one.heard == []

    def test_a_message_for_an_empty_room_is_accepted(self, hub: Hub) -> None:
        assert outcome(hub.publish("nowhere", "hello")) is not None
        assert hub.rooms == {}

    def test_a_text_with_a_lone_surrogate_is_refused(self, hub: Hub, logged: Callable[..., Any]) -> None:
        one = joined(hub, "a")
        with pytest.raises(UnicodeEncodeError):
            hub.publish("a", "\ud800")
        assert one.heard == []

    def test_a_message_is_framed_once_for_all(self, hub: Hub) -> None:
        members = [joined(hub, "a") for _ in range(3)]
        hub.publish("a", "hello")
        assert members[0].frames[0] is members[1].frames[0] is members[2].frames[0]

    def test_a_message_is_compressed_once_for_equal_parameters(
        self, hub: Hub, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from twisted_beastws.wire import prepared
        from twisted_beastws.wire.compressor import compress_alone

        made: list[object] = []

        def counted(*parameters: Any) -> bytes:
            made.append(parameters)
            return compress_alone(*parameters)

        monkeypatch.setattr(prepared, "compress_alone", counted)
        peers = [connect(deflate=Deflate(), opened=False) for _ in range(3)]
        for peer in peers:
            peer.sends(peer.HEAD[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
            hub.join(peer.protocol, "a")
            peer.reads()
        hub.publish("a", "hello" * 50)
        frames = {peer.reads() for peer in peers}
        assert len(frames) == len(made) == 1
        assert frames.pop()[0] == 0xC1

    def test_a_message_published_by_a_hook_is_sent_after_the_current_one(self, hub: Hub) -> None:
        one, two = Stub(lambda message: message == "a" and hub.publish("room", "b")), Stub()
        for stub in (one, two):
            hub.join(stub.connection, "room")
        hub.publish("room", "a")
        assert one.heard == two.heard == ["a", "b"]


class TestRender:
    """A message that a function renders for each member."""

    def test_each_member_gets_the_result_of_its_function(self, hub: Hub) -> None:
        calls: list[Message] = []

        def loud(message: Message) -> str:
            calls.append(message)
            return str(message.data).upper()

        plain, one, two = joined(hub, "a"), joined(hub, "a", render=loud), joined(hub, "a", render=loud)
        none = joined(hub, "a", render=lambda message: None)
        hub.publish("a", "hello")
        assert [plain.heard, one.heard, two.heard, none.heard] == [["hello"], ["HELLO"], ["HELLO"], []]
        assert [(message.room, message.data) for message in calls] == [("a", "hello")]
        assert calls[0].id

    def test_a_function_that_fails_for_one_member_is_logged_and_the_others_get_theirs(
        self, hub: Hub, logged: Callable[..., Any]
    ) -> None:
        broken, fine = joined(hub, "a", render=lambda message: 1 / 0), joined(hub, "a")
        hub.publish("a", "hello")
        assert [broken.heard, fine.heard] == [[], ["hello"]]
        assert len(logged(ZeroDivisionError)) == 1


class TestMembers:
    """Joining and leaving rooms."""

    def test_members_are_counted_and_listed(self, hub: Hub) -> None:
        one, two = joined(hub, "a"), joined(hub, "a", "b")
        assert hub.rooms == {"a": 2, "b": 1}
        assert hub.members("a") == (one.connection, two.connection)
        assert hub.members("nowhere") == ()
        assert hub.connections == 2

    def test_joining_twice_is_joining_once(self, hub: Hub) -> None:
        one = joined(hub, "a", "a")
        hub.publish("a", "hello")
        assert one.heard == ["hello"]
        hub.leave(one.connection, "a")
        assert hub.rooms == {}

    def test_a_member_that_left_gets_no_message_and_may_leave_twice(self, hub: Hub) -> None:
        one = joined(hub, "a", "b")
        for _ in range(2):
            hub.leave(one.connection, "a")
        hub.publish("a", "hello")
        hub.publish("b", "still")
        assert one.heard == ["still"]

    def test_a_connection_that_is_no_member_may_leave(self, hub: Hub) -> None:
        hub.leave(Stub().connection, "a")

    def test_a_connection_that_ends_leaves_every_room(self, hub: Hub) -> None:
        one, two = joined(hub, "a", "b", name="one"), joined(hub, "a")
        one.ends()
        assert hub.rooms == {"a": 1}
        assert hub.members("a") == (two.connection,)
        assert outcome(hub.who("a")) == {}
        assert hub.connections == 1

    @pytest.mark.parametrize(
        "end",
        [
            lambda peer: peer.leaves(ConnectionLost()),
            lambda peer: peer.sends(peer.close()),
            lambda peer: peer.sends(b"\xff\xff"),
            lambda peer: peer.protocol.close(),
            lambda peer: peer.protocol.abort(),
            lambda peer: inside(peer.protocol).overflowed(),
        ],
        ids=["lost", "closed by peer", "failed", "closed", "aborted", "too slow"],
    )
    def test_a_member_is_removed_however_its_connection_ends(
        self, hub: Hub, connect: Callable[..., Any], end: Callable[[Any], object]
    ) -> None:
        ends: list[tuple[int, ...]] = []

        class Member(WebSocketProtocol):
            def closed(self, reason: CloseReason) -> None:
                ends.append(tuple(hub.rooms.values()))

        peer = connect(Member)
        hub.join(peer.protocol, "a")
        end(peer)
        peer.leaves()
        assert hub.rooms == {}
        assert hub.connections == 0
        # It has left before its own hook is called.
        assert ends == [()]

    def test_a_connection_that_is_not_open_yet_cannot_join(self, hub: Hub, connect: Callable[..., Any]) -> None:
        peer = connect(opened=False)
        with pytest.raises(LocalError):
            hub.join(peer.protocol, "a")
        assert hub.connections == 0 and hub.rooms == {}
        peer.leaves()

    def test_a_connection_that_ended_cannot_join(self, hub: Hub, connect: Callable[..., Any]) -> None:
        peer = connect()
        peer.leaves()
        with pytest.raises(ConnectionClosed):
            hub.join(peer.protocol, "a")
        assert hub.connections == 0 and hub.rooms == {}

    def test_only_members_with_a_name_are_listed(self, hub: Hub) -> None:
        joined(hub, "a")
        ann, _ = joined(hub, "a", name="ann"), joined(hub, "a", name="bob")
        joined(hub, "b", name="eve")
        assert outcome(hub.who("a")) == {"ann": None, "bob": None}
        hub.leave(ann.connection, "a")
        assert outcome(hub.who("a")) == {"bob": None}


class TestOthersAreNotDisturbed:
    """A failing or leaving member does not disturb the others."""

    @pytest.mark.parametrize("state", [State.CONNECTING, State.CLOSING, State.CLOSED])
    def test_only_open_connections_get_messages(self, hub: Hub, state: State) -> None:
        away = joined(hub, "a")
        away.state = state
        hub.publish("a", "hello")
        assert away.heard == []

    def test_a_member_that_just_closed_does_not_disturb_the_others(self, hub: Hub, logged: Callable[..., Any]) -> None:
        def closed(message: object) -> None:
            raise ConnectionClosed(CloseReason(1000, "", True, "peer"))

        one, gone, two = joined(hub, "a"), joined(hub, "a"), joined(hub, "a")
        gone.sending = closed
        hub.publish("a", "hello")
        assert one.heard == two.heard == ["hello"]
        assert not gone.aborted
        assert hub.dropped == 0

    def test_a_member_that_fails_is_logged_once_and_dropped(self, hub: Hub, logged: Callable[..., Any]) -> None:
        def failing(message: object) -> None:
            raise RuntimeError("broken")

        one, broken, two = joined(hub, "a"), joined(hub, "a"), joined(hub, "a")
        broken.sending = failing
        hub.publish("a", "hello")
        assert one.heard == two.heard == ["hello"]
        assert broken.aborted
        assert len(logged(RuntimeError)) == 1

    def test_other_members_are_not_disturbed_by_changes_during_a_publication(self, hub: Hub) -> None:
        one, two, late = joined(hub, "a"), joined(hub, "a"), Stub()

        def change(message: object) -> None:
            hub.leave(one.connection, "a")
            hub.leave(two.connection, "a")
            hub.join(late.connection, "a")

        one.sending = change
        hub.publish("a", "hello")
        assert two.heard == late.heard == []
        assert hub.members("a") == (late.connection,)


class TestSlowReaders:
    """Members that read slowly, and the policies for them."""

    def test_slow_readers_have_their_own_limits(self, hub: Hub, connect: Callable[..., Any]) -> None:
        peers = {
            policy: connect(
                limits=Limits(max_message_size=100, max_buffered=100, high_water=50, low_water=25, slow_reader=policy)
            )
            for policy in ("close", "drop", "pause")
        }
        for peer in peers.values():
            hub.join(peer.protocol, "a")
            peer.transport.stall()
        for _ in range(3):
            hub.publish("a", b"x" * 58)
        for peer in peers.values():
            peer.transport.flow()
        said = b"\x82\x3a" + b"x" * 58
        assert peers["close"].reads() == said + b"\x88\x13\x03\xf5too slow a reader"
        assert peers["drop"].reads() == peers["pause"].reads() == said * 2
        assert hub.dropped == 1
        for peer in peers.values():
            peer.leaves()

    @pytest.mark.parametrize(("buffered", "heard"), [(999, 1), (1000, 1), (1001, 0)])
    def test_the_policy_drop_skips_messages_above_the_hubs_limit(self, buffered: int, heard: int) -> None:
        hub = Hub(max_buffered=1000, slow_reader="drop")
        slow, fine = joined(hub, "a"), joined(hub, "a")
        slow.buffered_amount = buffered
        hub.publish("a", "hello")
        assert (len(slow.heard), len(fine.heard)) == (heard, 1)
        assert hub.dropped == 1 - heard
        assert not slow.overflowed_at
        slow.buffered_amount = 0
        hub.publish("a", "again")
        assert slow.heard[-1] == "again"

    def test_the_policy_close_closes_slow_readers_with_1013(self, connect: Callable[..., Any]) -> None:
        hub = Hub(max_buffered=100)
        peer = connect()
        hub.join(peer.protocol, "a")
        peer.transport.stall()
        for _ in range(3):
            hub.publish("a", b"x" * 99)
        peer.transport.flow()
        assert peer.reads() == b"\x82\x63" + b"x" * 99 + b"\x88\x13\x03\xf5too slow a reader"
        assert (hub.expelled, hub.dropped) == (1, 0)
        peer.leaves()

    def test_a_message_too_large_for_a_member_is_skipped(self, hub: Hub, connect: Callable[..., Any]) -> None:
        small = connect(limits=Limits(max_message_size=100, max_buffered=100, high_water=50, low_water=25))
        fine = joined(hub, "a")
        hub.join(small.protocol, "a")
        hub.publish("a", "x" * 200)
        hub.publish("a", "short")
        assert fine.heard == ["x" * 200, "short"]
        assert small.reads() == b"\x81\x05short"
        assert hub.dropped == 1
        small.leaves()

    def test_the_policy_pause_skips_a_message(self, hub: Hub) -> None:
        def full(message: object) -> None:
            raise BufferFull("full")

        one, slow = joined(hub, "a"), joined(hub, "a")
        slow.sending = full
        hub.publish("a", "hello")
        assert one.heard == ["hello"]
        assert hub.dropped == 1 and not slow.aborted

    @pytest.mark.parametrize("options", [{"slow_reader": "pause"}, {"max_buffered": 0}])
    def test_an_unknown_policy_is_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="must be"):
            Hub(**options)

    @pytest.mark.parametrize(
        ("backplane", "what"),
        [
            ("redis://:secret@localhost", "a value of type str"),
            (LocalBackplane, "the class LocalBackplane"),
            (5, "a value of type int"),
        ],
    )
    def test_a_backplane_of_another_type_is_refused(self, backplane: Any, what: str) -> None:
        with pytest.raises(TypeError) as refused:
            Hub(backplane)
        assert str(refused.value) == f"Hub() takes a backplane such as RedisBackplane(url), not {what}"


class TestHistory:
    """A member that returns gets the messages that it missed."""

    def test_a_member_that_returns_gets_the_missed_messages_first(self, hub: Hub) -> None:
        ids = [outcome(hub.publish("a", f"{number}")) for number in range(5)]
        back = joined(hub, "a", after=ids[1])
        hub.publish("a", "now")
        assert back.heard == ["2", "3", "4", "now"]
        # From then on it costs no more than any other, which no public name shows.
        assert hub._members.by_room["a"][back.connection].catch_up is None

    def test_a_new_member_gets_no_history(self, hub: Hub) -> None:
        hub.publish("a", "before")
        assert joined(hub, "a").heard == []

    def test_a_possible_gap_is_reported(self) -> None:
        hub = Hub(LocalBackplane(history=3))
        ids = [outcome(hub.publish("a", f"{number}")) for number in range(5)]
        back = Stub()
        assert outcome(hub.join(back.connection, "a", after=ids[1])) is False
        assert back.heard == ["2", "3", "4"]

    def test_a_long_history_is_sent_at_the_readers_pace(self, connect: Callable[..., Any]) -> None:
        hub = Hub(LocalBackplane(history=1000))
        ids = [outcome(hub.publish("a", f"{number}")) for number in range(300)]
        back = Stub()
        back.draining = Deferred()
        joining = hub.join(back.connection, "a", after=ids[0])
        first = len(back.heard)
        assert 0 < first < 299
        assert outcome(joining) is None
        # Held until the earlier messages are sent.
        hub.publish("a", "300")
        assert len(back.heard) == first
        draining, back.draining = back.draining, Stub().draining
        draining.callback(None)
        assert back.heard == [f"{number}" for number in range(1, 301)]

    def test_a_message_can_be_left_out_of_the_history(self, hub: Hub) -> None:
        first = outcome(hub.publish("a", "first"))
        assert outcome(hub.publish("a", "passing", keep=False)) is None
        hub.publish("a", "last")
        assert joined(hub, "a", after=first).heard == ["last"]

    def test_a_member_that_leaves_gets_no_more_history(self) -> None:
        hub = Hub(LocalBackplane(history=1000))
        ids = [outcome(hub.publish("a", f"{number}")) for number in range(300)]
        back = Stub()
        back.draining = Deferred()
        hub.join(back.connection, "a", after=ids[0])
        first = len(back.heard)
        back.ends()
        back.draining.callback(None)
        assert len(back.heard) == first
        assert hub.connections == 0

    def test_a_message_for_all_is_not_delayed_by_a_history(self) -> None:
        hub = Hub(LocalBackplane(history=1000))
        ids = [outcome(hub.publish("a", f"{number}")) for number in range(300)]
        back = Stub()
        back.draining = Deferred()
        hub.join(back.connection, "a", after=ids[0])
        hub.publish_to_all("all")
        assert back.heard[-1] == "all"

    def test_an_invalid_id_is_refused(self, hub: Hub) -> None:
        with pytest.raises(ValueError, match="no message's id"):
            hub.join(Stub().connection, "a", after="5")
        assert hub.rooms == {}


def test_the_example_of_the_documentation_is_correct(connect: Callable[..., Any]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "hub.md").read_text()
    namespace: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], namespace)
    one, two = (connect(factory=namespace["factory"]) for _ in range(2))
    one.sends(one.text("hello"))
    assert [one.reads(), two.reads()] == [b"", b"\x81\x05hello"]
    assert namespace["hub"].rooms == {"/chat": 2}
    for peer in (one, two):
        peer.leaves()


def test_a_hub_that_is_stopped_delivers_nothing(hub: Hub) -> None:
    one = joined(hub, "a")
    assert outcome(hub.stop()) is None
    hub.publish("a", "late")
    assert one.heard == []
    hub.start()
    hub.publish("a", "again")
    assert one.heard == ["again"]


@pytest.mark.parametrize("after", [None, "0-0"])
def test_a_lost_connection_is_freed(hub: Hub, connect: Callable[..., Any], clock: Clock, after: str | None) -> None:
    import gc
    from weakref import ref

    peer = connect()
    hub.join(peer.protocol, "a", name="ann", after=after)
    gone = ref(peer.protocol)
    peer.leaves()
    gc.disable()
    try:
        del peer
        assert gone() is None
    finally:
        gc.enable()
