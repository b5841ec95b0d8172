"""The listings of the how-to pages and of some others."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, optionsForClientTLS
from websockets.exceptions import ConnectionClosed, InvalidStatus

from twisted_beastws import (
    Hub,
    Limits,
    State,
    Timeouts,
    WebSocketClientEndpoint,
    WebSocketProtocol,
    WebSocketServerFactory,
    connect,
    reconnecting,
)
from twisted_beastws.testing import Frame, connected_pair, scripted_client, upgrade_request

from ..support.certificates import identity, identity_pem, trusting
from ..support.patience import PATIENCE
from .programs import defined, expect_refusal, get, listings, run, running_listing, talking


def answer(server: Any, headers: dict[str, str] | None = None, target: str = "/") -> bytes:
    """Return the answer to a handshake."""
    peer = scripted_client(server, opened=False)
    peer.send(upgrade_request(target, headers=headers or {}))
    return peer.read_head() + peer.read()


class Database:
    """Keeps questions, and the Deferreds of their answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: list[Deferred[str]] = []

    def lookup(self, text: str) -> Deferred[str]:
        self.asked.append(text)
        self.answers.append(Deferred())
        return self.answers[-1]

    insert = lookup


class TestAsyncio:
    """The listings of `docs/howto/asyncio.md`."""

    program, server, _fixture = listings("howto/asyncio")

    def test_the_program_talks_to_a_server_as_a_task(self, tmp_path: Path) -> None:
        with running_listing(TestEmbedding.program, tmp_path) as port:
            (tmp_path / "talk.py").write_text(self.program.replace("localhost:8000", f"127.0.0.1:{port}"))
            done = run([sys.executable, "talk.py"], tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")

    def test_the_server_has_a_factory(self) -> None:
        assert isinstance(defined(self.server)["factory"], WebSocketServerFactory)


class TestDaphne:
    """The listings of `docs/howto/daphne.md`."""

    def test_the_program_is_daphnes_command_on_our_factory(self, tmp_path: Path) -> None:
        (program,) = listings("howto/daphne")
        shows = "import daphne.server; print(daphne.server.WebSocketFactory.__name__)\n"
        (tmp_path / "serve.py").write_text(program.replace("CommandLineInterface.entrypoint()", shows.strip()))
        done = run([sys.executable, "serve.py"], tmp_path)
        assert done.stdout == "DaphneFactory\n", done.stderr


class TestASGI:
    """The listings of `docs/howto/asgi.md`."""

    def test_the_program_serves_the_application(self, tmp_path: Path) -> None:
        (program,) = listings("howto/asgi")
        with running_listing(program, tmp_path) as port, talking(port) as client:
            client.send("hello")
            assert client.recv(PATIENCE) == "hello"
            assert get(port, "/")[0] == 404


class TestEmbedding:
    """The listings of `docs/howto/embedding.md`."""

    program, service, by_class, by_coroutine, paths, pages, tell_all, ask, feed, report = listings("howto/embedding")

    def test_the_program_can_run(self, tmp_path: Path) -> None:
        with running_listing(self.program, tmp_path) as port, talking(port) as client:
            client.send("hello")
            assert client.recv(PATIENCE) == "hello"

    def test_the_service_ends_in_order(self, tmp_path: Path) -> None:
        with ExitStack() as stack:
            with running_listing(self.service, tmp_path, "talk.tac") as port:
                client = stack.enter_context(talking(port))
                client.send("hello")
                assert client.recv(PATIENCE) == "hello"
            with pytest.raises(ConnectionClosed):
                client.recv(PATIENCE)
            assert client.close_code == 1001

    def test_each_path_has_its_protocol_or_page(self, tmp_path: Path) -> None:
        listen = (
            "from twisted.internet import reactor\n"
            "reactor.listenTCP(8000, factory, interface='127.0.0.1')\nreactor.run()\n"
        )
        with running_listing(self.paths + listen, tmp_path) as port:
            with talking(port, "/chat/a%20b") as client:
                client.send("hello")
                assert client.recv(PATIENCE) == "a b: hello"
            with talking(port, "/feed") as client:
                assert client.recv(PATIENCE) == "the latest news"
            assert get(port, "/")[1] == "<h1>Chat</h1>"

    @pytest.mark.parametrize(("listing", "name"), [(program, "program.py"), (service, "talk.tac")])
    def test_a_listing_that_cannot_listen_ends(self, listing: str, name: str, tmp_path: Path) -> None:
        expect_refusal(listing, tmp_path, name)

    @pytest.mark.parametrize("listing", [by_class, by_coroutine], ids=["class", "coroutine"])
    def test_the_second_query_waits_for_the_first(self, listing: str) -> None:
        database = Database()
        pair = connected_pair(defined(listing)["factory_for"](database))
        pair.client.send("one")
        pair.client.send("two")
        pair.flush()
        assert database.asked == ["one"]
        database.answers[0].callback("first")
        pair.flush()
        database.answers[1].callback("second")
        pair.flush()
        assert [pair.client.receive().result for _ in range(2)] == ["first", "second"]

    def test_each_page_is_served(self) -> None:
        echo = defined(self.pages)["Echo"]
        for target, status in (("/healthz", 200), ("/elsewhere", 404), ("/echo", 426)):
            peer = scripted_client(echo, opened=False)
            peer.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert peer.read_head().startswith(b"HTTP/1.1 %d " % status)
        assert answer(echo, target="/echo").startswith(b"HTTP/1.1 101 ")

    def test_every_open_connection_gets_the_message(self) -> None:
        factory = WebSocketServerFactory(WebSocketProtocol)
        pairs = [connected_pair(factory) for _ in range(2)]
        waiting = scripted_client(factory, opened=False)
        defined(self.tell_all)["tell_all"](factory, "hello")
        for pair in pairs:
            pair.flush()
            assert pair.client.receive().result == "hello"
        assert waiting.read() == b""

    @pytest_twisted.ensureDeferred
    async def test_a_client_asks(self) -> None:
        from twisted.internet import reactor

        pages = listings("howto/authentication")[0].replace("s3cret", "abc")
        factory = WebSocketServerFactory(defined(pages)["Private"])
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        url = f"ws://127.0.0.1:{port.getHost().port}/"
        ask = Deferred.fromCoroutine(defined(self.ask)["ask"](reactor, url, "well?"))
        refused = Deferred.fromCoroutine(
            defined(self.ask.replace("Bearer abc", "Bearer no"))["ask"](reactor, url, "well?")
        )
        assert await ask.addTimeout(PATIENCE, reactor) == "ann: well?"
        assert await refused.addTimeout(PATIENCE, reactor) == "401: A token, please\n"
        await port.stopListening()

    @pytest_twisted.ensureDeferred
    async def test_a_feed_is_read(self, capsys: pytest.CaptureFixture[str]) -> None:
        from twisted.internet import reactor

        asked: Deferred[str] = Deferred()

        class Server(WebSocketProtocol):
            def text_received(self, text: str) -> None:
                self.send("news")
                self.ping().addCallback(lambda _: asked.callback(text))

        factory = WebSocketServerFactory(Server)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        service = defined(self.feed)["feed"](reactor, f"ws://127.0.0.1:{port.getHost().port}/")
        service.startService()
        assert await asked.addTimeout(PATIENCE, reactor) == "subscribe"
        await service.stopService()
        await port.stopListening()
        assert capsys.readouterr().out == "news\n"

    @pytest_twisted.ensureDeferred
    async def test_a_loop_that_sends(self) -> None:
        """The server closes each connection after its first message, while the loop runs."""
        from twisted.internet import reactor

        heard: list[str] = []
        done: Deferred[None] = Deferred()

        class Server(WebSocketProtocol):
            def text_received(self, text: str) -> None:
                heard.append(text)
                self.close(1001)
                if len(heard) == 2:
                    done.callback(None)

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(WebSocketServerFactory(Server))
        endpoint = WebSocketClientEndpoint(reactor, f"ws://127.0.0.1:{port.getHost().port}/")
        service = reconnecting(endpoint, Factory.forProtocol(WebSocketProtocol))
        service.startService()
        measured = iter(range(1000))
        reporting = Deferred.fromCoroutine(
            defined(self.report)["report"](reactor, service, lambda: str(next(measured)))
        ).addErrback(lambda failure: failure.trap(CancelledError))
        await done.addTimeout(PATIENCE, reactor)
        await service.stopService()
        await reporting
        await port.stopListening()
        assert heard[0] == "0"


class TestTwistedWeb:
    """The listings of `docs/howto/twisted-web.md`."""

    site, before, resource, klein = listings("howto/twisted-web")

    def test_a_site_is_served(self, tmp_path: Path) -> None:
        (tmp_path / "public").mkdir()
        (tmp_path / "public" / "page.txt").write_text("a page")
        with running_listing(self.site, tmp_path) as port, talking(port, "/echo") as client:
            client.send("hello")
            assert client.recv(PATIENCE) == "hello"
            assert get(port, "/page.txt") == (200, "a page")

    def test_upgrades_are_accepted_on_any_path_of_a_site(self, tmp_path: Path) -> None:
        (tmp_path / "public").mkdir()
        (tmp_path / "public" / "page.txt").write_text("a page")
        with running_listing(self.before, tmp_path) as port, talking(port, "/page.txt") as client:
            client.send("hello")
            assert client.recv(PATIENCE) == "hello"
            assert get(port, "/page.txt") == (200, "a page")

    def test_a_site_without_its_port_ends(self, tmp_path: Path) -> None:
        expect_refusal(self.site, tmp_path)

    def test_another_resource_is_served(self, tmp_path: Path) -> None:
        rest = "site = Site(Greet())\nreactor.listenTCP(9000, site)\nreactor.run()\n"
        imports = "from twisted.internet import reactor\nfrom twisted.web.server import Site\n"
        with running_listing(self.resource + imports + rest, tmp_path) as port, talking(port) as client:
            client.send("Ada")
            assert client.recv(PATIENCE) == "Hello, Ada! You are 127.0.0.1."
            assert get(port, "/") == (200, "Send your name to this WebSocket.\n")

    def test_klein_can_serve(self, tmp_path: Path) -> None:
        with running_listing(f"{self.klein}\napp.run('127.0.0.1', 9000)\n", tmp_path) as port:
            assert get(port, "/") == (200, "The echo is at /echo.")
            with talking(port, "/echo") as client:
                client.send("hello")
                assert client.recv(PATIENCE) == "hello"
            with talking(port, "/rooms/tea") as client:
                assert client.recv(PATIENCE) == "This is tea."
            # running() fails if the log has a traceback.
            assert get(port, "/rooms/tea")[0] == 426
            with pytest.raises(InvalidStatus), talking(port, "/rooms/tea", origin="https://elsewhere.example"):
                pass


class TestAuthentication:
    """The listings of `docs/howto/authentication.md`."""

    token, first_message, signed, certificates, tokens_anew = listings("howto/authentication")

    def test_a_token_is_checked(self) -> None:
        private = defined(self.token)["Private"]
        assert answer(private, {"Authorization": "Bearer s3cret"}).startswith(b"HTTP/1.1 101 ")
        for field in ("Bearer wrong", "Basic s3cret", "s3cret"):
            refused = answer(private, {"Authorization": field})
            assert refused.startswith(b"HTTP/1.1 401 ") and b"\r\nWWW-Authenticate: Bearer\r\n" in refused
        assert answer(private).endswith(b"\r\n\r\nA token, please\n")

    def test_a_slow_decision_drops_the_connection(self) -> None:
        class Slow(WebSocketProtocol):
            def upgrade_requested(self, request: object) -> Deferred[None]:
                return Deferred()

        peer = scripted_client(Slow, opened=False, timeouts=Timeouts(handshake=5))
        peer.send(upgrade_request("/"))
        peer.advance(4.9)
        assert not peer.ended
        peer.advance(0.2)
        assert peer.ended

    def test_the_first_message_is_checked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        serve = defined(self.first_message)["first_message_is_a_token"]({"s3cret": "Ann"}.get)
        for said, code in (("wrong", 1008), (None, 1008), ("s3cret", None)):
            pair = connected_pair(serve, opened=False)
            monkeypatch.setitem(sys.modules, "twisted.internet.reactor", pair.clock)
            monkeypatch.setattr("twisted.internet.reactor", pair.clock, raising=False)
            pair.client.handshake("localhost")
            pair.flush()
            if said is not None:
                pair.client.send(said)
            pair.flush()
            pair.advance(4.9 if code is None else 5.1)
            if code is None:
                pair.advance(10)
                pair.client.send("hello")
                pair.flush()
                assert pair.client.receive().result == "Ann: hello"
            else:
                assert pair.client.close_reason.code == code

    @pytest_twisted.ensureDeferred
    async def test_client_certificates_are_checked(self) -> None:
        from twisted.internet import reactor

        served = defined(self.certificates)
        pem = identity_pem()
        endpoint = served["endpoint_for_certified"](reactor, 0, pem, pem)
        port = await endpoint.listen(WebSocketServerFactory(served["Certified"]))
        url = f"wss://localhost:{port.getHost().port}/"
        tls = optionsForClientTLS("localhost", Certificate.loadPEM(pem), identity())
        ws = await connect(url, reactor=reactor, tls=tls).addTimeout(PATIENCE, reactor)
        ws.send("hello")
        assert await ws.receive().addTimeout(PATIENCE, reactor) == "localhost: hello"
        await ws.close()
        with pytest.raises(SSL.Error):
            await connect(url, reactor=reactor, tls=trusting()).addTimeout(PATIENCE, reactor)
        await port.stopListening()

    def test_a_signed_token_names_the_user_and_the_rooms(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        jwt = pytest.importorskip("jwt", reason="SIGNED TOKENS ARE NOT TESTED: pip install pyjwt")
        secret = "a secret of at least 32 bytes, as PyJWT wants it"
        (tmp_path / "secret").write_text(f"{secret}\n")
        monkeypatch.chdir(tmp_path)
        claims = jwt.decode(defined(self.signed)["token_for"]("ann"), secret, ["HS256"], audience="chat")
        assert claims["sub"] == "ann" and claims["rooms"] == ["lobby", "team-*"]

    def test_the_client_gets_a_new_token_for_each_connection(self) -> None:
        tokens = iter("ab")
        seen = []

        class Request:
            headers = SimpleNamespace(setRawHeaders=lambda name, values: seen.append((name, values)))

        endpoint = defined(self.tokens_anew)["endpoint_with_tokens"](
            SimpleNamespace(), "ws://localhost/", lambda: succeed(next(tokens))
        )
        for _ in range(2):
            # The listing passes its decorator to the endpoint, which has no public name for it.
            Deferred.fromCoroutine(endpoint._decorator(Request))
        assert seen == [("Authorization", ["Bearer a"]), ("Authorization", ["Bearer b"])]


def test_the_address_is_known_with_proxies() -> None:
    (listing,) = listings("howto/proxies")
    peer = scripted_client(defined(listing)["Talk"], headers={"X-Real-IP": "203.0.113.7"})
    peer.send(Frame.text("who?"))
    peer.expect(Frame.text("You are 203.0.113.7."))


def test_the_proxy_protocol_gives_the_clients_address(tmp_path: Path) -> None:
    from twisted.internet.endpoints import serverFromString
    from twisted.internet.testing import MemoryReactorClock, StringTransport

    reactor = MemoryReactorClock()
    factory = WebSocketServerFactory(WebSocketProtocol, clock=reactor)
    serverFromString(reactor, "haproxy:tcp:1984:interface=127.0.0.1").listen(factory)
    listening: Any = reactor.tcpServers[0][1]
    protocol = listening.buildProtocol(None)
    assert protocol is not None
    protocol.makeConnection(StringTransport())
    assert protocol is not None
    protocol.dataReceived(b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 1984\r\n" + upgrade_request("/"))
    (websocket,) = factory.connections
    assert websocket.state is State.OPEN and getattr(websocket.peer, "host", None) == "203.0.113.7"


def test_the_hub_is_scalable() -> None:
    (listing,) = listings("howto/scaling")
    assert isinstance(defined(listing)["hub"], Hub)


def test_a_hub_can_use_postgresql() -> None:
    (listing,) = listings("howto/postgresql")
    assert isinstance(defined(listing)["hub"], Hub)


def test_the_tests_of_the_page_are_passed(tmp_path: Path) -> None:
    quiz, *tests = listings("howto/testing")
    (tmp_path / "quiz.py").write_text(quiz)
    for number, test in enumerate(tests):
        kind = "trial" if "twisted.trial" in test else "test"
        (tmp_path / f"{kind}_{number}.py").write_text(test)
    (for_trial,) = tmp_path.glob("trial_*.py")
    done = run([sys.executable, "-m", "twisted.trial", for_trial.stem], tmp_path)
    assert "(successes=1)" in done.stdout, done.stdout + done.stderr
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], tmp_path)
    assert done.returncode == 0 and " passed" in done.stdout and "failed" not in done.stdout, done.stdout


class TestHub:
    """The listings of `docs/hub.md`."""

    rooms, presence, permissions, joined, on_cluster = listings("hub")

    def test_rooms_are_separate(self) -> None:
        factory = defined(self.rooms)["factory"]
        ann, bob, eve = (connected_pair(factory, target=target) for target in ("/tea", "/tea", "/coffee"))
        ann.client.send("hello")
        for pair in (ann, bob, eve):
            pair.flush()
        assert bob.client.receive().result == "hello"
        assert not ann.client.receive().called and not eve.client.receive().called

    def test_presence_is_sent(self) -> None:
        member = connected_pair(WebSocketProtocol).server
        users: list[object] = []
        defined(self.presence)["welcome"](member, "tea").addCallback(users.append)
        assert users == [{"ann": {"role": "admin"}}]

    def test_permissions_are_checked(self) -> None:
        hub = defined(self.permissions)["hub"]
        member = connected_pair(WebSocketProtocol).server
        member.user = SimpleNamespace(rooms=["tea"], is_staff=False)
        refused: list[object] = []
        hub.join(member, "tea")
        hub.join(member, "coffee").addErrback(lambda failure: refused.append(failure.value))
        hub.publish("tea", "hello", sender=member).addErrback(lambda failure: refused.append(failure.value))
        assert [str(error) for error in refused] == [
            "not allowed to join the room 'coffee'",
            "not allowed to publish in the room 'tea'",
        ]
        assert hub.rooms == {"tea": 1}

    def test_hubs_are_joined(self) -> None:
        assert isinstance(defined(self.joined)["hub"], Hub)
        assert isinstance(defined(self.on_cluster)["hub"], Hub)


class TestBackpressure:
    """The listings of `docs/topics/backpressure.md`."""

    store, count, download = listings("topics/backpressure")

    def test_only_one_insertion_is_made_at_a_time(self) -> None:
        database = Database()
        pair = connected_pair(lambda: defined(self.store)["Store"](database))
        for text in ("one", "two"):
            pair.client.send(text)
        pair.flush()
        assert database.asked == ["one"]
        database.answers[0].callback("")
        pair.flush()
        assert database.asked == ["one", "two"] and pair.client.receive().result == "stored"

    def test_counting_keeps_pace(self) -> None:
        pair = connected_pair(defined(self.count)["factory"])
        most = 0
        for _ in range(50):
            pair.flush()
            most = max(most, pair.server.buffered_amount)
            pair.client.receive()
        assert most <= Limits().low_water + 10

    def test_a_download_is_sent(self, tmp_path: Path) -> None:
        data = bytes(range(256)) * 4096
        (tmp_path / "file").write_bytes(data)
        download = defined(self.download)["Download"]
        download.path = str(tmp_path / "file")
        pair = connected_pair(download)
        received = b""
        for _ in range(1000):
            pair.advance(0.01)
            message = pair.client.receive()
            message.addErrback(lambda _: None)
            if not isinstance(getattr(message, "result", None), bytes):
                break
            received += message.result
        assert received == data and pair.client.close_reason.code == 1000
