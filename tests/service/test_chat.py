"""The chat, byte by byte, on transports and a clock of the test's own."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from twisted_beastws import Hub, State, WebSocketProtocol
from twisted_beastws.hub import Message
from twisted_beastws.hub.redis import RedisBackplane
from twisted_beastws.service import Options, makeService, notices, subprotocol
from twisted_beastws.service.chat import Chat
from twisted_beastws.service.chat_limits import ChatLimits

from ..support.frames import masked
from ..support.handshakes import upgrade_request
from ..support.log import as_observer
from ..support.states import state_of

UPGRADE = upgrade_request(host="example.com")
WELCOME = b"\x81\x14Welcome to the chat!"
JSON = b"chat.v1+json"
PING, PONG = b"\x89\x00", b"\x8a\x80\0\0\0\0"


def text(words: str) -> bytes:
    return masked(0x81, words.encode())


class Client:
    """A connection to the service, of which the test is the other end."""

    def __init__(self, service: Service, number: int, host: str) -> None:
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", host, number))
        self.protocol = cast(Chat, service.factory.buildProtocol(None))
        self.protocol.makeConnection(self.transport)

    def sends(self, data: bytes) -> None:
        self.protocol.dataReceived(data)

    def gets(self) -> bytes:
        """The bytes since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def loses(self, why: Exception | None = None) -> None:
        self.protocol.connectionLost(Failure(why or ConnectionDone()))


class Service:
    def __init__(self, *arguments: str) -> None:
        options = Options()
        options.parseOptions(list(arguments))
        self.clock = Clock()
        self.factory = makeService(options).factory
        self.factory.settings = replace(self.factory.settings, clock=self.clock)
        # The chat's hub has no public name; the tests speak to the chat's rooms through it.
        self.hub: Hub = cast(Chat, self.factory.make())._hub
        self.clients = 0

    def members(self, room: str = "") -> set[WebSocketProtocol]:
        return set(self.hub.members(room))

    def connect(self, host: str = "192.0.2.1") -> Client:
        self.clients += 1
        return Client(self, self.clients, host)

    def join(self) -> Client:
        client = self.connect()
        client.sends(UPGRADE)
        assert client.gets().endswith(b"\r\n\r\n" + WELCOME)
        return client

    def turns(self) -> None:
        """Let connections go on that spent their budget of a turn."""
        self.clock.advance(0)

    def advance(self, seconds: float) -> None:
        # Pings and deadlines are due on ticks of 1/32 s.
        for _ in range(round(seconds * 32)):
            self.clock.advance(1 / 32)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def events(request: pytest.FixtureRequest) -> list[LogEvent]:
    """The log events of the test."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(as_observer(events.append))
    request.addfinalizer(lambda: globalLogPublisher.removeObserver(as_observer(events.append)))
    return events


def told(events: list[LogEvent]) -> list[str]:
    return [formatEvent(event) for event in events if event["log_level"].name == "info"]


class TestTalk:
    """Messages from one client to all."""

    def test_the_welcome_comes_right_after_the_answer(self, service: Service) -> None:
        client = service.connect()
        client.sends(UPGRADE)
        head, _, frames = client.gets().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert frames == WELCOME

    def test_each_client_gets_a_message_and_so_does_its_sender(self, service: Service) -> None:
        clients = [service.join() for _ in range(3)]
        clients[1].sends(text("hello"))
        assert [client.gets() for client in clients] == [b"\x81\x05hello"] * 3

    def test_all_clients_get_all_messages_in_one_order(self, service: Service) -> None:
        one, other = service.join(), service.join()
        one.sends(text("a") + text("b"))
        other.sends(text("c"))
        one.sends(text("d"))
        assert one.gets() == other.gets() == b"\x81\x01a\x81\x01b\x81\x01c\x81\x01d"

    @pytest.mark.parametrize("words", ["", "\u00e9", "\U0001f469\u200d\U0001f467", "\0", "x" * 125])
    def test_a_message_is_unchanged_on_arrival(self, service: Service, words: str) -> None:
        one, other = service.join(), service.join()
        one.sends(text(words))
        assert other.gets() == bytes((0x81, len(words.encode()))) + words.encode()

    def test_a_message_in_fragments_goes_out_in_one_piece(self, service: Service) -> None:
        one, other = service.join(), service.join()
        one.sends(masked(0x01, b"he") + masked(0x89, b"?") + masked(0x80, b"llo"))
        assert one.gets() == b"\x8a\x01?\x81\x05hello"
        assert other.gets() == b"\x81\x05hello"

    def test_a_message_right_after_the_request_is_not_lost(self, service: Service) -> None:
        other = service.join()
        one = service.connect()
        one.sends(UPGRADE + text("quick"))
        assert one.gets().endswith(WELCOME + b"\x81\x05quick")
        assert other.gets() == b"\x81\x05quick"

    def test_a_new_client_gets_no_earlier_message(self, service: Service) -> None:
        service.join().sends(text("early"))
        service.join()

    def test_a_client_that_is_not_open_is_sent_nothing(self, service: Service) -> None:
        one, opening = service.join(), service.connect()
        opening.sends(UPGRADE[:-2])
        one.sends(text("hello"))
        assert opening.gets() == b""

    def test_two_services_are_two_rooms(self, service: Service) -> None:
        one, elsewhere = service.join(), Service().join()
        one.sends(text("hello"))
        assert elsewhere.gets() == b""


class TestRefused:
    """Messages and requests that the chat refuses."""

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (masked(0x82, b"binary"), 1003),
            (masked(0x02, b""), 1003),
            (masked(0x81, b"\xff\xfe"), 1007),
            (b"\x81\x01a", 1002),
            (masked(0xC1, b"a"), 1002),
        ],
    )
    def test_only_the_sender_gets_the_reason(self, service: Service, data: bytes, code: int) -> None:
        one, other = service.join(), service.join()
        one.sends(data)
        assert one.gets() == b"\x88\x02" + code.to_bytes(2, "big")
        other.sends(text("still here"))
        assert one.gets() == b""
        assert other.gets() == b"\x81\x0astill here"

    @pytest.mark.parametrize(("size", "refused"), [(999, False), (1000, False), (1001, True)])
    def test_a_message_above_the_limit_is_refused(self, size: int, refused: bool) -> None:
        service = Service("--max-message=1000")
        one, other = service.join(), service.join()
        one.sends(b"\x81\xfe" + size.to_bytes(2, "big") + bytes(4) + b"x" * size)
        assert other.gets() == (b"" if refused else b"\x81\x7e" + size.to_bytes(2, "big") + b"x" * size)
        assert (one.protocol.state is State.OPEN) is not refused

    def test_a_foreign_page_is_refused(self) -> None:
        service = Service("--origin=https://friend.example")
        answers = []
        for origin in (b"https://example.com", b"https://friend.example", b"https://other.example"):
            client = service.connect()
            client.sends(UPGRADE[:-2] + b"Origin: " + origin + b"\r\n\r\n")
            answers.append(client.gets()[9:12])
        assert answers == [b"101", b"101", b"403"]

    def test_plain_http_at_the_chat_is_answered_426(self, service: Service) -> None:
        client = service.connect()
        client.sends(b"GET /chat HTTP/1.1\r\nHost: example.com\r\n\r\n")
        head, _, body = client.gets().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
        assert b"\r\nUpgrade: websocket\r\n" in head and b"\r\nConnection: Upgrade\r\n" in head
        assert body == (
            b"This is the chat's WebSocket endpoint, for WebSocket clients; the page that talks to it is at /\n"
        )

    def test_http_requests_are_answered_before_and_after_a_refusal(self, service: Service) -> None:
        client = service.connect()
        client.sends(
            b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\nGET /nope HTTP/1.1\r\nHost: h\r\n\r\n" + UPGRADE + text("hello")
        )
        answers = client.gets()
        page, missing, upgraded = (b"HTTP/1.1 " + part for part in answers.split(b"HTTP/1.1 ")[1:])
        assert page.startswith(b"HTTP/1.1 200 OK\r\n") and page.endswith(b"\r\n\r\n")
        assert missing.startswith(b"HTTP/1.1 404 ") and missing.endswith(
            b"\r\n\r\nThere is nothing here; the chat's page is at /\n"
        )
        assert upgraded.endswith(b"\r\n\r\n" + WELCOME + b"\x81\x05hello")


class TestOthersAreNotDisturbed:
    """A slow or lost client does not disturb the others."""

    def test_a_slow_reader_is_closed_with_1013_and_delays_no_other(self) -> None:
        service = Service("--max-message=1000000")
        one, slow, other = service.join(), service.join(), service.join()
        assert slow.transport.producer is not None
        slow.transport.producer.pauseProducing()
        message = b"\x81\xff" + (1_000_000).to_bytes(8, "big") + bytes(4) + b"x" * 1_000_000
        for _ in range(5):
            one.sends(message)
            heard = other.gets()
            assert one.gets() == heard
            assert heard.count(b"x") == 1_000_000
        assert slow.protocol.state is not State.OPEN
        assert slow.gets() == b""
        slow.transport.producer.resumeProducing()
        assert slow.gets() == b"\x88\x13\x03\xf5too slow a reader"

    def test_a_client_that_is_lost_in_the_middle_of_a_message_disturbs_no_other(self, service: Service) -> None:
        one, lost = service.join(), service.join()
        lost.sends(text("never finished")[:-3])
        lost.loses(ConnectionLost())
        one.sends(text("hello"))
        assert one.gets() == b"\x81\x05hello"


class TestMembership:
    """The members of the chat."""

    @pytest.mark.parametrize(
        "end",
        [
            lambda client: client.loses(ConnectionLost()),
            lambda client: client.sends(masked(0x88, b"\x03\xe8")),
            lambda client: client.sends(masked(0x82, b"")),
            lambda client: client.protocol.close(),
            lambda client: client.protocol.abort(),
        ],
        ids=["lost", "closed by peer", "failed", "closed", "aborted"],
    )
    def test_a_client_leaves_however_its_connection_ends(
        self, service: Service, end: Callable[[Client], object]
    ) -> None:
        client, other = service.join(), service.join()
        assert service.members() == {client.protocol, other.protocol}
        end(client)
        client.loses()
        assert service.members() == {other.protocol}
        assert service.hub.connections == 1

    def test_a_client_that_never_joined_is_no_member(self, service: Service, events: list[LogEvent]) -> None:
        client = service.connect()
        client.sends(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert service.members() == set()
        client.loses()
        assert told(events) == []


def upgrade(target: bytes = b"/chat", protocols: bytes | None = JSON) -> bytes:
    field = b"" if protocols is None else b"Sec-WebSocket-Protocol: " + protocols + b"\r\n"
    return UPGRADE.replace(b"/chat", target)[:-2] + field + b"\r\n"


class Speaker:
    """A client that speaks ``chat.v1+json``."""

    def __init__(self, service: Service, target: str = "/chat") -> None:
        self.client = service.connect()
        self.client.sends(upgrade(target.encode()))
        head, _, frames = self.client.gets().partition(b"\r\n\r\n")
        assert b"\r\nSec-WebSocket-Protocol: chat.v1+json\r\n" in head
        self.events = self.read(frames)

    def read(self, frames: bytes) -> list[dict[str, Any]]:
        events = []
        while frames:
            assert frames[0] == 0x81
            size, at = (frames[1], 2) if frames[1] < 126 else (int.from_bytes(frames[2:4], "big"), 4)
            events.append(json.loads(frames[at : at + size]))
            frames = frames[at + size :]
        return events

    def says(self, **request: Any) -> None:
        self.client.sends(text(json.dumps(request)))

    def gets(self) -> list[dict[str, Any]]:
        return self.read(self.client.gets())

    def leaves(self) -> None:
        self.client.loses()


def plain(service: Service, target: bytes = b"/chat") -> Client:
    client = service.connect()
    client.sends(upgrade(target, None))
    assert client.gets().endswith(WELCOME)
    return client


class TestRooms:
    """Rooms, named by the path."""

    def test_rooms_are_separate_from_each_other_and_the_common_one(self, service: Service) -> None:
        common, one, same, other = (plain(service, at) for at in (b"/chat", b"/chat/a", b"/chat/%61?x", b"/chat/b"))
        one.sends(text("hello"))
        assert [each.gets() for each in (common, one, same, other)] == [b"", *[b"\x81\x05hello"] * 2, b""]
        assert service.hub.rooms == {"": 1, "a": 2, "b": 1}

    @pytest.mark.parametrize("target", [b"/chat/", b"/chat/a/b", b"/chat/%00", b"/chatter", b"/room"])
    def test_a_bad_name_of_a_room_is_answered_404(self, service: Service, target: bytes) -> None:
        client = service.connect()
        client.sends(upgrade(target))
        assert client.gets().startswith(b"HTTP/1.1 404 ")

    def test_the_answer_to_plain_http_names_the_page(self, service: Service) -> None:
        client = service.connect()
        client.sends(b"GET /chat/a HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = client.gets()
        assert answer.startswith(b"HTTP/1.1 426 ") and answer.endswith(b"the page that talks to it is at /\n")

    def test_rooms_are_below_a_chat_at_the_root(self) -> None:
        service = Service("--path=/")
        one = plain(service, b"/a")
        one.sends(text("hello"))
        assert one.gets() == b"\x81\x05hello"
        client = service.connect()
        client.sends(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert [answer[:3] for answer in client.gets().split(b"HTTP/1.1 ")[1:]] == [b"404", b"200"]

    def test_an_earlier_refusal_has_no_effect_on_the_room(self, service: Service) -> None:
        client = service.connect()
        client.sends(b"GET /chat/a HTTP/1.1\r\nHost: h\r\n\r\n")
        client.gets()
        client.sends(upgrade(b"/chat?name=ann"))
        assert service.hub.rooms == {"": 1}


class TestJson:
    """The subprotocol ``chat.v1+json`` (`docs/chat.md`)."""

    def test_two_clients_can_talk(self, service: Service) -> None:
        ann = Speaker(service, "/chat/a?name=ann")
        assert ann.events == [{"type": "welcome", "room": "a", "name": "ann"}]
        bob = Speaker(service, "/chat/a?name=bob")
        assert ann.gets() == [{"type": "join", "name": "bob"}]
        assert bob.gets() == []
        bob.says(type="message", text="h\u00e9llo")
        heard, said = ann.gets(), bob.gets()
        assert heard == said == [{"id": heard[0]["id"], "type": "message", "name": "bob", "text": "h\u00e9llo"}]
        bob.leaves()
        assert ann.gets() == [{"type": "leave", "name": "bob"}]

    def test_no_notice_is_sent_when_all_leave(self, service: Service) -> None:
        members = [Speaker(service, f"/chat/a?name={name}") for name in ("ann", "bob", "cyd")]
        service.factory.drain(seconds=60.0)
        for member in members:
            member.leaves()
        assert not any(b"leave" in member.client.gets() for member in members)

    def test_clients_of_both_subprotocols_hear_each_other(self, service: Service) -> None:
        ann, other = Speaker(service, "/chat?name=ann"), plain(service)
        other.sends(text("plain"))
        ann.says(type="message", text="json")
        ann.leaves()
        assert other.gets() == b"\x81\x05plain\x81\x04json"
        assert [(event.get("name"), event["text"]) for event in ann.gets()] == [(None, "plain"), ("ann", "json")]

    def test_a_client_without_a_name_causes_no_notices(self, service: Service) -> None:
        ann, nobody = Speaker(service, "/chat?name=ann"), Speaker(service)
        assert nobody.events == [{"type": "welcome", "room": "", "name": None}]
        nobody.says(type="message", text="hello")
        nobody.leaves()
        assert [(event["type"], event["name"]) for event in ann.gets()] == [("message", None)]

    def test_the_members_are_listed(self, service: Service) -> None:
        ann, bob = Speaker(service, "/chat?name=ann"), Speaker(service, "/chat?name=bob")
        plain(service), Speaker(service), Speaker(service, "/chat/a?name=eve")
        bob.gets()
        bob.says(type="who", ref="7")
        assert bob.gets() == [{"type": "here", "names": ["ann", "bob"], "count": 2, "ref": "7"}]
        ann.leaves()
        bob.says(type="who")
        assert bob.gets()[1:] == [{"type": "here", "names": ["bob"], "count": 1}]

    def test_a_message_with_a_reference_is_confirmed(self, service: Service) -> None:
        ann, bob = Speaker(service, "/chat?name=ann"), Speaker(service)
        ann.says(type="message", text="hello", ref="7")
        said, sent = ann.gets()
        assert sent == {"type": "sent", "id": said["id"], "ref": "7"}
        assert [event["type"] for event in bob.gets()] == ["message"]

    @pytest.mark.parametrize("request_", ["hello", "[]", '{"type":"dance"}', '{"type":"message","text":"\\ud800"}'])
    def test_a_bad_request_is_explained_to_its_sender(self, service: Service, request_: str) -> None:
        ann, bob = Speaker(service), Speaker(service)
        ann.client.sends(text(request_))
        (told,) = ann.gets()
        assert told["type"] == "error" and told["reason"]
        assert bob.gets() == []
        ann.says(type="message", text="still here")
        assert [event["text"] for event in bob.gets()] == ["still here"]

    def test_a_client_that_returns_gets_the_missed_messages(self, service: Service) -> None:
        ann, bob = Speaker(service, "/chat?name=ann"), Speaker(service, "/chat?name=bob")
        for words in ("1", "2", "3"):
            ann.says(type="message", text=words)
        first = bob.gets()[0]["id"]
        bob.leaves()
        ann.says(type="message", text="4")
        back = Speaker(service, f"/chat?name=bob&after={first}")
        assert [event["type"] for event in back.events] == ["welcome", "message", "message", "message", "history"]
        assert [event["text"] for event in back.events[1:4]] == ["2", "3", "4"]
        assert back.events[4] == {"type": "history", "complete": True}
        assert Speaker(service, "/chat?after=0-0").events[-1] == {"type": "history", "complete": True}

    @pytest.mark.parametrize(("history", "kept"), [("0", 0), ("2", 2), ("100", 3)])
    def test_the_history_has_a_bounded_number_of_messages(self, history: str, kept: int) -> None:
        service = Service(f"--history={history}")
        ann = Speaker(service)
        for words in ("1", "2", "3"):
            ann.says(type="message", text=words)
        back = Speaker(service, "/chat?after=0-0")
        assert [event["text"] for event in back.events if event["type"] == "message"] == ["1", "2", "3"][3 - kept :]

    @pytest.mark.parametrize("query", ["name=", "name=%FF", "after=7"])
    def test_a_bad_address_is_declined(self, service: Service, query: str) -> None:
        client = service.connect()
        client.sends(upgrade(b"/chat?" + query.encode()))
        head, _, body = client.gets().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert body.count(b"\n") == 1
        assert service.members() == set()

    def test_the_parameters_are_ignored_without_the_subprotocol(self, service: Service) -> None:
        plain(service, b"/chat?name=&after=7")

    @pytest.mark.parametrize("protocols", [b"other", b"chat.v2+json, other"])
    def test_other_subprotocols_are_the_plain_chat(self, service: Service, protocols: bytes) -> None:
        client = service.connect()
        client.sends(upgrade(protocols=protocols))
        answer = client.gets()
        assert answer.endswith(WELCOME) and b"Sec-WebSocket-Protocol" not in answer

    @pytest.mark.parametrize(
        ("chat", "target", "status", "body"),
        [
            ("/chat", b"/chat?name=Ann", 426, b"This is the chat's WebSocket endpoint"),
            ("/chat", b"/chat/a?after=0-0", 426, b"This is the chat's WebSocket endpoint"),
            ("/chat", b"/chat/a?after=0-0&name=", 400, b"the name must be 1 to 32 visible characters"),
            ("/chat", b"/chat?after=x", 400, b"after must be a message's id"),
            ("/chat", b"/chat/a/b?after=0-0", 404, b"This is no room: its name must be 1 to 64 visible characters"),
            ("/chat", b"/chat/" + 65 * b"a", 404, b"This is no room"),
            ("/chat", b"/chats", 404, b"There is nothing here"),
            ("/", b"/?after=0-0&name=", 400, b"the name must be"),
            ("/", b"/?after=0-0", 426, b"This is the chat's"),
            ("/", b"/?utm=1", 200, b"<!doctype html>"),
        ],
    )
    def test_a_plain_request_gets_the_answer_that_a_handshake_would_get(
        self, chat: str, target: bytes, status: int, body: bytes
    ) -> None:
        client = Service(f"--path={chat}").connect()
        client.sends(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        head, _, answer = client.gets().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert answer.startswith(body)

    def test_a_plain_request_does_not_count_as_a_join(self) -> None:
        service = Service("--max-joins-per-address=0.04")
        ask = b"GET /chat?name=Ann HTTP/1.1\r\nHost: h\r\n\r\n"
        for _ in range(3):
            client = service.connect()
            client.sends(ask)
            assert client.gets().startswith(b"HTTP/1.1 426 ")
        service.join()
        client = service.connect()
        client.sends(ask)
        answer = client.gets()
        assert answer.startswith(b"HTTP/1.1 429 ") and b"\r\nRetry-After: 25\r\n" in answer

    def test_the_name_of_a_login_is_the_users_name(self, tmp_path: Path) -> None:
        (tmp_path / "passwords").write_text("ann:secret\n")
        service = Service(f"--auth=file:{tmp_path}/passwords")
        client = service.connect()
        login = b"Authorization: Basic " + b64encode(b"ann:secret") + b"\r\n\r\n"
        client.sends(upgrade(b"/chat?name=bob")[:-2] + login)
        assert client.gets().endswith(b'{"type":"welcome","room":"","name":"ann","user":"ann"}')

    def test_a_sender_learns_whether_the_backplane_accepted_its_message(self) -> None:
        service = Service("--backplane=unix:///nowhere") if find_spec("txredisapi") else None
        if service is None:
            pytest.skip("REDIS IS NOT TESTED: pip install txredisapi hiredis")
        backplane = cast(RedisBackplane, service.hub.backplane)
        # `makeService` makes the backplane, so the test replaces its link and its clock.
        backplane._make_link = NoLink  # type: ignore[assignment, method-assign]
        backplane._given_reactor = clock = Clock()
        ann, other = Speaker(service, "/chat?name=ann"), plain(service)
        ann.says(type="message", text="early")
        # Clients enter when Redis is there, or does not come for ten seconds.
        assert (ann.gets(), other.gets()) == ([], b"")
        clock.advance(10)
        ann.says(type="message", text="hello")
        ann.says(type="message", text="once", ref="7")
        other.sends(text("plain"))
        assert other.gets() == b"\x81\x05early\x81\x05hello\x81\x05plain"
        here = {"type": "error", "reason": "the backplane is away: only the members here have the message"}
        nobody = {
            "type": "error",
            "reason": "the backplane is away: no member has the message",
            "taken": "no",
            "ref": "7",
        }
        heard = [event.get("text") or event for event in ann.gets() if event["type"] != "join"]
        assert heard == ["early", here | {"taken": "here"}, "hello", here | {"taken": "here"}, nobody, "plain"]

    def test_equal_short_refs_of_two_processes_do_not_collide(
        self, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hearing = Speaker(service, "/chat?name=ann")
        hearing.gets()
        for _ in range(2):
            # Each process numbers its connections from 1.
            monkeypatch.setattr("twisted_beastws.connection.connection._connection_ids", count(1))
            Speaker(service, "/chat").says(type="message", text="hello", ref="7")
        assert [said["text"] for said in hearing.gets() if said["type"] == "message"] == ["hello", "hello"]

    def test_a_message_sent_again_with_its_ref_is_heard_once(self, service: Service) -> None:
        ann, other = Speaker(service, "/chat?name=ann"), plain(service)
        long = "a ref of 17 chars"
        for _ in range(2):
            ann.says(type="message", text="hello", ref="7")
        sent = [event for event in ann.gets() if event["type"] == "sent"]
        assert len(sent) == 2 and sent[0] == sent[1]
        assert other.gets() == b"\x81\x05hello"
        # On the next connection, too, if the ref is long enough not to be a count.
        for path in ("/chat?name=ann", "/chat"):
            for ref, heard in ((long, 1), (long[:16], 1), (long[:15], 2), ("7", 2)):
                for _ in range(2):
                    Speaker(service, path).says(type="message", text="hello", ref=ref)
                assert other.gets() == b"\x81\x05hello" * heard
        # Another text or another name is another message.
        Speaker(service, "/chat?name=ann").says(type="message", text="bye", ref=long)
        Speaker(service, "/chat?name=bob").says(type="message", text="hello", ref=long)
        assert other.gets() == b"\x81\x03bye\x81\x05hello"

    def test_a_gap_is_reported_in_its_place(self, service: Service) -> None:
        ann, other = Speaker(service, "/chat?name=ann"), plain(service)
        # The service's own backplane is in the process and never has a gap.
        service.hub._deliver(Message("", "", gap=True), None)
        assert (ann.gets(), other.gets()) == ([{"type": "history", "complete": False}], b"")


class TestNames:
    """The names of users."""

    def test_equivalent_spellings_of_a_name_are_one_name(self, service: Service) -> None:
        ann = Speaker(service, "/chat/cafe%CC%81?name=%EF%BC%A1nn")
        assert ann.events == [{"type": "welcome", "room": "caf\u00e9", "name": "Ann"}]

    @pytest.mark.parametrize("name", ["%E3%85%A4", "%E2%A0%80", "a" + "%CC%96" * 5])
    def test_an_unreadable_name_is_refused(self, service: Service, name: str) -> None:
        client = service.connect()
        client.sends(upgrade(f"/chat?name={name}".encode()))
        assert client.gets().startswith(b"HTTP/1.1 400 ")


class TestPresence:
    """The notices of users that join and leave."""

    def test_a_few_changes_in_a_small_room_are_sent_one_by_one(self, service: Service) -> None:
        watcher = Speaker(service)
        for name in "abc":
            Speaker(service, f"/chat?name={name}").leaves()
        expected = [{"type": kind, "name": name} for name in "abc" for kind in ("join", "leave")]
        assert watcher.gets() == expected

    def test_many_changes_are_sent_in_one_notice_a_second(self, service: Service, monkeypatch: Any) -> None:
        monkeypatch.setattr(notices, "AT_ONCE", 3)
        watcher, ann = Speaker(service), Speaker(service, "/chat?name=ann")
        crowd = [Speaker(service, f"/chat?name={number:02}") for number in range(30)]
        gone = crowd.pop()
        gone.leaves()
        ann.leaves()
        assert watcher.gets() == [{"type": "join", "name": "ann"}]
        service.advance(1.0)
        names = [f"{number:02}" for number in range(29)]
        together = {"type": "join", "name": "00", "names": names, "count": 29}
        assert watcher.gets() == [{"type": "leave", "name": "ann"}, together]
        assert crowd[0].gets() == [{"type": "leave", "name": "ann"}, together]
        for speaker in crowd:
            speaker.leaves()
        service.advance(1.0)
        assert watcher.gets() == [{"type": "leave", "name": "00", "names": names, "count": 29}]
        service.advance(2.0)
        assert watcher.gets() == []

    @pytest.mark.parametrize("members", [99, 100, 101])
    def test_a_notice_lists_a_bounded_number_of_names(self, service: Service, monkeypatch: Any, members: int) -> None:
        monkeypatch.setattr(notices, "AT_ONCE", 1)
        watcher = Speaker(service)
        for number in range(members + 1):
            Speaker(service, f"/chat?name={number:03}")
        service.advance(1.0)
        (together,) = [event for event in watcher.gets() if "count" in event]
        assert (together["count"], len(together["names"])) == (members, min(members, 100))

    def test_a_single_gathered_change_is_sent_as_a_single_notice(self, service: Service, monkeypatch: Any) -> None:
        monkeypatch.setattr(notices, "AT_ONCE", 1)
        watcher = Speaker(service)
        Speaker(service, "/chat?name=ann")
        bob = Speaker(service, "/chat?name=bob")
        service.advance(1.0)
        assert watcher.gets() == [{"type": "join", "name": "ann"}, {"type": "join", "name": "bob"}]
        assert bob.gets() == []

    def test_the_number_of_notices_is_linear_in_the_members(self, service: Service) -> None:
        published: list[str] = []
        publish = service.hub.publish

        def counted(room: str, message: Any, **options: Any) -> Any:
            published.extend([message] * service.hub.rooms.get(room, 0))
            return publish(room, message, **options)

        service.hub.publish = counted  # type: ignore[method-assign]
        crowd = [Speaker(service, f"/chat?name={number}") for number in range(300)]
        for speaker in crowd[:150]:
            speaker.leaves()
        service.advance(3.0)
        # One by one they would have been 45,000 and 34,000.
        assert len(published) < notices.AT_ONCE + 4 * 300


class TestLimits:
    """The limits of messages and joins."""

    @pytest.mark.parametrize("messages", [999, 1000, 1001])
    def test_the_burst_of_messages_is_limited(self, service: Service, messages: int) -> None:
        one, other = service.join(), service.join()
        one.sends(text("") * messages)
        service.turns()
        heard = b"\x81\x00" * min(messages, 1000)
        closed = b"\x88\x21\x03\xf0more than 100 messages a second" if messages > 1000 else b""
        assert (other.gets(), one.gets()) == (heard, heard + closed)
        assert service.factory.admission.refusals == ({"max_chat_rate": 1} if closed else {})

    def test_the_rate_of_messages_is_limited(self, service: Service) -> None:
        one = Speaker(service)
        for _ in range(3):
            one.client.sends(text("") * 1000)
            service.turns()
            assert {event["type"] for event in one.gets()} == {"error"}
            service.clock.advance(10)
            assert one.client.gets() == PING
        one.client.sends(text("") * 1001)
        service.turns()
        assert one.client.gets().endswith(b"\x88\x21\x03\xf0more than 100 messages a second")

    def test_the_limit_of_messages_can_be_removed(self) -> None:
        service = Service("--max-chat-rate=0")
        one = service.join()
        one.sends(text("") * 2000)
        service.turns()
        assert one.gets() == b"\x81\x00" * 2000

    @pytest.mark.parametrize("size", [1048575, 1048576, 1048577])
    def test_the_size_of_a_message_is_limited(self, service: Service, size: int) -> None:
        one, other = service.join(), service.join()
        one.sends(b"\x81\xff" + size.to_bytes(8, "big") + bytes(4) + b"x" * size)
        assert other.gets().count(b"x") == (size if size <= 1 << 20 else 0)
        assert one.gets().endswith(b"x" if size <= 1 << 20 else b"\x88\x02\x03\xf1")

    @pytest.mark.parametrize("name", ["same", "other"])
    def test_the_joins_of_an_address_are_limited(self, name: str) -> None:
        service = Service("--max-joins-per-address=0.25")
        for at in range(5):
            Speaker(service, f"/chat?name=ann{at if name == 'other' else ''}").leaves()
        refused = service.connect()
        refused.sends(upgrade())
        answer = refused.gets()
        assert answer.startswith(b"HTTP/1.1 429 ") and b"\r\nRetry-After: 4\r\n" in answer
        assert answer.endswith(b"\r\n\r\nThere are too many joins from this address; try again later\n")
        assert service.factory.admission.refusals["max_joins_per_address"] == 1
        elsewhere = service.connect("192.0.2.2")
        elsewhere.sends(upgrade())
        assert elsewhere.gets().startswith(b"HTTP/1.1 101 ")
        service.clock.advance(4)
        Speaker(service)

    def test_the_joins_of_an_address_are_limited_by_default(self, service: Service) -> None:
        service.factory.settings = replace(
            service.factory.settings, limits=replace(service.factory.settings.limits, max_handshakes_per_peer=None)
        )
        limits = ChatLimits(100.0, None)
        member = service.join().protocol
        assert [limits.refuse_join(member, 0.0) for _ in range(2000)] == [None] * 2000
        refused = limits.refuse_join(member, 0.0)
        assert refused is not None and refused.status == 429

    def test_the_limit_of_joins_can_be_removed(self) -> None:
        service = Service("--max-joins-per-address=0")
        for _ in range(50):
            Speaker(service).leaves()


class TestWho:
    """The list of a room's members."""

    def test_a_large_room_is_listed_in_pages(self, service: Service, monkeypatch: Any) -> None:
        monkeypatch.setattr(subprotocol, "MAX_LISTED", 2)
        speakers = [Speaker(service, f"/chat?name={name}") for name in ("eve", "ann", "bob")]
        asking = speakers[0]
        asking.gets()
        asking.says(type="who")
        asking.says(type="who", after="bob", ref="2")
        asking.says(type="who", after="eve")
        assert asking.gets() == [
            {"type": "here", "names": ["ann", "bob"], "count": 3},
            {"type": "here", "names": ["eve"], "count": 3, "ref": "2"},
            {"type": "here", "names": [], "count": 3},
        ]

    @pytest.mark.parametrize("after", [5, "x" * 33, "\ud800"])
    def test_an_invalid_name_to_begin_after_is_refused(self, service: Service, after: object) -> None:
        asking = Speaker(service)
        asking.says(type="who", after=after, ref="7")
        assert asking.gets() == [
            {"type": "error", "reason": "after must be the last name of the answer before", "ref": "7"}
        ]


class NoLink:
    """To a Redis that never comes."""

    def __init__(self, *arguments: object) -> None:
        pass

    def start(self) -> None:
        pass


class TestLiveness:
    """The timeouts and pings of the service (`docs/topics/timeouts.md`)."""

    def test_each_client_is_pinged_every_5_seconds(self, service: Service) -> None:
        clients = [service.join() for _ in range(3)]
        for _ in range(4):
            service.advance(4.5)
            assert [client.gets() for client in clients] == [b""] * 3
            service.advance(0.5)
            assert [client.gets() for client in clients] == [PING] * 3
            for client in clients:
                client.sends(PONG)

    def test_a_minute_of_silence_ends_a_connection(self, service: Service) -> None:
        client, other = service.join(), service.join()
        for _ in range(11):
            service.advance(5)
            other.sends(PONG)
        assert client.gets() == other.gets() == PING * 11
        service.advance(5.0625)
        assert client.gets() == b"\x88\x1f\x03\xf3nothing was received for 60 s"
        assert state_of(client.protocol) is State.CLOSING
        assert other.gets() == PING

    @pytest.mark.parametrize("sign", [PONG, masked(0x89, b""), text(""), b"\x81"])
    def test_any_byte_is_a_sign_of_life(self, service: Service, sign: bytes) -> None:
        client = service.join()
        service.advance(59)
        client.sends(sign)
        service.advance(59)
        assert state_of(client.protocol) is State.OPEN
        service.advance(1.0625)
        assert state_of(client.protocol) is State.CLOSING

    def test_half_a_request_is_dropped_after_30_seconds(self, service: Service) -> None:
        client = service.connect()
        client.sends(UPGRADE[:50])
        service.advance(29)
        assert not client.transport.disconnecting
        service.advance(1.0625)
        assert client.transport.disconnecting or client.transport.disconnected
        assert client.gets() == b""

    def test_no_timer_is_left_at_the_end(self, service: Service) -> None:
        client = service.join()
        client.sends(masked(0x88, b"\x03\xe8"))
        client.loses()
        assert service.clock.getDelayedCalls() == []


class TestLog:
    """The log lines about clients."""

    def test_each_client_is_logged_with_its_end(self, service: Service, events: list[LogEvent]) -> None:
        client = service.join()
        client.sends(masked(0x88, b"\x0f\xa0bye\xc3\xa9"))
        client.loses()
        assert told(events) == [
            "192.0.2.1:1 connected",
            "192.0.2.1:1 disconnected: begun by peer, sent 4000, received 4000 'bye\u00e9'",
        ]

    def test_a_peers_reason_is_logged_in_one_line(self, service: Service, events: list[LogEvent]) -> None:
        client = service.join()
        client.sends(masked(0x88, b"\x0f\xa0a\r\nb{c}"))
        client.loses()
        assert told(events)[1].endswith(r"received 4000 'a\r\nb{c}'")

    @pytest.mark.parametrize(
        ("address", "name"),
        [
            (IPv6Address("TCP", "2001:db8::1", 5), "[2001:db8::1]:5"),
            (UNIXAddress("/run/chat"), "UNIXAddress('/run/chat')"),
        ],
    )
    def test_any_address_is_logged(self, service: Service, events: list[LogEvent], address: object, name: str) -> None:
        client = service.connect()
        client.transport.peerAddr = address
        client.sends(UPGRADE)
        assert told(events) == [f"{name} connected"]
