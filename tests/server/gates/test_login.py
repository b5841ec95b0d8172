"""Logins by name and password."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock

from twisted_beastws import Request, Response, State, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.server.gates.login import (
    CheckerError,
    Login,
    PasswordLogin,
    make_checker,
    parse_basic,
)
from twisted_beastws.server.gates.slow_calls import MAX_RUNNING, MAX_WAITING, SlowCalls

from ...support.log import logged_lines, of_the_service


def basic(login: str | bytes) -> bytes:
    return b"Basic " + b64encode(login.encode() if isinstance(login, str) else login)


def authorization(login: str | bytes) -> bytes:
    return b"Authorization: " + basic(login) + b"\r\n\r\n"


class Served(WebSocketProtocol):
    asked = 0

    def http_requested(self, request: Request) -> Response | None:
        type(self).asked += 1
        return Response(200, body=f"a page for {self.user}") if request.path == "/" else None


class TestBasic:
    """RFC 7617 §2 and §2.1: the Authorization field."""

    @pytest.mark.parametrize(
        ("field", "login"),
        [
            # RFC 7617 §2 and §2.1.
            (b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Login(b"Aladdin", b"open sesame")),
            (b"Basic dGVzdDoxMjPCow==", Login(b"test", "123£".encode())),
            (b"bAsIc  QWxhZGRpbjpvcGVuIHNlc2FtZQ== ", Login(b"Aladdin", b"open sesame")),
            (basic("a:"), Login(b"a", b"")),
            (basic("a:b:c"), Login(b"a", b"b:c")),
            (basic("a"), None),
            (basic(":b"), None),
            (basic("a\n:b"), None),
            (basic("a:b\0"), None),
            (b"Basic", None),
            (b"Basic ", None),
            (b"Basic !!!!", None),
            (b"Basic YTp", None),
            (b"Bearer YTpi", None),
            (b"YTpi", None),
        ],
    )
    def test_a_valid_field_is_parsed(self, field: bytes, login: Login | None) -> None:
        assert parse_basic(field) == login

    @given(st.binary(max_size=40))
    def test_any_bytes_are_parsed_or_refused(self, octets: bytes) -> None:
        login = parse_basic(octets)
        assert login is None or (login.username and b":" not in login.username)

    @given(st.text(min_size=1).filter(lambda name: ":" not in name), st.text())
    def test_the_login_of_a_browser_is_decoded(self, name: str, password: str) -> None:
        login = parse_basic(basic(f"{name}:{password}"))
        if all(character >= " " and character != "\x7f" for character in name + password):
            assert login == Login(name.encode(), password.encode())
        else:
            assert login is None


class TestCheckers:
    """Descriptions of credential checkers, as `strcred` makes them."""

    def test_a_description_makes_a_checker_in_memory(self) -> None:
        checker = make_checker("memory:ann:secret:bob:123")
        assert checker.users == {b"ann": b"secret", b"bob": b"123"}

    def test_a_description_makes_a_checker_of_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "passwords").write_text("ann:secret\n")
        monkeypatch.chdir(tmp_path)
        assert make_checker("file:passwords").filename == str(tmp_path / "passwords")

    @pytest.mark.parametrize(
        ("description", "why"),
        [
            ("nope:x", "give one of file, memory, unix, and what it needs, as in file:passwords"),
            ("anonymous", "give one of file, memory, unix, and what it needs, as in file:passwords"),
            ("file:/nope", "/nope: there is no such file"),
            ("file", "no name given: there is no such file"),
            ("memory:ann", "argstring must be in format U:P:..."),
        ],
    )
    def test_a_bad_description_is_refused(self, description: str, why: str, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(CheckerError) as caught:
            make_checker(description)
        assert str(caught.value) == why
        assert capfd.readouterr() == ("", "")


class TestLogin:
    """A password is checked by a checker of `twisted.cred`."""

    @pytest.mark.parametrize("right", ["pässword", "pässword".encode()])
    def test_only_the_right_password_is_accepted(self, right: str | bytes) -> None:
        assert Login(b"a", "pässword".encode()).checkPassword(right)
        assert not Login(b"a", b"p").checkPassword(right)
        assert not Login(b"a", b"").checkPassword(right)


class Server:
    def __init__(self, connect: Callable[..., Any], clock: Clock, *checkers: Any, limit: float | None = None) -> None:
        self._connect = connect
        Served.asked = 0
        self.factory = WebSocketServerFactory(Served, clock=clock)
        known = PasswordLogin(checkers, max_failures=limit, now=clock.seconds)
        self.factory.add_gate(known)

    def client(self, host: str | None = None) -> Any:
        address = None if host is None else IPv4Address("TCP", host, 1)
        return self._connect(factory=self.factory, opened=False, address=address)


@pytest.fixture
def server(connect: Callable[..., Any], clock: Clock) -> Server:
    return Server(connect, clock, make_checker("memory:ann:secret:bob:123"), make_checker("memory:J\u00f6rg:\u00fc"))


def status(peer: Any) -> int:
    return int(peer.reads().split(b" ")[1])


@pytest.mark.usefixtures("logged")
class TestRequests:
    """RFC 9110 §11.6.1: a request without a valid login gets a 401 with a challenge."""

    def test_a_request_without_a_name_is_challenged(self, server: Server) -> None:
        peer = server.client()
        peer.sends(peer.HEAD)
        head, _, body = peer.reads().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
        assert b'\r\nWWW-Authenticate: Basic realm="twisted_beastws", charset="UTF-8"\r\n' in head
        assert body == b"Give a name and a password\n"
        assert Served.asked == 0

    @pytest.mark.parametrize(
        ("login", "user"),
        [
            ("ann:secret", "ann"),
            ("bob:123", "bob"),
            ("J\u00f6rg:\u00fc", "J\u00f6rg"),
            ("ann:123", None),
            ("Ann:secret", None),
            ("ann:", None),
            ("eve:secret", None),
            (b"\xff\xfe:\xff", None),
        ],
    )
    def test_a_request_with_a_login_is_checked(self, server: Server, login: str | bytes, user: str | None) -> None:
        peer = server.client()
        peer.sends(peer.HEAD[:-2] + authorization(login))
        assert status(peer) == (401 if user is None else 101)
        assert peer.protocol.user == user
        assert peer.protocol.state is (State.CONNECTING if user is None else State.OPEN)

    def test_a_client_may_try_again(self, server: Server) -> None:
        peer = server.client()
        for login, expected in (("ann:no", 401), ("ann:secret", 101)):
            peer.sends(peer.HEAD[:-2] + authorization(login))
            assert status(peer) == expected

    def test_each_request_for_a_page_is_checked(self, server: Server) -> None:
        peer = server.client()
        page = b"GET / HTTP/1.1\r\nHost: h\r\n"
        peer.sends(page + authorization("ann:secret"))
        assert peer.reads().endswith(b"\r\n\r\na page for ann")
        peer.sends(page + b"\r\n")
        assert status(peer) == 401
        peer.sends(page + authorization("bob:123"))
        assert peer.reads().endswith(b"\r\n\r\na page for bob")

    def test_a_request_with_two_authorization_fields_is_challenged(self, server: Server) -> None:
        peer = server.client()
        two = authorization("ann:secret")[:-2] + authorization("bob:123")
        peer.sends(peer.HEAD[:-2] + two)
        assert status(peer) == 401

    def test_a_page_of_another_site_is_refused_for_any_user(self, server: Server) -> None:
        peer = server.client()
        peer.sends(peer.HEAD[:-2] + b"Origin: http://evil\r\n" + authorization("ann:secret"))
        assert status(peer) == 403

    def test_a_script_gets_a_challenge_that_browsers_ignore(self, connect: Callable[..., Any], clock: Clock) -> None:
        peer = Server(connect, clock, make_checker("memory:ann:secret")).client()
        for field, challenge in ((b"", b"Basic realm="), (b"X-Requested-With: XMLHttpRequest\r\n", b"X-Basic realm=")):
            peer.sends(b"GET / HTTP/1.1\r\nHost: h\r\n" + field + b"\r\n")
            answer = peer.reads()
            assert answer.startswith(b"HTTP/1.1 401 ") and b"WWW-Authenticate: " + challenge in answer

    def test_a_change_of_the_file_is_effective_at_once(
        self, connect: Callable[..., Any], clock: Clock, tmp_path: Path
    ) -> None:
        passwords = tmp_path / "passwords"
        passwords.write_text("ann:secret\n")
        server = Server(connect, clock, make_checker(f"file:{passwords}"))
        peer = server.client()
        page = b"GET / HTTP/1.1\r\nHost: h\r\n"
        peer.sends(page + authorization("ann:secret"))
        assert status(peer) == 200
        passwords.write_text("bob:123\n:\n")
        for login, expected in (("ann:secret", 401), ("bob:123", 200), (":", 401)):
            peer.sends(page + authorization(login))
            assert status(peer) == expected

    def test_a_password_in_a_file_may_have_colons(
        self, connect: Callable[..., Any], clock: Clock, tmp_path: Path
    ) -> None:
        (tmp_path / "passwords").write_text("noise\nann:x:secret \nann:again\n")
        server = Server(connect, clock, make_checker(f"file:{tmp_path / 'passwords'}"))
        for login, expected in (("ann:x:secret", 200), ("ann:x", 401), ("ann:again", 401), ("noise:", 401)):
            peer = server.client()
            peer.sends(b"GET / HTTP/1.1\r\nHost: h\r\n" + authorization(login))
            assert status(peer) == expected

    def test_a_missing_file_refuses_all_logins(
        self, connect: Callable[..., Any], clock: Clock, tmp_path: Path, logged: Callable[..., list[Any]]
    ) -> None:
        passwords = tmp_path / "passwords"
        passwords.write_text("ann:secret\n")
        peer = Server(connect, clock, make_checker(f"file:{passwords}")).client()
        passwords.unlink()
        peer.sends(peer.HEAD[:-2] + authorization("ann:secret"))
        assert status(peer) == 401
        assert len(logged(type(None))) == 1

    def test_a_checker_of_text_refuses_other_bytes(self, connect: Callable[..., Any], clock: Clock) -> None:
        class OfText:
            def requestAvatarId(self, credentials: Any) -> Any:
                return credentials.username.decode()

        server = Server(connect, clock, OfText())
        for login, expected in ((b"\xff:x", 401), (b"ann:x", 101)):
            peer = server.client()
            peer.sends(peer.HEAD[:-2] + authorization(login))
            assert status(peer) == expected

    def test_a_request_read_by_hand_has_its_user(self, connect: Callable[..., Any], clock: Clock) -> None:
        class ByHand(WebSocketProtocol):
            def serve(self) -> None:
                self.read_request().addCallback(
                    lambda request: self.respond(Response(200, body=f"{request.path} for {self.user}"))
                ).addCallback(lambda _: WebSocketProtocol.serve(self))

        factory = WebSocketServerFactory(ByHand, clock=clock)
        checkers = PasswordLogin([make_checker("memory:ann:secret")])
        factory.add_gate(checkers)
        peer = connect(factory=factory, opened=False)
        page = b"GET /page HTTP/1.1\r\nHost: h\r\n"
        for _ in range(2):
            peer.sends(page + b"\r\n")
            assert status(peer) == 401
        peer.sends(page + authorization("ann:secret"))
        assert peer.reads().endswith(b"\r\n\r\n/page for ann")
        peer.sends(peer.HEAD)
        assert status(peer) == 401
        peer.sends(peer.HEAD[:-2] + authorization("ann:secret"))
        assert status(peer) == 101

    def test_an_application_with_attributes_of_the_gates_names_is_still_checked(
        self, connect: Callable[..., Any], clock: Clock
    ) -> None:
        class Own(WebSocketProtocol):
            def __init__(self) -> None:
                for name in ("checkers", "gate", "identify", "refuse", "server", "observer", "client_of"):
                    setattr(self, name, None)

        factory = WebSocketServerFactory(Own, clock=clock)
        factory.add_gate(PasswordLogin([make_checker("memory:ann:secret")]))
        peer = connect(factory=factory, opened=False)
        peer.sends(peer.HEAD)
        assert status(peer) == 401

    def test_the_end_of_the_connection_ends_a_check(self, connect: Callable[..., Any], clock: Clock) -> None:
        ended: list[Any] = []

        class Hanging:
            def requestAvatarId(self, credentials: object) -> Deferred[bytes]:
                return Deferred()

        class ByHand(WebSocketProtocol):
            def serve(self) -> None:
                self.read_request().addErrback(lambda failure: ended.append(failure.type))

        factory = WebSocketServerFactory(ByHand, clock=clock)
        factory.add_gate(PasswordLogin([Hanging()]))
        peer = connect(factory=factory, opened=False)
        peer.sends(peer.HEAD[:-2] + authorization("ann:secret"))
        peer.leaves()
        assert ended == [ConnectionDone]

    def test_a_request_waits_for_a_slow_checker(self, connect: Callable[..., Any], clock: Clock) -> None:
        answer: Deferred[bytes] = Deferred()

        class Slow:
            def requestAvatarId(self, credentials: object) -> Deferred[bytes]:
                return answer

        peer = Server(connect, clock, Slow()).client()
        peer.sends(peer.HEAD[:-2] + authorization("ann:x"))
        assert peer.reads() == b""
        answer.callback(b"ann")
        assert status(peer) == 101

    def test_a_broken_checker_refuses_all_logins(
        self, connect: Callable[..., Any], clock: Clock, logged: Callable[..., list[Any]]
    ) -> None:
        class Broken:
            def requestAvatarId(self, credentials: object) -> Deferred[bytes]:
                raise ZeroDivisionError

        class Denying:
            def requestAvatarId(self, credentials: object) -> Deferred[bytes]:
                return fail(UnauthorizedLogin())

        peer = Server(connect, clock, Denying(), Broken()).client()
        peer.sends(peer.HEAD[:-2] + authorization("ann:x"))
        assert status(peer) == 500
        assert len(logged(ZeroDivisionError)) == 1


@pytest.fixture
def lines(logged: Any) -> Iterator[list[str]]:
    """Lines of the log."""
    with logged_lines(of_the_service) as lines:
        yield lines
    logged(type(None))


class TestGuessing:
    """Wrong passwords are logged and limited."""

    @pytest.fixture
    def guarded(self, connect: Callable[..., Any], clock: Clock) -> Server:
        return Server(connect, clock, make_checker("memory:ann:secret"), limit=3)

    @staticmethod
    def guess(peer: Any, login: str | bytes) -> tuple[int, bytes]:
        peer.sends(peer.HEAD[:-2] + authorization(login))
        answer = peer.reads()
        return int(answer.split(b" ")[1]), answer

    @pytest.mark.parametrize(
        ("login", "shown"),
        [
            ("ann:wrong", "wrong name or password for 'ann'"),
            ("J\u00f6rg:wrong", "wrong name or password for 'J\\xf6rg'"),
            (b"\xff:wrong", "wrong name or password for '\\ufffd'"),
            ("a\nb\x1b[2J:wrong", "there is no login, but for 'a\\nb\\x1b[2J'"),
            ("'; \u202e:wrong", 'wrong name or password for "\'; \\u202e"'),
            ("n" * 101 + ":wrong", f"wrong name or password for '{'n' * 100}'..."),
            ("just a password", "there is no login"),
        ],
    )
    def test_each_wrong_password_is_logged_with_the_name_escaped(
        self, guarded: Server, lines: list[str], login: str | bytes, shown: str
    ) -> None:
        peer = guarded.client("192.0.2.1")
        assert self.guess(peer, login)[0] == 401
        assert lines == [f"connection {peer.protocol.connection_id} of 192.0.2.1: 401: {shown}"]

    def test_a_request_without_a_login_is_logged(self, guarded: Server, lines: list[str]) -> None:
        peer = guarded.client("192.0.2.1")
        peer.sends(peer.HEAD)
        assert lines == [f"connection {peer.protocol.connection_id} of 192.0.2.1: 401: there is no login"]

    def test_guesses_are_refused_with_429(self, guarded: Server, lines: list[str], clock: Clock) -> None:
        peer = guarded.client("192.0.2.1")
        assert [self.guess(peer, f"ann:{number}")[0] for number in range(3)] == [401] * 3
        assert lines[3:] == ["192.0.2.1 gave too many wrong passwords: 429 for 20 s"]
        status, answer = self.guess(peer, "ann:secret")
        assert status == 429
        assert b"\r\nRetry-After: 20\r\n" in answer and b"\r\nConnection: close\r\n" in answer
        assert answer.endswith(b"There were too many wrong passwords; try again later\n")
        assert peer.transport.disconnecting
        assert guarded.factory.refusals == {"max_login_failures": 1}
        assert self.guess(guarded.client("192.0.2.2"), "ann:secret")[0] == 101
        clock.advance(20)
        assert self.guess(guarded.client("192.0.2.1"), "ann:secret")[0] == 101

    def test_guesses_in_one_segment_are_refused_with_429(self, guarded: Server, lines: list[str]) -> None:
        peer = guarded.client("192.0.2.1")
        peer.sends(b"".join(peer.HEAD[:-2] + authorization(f"ann:{number}") for number in range(100)))
        answer = peer.reads()
        assert [answer.count(b"HTTP/1.1 %d " % status) for status in (401, 429, 101)] == [3, 1, 0]

    def test_guesses_in_requests_read_by_hand_are_refused_with_429(
        self, connect: Callable[..., Any], clock: Clock, lines: list[str]
    ) -> None:
        class ByHand(WebSocketProtocol):
            def serve(self) -> None:
                self.read_request().addErrback(lambda _: None)

        factory = WebSocketServerFactory(ByHand, clock=clock)
        checkers = PasswordLogin([make_checker("memory:ann:secret")], max_failures=1, now=clock.seconds)
        factory.add_gate(checkers)
        peer = connect(factory=factory, opened=False, address=IPv4Address("TCP", "192.0.2.1", 1))
        assert [self.guess(peer, "ann:x")[0] for _ in range(2)] == [401, 429]

    def test_more_guesses_than_can_be_checked_are_answered_503(
        self, connect: Callable[..., Any], clock: Clock, logged: Any
    ) -> None:
        calls = SlowCalls(lambda *_: Deferred())
        for _ in range(MAX_RUNNING + MAX_WAITING):
            calls.call(lambda: None)

        class Slow:
            def requestAvatarId(self, credentials: object) -> Any:
                return calls.call(lambda: None)

        peer = Server(connect, clock, Slow(), limit=1).client("192.0.2.1")
        for _ in range(2):
            peer.reads()
            status, answer = self.guess(Server(connect, clock, Slow(), limit=1).client("192.0.2.1"), "ann:x")
            assert status == 503
            assert b"\r\nRetry-After: 1\r\n" in answer
