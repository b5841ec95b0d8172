"""``may_join`` and ``may_publish``: the application's rules for rooms."""

from __future__ import annotations

from typing import Any

import pytest

from twisted_beastws import WebSocketProtocol
from twisted_beastws.hub import Hub, NotAllowed

from .stubs import Stub, outcome


def only_lobby(connection: WebSocketProtocol, room: str) -> bool:
    return room == "lobby"


class TestJoining:
    """``may_join``: which connections may join a room."""

    def test_a_refused_connection_gets_nothing_of_the_room(self) -> None:
        hub = Hub(may_join=only_lobby)
        member = Stub()
        refused = outcome(hub.join(member.connection, "secret", name="ann", after="0-0"))
        assert isinstance(refused, NotAllowed)
        assert (refused.action, refused.room) == ("join", "secret")
        assert str(refused) == "not allowed to join the room 'secret'"
        outcome(hub.publish("secret", "hidden"))
        assert member.heard == [] and hub.rooms == {} and not outcome(hub.who("secret"))

    def test_an_allowed_connection_joins(self) -> None:
        hub = Hub(may_join=only_lobby)
        member = Stub()
        assert outcome(hub.join(member.connection, "lobby")) is True
        hub.publish("lobby", "hello")
        assert member.heard == ["hello"]

    def test_the_rule_sees_the_connection(self) -> None:
        asked: list[Any] = []

        def may_join(connection: object, room: str) -> bool:
            asked.append((connection, room))
            return True

        hub = Hub(may_join=may_join)
        member = Stub()
        hub.join(member.connection, "lobby")
        assert asked == [(member.connection, "lobby")]


class TestPublishing:
    """``may_publish``: which connections may publish in a room."""

    def test_a_refused_message_reaches_no_member_and_no_history(self) -> None:
        hub = Hub(may_publish=only_lobby)
        member = Stub()
        hub.join(member.connection, "news")
        refused = outcome(hub.publish("news", "spam", sender=member.connection))
        assert isinstance(refused, NotAllowed)
        assert str(refused) == "not allowed to publish in the room 'news'"
        late = Stub()
        assert outcome(hub.join(late.connection, "news", after="0-0")) is True
        assert member.heard == late.heard == []

    def test_the_application_itself_may_publish_everywhere(self) -> None:
        hub = Hub(may_publish=only_lobby)
        member = Stub()
        hub.join(member.connection, "news")
        hub.publish("news", "headline")
        assert member.heard == ["headline"]

    def test_an_allowed_sender_publishes(self) -> None:
        hub = Hub(may_publish=only_lobby)
        member = Stub()
        hub.join(member.connection, "lobby")
        assert outcome(hub.publish("lobby", "hello", sender=member.connection)) is not None
        assert member.heard == ["hello"]


@pytest.mark.parametrize("answer", [None, 1, "yes"])
def test_an_answer_that_is_no_bool_refuses(answer: Any) -> None:
    hub = Hub(may_join=lambda connection, room: answer)
    refused = outcome(hub.join(Stub().connection, "lobby"))
    assert isinstance(refused, TypeError)
    assert str(refused) == f"may_join must return True or False, not {answer!r}"
    assert hub.rooms == {}


def test_an_error_of_the_rule_refuses() -> None:
    hub = Hub(may_publish=lambda connection, room: 1 / 0 > 0)
    member = Stub()
    hub.join(member.connection, "lobby")
    assert isinstance(outcome(hub.publish("lobby", "x", sender=member.connection)), ZeroDivisionError)
    assert member.heard == []


@pytest.mark.parametrize("argument", ["may_join", "may_publish"])
def test_a_rule_that_is_no_function_is_refused(argument: str) -> None:
    with pytest.raises(TypeError, match=rf"Hub\({argument}=True\): give a function"):
        Hub(**{argument: True})  # type: ignore[arg-type]
