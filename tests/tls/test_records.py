"""Tests of the compiled record path in memory; the other end uses Twisted's own TLS."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IOpenSSLContextFactory, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.tls import records
from twisted_beastws.tls.records import attach
from twisted_beastws.wire.codec import clear_send

from ..support.certificates import identity, trusting
from ..support.log import as_observer

compiled = pytest.mark.usefixtures("compiled_path")


class Below(StringTransport):
    """The transport below TLS, which buffers writes until `End.written` takes them."""

    TLS = False
    aborting = False

    def abortConnection(self) -> None:
        self.aborting = self.disconnecting = True


class Application(Protocol):
    """Records received data, and calls ``then`` with each chunk."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.chunks: list[int] = []
        self.reason: Any = None
        self.then: Callable[[bytes], object] = bytes

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.chunks.append(len(data))
        self.then(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        assert reason is not None
        self.reason = reason.value


@implementer(IOpenSSLContextFactory)
class Context:
    """A TLS context with the shared certificate and a single TLS version."""

    def __init__(self, version: int) -> None:
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.set_min_proto_version(version)
        self.context.set_max_proto_version(version)
        self.context.use_certificate(identity().original)
        self.context.use_privatekey(identity().privateKey.original)

    def getContext(self) -> SSL.Context:
        return self.context


class End:
    """One end of TLS in memory."""

    def __init__(self, options: Any, client: bool, kind: Any = None) -> None:
        self.clock = Clock()
        factory = TLSMemoryBIOFactory(options, client, Factory.forProtocol(Application), self.clock)
        if kind is not None:
            factory.protocol = kind
        self.tls: Any = factory.buildProtocol(None)
        application: Any = self.tls.wrappedProtocol
        self.application: Application = application
        self.below: Any = Below()
        self.tls.makeConnection(self.below)
        self.records: Any = None

    def attach(self) -> Any:
        self.records = attach(self.tls)
        return self.records

    def written(self) -> bytes:
        """Return the pending output, including output of the next reactor turn."""
        self.clock.advance(0)
        written: bytes = self.below.value()
        self.below.clear()
        return written

    def lose(self, reason: Exception) -> None:
        self.tls.connectionLost(Failure(reason))


class Pair:
    """A server on the compiled path, and a client on Twisted's path."""

    def __init__(self, version: int = SSL.TLS1_3_VERSION, random: Random | None = None) -> None:
        self.random = random
        self.server, self.client = End(Context(version), False), End(Context(version), True)
        assert self.server.attach() is not None

    def exchange(self) -> None:
        """Carry bytes both ways until neither end writes any more."""
        while True:
            to_server, to_client = self.client.written(), self.server.written()
            if not to_server and not to_client:
                return
            for end, data in ((self.server, to_server), (self.client, to_client)):
                for chunk in self.chunks(data):
                    end.tls.dataReceived(chunk)

    def chunks(self, data: bytes) -> list[bytes]:
        if self.random is None or not data:
            return [data] if data else []
        cuts = sorted(self.random.randrange(len(data)) for _ in range(self.random.randrange(12)))
        return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if begin < end]


FORGED = b"\x17\x03\x03\0\x20" + bytes(32)
"""A record that was not encrypted with the connection's key."""

VERSIONS = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["1.2", "1.3"])


@compiled
class TestData:
    """RFC 8446 §5: data in records."""

    @VERSIONS
    @pytest.mark.parametrize("seed", range(8))
    def test_any_chunking_of_any_writes_arrives_whole_and_in_order(self, version: int, seed: int) -> None:
        random = Random(seed)
        pair = Pair(version, random)
        expected = {"server": b"", "client": b""}
        for _ in range(40):
            # Until the first exchange the client writes before its handshake is complete.
            for name, end in (("client", pair.client), ("server", pair.server)):
                for _ in range(random.randrange(4)):
                    data = random.randbytes(random.choice((0, 1, 100, 5000, 16384, 16385, 70_000)))
                    end.tls.write(data)
                    expected[name] += data
            if random.random() < 0.7:
                pair.exchange()
        pair.exchange()
        assert bytes(pair.server.application.received) == expected["client"]
        assert bytes(pair.client.application.received) == expected["server"]

    def test_a_chunk_of_many_records_is_delivered_in_few_pieces(self) -> None:
        pair = Pair()
        pair.exchange()
        for _ in range(1000):
            pair.client.tls.write(b"x" * 100)
            pair.client.clock.advance(0)
        chunk = pair.client.written()
        pair.server.tls.dataReceived(chunk)
        assert sum(pair.server.application.chunks) == 100_000
        assert len(pair.server.application.chunks) <= len(chunk) // (1 << 16) + 1

    def test_a_write_becomes_as_few_records_as_it_can(self) -> None:
        pair = Pair()
        pair.exchange()
        pair.server.records.write(bytes(1 << 20))
        data, sizes = pair.server.written(), []
        while data:
            size = int.from_bytes(data[3:5], "big")
            sizes.append(size)
            data = data[5 + size :]
        # RFC 8446 §5.2: a record has the content, one byte for its type, and the 16 bytes of AES-GCM's tag.
        assert sizes == [16384 + 17] * 64

    def test_a_chunk_that_comes_while_another_is_delivered_waits_for_it(self) -> None:
        pair = Pair()
        pair.exchange()
        pair.client.tls.write(b"first")
        first = pair.client.written()
        pair.client.tls.write(b"second")
        second = pair.client.written()
        application = pair.server.application

        def again(data: bytes) -> None:
            application.then = bytes
            pair.server.tls.dataReceived(second)
            assert application.received == b"first"

        application.then = again
        pair.server.tls.dataReceived(first)
        assert application.received == b"firstsecond"

    def test_answers_are_sent_in_the_order_of_the_writes(self) -> None:
        pair = Pair()
        pair.exchange()
        pair.server.application.then = lambda data: pair.server.tls.write(data.upper())
        pair.client.tls.write(b"hello")
        pair.exchange()
        assert pair.client.application.received == b"HELLO"

    def test_an_error_of_the_application_reaches_the_transport(self) -> None:
        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        pair = Pair()
        pair.exchange()
        pair.server.application.then = fail
        pair.client.tls.write(b"hello")
        with pytest.raises(ZeroDivisionError):
            pair.server.tls.dataReceived(pair.client.written())

    @pytest.mark.parametrize("written", [False, True], ids=["idle", "writing"])
    def test_data_is_passed_during_a_renegotiation(self, written: bool) -> None:
        """RFC 5246 §7.4.1.1: either end may begin another TLS 1.2 handshake; until it is done, OpenSSL accepts no
        writes.
        """
        pair = Pair(SSL.TLS1_2_VERSION)
        pair.exchange()
        connection = pair.server.tls.getHandle()
        connection.renegotiate()
        connection.do_handshake()
        pair.server.records.flush()
        if written:
            pair.server.tls.write(b"x" * 40_000)
        pair.client.tls.write(b"meanwhile")
        pair.exchange()
        pair.server.tls.write(b"after")
        pair.exchange()
        assert pair.server.application.received == b"meanwhile"
        assert pair.client.application.received == b"x" * 40_000 * written + b"after"


@compiled
class TestEnd:
    """RFC 8446 §6: the end of TLS."""

    def test_the_peers_close_notify_is_answered_and_ends_the_transport(self) -> None:
        pair = Pair()
        pair.exchange()
        pair.client.tls.loseConnection()
        pair.exchange()
        assert pair.server.below.disconnecting and pair.client.below.disconnecting
        pair.server.lose(ConnectionDone())
        assert type(pair.server.application.reason) is ConnectionDone

    def test_our_close_notify_follows_written_data(self) -> None:
        pair = Pair()
        pair.exchange()
        pair.server.tls.write(b"last words")
        pair.server.tls.loseConnection()
        pair.server.tls.write(b"too late")
        pair.exchange()
        assert pair.client.application.received == b"last words"
        assert pair.server.below.disconnecting and pair.client.below.disconnecting

    def test_data_is_read_after_our_close_notify(self) -> None:
        pair = Pair()
        pair.exchange()
        pair.client.tls.write(b"on its way")
        data = pair.client.written()
        pair.server.tls.loseConnection()
        pair.server.tls.dataReceived(data)
        assert pair.server.application.received == b"on its way"

    def test_a_truncated_stream_is_a_lost_connection(self) -> None:
        pair = Pair()
        pair.exchange()
        pair.server.lose(ConnectionDone())
        assert type(pair.server.application.reason) is ConnectionLost

    @pytest.mark.parametrize(
        "junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\0\x20" + bytes(32)], ids=["text", "record"]
    )
    def test_bytes_that_are_not_tls_end_the_connection_with_an_alert(self, junk: bytes) -> None:
        pair = Pair()
        pair.exchange()
        pair.server.tls.dataReceived(junk)
        alert = pair.server.written()
        assert alert and pair.server.below.disconnecting
        pair.server.lose(ConnectionDone())
        assert type(pair.server.application.reason) is SSL.Error
        assert pair.server.application.received == b""
        pair.server.tls.dataReceived(junk)
        pair.server.tls.write(b"nothing leaves")
        assert pair.server.written() == b""

    def test_an_error_is_reported_as_twisted_reports_it(self) -> None:
        reasons = []
        for own in (False, True):
            pair = Pair()
            pair.exchange()
            end = pair.server if own else pair.client
            end.tls.dataReceived(FORGED)
            end.lose(ConnectionDone())
            reasons.append((type(end.application.reason), end.application.reason.args))
        assert reasons[0] == reasons[1]

    def test_nothing_is_delivered_after_an_abort(self) -> None:
        pair = Pair()
        pair.exchange()
        pair.server.application.then = lambda data: pair.server.tls.abortConnection()
        # The data would arrive in two chunks; the application aborts at the first.
        pair.client.tls.write(b"x" * 200_000)
        pair.server.tls.dataReceived(pair.client.written())
        assert pair.server.below.aborting
        assert len(pair.server.application.chunks) == 1

    def test_a_connection_leaves_no_more_garbage_than_twisteds_own(self) -> None:
        def left(own: bool) -> list[bool]:
            pair = Pair()
            pair.exchange()
            pair.server.records.write(b"x")
            pair.client.tls.loseConnection()
            end = pair.server if own else pair.client
            alive = [weakref.ref(end.tls), weakref.ref(end.tls.getHandle())]
            pair.exchange()
            end.lose(ConnectionDone())
            del pair, end
            return [reference() is not None for reference in alive]

        gc.disable()
        try:
            assert left(own=True) == left(own=False)
        finally:
            gc.enable()


class Socket:
    """A socket with room for ``room`` bytes in its buffer."""

    def __init__(self, below: Below) -> None:
        self.room = 1 << 30
        self.below = below

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        sent = min(self.room, len(data))
        self.room -= sent
        StringTransport.write(self.below, data[:sent])
        return sent


class Waiting(Below):
    """A transport that buffers the data that its socket does not accept, as Twisted's does."""

    producerPaused = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waiting = b""

    def write(self, data: bytes) -> None:
        self.waiting += data

    def drain(self) -> None:
        """Let the socket accept the buffered data."""
        waiting, self.waiting = self.waiting, b""
        StringTransport.write(self, waiting)
        if self.producer is not None and self.producerPaused:
            self.producerPaused = False
            self.producer.resumeProducing()


class Producer:
    paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.paused = True


@compiled
class TestSending:
    """Records that are written directly to a socket."""

    def connected(self) -> tuple[Pair, Any, Socket, Producer]:
        pair = Pair()
        pair.exchange()
        below = pair.server.below = pair.server.tls.transport = Waiting()
        socket, producer = Socket(below), Producer()
        send = pair.server.records.sender(clear_send(below, socket), lambda: bool(below.waiting), below)
        pair.server.tls.registerProducer(producer, True)
        return pair, send, socket, producer

    @pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 16384, 65536, 65537, 300_000])
    def test_all_data_is_sent_while_the_socket_accepts_it(self, size: int) -> None:
        pair, send, _, producer = self.connected()
        message = Random(size).randbytes(size)
        assert send(message) == size
        assert send(memoryview(message)) == size
        assert not producer.paused and pair.server.below.waiting == b""
        pair.exchange()
        assert pair.client.application.received == 2 * message

    def test_the_rest_is_kept_below_and_the_producer_is_paused(self) -> None:
        pair, send, socket, producer = self.connected()
        socket.room = 100
        assert send(b"x" * 1000) == 1000
        assert producer.paused and len(pair.server.below.waiting) == 1022 - 100
        # The socket has room again, but new data must not overtake the buffered data.
        socket.room = 1 << 30
        assert send(b"y") == 1
        pair.server.below.drain()
        assert not producer.paused
        assert send(b"z") == 1
        pair.exchange()
        assert pair.client.application.received == b"x" * 1000 + b"yz"

    def test_a_long_message_is_encrypted_as_far_as_there_is_room(self) -> None:
        pair, send, socket, producer = self.connected()
        socket.room = 100_000
        # It encrypts 64 KiB at a time, so the transport below buffers at most that much.
        assert send(bytes(1 << 20)) == 2 << 16
        assert producer.paused and len(pair.server.below.waiting) < 1 << 16

    def test_a_broken_socket_is_left_to_the_transport(self) -> None:
        pair, send, socket, producer = self.connected()
        socket.room = 0
        assert send(b"x") == 1
        assert producer.paused and len(pair.server.below.waiting) == 23

    def test_the_alert_of_an_abort_does_not_leave(self) -> None:
        """RFC 8446 §6.1: without close_notify the peer sees a truncation, not a regular end."""
        pair, _, _, _ = self.connected()
        pair.server.tls.abortConnection()
        assert pair.server.below.value() == b"" and pair.server.below.aborting

    def test_close_notify_is_sent_after_waiting_data(self) -> None:
        pair, send, socket, _ = self.connected()
        socket.room = 10
        send(b"last words")
        pair.server.tls.unregisterProducer()
        socket.room = 1 << 30
        pair.server.tls.loseConnection()
        pair.server.below.drain()
        pair.exchange()
        assert pair.client.application.received == b"last words"
        assert pair.client.below.disconnecting

    def test_nothing_is_sent_once_tls_ended(self) -> None:
        pair, send, _, _ = self.connected()
        pair.client.tls.loseConnection()
        pair.exchange()
        assert send(b"too late") == 8
        assert pair.server.written() == b""


class TestChoice:
    """Which path serves a connection, and why."""

    def reason(self, end: End) -> str:
        """Try to attach, and return the logged reason why the compiled path does not serve the connection."""
        events: list[Any] = []
        globalLogPublisher.addObserver(as_observer(events.append))
        try:
            assert end.attach() is None
        finally:
            globalLogPublisher.removeObserver(as_observer(events.append))
        (event,) = (each for each in events if each.get("log_namespace") == "twisted_beastws.tls.records")
        assert event["log_level"] is LogLevel.debug
        return str(event["reason"])

    def served_by_twisted(self, end: End, client: End) -> bool:
        client.tls.write(b"hello")
        while (to_end := client.written()) or (to_client := end.written()):
            if to_end:
                end.tls.dataReceived(to_end)
            else:
                client.tls.dataReceived(to_client)
        return end.application.received == b"hello"

    @pytest.mark.parametrize(
        ("variables", "expected"),
        [
            ({}, None),
            ({"TWISTED_BEASTWS_TLS": "compiled"}, None),
            ({"TWISTED_BEASTWS_TLS": ""}, None),
            ({"TWISTED_BEASTWS_PURE": "0"}, None),
            ({"TWISTED_BEASTWS_TLS": "twisted"}, "TWISTED_BEASTWS_TLS is 'twisted'"),
            ({"TWISTED_BEASTWS_PURE": "1"}, "TWISTED_BEASTWS_PURE is set"),
            ({"TWISTED_BEASTWS_PURE": "1", "TWISTED_BEASTWS_TLS": "compiled"}, None),
            ({"TWISTED_BEASTWS_TLS": "yes"}, "TWISTED_BEASTWS_TLS is 'yes': it must be 'compiled' or 'twisted'"),
        ],
    )
    def test_the_path_is_chosen_by_variables(self, variables: dict[str, str], expected: str | None) -> None:
        assert records.chosen_against(variables) == expected

    @compiled
    def test_a_class_with_methods_of_its_own_keeps_them(self) -> None:
        class Counting(BufferingTLSTransport):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)  # type: ignore[no-untyped-call]

        end = End(identity().options(), False, Counting)
        assert self.reason(end) == f"{Counting.__qualname__} has its own dataReceived"

    @compiled
    def test_a_class_with_other_methods_uses_the_compiled_path(self) -> None:
        class Named(BufferingTLSTransport):
            name = "mine"

        assert End(identity().options(), False, Named).attach() is not None
        assert End(identity().options(), False, TLSMemoryBIOProtocol).attach() is not None

    @compiled
    def test_a_method_that_was_replaced_is_kept(self) -> None:
        end = End(identity().options(), False)
        end.tls.dataReceived = end.tls.dataReceived
        assert self.reason(end) == "its dataReceived was replaced"

    @compiled
    def test_a_connection_of_another_class_is_left_alone(self) -> None:
        class Odd(SSL.Connection):
            pass

        @implementer(IOpenSSLServerConnectionCreator)
        class Creator:
            def serverConnectionForTLS(self, protocol: Any) -> Any:
                return Odd(identity().options().getContext(), None)

        assert "Odd, not OpenSSL.SSL.Connection" in self.reason(End(Creator(), False))

    @compiled
    def test_dtls_is_left_alone(self) -> None:
        @implementer(IOpenSSLContextFactory)
        class Options:
            def getContext(self) -> Any:
                return SSL.Context(SSL.DTLS_METHOD)

        assert self.reason(End(Options(), False)) == "the connection is DTLS"

    @compiled
    def test_a_lost_connection_is_left_alone(self) -> None:
        end = End(identity().options(), False)
        end.lose(ConnectionDone())
        assert "NoneType, not OpenSSL.SSL.Connection" in self.reason(end)

    @compiled
    @pytest.mark.parametrize("name", ["_flushReceiveBIO", "_handshakeDone", "_write"])
    def test_a_twisted_without_an_expected_attribute_uses_its_own_tls(
        self, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        class Other:
            pass

        for each in {*records.ATTRIBUTES, *records.METHODS} - {name}:
            setattr(Other, each, None)
        monkeypatch.setattr(records, "TLSMemoryBIOProtocol", Other)
        assert records.lacking() == f"this Twisted's TLSMemoryBIOProtocol has no {name}"

    @compiled
    def test_a_function_with_another_signature_is_not_called(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(records.SIGNATURES, "SSL_read", "long(*)(SSL *, void *, long)")
        assert "SSL_read is int(*)(SSL *, void *, int)" in str(records.lacking())
        monkeypatch.setattr(records, "SIGNATURES", {"SSL_no_such_function": "int(*)()"})
        assert "has no SSL_no_such_function" in str(records.lacking())

    def test_twisteds_own_tls_serves_without_the_compiled_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(records, "unavailable", lambda: "the test says so")
        end, client = End(identity().options(), False), End(trusting(), True)
        assert self.reason(end) == "the test says so"
        assert self.served_by_twisted(end, client)

    @compiled
    def test_a_second_attachment_is_the_first(self) -> None:
        end = End(identity().options(), False)
        assert end.attach() is not None
        assert attach(end.tls) is end.records
