"""The handshake on the compiled record path takes the same steps as Twisted's own; each test runs on both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHandshakeListener
from zope.interface import implementer

from .test_records import FORGED, VERSIONS, Application, Context, End

pytestmark = pytest.mark.usefixtures("compiled_path")


@implementer(IHandshakeListener)
class Listening(Application):
    """Records the events of its connection, and calls ``completed`` at the end of the handshake."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []
        self.completed: Any = lambda: None

    def handshakeCompleted(self) -> None:
        self.events.append("handshake")
        self.completed()

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)


class Meeting:
    """A client on Twisted's own path, and a server on the path of the test."""

    def __init__(
        self, compiled: bool, version: int = SSL.TLS1_3_VERSION, prepare: Callable[[SSL.Context], None] | None = None
    ) -> None:
        context = Context(version)
        if prepare is not None:
            prepare(context.context)
        self.server, self.client = End(context, False), End(Context(version), True)
        self.application = Listening()
        self.server.tls.wrappedProtocol = self.application
        if compiled:
            assert self.server.attach() is not None

    def step(self) -> None:
        """Carry what the client wrote to the server, byte by byte, and the answer back."""
        for byte in self.client.written():
            self.server.tls.dataReceived(bytes([byte]))
        answer = self.server.written()
        if answer:
            self.client.tls.dataReceived(answer)

    def complete(self) -> None:
        for _ in range(3):
            self.step()


def hello_with_alpn() -> bytes:
    """Return the first bytes of a client that offers a protocol."""
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD))
    client.set_connect_state()
    client.set_alpn_protos([b"http/1.1"])
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    return client.bio_read(1 << 14)


@pytest.fixture(params=[True, False], ids=["compiled", "twisted"])
def compiled(request: pytest.FixtureRequest) -> bool:
    """Whether the server is on the compiled path."""
    return bool(request.param)


class TestSteps:
    """RFC 8446 §2: the handshake before data."""

    @VERSIONS
    def test_the_end_of_the_handshake_is_reported_once_and_before_data(self, compiled: bool, version: int) -> None:
        meeting = Meeting(compiled, version)
        meeting.client.tls.write(b"early")
        meeting.complete()
        assert meeting.application.events == ["handshake", b"early"]

    @VERSIONS
    def test_writes_before_the_end_of_the_handshake_leave_after_it(self, compiled: bool, version: int) -> None:
        meeting = Meeting(compiled, version)
        meeting.server.tls.write(b"first ")
        meeting.application.completed = lambda: meeting.server.tls.write(b"second")
        meeting.complete()
        assert bytes(meeting.client.application.received) == b"first second"

    def test_an_abort_at_the_end_of_the_handshake_delivers_no_data(self, compiled: bool) -> None:
        meeting = Meeting(compiled)
        meeting.client.tls.write(b"early")
        meeting.application.completed = meeting.server.tls.abortConnection
        meeting.complete()
        assert meeting.application.events == ["handshake"]
        assert meeting.server.below.aborting

    def test_data_behind_the_handshake_in_one_chunk_is_delivered(self, compiled: bool) -> None:
        meeting = Meeting(compiled)
        meeting.step()
        meeting.client.tls.write(b"x" * 100_000)
        meeting.server.tls.dataReceived(meeting.client.written())
        assert meeting.application.events[0] == "handshake"
        assert sum(map(len, meeting.application.events[1:])) == 100_000


class TestFailures:
    """RFC 8446 §6.2: alerts."""

    @pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", FORGED])
    def test_what_is_no_handshake_ends_the_connection_with_an_error(self, compiled: bool, junk: bytes) -> None:
        meeting = Meeting(compiled)
        meeting.server.tls.dataReceived(junk)
        assert meeting.server.below.disconnecting
        assert not meeting.application.events
        meeting.server.lose(ConnectionLost())
        assert type(meeting.application.reason) is SSL.Error

    def test_an_error_of_a_callback_reaches_the_transport(self, compiled: bool) -> None:
        def choose(connection: SSL.Connection, protocols: list[bytes]) -> bytes:
            raise ZeroDivisionError

        meeting = Meeting(compiled, prepare=lambda context: context.set_alpn_select_callback(choose))
        with pytest.raises(ZeroDivisionError):
            meeting.server.tls.dataReceived(hello_with_alpn())
        assert not meeting.application.events

    def test_an_abort_in_a_callback_ends_the_handshake(self, compiled: bool) -> None:
        def abort(connection: SSL.Connection) -> None:
            meeting.server.tls.abortConnection()

        meeting = Meeting(compiled, prepare=lambda context: context.set_tlsext_servername_callback(abort))
        meeting.step()
        assert meeting.server.below.aborting
        assert not meeting.application.events

    def test_a_connection_lost_in_a_callback_leaves_no_error_to_the_other_connections(self, compiled: bool) -> None:
        def choose(connection: SSL.Connection, protocols: list[bytes]) -> bytes:
            meeting.server.lose(ConnectionLost())
            raise ZeroDivisionError

        meeting = Meeting(compiled, prepare=lambda context: context.set_alpn_select_callback(choose))
        with pytest.raises(ZeroDivisionError):
            meeting.server.tls.dataReceived(hello_with_alpn())
        # pyOpenSSL has no public function for it.
        assert SSL._lib.ERR_peek_error() == 0  # type: ignore[attr-defined]
