"""Attacks on the compiled record path: forged records among true ones, aborts, data of other types."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import closing
from typing import Any

import pytest

# `cryptography` has no public name for the functions of OpenSSL that an attacker needs.
from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone

from twisted_beastws.wire.codec import clear_send

from ..support.patience import PATIENCE
from .test_records import FORGED, Context, End, Pair, Socket, Waiting

pytestmark = pytest.mark.usefixtures("compiled_path")


def error_queued() -> bool:
    """Whether OpenSSL's queue of errors, which all connections of a thread share, has one."""
    return bool(_openssl.lib.ERR_peek_error())


def forged_behind(data: bytes) -> tuple[Pair, bytes]:
    """A pair, and a chunk for its server: a true record, and a forged one."""
    pair = Pair()
    pair.exchange()
    pair.client.tls.write(data)
    return pair, pair.client.written() + FORGED


class TestForgedRecordAfterTrueOne:
    """RFC 8446 §5.2: a forged record after a true one ends its connection, and no other."""

    def test_the_application_sees_no_error_of_the_forged_record(self) -> None:
        pair, chunk = forged_behind(b"true")
        queued: list[bool] = []
        pair.server.application.then = lambda data: queued.append(error_queued())
        pair.server.tls.dataReceived(chunk)
        assert queued == [False] and not error_queued()

    def test_a_forged_record_ends_the_connection_with_or_without_data_before_it(self) -> None:
        reasons = []
        for data in (b"", b"true"):
            pair, chunk = forged_behind(data)
            pair.server.tls.dataReceived(chunk)
            # An alert has left.
            assert pair.server.written() and pair.server.below.disconnecting
            pair.server.lose(ConnectionDone())
            assert bytes(pair.server.application.received) == data
            reasons.append((type(pair.server.application.reason), pair.server.application.reason.args))
        assert reasons[0] == reasons[1]
        assert reasons[0][0] is SSL.Error

    def test_no_error_is_left_in_openssls_queue_if_the_application_fails(self) -> None:
        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        pair, chunk = forged_behind(b"true")
        pair.server.application.then = fail
        with pytest.raises(ZeroDivisionError):
            pair.server.tls.dataReceived(chunk)
        assert not error_queued()

    def test_an_application_can_abort_at_a_forged_record(self) -> None:
        pair, chunk = forged_behind(b"true")
        pair.server.application.then = lambda data: pair.server.tls.abortConnection()
        pair.server.tls.dataReceived(chunk)
        assert pair.server.below.aborting and pair.server.written() == b""


class TestAbort:
    """RFC 8446 §6.1: without a close_notify the peer must take the data as truncated."""

    def test_an_abort_writes_nothing(self) -> None:
        pair = Pair()
        pair.exchange()
        pair.server.tls.abortConnection()
        assert pair.server.written() == b"" and pair.server.below.aborting


class Bytes(bytes):
    """A subclass, such as those of numpy."""


class TestOtherTypes:
    """Data of other types than bytes, which Twisted's own TLS accepts."""

    @pytest.mark.parametrize("kind", [bytearray, Bytes])
    @pytest.mark.parametrize("at_once", [False, True], ids=["gathered", "at once"])
    def test_data_of_twisteds_types_is_accepted(self, kind: Any, at_once: bool) -> None:
        pair = Pair()
        pair.exchange()
        if at_once:
            pair.server.records.write_at_once(pair.server.tls)
        pair.server.tls.write(kind(b"out"))
        pair.client.tls.write(b"in")
        pair.server.tls.dataReceived(kind(pair.client.written()))
        pair.exchange()
        assert pair.client.application.received == b"out" and pair.server.application.received == b"in"

    @pytest.mark.parametrize("data", ["text", 5, None])
    def test_no_other_type_is_written(self, data: Any) -> None:
        pair = Pair()
        pair.exchange()
        pair.server.records.write_at_once(pair.server.tls)
        with pytest.raises(TypeError):
            pair.server.tls.write(data)
        pair.exchange()
        assert pair.client.application.received == b""


MOST_ANSWERS = 1 << 16
"""Bytes that TLS itself writes to a peer that does not read: 64 KiB."""


def key_updates(server: End) -> list[bytes]:
    """Connect OpenSSL's client to a server, and return chunks of it: each asks for a key update (RFC 8446 §4.6.3)."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("KEY UPDATES ARE NOT TESTED: apt-get install openssl")
    with closing(socket.create_server(("127.0.0.1", 0))) as port:
        port.settimeout(PATIENCE)
        command = [openssl, "s_client", "-connect", f"127.0.0.1:{port.getsockname()[1]}", "-tls1_3"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, stdin=subprocess.PIPE, **quiet) as peer:  # type: ignore[call-overload]
            try:
                connection, _ = port.accept()
                with connection:
                    return _updates_of(peer, connection, server)
            finally:
                peer.kill()


def _updates_of(peer: Any, connection: socket.socket, server: End) -> list[bytes]:
    connection.settimeout(PATIENCE)
    # Twisted has no public name for this.
    while not server.tls._handshakeDone:
        server.tls.dataReceived(connection.recv(1 << 16))
        connection.sendall(server.written())
    chunks = []
    for _ in range(MOST_ANSWERS // 27 + 2):
        # It takes what it reads at once for one command.
        peer.stdin.write(b"K\n")
        peer.stdin.flush()
        chunks.append(connection.recv(1 << 16))
    return chunks


class TestKeyUpdates:
    """RFC 8446 §4.6.3: each key update request must be answered, and a peer can send many without reading."""

    def stalled(self) -> tuple[End, Waiting, Socket, list[bytes]]:
        """A server whose socket takes nothing, and what its peer sends."""
        server = End(Context(SSL.TLS1_3_VERSION), False)
        server.attach()
        chunks = key_updates(server)
        below = server.below = server.tls.transport = Waiting()
        limited = Socket(below)
        limited.room = 0
        server.records.sender(clear_send(below, limited), lambda: bool(below.waiting), None)
        return server, below, limited, chunks

    def test_answers_to_a_peer_that_does_not_read_are_bounded(self) -> None:
        server, below, _, chunks = self.stalled()
        for chunk in chunks:
            server.tls.dataReceived(chunk)
            if below.aborting:
                break
            assert len(below.waiting) <= MOST_ANSWERS
        # The answer that was too much is there already.
        assert below.aborting and MOST_ANSWERS < len(below.waiting) <= MOST_ANSWERS + 27

    def test_a_peer_that_reads_now_and_then_may_ask_without_limit(self) -> None:
        server, below, limited, chunks = self.stalled()
        for at, chunk in enumerate(chunks):
            if at == len(chunks) // 2:
                below.drain()
                limited.room = 27
            server.tls.dataReceived(chunk)
        assert not below.aborting and len(below.waiting) > 27


class TestTLSBelow:
    """An application may start TLS on the connection below that of `Records`, as on any connection."""

    def test_records_go_through_tls_that_is_started_below(self) -> None:
        pair = Pair()
        pair.exchange()
        below = pair.server.below = pair.server.tls.transport = Waiting()
        limited = Socket(below)
        send = pair.server.records.sender(clear_send(below, limited), lambda: bool(below.waiting), None)
        send(b"before")
        assert below.value() and not below.waiting
        below.clear()
        below.TLS = True
        send(b"after")
        assert below.waiting and not below.value()
