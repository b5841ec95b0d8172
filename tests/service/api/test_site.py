"""The API over HTTP, on transports of the test's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from twisted_beastws import Hub, State
from twisted_beastws.hub import LocalBackplane, PublishError, PublishUnknown
from twisted_beastws.service.api.control import PATIENCE, Control
from twisted_beastws.service.api.operations import Api
from twisted_beastws.service.api.parsing import Reader
from twisted_beastws.service.api.site import MAX_CONNECTIONS, ApiFactory, openapi
from twisted_beastws.service.api.tokens import TokenFile

TOKEN = "0123456789abcdef"
MAX_MESSAGE = 100


class Backplane(LocalBackplane):
    """A backplane that fails as the test wants."""

    failure: PublishError | None = None

    def publish(self, *arguments: Any) -> Deferred[str | None]:
        return super().publish(*arguments) if self.failure is None else fail(self.failure)


class Member:
    """A connection that keeps the messages that it gets."""

    state = State.OPEN
    buffered_amount = 0
    user: str | None = None

    def __init__(self, name: str = "Ann", user: str | None = None) -> None:
        self.name = name
        self.user = user
        self.ended: Deferred[None] = Deferred()
        self.got: list[bytes] = []
        self.closed: tuple[int, str] | None = None

    def when_closed(self) -> Deferred[None]:
        return self.ended

    def send(self, prepared: Any) -> None:
        self.got.append(prepared.plain.payload)

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self.ended.callback(None)


class Service:
    def __init__(self, directory: Path, *, is_chat: bool = True, history: int = 100) -> None:
        (directory / "tokens").write_text(TOKEN)
        self.clock = Clock()
        self.backplane = Backplane(history=history, now=lambda: 1700000000.0)
        self.hub = Hub(self.backplane)
        self.members: list[Member] = []
        control = Control(self.clock, self.hub, lambda: cast(Any, self.members))
        control.startService()
        api = Api(self.hub, control, Reader(is_chat, MAX_MESSAGE), is_chat)
        self.factory = ApiFactory(self.clock, api, TokenFile(str(directory / "tokens")), MAX_MESSAGE)

    def join(self, room: str, name: str = "Ann", user: str | None = None) -> Member:
        member = Member(name, user)
        self.members.append(member)
        self.hub.join(cast(Any, member), room, name=name)
        return member

    def sends(self, request: bytes) -> tuple[int, dict[str, str], Any]:
        transport = StringTransport()
        channel = self.factory.buildProtocol(None)
        channel.makeConnection(transport)
        channel.dataReceived(request)
        head, _, body = transport.value().partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        return int(first.split()[1]), dict(field.split(": ", 1) for field in fields), json.loads(body or b"null")

    def asks(self, method: str, path: str, body: Any = None, *, token: str = TOKEN) -> tuple[int, dict[str, str], Any]:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(data)}"
        return self.sends(head.encode() + b"\r\n\r\n" + data)

    def publishes(self, body: Any) -> tuple[int, Any]:
        status, _, answer = self.asks("POST", "/api/publish", body)
        return status, answer


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


@pytest.fixture
def app(tmp_path: Path) -> Service:
    return Service(tmp_path, is_chat=False)


def error(answer: Any) -> str:
    return str(answer["error"]["code"])


class TestAccess:
    """RFC 6750 §2.1 and RFC 9110 §11.6.1: access to the API by tokens."""

    def test_a_request_without_a_token_gets_401_and_a_challenge(self, service: Service) -> None:
        status, fields, answer = service.sends(b"GET /api/rooms HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (status, error(answer)) == (401, "not_authorized")
        assert fields["WWW-Authenticate"] == 'Bearer realm="twisted_beastws API"'
        assert fields["Connection"] == "close"

    def test_a_wrong_token_gets_401(self, service: Service) -> None:
        status, _, answer = service.asks("GET", "/api/rooms", token="f" * 16)
        assert (status, answer["error"]["message"]) == (
            401,
            "a wrong token: send the field Authorization: Bearer TOKEN",
        )

    def test_two_tokens_get_401(self, service: Service) -> None:
        field = f"Authorization: Bearer {TOKEN}\r\n".encode()
        status, _, _ = service.sends(b"GET /api/rooms HTTP/1.1\r\nHost: h\r\n" + field * 2 + b"\r\n")
        assert status == 401

    def test_the_body_of_a_refused_request_is_not_kept(self, service: Service) -> None:
        transport = StringTransport()
        channel = service.factory.buildProtocol(None)
        channel.makeConnection(transport)
        channel.dataReceived(b"POST /api/publish HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2 * (service.factory.max_body >> 16)):
            channel.dataReceived(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            assert channel.requests[0].content.getvalue() == b""
            assert not transport.disconnected
        channel.dataReceived(b"1\r\nx\r\n")
        assert transport.disconnected

    def test_the_number_of_connections_is_limited(self, service: Service) -> None:
        for _ in range(MAX_CONNECTIONS):
            service.factory.buildProtocol(None).makeConnection(StringTransport())
        assert service.factory.buildProtocol(None) is None
        next(iter(service.factory.connections)).connectionLost(None)
        assert service.factory.buildProtocol(None) is not None


class TestHttp:
    """The API's answers to requests with mistakes."""

    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/", 404, "not_found"),
            ("POST", "/api/publish/", 404, "not_found"),
            ("GET", "/api/publish", 405, "bad_method"),
            ("POST", "/api/rooms", 405, "bad_method"),
            ("DELETE", "/api/rooms/a", 405, "bad_method"),
            ("GET", "/api/rooms/%FF", 400, "bad_room"),
            ("GET", "/api/rooms/a/b", 400, "bad_room"),
            ("GET", "/api/rooms/a?after=1", 400, "bad_after"),
        ],
    )
    def test_each_wrong_request_gets_its_error(
        self, service: Service, method: str, path: str, status: int, code: str
    ) -> None:
        found, fields, answer = service.asks(method, path)
        assert (found, error(answer)) == (status, code)
        assert fields["Content-Type"] == "application/json"
        assert ("Allow" in fields) == (status == 405)

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[1]", b"null", b"[" * 100000, b'"text"'])
    def test_a_body_that_is_no_json_object_gets_400(self, service: Service, body: bytes) -> None:
        status, answer = service.publishes(body)
        assert (status, error(answer)) == (400, "bad_request" if body in (b"[1]", b"null", b'"text"') else "bad_json")

    @pytest.mark.parametrize(("over", "status"), [(-1, 400), (0, 400), (1, 413)])
    def test_the_size_of_a_body_is_limited(self, service: Service, over: int, status: int) -> None:
        body = b"x" * (service.factory.max_body + over)
        assert service.publishes(body)[0] == status
        chunked = (
            f"POST /api/publish HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n"
        )
        assert service.sends(chunked.encode() + body + b"\r\n0\r\n\r\n")[0] == status

    def test_the_response_to_head_has_no_body(self, service: Service) -> None:
        status, fields, answer = service.asks("HEAD", "/api/rooms")
        assert (status, answer) == (200, None) and int(fields["Content-Length"]) > 0

    def test_open_requests_end_with_the_service(self, service: Service) -> None:
        idle, busy = StringTransport(), StringTransport()
        for transport in (idle, busy):
            channel = service.factory.buildProtocol(None)
            channel.makeConnection(transport)
        channel.dataReceived(b"POST /api/publish HTTP/1.1\r\n")
        channel.dataReceived(f"Authorization: Bearer {TOKEN}\r\nContent-Length: 10\r\n\r\n".encode())
        drained = Deferred.fromCoroutine(service.factory.drain(1001, "bye"))
        assert idle.disconnecting and not busy.disconnecting
        service.clock.pump([0.1] * 60)
        assert busy.disconnected and drained.called


class TestPublish:
    """Publishing a message in a room, or several."""

    def test_the_chat_gets_an_event_with_a_name_and_an_id(self, service: Service) -> None:
        member = service.join("lobby")
        status, answer = service.publishes({"room": "lobby", "data": "hello", "name": " Shop".strip()})
        assert status == 200 and re.fullmatch(r"\d+-\d+", answer["id"])
        assert member.got == [b'{"type":"message","name":"Shop","text":"hello"}']

    def test_the_empty_name_is_the_common_room(self, service: Service) -> None:
        member = service.join("")
        assert service.publishes({"room": "", "data": "hello"})[0] == 200
        assert len(member.got) == 1

    def test_names_of_rooms_are_normalized_as_in_the_chat(self, service: Service) -> None:
        member = service.join("A")
        assert service.publishes({"room": "\uff21", "data": "x"})[0] == 200
        assert len(member.got) == 1

    def test_a_message_with_a_known_key_is_published_once(self, service: Service) -> None:
        member = service.join("a")
        answers = [service.publishes({"room": "a", "data": "x", "key": "k"})[1] for _ in range(2)]
        assert answers[0] == answers[1] and len(member.got) == 1

    def test_a_batch_is_published_in_order(self, service: Service) -> None:
        member = service.join("a")
        messages = [{"room": "a", "data": str(number)} for number in range(100)]
        status, answer = service.publishes({"messages": messages})
        assert status == 200 and len(answer["results"]) == 100
        assert [json.loads(each)["text"] for each in member.got] == [str(number) for number in range(100)]

    def test_a_batch_with_a_wrong_message_publishes_nothing(self, service: Service) -> None:
        member = service.join("a")
        status, answer = service.publishes({"messages": [{"room": "a", "data": "x"}, {"room": "a/b", "data": "x"}]})
        assert (status, error(answer)) == (400, "bad_room")
        assert answer["error"]["message"].startswith("messages[1]: room: ")
        assert member.got == []

    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            ({"data": "x"}, 400, "bad_request"),
            ({"room": "a"}, 400, "bad_request"),
            ({"room": "a", "data": "x", "nam": "y"}, 400, "unknown_field"),
            ({"room": 1, "data": "x"}, 400, "bad_room"),
            ({"room": "a" * 64, "data": "x"}, 200, ""),
            ({"room": "a" * 65, "data": "x"}, 400, "bad_room"),
            ({"room": "\0a", "data": "x"}, 400, "bad_room"),
            ({"room": "a", "data": 1}, 400, "bad_data"),
            ({"room": "a", "data": "\ud800"}, 400, "bad_data"),
            ({"room": "a", "data": "\u00e9" * 50}, 200, ""),
            ({"room": "a", "data": "\u00e9" * 50 + "x"}, 413, "too_large"),
            ({"room": "a", "data": "x", "name": "n" * 32}, 200, ""),
            ({"room": "a", "data": "x", "name": "n" * 33}, 400, "bad_name"),
            ({"room": "a", "data": "x", "name": ""}, 400, "bad_name"),
            ({"room": "a", "data": "x", "key": "k" * 128}, 200, ""),
            ({"room": "a", "data": "x", "key": "k" * 129}, 400, "bad_key"),
            ({"room": "a", "data": "x", "key": ""}, 400, "bad_key"),
            ({"messages": []}, 400, "bad_batch"),
            ({"messages": [{"room": "a", "data": "x"}] * 100}, 200, ""),
            ({"messages": [{"room": "a", "data": "x"}] * 101}, 400, "bad_batch"),
            ({"messages": ["x"]}, 400, "bad_request"),
            ({"messages": [], "room": "a"}, 400, "unknown_field"),
        ],
    )
    def test_each_limit_has_its_error(self, service: Service, body: Any, status: int, code: str) -> None:
        found, answer = service.publishes(body)
        assert (found, error(answer) if code else "") == (status, code)

    @pytest.mark.parametrize(
        ("failure", "taken"),
        [
            (PublishError("the backplane is away", False), "no"),
            (PublishError("the backplane is away", True), "here"),
            (PublishUnknown("the connection was lost", False), "unknown"),
        ],
    )
    def test_a_backplane_that_accepts_nothing_is_answered_503(
        self, service: Service, failure: PublishError, taken: str
    ) -> None:
        service.backplane.failure = failure
        for path in ("publish", "broadcast", "disconnect"):
            body = {"publish": {"room": "a", "data": "x"}, "broadcast": {"data": "x"}, "disconnect": {"room": "a"}}[
                path
            ]
            status, fields, answer = service.asks("POST", f"/api/{path}", body)
            assert (status, fields["Retry-After"]) == (503, "1")
            assert answer["error"] == {"code": "not_published", "message": str(failure), "taken": taken}
        status, answer = service.publishes({"messages": [{"room": "a", "data": "x"}] * 2})
        assert status == 503 and [each["error"]["taken"] for each in answer["error"]["results"]] == [taken] * 2

    def test_a_message_without_a_key_is_not_sent_if_the_backplane_fails(self, service: Service) -> None:
        refs = []
        service.backplane.publish = lambda *given: refs.append(given[4]) or fail(PublishError("x", False))  # type: ignore
        service.publishes({"room": "a", "data": "x"})
        service.publishes({"room": "a", "data": "x"})
        assert len(set(refs)) == 2

    def test_a_service_without_history_answers_null(self, tmp_path: Path) -> None:
        assert Service(tmp_path, history=0).publishes({"room": "a", "data": "x"}) == (200, {"id": None})


class TestApplication:
    """The API of an application of the user's own."""

    @pytest.mark.parametrize(("data", "text"), [("x", b"x"), ({"a": [1, None]}, b'{"a":[1,null]}'), (None, b"null")])
    def test_the_data_of_a_message_can_be_any_json(self, app: Service, data: Any, text: bytes) -> None:
        member = app.join("any/room \n")
        assert app.publishes({"room": "any/room \n", "data": data})[0] == 200
        assert member.got == [text]

    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            ({"room": "a", "data": "x", "name": "Ann"}, 400, "bad_name"),
            ({"room": "a" * 256, "data": "x"}, 200, ""),
            ({"room": "a" * 257, "data": "x"}, 400, "bad_room"),
            ({"room": "\0commands", "data": "x"}, 400, "bad_room"),
            ({"room": "a", "data": ["\ud800"]}, 400, "bad_data"),
        ],
    )
    def test_each_limit_has_its_error(self, app: Service, body: Any, status: int, code: str) -> None:
        found, answer = app.publishes(body)
        assert (found, error(answer) if code else "") == (status, code)

    def test_the_history_has_the_data(self, app: Service) -> None:
        app.publishes({"room": "a", "data": {"b": 1}})
        app.hub.publish("a", b"binary")
        history = app.asks("GET", "/api/rooms/a")[2]["history"]
        assert [(each.get("data"), each.get("size")) for each in history] == [('{"b":1}', None), (None, 6)]


class TestRooms:
    """The lists of rooms, members and messages."""

    def test_rooms_are_listed_with_their_connections(self, service: Service) -> None:
        for room in ("b", "a", "b"):
            service.join(room)
        assert service.asks("GET", "/api/rooms")[2] == {
            "rooms": [{"room": "a", "connections": 1}, {"room": "b", "connections": 2}],
            "more": False,
        }
        assert service.asks("GET", "/api/rooms?after=a")[2]["rooms"] == [{"room": "b", "connections": 2}]

    @pytest.mark.parametrize(("rooms", "more"), [(1000, False), (1001, True)])
    def test_at_most_a_thousand_rooms_are_listed_at_once(self, service: Service, rooms: int, more: bool) -> None:
        for number in range(rooms):
            service.join(f"{number:04}")
        answer = service.asks("GET", "/api/rooms")[2]
        assert (len(answer["rooms"]), answer["more"]) == (1000, more)

    def test_a_room_has_members_and_a_history(self, service: Service) -> None:
        service.join("a b", "Bob"), service.join("a b", "Ann")
        first = service.publishes({"room": "a b", "data": "1", "name": "Shop"})[1]["id"]
        second = service.publishes({"room": "a b", "data": "2"})[1]["id"]
        assert service.asks("GET", "/api/rooms/a%20b")[2] == {
            "room": "a b",
            "members": ["Ann", "Bob"],
            "count": 2,
            "history": [{"id": first, "name": "Shop", "data": "1"}, {"id": second, "name": None, "data": "2"}],
            "complete": True,
            "more": False,
        }
        assert service.asks("GET", f"/api/rooms/a%20b?after={first}")[2]["history"][0]["id"] == second

    def test_a_history_that_was_cut_is_not_complete(self, tmp_path: Path) -> None:
        service = Service(tmp_path, history=1)
        for _ in range(2):
            service.publishes({"room": "a", "data": "x"})
        assert service.asks("GET", "/api/rooms/a")[2]["complete"] is False

    def test_other_processes_have_a_second_to_answer(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        # A backplane that joins processes is any that is not the local one.
        monkeypatch.setattr("twisted_beastws.service.api.control.LocalBackplane", type(None))
        service.join("a")
        transport = StringTransport()
        channel = service.factory.buildProtocol(None)
        channel.makeConnection(transport)
        channel.dataReceived(f"GET /api/rooms HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        # Another worker would read the command from the backplane's own list; no public name shows it.
        (question,) = [
            message.data for message in service.backplane._kept["\0commands"] if "rooms" in str(message.data)
        ][:1]
        other = json.dumps({"answer": [json.loads(question)["rooms"], {"a": 2, "b": 1}]})
        service.hub.send_command(other)
        service.clock.advance(PATIENCE - 0.01)
        assert transport.value() == b""
        service.clock.advance(0.01)
        body = json.loads(transport.value().partition(b"\r\n\r\n")[2])
        assert body["rooms"] == [{"room": "a", "connections": 3}, {"room": "b", "connections": 1}]


class TestBroadcast:
    """A message to every room."""

    def test_a_broadcast_is_sent_to_every_room_once(self, service: Service) -> None:
        members = [service.join("a"), service.join("b")]
        assert service.asks("POST", "/api/broadcast", {"data": "x", "name": "Shop"})[::2] == (200, {})
        assert [member.got for member in members] == [[b'{"type":"message","name":"Shop","text":"x"}']] * 2
        assert error(service.asks("POST", "/api/broadcast", {"data": "x", "room": "a"})[2]) == "unknown_field"


class TestDisconnect:
    """Closing connections that match conditions."""

    @pytest.mark.parametrize(
        ("body", "closed"),
        [
            ({"name": "Ann"}, [True, False, True, False]),
            ({"room": "a"}, [True, True, False, False]),
            ({"room": "a", "name": "Ann"}, [True, False, False, False]),
            ({"user": "u"}, [False, False, False, True]),
            ({"user": "u", "name": "Ann"}, [False, False, False, False]),
        ],
    )
    def test_the_connections_that_match_all_conditions_are_closed(
        self, service: Service, body: dict[str, str], closed: list[bool]
    ) -> None:
        joins = (("a", "Ann", None), ("a", "Bob", None), ("b", "Ann", None), ("b", "Eve", "u"))
        members = [service.join(*each) for each in joins]
        assert service.asks("POST", "/api/disconnect", {**body, "code": 4001, "reason": "bye"})[::2] == (202, {})
        assert [member.closed for member in members] == [(4001, "bye") if each else None for each in closed]

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({}, "bad_request"),
            ({"code": 1000}, "bad_request"),
            ({"user": 1}, "bad_request"),
            ({"room": "a", "code": 1005}, "bad_close_code"),
            ({"room": "a", "code": 2999}, "bad_close_code"),
            ({"room": "a", "code": 3000}, ""),
            ({"room": "a", "code": 4999}, ""),
            ({"room": "a", "code": 5000}, "bad_close_code"),
            ({"room": "a", "code": True}, "bad_close_code"),
            ({"room": "a", "reason": "r" * 123}, ""),
            ({"room": "a", "reason": "r" * 124}, "bad_reason"),
            ({"room": "a", "reason": 1}, "bad_reason"),
        ],
    )
    def test_each_limit_has_its_error(self, service: Service, body: dict[str, Any], code: str) -> None:
        status, _, answer = service.asks("POST", "/api/disconnect", body)
        assert (status, error(answer) if code else "") == (400 if code else 202, code)

    def test_a_command_of_another_program_is_ignored(self, service: Service) -> None:
        for command in ("x", "{}", "[]", '{"other": 1}', '{"disconnect": 1}'):
            service.hub.send_command(command)
        member = service.join("a")
        service.asks("POST", "/api/disconnect", {"room": "a"})
        assert member.closed == (1008, "")


class TestDescription:
    """The OpenAPI description of the API."""

    def test_the_description_is_openapi_of_every_path_and_error(self, service: Service) -> None:
        description = service.asks("GET", "/api/openapi.json")[2]
        assert description == openapi() and description["openapi"].startswith("3.")
        listed = service.asks("GET", "/api/nothing")[2]["error"]["message"]
        assert set(description["paths"]) == {
            path.replace("NAME", "{room}") for path in listed.removeprefix("there are ").split(", ")
        }
        package = Path(ApiFactory.__init__.__code__.co_filename).parent
        source = "".join((package / f"{name}.py").read_text() for name in ("site", "parsing", "operations"))
        codes = set(re.findall(r'"((?:bad|not|too|unknown)_\w+)"', source)) | {"internal"}
        assert (
            set(description["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"])
            == codes
        )
