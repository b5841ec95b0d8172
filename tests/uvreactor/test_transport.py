"""Tests of connections over real sockets, for behavior that Twisted's own tests do not cover."""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python import log
from zope.interface import implementer

from twisted_beastws.uvreactor.port import ACCEPTORS
from twisted_beastws.uvreactor.transport import NativeConnection
from twisted_beastws.uvreactor.writing import FULL

from ..support.log import as_observer
from ..support.patience import PATIENCE

pytestmark = pytest.mark.usefixtures("logged")


class Noting(Protocol):
    """Records received data and the end of the connection."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.made: Deferred[None] = Deferred()
        self.lost: Deferred[Any] = Deferred()

    def connectionMade(self) -> None:
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(reason.value)


class Served:
    """A protocol on the reactor, and a plain socket as its peer; blocking calls on the socket run in a thread."""

    def __init__(self, reactor: Any, protocol: Any) -> None:
        self.reactor = reactor
        self.protocol = protocol
        factory = Factory.forProtocol(lambda: protocol)
        factory.noisy = False
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.socket = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        self.socket.settimeout(PATIENCE)

    async def __aenter__(self) -> Served:
        await self.protocol.made
        return self

    async def __aexit__(self, *error: object) -> None:
        self.socket.close()
        await self.port.stopListening()

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await deferLater(self.reactor, 0.002)

    async def turns(self) -> None:
        await deferLater(self.reactor, 0.02)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await deferToThreadPool(self.reactor, self.reactor.getThreadPool(), function, *arguments)

    def recv(self, size: int) -> Deferred[bytes]:
        def read() -> bytes:
            parts = b""
            while len(parts) < size and (part := self.socket.recv(size - len(parts))):
                parts += part
            return parts

        return Deferred.fromCoroutine(self.call(read))


def writes(monkeypatch: pytest.MonkeyPatch, protocol: Noting) -> list[bytes]:
    """Return a list that records each write that the protocol's connection passes to uvloop."""
    given: list[bytes] = []
    # This uses private names, because the bytes that arrive do not show how writes were joined.
    writer: Any = protocol.transport._writer  # type: ignore[union-attr]
    uv = writer._written_to

    class Noted:
        def write(self, data: bytes) -> None:
            given.append(data)
            uv.write(data)

    monkeypatch.setattr(writer, "_written_to", Noted())
    return given


class TestAccepting:
    """Accepting connections."""

    def test_a_turn_accepts_one_connection_of_each_duplicate(self, run: Any) -> None:
        async def test(reactor: Any) -> Counter[int]:
            return await self._accepted_by_turn(reactor, lambda factory: reactor.listenTCP(0, factory, 8, "127.0.0.1"))

        assert list(run(test).values()) == [ACCEPTORS] * (8 // ACCEPTORS)

    def test_a_turn_accepts_one_connection_of_an_adopted_socket(self, run: Any) -> None:
        async def test(reactor: Any) -> Counter[int]:
            with socket.create_server(("127.0.0.1", 0)) as shared:
                shared.setblocking(False)
                return await self._accepted_by_turn(
                    reactor, lambda factory: reactor.adoptStreamPort(shared.fileno(), socket.AF_INET, factory)
                )

        assert list(run(test).values()) == [1] * 8

    def test_a_port_that_the_first_connection_stops_serves_no_other(self, run: Any) -> None:
        served: list[Any] = []

        async def test(reactor: Any) -> None:
            stopped: Deferred[None] = Deferred()

            def build() -> Protocol:
                served.append(None)
                port.stopListening().chainDeferred(stopped)
                return Protocol()

            factory = Factory.forProtocol(build)
            factory.noisy = False
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
            peers = [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(ACCEPTORS)]
            await stopped
            for peer in peers[1:]:
                await ended(reactor, peer)
            for peer in peers:
                peer.close()

        async def ended(reactor: Any, peer: socket.socket) -> None:
            peer.settimeout(PATIENCE)
            with suppress(ConnectionError):
                assert await deferToThreadPool(reactor, reactor.getThreadPool(), peer.recv, 1) == b""

        run(test)
        assert len(served) == 1

    async def _accepted_by_turn(self, reactor: Any, listen: Callable[[Any], Any]) -> Counter[int]:
        """Return how many of eight connections that wait at once each turn of the loop accepts."""
        turn = 0
        accepted: Counter[int] = Counter()
        done: Deferred[None] = Deferred()

        def count() -> None:
            nonlocal turn
            turn += 1
            if accepted.total() < 8:
                reactor.loop.call_soon(count)
            else:
                done.callback(None)

        def build() -> Protocol:
            accepted[turn] += 1
            return Protocol()

        factory = Factory.forProtocol(build)
        factory.noisy = False
        port = listen(factory)
        # All of them wait in the backlog before the loop looks at the socket.
        peers = [socket.create_connection(("127.0.0.1", port.getHost().port)) for _ in range(8)]
        count()
        await done
        for peer in peers:
            peer.close()
        await port.stopListening()
        return accepted


class TestReading:
    """Reading from a socket."""

    def test_data_received_is_looked_up_at_each_chunk(self, run: Any) -> None:
        class Rebinding(Noting):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.dataReceived = lambda data: self.heard.append(("rebound", data))  # type: ignore[method-assign]

        async def test(reactor: Any) -> None:
            async with Served(reactor, Rebinding()) as served:
                protocol = served.protocol
                served.socket.sendall(b"one")
                await served.until(lambda: protocol.heard)
                served.socket.sendall(b"two")
                await served.until(lambda: len(protocol.heard) == 2)
                other = protocol.transport.protocol = Noting()
                served.socket.sendall(b"three")
                await served.until(lambda: other.heard)
                assert (protocol.heard, other.heard) == ([b"one", ("rebound", b"two")], [b"three"])

        run(test)

    @pytest.mark.parametrize("ends", [False, True])
    def test_a_connection_paused_as_it_is_made_gets_nothing(self, run: Any, ends: bool) -> None:
        class Paused(Noting):
            def connectionMade(self) -> None:
                self.transport.pauseProducing()  # type: ignore[union-attr]
                super().connectionMade()

        async def test(reactor: Any) -> None:
            async with Served(reactor, Paused()) as served:
                protocol = served.protocol
                served.socket.sendall(b"x" * 100_000)
                if ends:
                    served.socket.shutdown(socket.SHUT_WR)
                await served.turns()
                assert protocol.heard == [] and not protocol.lost.called
                protocol.transport.resumeProducing()
                protocol.transport.pauseProducing()
                await served.turns()
                assert protocol.heard == []
                protocol.transport.resumeProducing()
                await served.until(lambda: sum(map(len, protocol.heard)) == 100_000)
                if ends:
                    assert isinstance(await protocol.lost, ConnectionDone)

        run(test)

    def test_a_call_without_delay_is_made_before_the_next_reading(self, run: Any) -> None:
        class Delaying(Noting):
            def connectionMade(self) -> None:
                run.reactor.callLater(0, self.heard.append, "later")
                super().connectionMade()

        async def test(reactor: Any) -> None:
            served = Served(reactor, Delaying())
            # The data arrives before the reactor accepts the connection.
            served.socket.sendall(b"data")
            async with served:
                await served.until(lambda: len(served.protocol.heard) == 2)
            assert served.protocol.heard == ["later", b"data"]

        run(test)

    def test_a_paused_connection_does_not_report_the_peers_end(self, run: Any) -> None:
        class Paused(Noting):
            def connectionMade(self) -> None:
                self.transport.pauseProducing()  # type: ignore[union-attr]
                super().connectionMade()

        async def test(reactor: Any) -> None:
            async with Served(reactor, Paused()) as served:
                served.socket.shutdown(socket.SHUT_WR)
                await served.turns()
                assert not served.protocol.lost.called
                served.protocol.transport.resumeProducing()
                assert isinstance(await served.protocol.lost, ConnectionDone)

        run(test)

    def test_a_half_close_of_the_peer_is_reported(self, run: Any) -> None:
        @implementer(IHalfCloseableProtocol)
        class HalfCloseable(Noting):
            def readConnectionLost(self) -> None:
                self.heard.append("end")

            def writeConnectionLost(self) -> None:
                self.heard.append("ended")

        async def test(reactor: Any) -> None:
            async with Served(reactor, HalfCloseable()) as served:
                protocol = served.protocol
                served.socket.sendall(b"last")
                served.socket.shutdown(socket.SHUT_WR)
                await served.until(lambda: len(protocol.heard) == 2)
                # libuv would report an error if the transport resumed reading after the end of the stream.
                protocol.transport.pauseProducing()
                protocol.transport.resumeProducing()
                await served.turns()
                protocol.transport.write(b"x" * 1_000_000)
                protocol.transport.loseWriteConnection()
                assert protocol.heard == [b"last", "end"]
                protocol.transport.write(b"y")
                assert await served.recv(1_000_002) == b"x" * 1_000_000 + b"y"
                await served.until(lambda: len(protocol.heard) == 3)
                assert protocol.heard[-1] == "ended" and not protocol.lost.called
                protocol.transport.loseConnection()
                assert isinstance(await protocol.lost, ConnectionDone)

        run(test)


class TestWriting:
    """Writing to a socket."""

    def test_data_written_in_a_chunk_is_sent_together(self, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        class Writing(Noting):
            def dataReceived(self, data: bytes) -> None:
                for part in (b"a", b"b", b"c"):
                    self.transport.write(part)  # type: ignore[union-attr]
                self.transport.writeSequence([b"d", b"e"])  # type: ignore[union-attr]

        async def test(reactor: Any) -> None:
            async with Served(reactor, Writing()) as served:
                given = writes(monkeypatch, served.protocol)
                served.socket.sendall(b"x")
                assert await served.recv(5) == b"abcde"
                assert given == [b"abcde"]
                served.protocol.transport.write(b"at")
                served.protocol.transport.write(b"once")
                assert given == [b"abcde", b"at", b"once"]

        run(test)

    def test_ungathered_writes_keep_their_place(self, run: Any) -> None:
        class Writing(Noting):
            def dataReceived(self, data: bytes) -> None:
                transport: Any = self.transport
                transport.write(b"a")
                write = transport.ungathered().send
                write(b"b")
                transport.write(b"c")
                write(b"d")

        async def test(reactor: Any) -> None:
            async with Served(reactor, Writing()) as served:
                served.socket.sendall(b"x")
                assert await served.recv(4) == b"abcd"

        run(test)

    def test_data_written_after_lose_connection_is_sent(self, run: Any) -> None:
        async def test(reactor: Any) -> None:
            async with Served(reactor, Noting()) as served:
                served.protocol.transport.write(b"a")
                served.protocol.transport.loseConnection()
                served.protocol.transport.write(b"b")
                assert not served.protocol.lost.called
                assert await served.recv(3) == b"ab"
                assert isinstance(await served.protocol.lost, ConnectionDone)

        run(test)

    def test_only_bytes_are_accepted(self, run: Any) -> None:
        async def test(reactor: Any) -> None:
            async with Served(reactor, Noting()) as served:
                for wrong in ("text", bytearray(b"x"), 1):
                    with pytest.raises(TypeError, match=r"^Data must be bytes$"):
                        served.protocol.transport.write(wrong)
                    with pytest.raises(TypeError, match=r"^Data must be bytes$"):
                        served.protocol.transport.writeSequence([b"x", wrong])

        run(test)

    def test_a_push_producer_is_paused_when_much_waits_and_resumed_when_none_does(self, run: Any) -> None:
        @implementer(IPushProducer)
        class Producer:
            def __init__(self, transport: Any) -> None:
                self.transport = transport
                self.calls: list[str] = []
                self.left = 200

            def go_on(self) -> None:
                calls = len(self.calls)
                while self.left and len(self.calls) == calls:
                    self.left -= 1
                    self.transport.write(b"x" * FULL)
                    # uvloop's own count: the transport has no public name for it.
                    waiting.append(self.transport._uv.get_write_buffer_size())
                if not self.left:
                    self.transport.unregisterProducer()

            def pauseProducing(self) -> None:
                self.calls.append("pause")

            def resumeProducing(self) -> None:
                self.calls.append("resume")
                # As in `go_on`.
                waiting_at_resume.append(self.transport._uv.get_write_buffer_size())
                self.go_on()

            def stopProducing(self) -> None:
                self.calls.append("stop")

        waiting: list[int] = []
        waiting_at_resume: list[int] = []

        async def test(reactor: Any) -> None:
            async with Served(reactor, Noting()) as served:
                transport = served.protocol.transport
                producer = Producer(transport)
                transport.registerProducer(producer, True)
                with pytest.raises(RuntimeError, match="Cannot register"):
                    transport.registerProducer(producer, True)
                producer.go_on()
                await served.turns()
                assert producer.calls[-1] == "pause" and producer.left
                transport.loseConnection()
                assert await served.recv(200 * FULL + 1) == b"x" * 200 * FULL
                assert isinstance(await served.protocol.lost, ConnectionDone)
                assert "stop" not in producer.calls
                assert max(waiting) <= 3 * FULL and max(waiting_at_resume) == 0

        run(test)

    def test_the_producer_is_stopped_when_the_connection_is_lost(self, run: Any) -> None:
        class Producer:
            calls: list[str] = []  # noqa: RUF012

            def stopProducing(self) -> None:
                self.calls.append("stop")

        async def test(reactor: Any) -> None:
            async with Served(reactor, Noting()) as served:
                transport = served.protocol.transport
                transport.registerProducer(Producer(), True)
                transport.abortConnection()
                assert isinstance(await served.protocol.lost, ConnectionAborted)
                transport.registerProducer(Producer(), True)
                transport.unregisterProducer()
                transport.write(b"nobody reads this")
                transport.loseConnection()
                transport.abortConnection()
                assert Producer.calls == ["stop", "stop"]

        run(test)


class TestEnd:
    """The end of a connection."""

    def test_a_reset_logs_no_error(self, run: Any) -> None:
        async def test(reactor: Any) -> None:
            async with Served(reactor, Noting()) as served:
                served.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                served.socket.close()
                assert isinstance(await served.protocol.lost, ConnectionLost)

        run(test)

    def test_abort_connection_resets_the_connection(self, run: Any) -> None:
        async def test(reactor: Any) -> None:
            async with Served(reactor, Noting()) as served:
                served.protocol.transport.abortConnection()
                assert not served.protocol.lost.called
                assert isinstance(await served.protocol.lost, ConnectionAborted)
                with pytest.raises(ConnectionResetError):
                    await served.recv(1)

        run(test)

    @pytest.mark.parametrize(
        "error", [OSError(errno.ECONNRESET, "of the application"), ZeroDivisionError(), SystemExit(1)]
    )
    @pytest.mark.parametrize("callback", ["connectionMade", "dataReceived"])
    def test_an_applications_error_is_logged_and_closes_the_connection(
        self, run: Any, logged: Any, error: BaseException, callback: str
    ) -> None:
        class Failing(Noting):
            pass

        def fail(self: Any, *arguments: Any) -> None:
            if not self.made.called:
                Noting.connectionMade(self)
            raise error

        setattr(Failing, callback, fail)
        events: list[Any] = []

        async def test(reactor: Any) -> None:
            async with Served(reactor, Failing()) as served:
                served.socket.sendall(b"x")
                assert await served.protocol.lost is error
                assert await served.recv(1) == b""

        log.addObserver(as_observer(events.append))
        try:
            run(test)
        finally:
            log.removeObserver(as_observer(events.append))
        systems = [event["system"] for event in events if event["isError"]]
        if callback == "dataReceived":
            assert systems == ["Failing,0,127.0.0.1"]
        assert logged(type(error)) == [error]

    def test_a_log_line_in_a_callback_has_the_prefix_of_the_connection(self, run: Any) -> None:
        class Logging(Noting):
            def dataReceived(self, data: bytes) -> None:
                log.msg("got some")

            def connectionLost(self, reason: Any = None) -> None:
                log.msg("lost it")
                super().connectionLost(reason)

        events: list[Any] = []

        async def test(reactor: Any) -> None:
            async with Served(reactor, Logging()) as served:
                served.socket.sendall(b"x")
                served.socket.shutdown(socket.SHUT_WR)
                await served.protocol.lost
                await served.turns()
                log.msg("after that")

        log.addObserver(as_observer(events.append))
        try:
            run(test)
        finally:
            log.removeObserver(as_observer(events.append))
        noted = {event["message"]: event["system"] for event in events if event["message"]}
        assert noted[("got some",)] == noted[("lost it",)] == "Logging,0,127.0.0.1"
        assert noted[("after that",)] == "-"

    def test_a_closed_duplicate_of_the_handle_does_not_end_the_connection(self, run: Any) -> None:
        async def test(reactor: Any) -> None:
            async with Served(reactor, Noting()) as served:
                transport = served.protocol.transport
                duplicate = transport.getHandle().dup()
                assert transport.fileno() == transport.socket.fileno() != -1
                transport.socket.close()
                assert transport.fileno() == -1
                await served.turns()
                assert not served.protocol.lost.called
                duplicate.sendall(b"goes on")
                assert await served.recv(7) == b"goes on"
                duplicate.close()
                transport.write(b"x")
                transport.loseConnection()

        run(test)

    def test_stopping_the_reactor_ends_connections(self, run: Any) -> None:
        served: list[Served] = []

        async def test(reactor: Any) -> None:
            served.append(Served(reactor, Noting()))
            await served[0].protocol.made

        run(test)
        lost = served[0].protocol.lost
        run.stop()
        assert isinstance(lost.result, ConnectionLost)
        assert served[0].socket.recv(1) == b""
        served[0].socket.close()
        run.stop = lambda: None


class TestOptions:
    """Socket options."""

    def test_the_options_of_tcp_can_be_set(self, run: Any) -> None:
        async def test(reactor: Any) -> None:
            async with Served(reactor, Noting()) as served:
                transport = served.protocol.transport
                assert isinstance(transport, NativeConnection)
                assert transport.getTcpNoDelay() is True
                for enabled in (False, True):
                    transport.setTcpNoDelay(enabled)
                    assert transport.getTcpNoDelay() is enabled
                    transport.setTcpKeepAlive(enabled)
                    assert transport.getTcpKeepAlive() is enabled
                handle = transport.getHandle()
                handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
                transport.setTcpNoDelay(True)
                assert transport.getTcpNoDelay() is True

        run(test)
