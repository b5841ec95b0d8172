"""The chat of a service with ``--auth jwt:``, byte by byte, and the end of a connection at the end of its token."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import jwt
import pytest
from twisted.internet.task import Clock

from twisted_beastws import State
from twisted_beastws.service.access.sessions import Sessions

from ...support.frames import masked
from ...support.handshakes import upgrade_request
from ...support.states import state_of
from ..test_chat import Client, Service

SECRET = "0123456789abcdef0123456789abcdef"
HEAD = b"HTTP/1.1\r\nHost: h\r\n"


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", "exp": int(time.time()) + 60, **claims}, SECRET, "HS256")


class Member:
    """A client of the chat, in a room, with what its handshake sends."""

    def __init__(
        self, service: Service, room: str = "a", *, bearer: str = "", subprotocols: str = "chat.v1+json"
    ) -> None:
        self.client: Client = service.connect()
        fields = [f"Sec-WebSocket-Protocol: {subprotocols}"] if subprotocols else []
        fields += [f"Authorization: Bearer {bearer}"] if bearer else []
        self.client.sends(upgrade_request(f"/chat/{room}?name=other", *fields))
        self.head, _, self.frames = self.client.gets().partition(b"\r\n\r\n")

    @property
    def status(self) -> int:
        return int(self.head.split(b" ")[1])

    def says(self, **request: Any) -> None:
        self.client.sends(masked(0x81, json.dumps(request).encode()))

    def gets(self) -> list[dict[str, Any]]:
        frames, self.frames = self.frames + self.client.gets(), b""
        events = []
        while frames and frames[0] == 0x81:
            size, at = (frames[1], 2) if frames[1] < 126 else (int.from_bytes(frames[2:4], "big"), 4)
            events.append(json.loads(frames[at : at + size]))
            frames = frames[at + size :]
        self.closing = (int.from_bytes(frames[2:4], "big"), frames[4:].decode()) if frames[:1] == b"\x88" else None
        return events


@pytest.fixture
def service(tmp_path: Path) -> Service:
    (tmp_path / "secret").write_text(SECRET)
    return Service(f"--auth=jwt:secret={tmp_path}/secret")


class TestHandshake:
    """RFC 6750 §2.1: a token in the request names the user; browsers send it as a subprotocol."""

    def test_a_bearer_token_names_the_user(self, service: Service) -> None:
        expires = int(time.time()) + 60
        member = Member(service, bearer=token(exp=expires))
        welcome = {"type": "welcome", "room": "a", "name": "ann", "user": "ann", "expires": expires}
        assert member.gets() == [welcome]

    def test_a_browser_can_send_the_token_as_a_pair_of_subprotocols(self, service: Service) -> None:
        given = token()
        member = Member(service, subprotocols=f"chat.v1+json, access_token, {given}")
        assert member.status == 101 and b"Sec-WebSocket-Protocol: chat.v1+json" in member.head
        assert given.encode() not in member.head
        assert member.gets()[0]["user"] == "ann"

    def test_the_answer_to_the_pair_has_no_token(self, service: Service) -> None:
        given = token()
        member = Member(service, subprotocols=f"access_token, {given}")
        assert (
            b"Sec-WebSocket-Protocol: access_token\r\n" in member.head + b"\r\n" and given.encode() not in member.head
        )
        assert member.frames == b"\x81\x14Welcome to the chat!"

    @pytest.mark.parametrize(
        ("bearer", "subprotocols", "reason"),
        [
            ("", "", "there is no token"),
            ("", "access_token", "there is no token"),
            ("x", "chat.v1+json", "the token is malformed"),
            ("", "chat.v1+json, access_token, x", "the token is malformed"),
            ("VALID", "chat.v1+json, access_token, VALID", "there are several logins: send one"),
            ("EXPIRED", "chat.v1+json", "the token has expired"),
        ],
    )
    def test_a_request_without_a_valid_token_gets_401(
        self, service: Service, bearer: str, subprotocols: str, reason: str
    ) -> None:
        values = {"VALID": token(), "EXPIRED": token(exp=1)}
        for name, value in values.items():
            bearer, subprotocols = bearer.replace(name, value), subprotocols.replace(name, value)
        member = Member(service, bearer=bearer, subprotocols=subprotocols)
        assert member.status == 401 and member.frames == f"{reason}\n".encode()
        assert b'WWW-Authenticate: Bearer realm="twisted_beastws"' in member.head

    def test_only_the_page_needs_no_token(self, service: Service) -> None:
        client = service.connect()
        for target, status in ((b"/", b"200"), (b"/x", b"401"), (b"/chat", b"401"), (b"/?name=a", b"401")):
            client.sends(b"GET " + target + b" " + HEAD + b"\r\n")
            assert client.gets().split(b" ")[1] == status

    def test_a_plain_request_gets_the_answer_of_the_handshake(self, service: Service) -> None:
        client = service.connect()
        for given, status in ((token(), b"426"), (token(rooms=["b"]), b"403"), ("x", b"401")):
            field = f"Authorization: Bearer {given}\r\n\r\n".encode()
            client.sends(b"GET /chat/a?after=0-0 " + HEAD + field)
            assert client.gets().split(b" ")[1] == status

    def test_passwords_are_accepted_with_tokens(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text(SECRET)
        service = Service(f"--auth=jwt:secret={tmp_path}/secret", "--auth=memory:bob:pw")
        client = service.connect()
        client.sends(b"GET / " + HEAD + b"\r\n")
        answer = client.gets()
        assert b" 401 " in answer and b"WWW-Authenticate: Bearer " in answer and b"WWW-Authenticate: Basic " in answer
        client.sends(b"GET / " + HEAD + b"Authorization: Basic Ym9iOnB3\r\n\r\n")
        assert b" 200 " in client.gets()
        assert Member(service, bearer=token()).gets()[0]["user"] == "ann"


class TestFirstMessage:
    """A token in the first message, for clients that can set no field."""

    def test_a_first_message_with_a_token_is_accepted(self, service: Service) -> None:
        expires = int(time.time()) + 60
        member = Member(service)
        assert member.status == 101 and member.gets() == [] and service.hub.rooms == {}
        member.says(type="auth", token=token(exp=expires), ref="1")
        auth, welcome = member.gets()
        assert auth == {"type": "auth", "expires": expires, "ref": "1"}
        assert (welcome["type"], welcome["name"], welcome["user"]) == ("welcome", "ann", "ann")
        service.advance(20)
        member.gets()
        assert state_of(member.client.protocol) is State.OPEN

    @pytest.mark.parametrize(
        ("request_", "closing"),
        [
            ({"type": "auth", "token": "x"}, (4401, "the token is malformed")),
            ({"type": "message", "text": "hello"}, (4401, "the first message must be a token")),
            ({"type": "who"}, (4401, "the first message must be a token")),
            ({"type": "auth", "token": "OTHER"}, (4403, "the token does not allow this room")),
        ],
    )
    def test_another_first_message_is_answered_with_a_close(
        self, service: Service, request_: dict[str, str], closing: tuple[int, str]
    ) -> None:
        member = Member(service)
        given = {name: token(rooms=["b"]) if value == "OTHER" else value for name, value in request_.items()}
        member.says(**given)
        assert member.gets() == [] and member.closing == closing

    def test_the_first_message_is_awaited_for_ten_seconds(self, service: Service) -> None:
        member = Member(service)
        service.advance(9.9)
        member.gets()
        assert state_of(member.client.protocol) is State.OPEN
        service.advance(0.2)
        assert state_of(member.client.protocol) is State.CLOSING
        assert b"no token came" in member.client.gets()


class TestRights:
    """The rooms and the rights that a token gives."""

    def test_a_reader_gets_messages_and_cannot_write(self, service: Service) -> None:
        reader, writer = Member(service, bearer=token(read=["a"])), Member(service, bearer=token(sub="bob"))
        assert reader.gets()[0]["write"] is False
        assert "write" not in writer.gets()[0]
        writer.says(type="message", text="hello")
        assert [each["type"] for each in reader.gets()] == ["message"]
        reader.says(type="message", text="no", ref="1")
        (answer,) = reader.gets()
        assert (answer["type"], answer["taken"], answer["ref"]) == ("error", "no", "1")
        assert [each["type"] for each in writer.gets()] == ["message"]

    def test_a_writer_gets_no_messages(self, service: Service) -> None:
        writer, reader = Member(service, bearer=token(write=["a"])), Member(service, bearer=token(sub="bob"))
        writer.says(type="message", text="hello", ref="1")
        assert [each["type"] for each in writer.gets()] == ["welcome", "sent"]
        assert reader.gets()[-1]["text"] == "hello"

    def test_a_room_that_the_token_does_not_name_is_answered_403(self, service: Service) -> None:
        member = Member(service, "b", bearer=token(rooms=["a", "c*"]))
        assert (member.status, member.frames) == (403, b"the token does not allow this room\n")
        assert Member(service, "cd", bearer=token(rooms=["a", "c*"])).status == 101

    def test_a_plain_reader_that_writes_is_closed(self, service: Service) -> None:
        given = token(read=["a"])
        member = Member(service, bearer=given, subprotocols="")
        member.client.sends(b"\x81\x85\0\0\0\0hello")
        assert b"\x0f" not in member.frames
        assert member.client.gets()[2:4] == (4403).to_bytes(2, "big")


class TestRenewal:
    """A client sends a new token on an open connection."""

    def test_a_new_token_extends_the_connection(self, service: Service) -> None:
        member = Member(service, bearer=token())
        member.gets()
        later = int(time.time()) + 3600
        member.says(type="auth", token=token(exp=later), ref="r")
        assert member.gets() == [{"type": "auth", "expires": later, "ref": "r"}]

    @pytest.mark.parametrize(
        ("claims", "reason"),
        [({"sub": "eve"}, "the token is of another user"), ({"exp": 1}, "the token has expired")],
    )
    def test_a_wrong_token_is_an_error_and_changes_nothing(
        self, service: Service, claims: dict[str, Any], reason: str
    ) -> None:
        member = Member(service, bearer=token())
        member.gets()
        member.says(type="auth", token=token(**claims))
        assert member.gets() == [{"type": "error", "reason": reason}]
        assert member.client.protocol.user == "ann"

    def test_a_token_without_the_room_closes_the_connection(self, service: Service) -> None:
        member = Member(service, bearer=token())
        member.gets()
        member.says(type="auth", token=token(rooms=[]))
        assert member.gets() == [] and member.closing == (4403, "the token does not allow this room")

    def test_a_token_for_writing_alone_ends_the_messages(self, service: Service) -> None:
        member = Member(service, bearer=token())
        member.says(type="auth", token=token(write=["a"]))
        assert service.hub.rooms == {}

    def test_a_service_without_tokens_answers_an_error(self) -> None:
        member = Member(Service())
        member.gets()
        member.says(type="auth", token="x", ref="1")
        assert member.gets() == [{"type": "error", "reason": "this service has no tokens", "ref": "1"}]


class Connection:
    state = State.OPEN
    closed: tuple[int, str] | None = None

    def close(self, code: int, reason: str) -> None:
        self.closed, self.state = (code, reason), State.CLOSING


class TestSessions:
    """RFC 7519 §4.1.4: a connection ends when its token expires."""

    def test_a_connection_closes_with_4401_within_a_second_of_the_tokens_end(self) -> None:
        clock = Clock()
        sessions = Sessions(clock, lambda: 1000 + clock.seconds())
        sessions.startService()
        connection, renewed, opening = Connection(), Connection(), Connection()
        opening.state = State.CONNECTING
        for each in (connection, renewed, opening):
            sessions.remember(cast(Any, each), 1005.0)
        clock.pump([1] * 4)
        sessions.remember(cast(Any, renewed), 1060.0)
        assert connection.closed is None
        clock.pump([1] * 2)
        assert connection.closed == (4401, "the token has expired")
        assert renewed.closed is opening.closed is None
        opening.state = State.OPEN
        clock.advance(1)
        assert opening.closed is not None
        sessions.stopService()
        assert not clock.getDelayedCalls()

    def test_a_connection_that_ended_is_forgotten(self) -> None:
        sessions = Sessions(Clock())
        sessions.remember(cast(Any, Connection()), 0.0)
        # No public name shows that nothing is remembered.
        assert len(sessions._expires) == 0
