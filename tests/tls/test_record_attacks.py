"""Attacks on the compiled record path: forged records among true ones, aborts, data of other types."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone

from .test_records import FORGED, Pair

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


class TestForgedRecordBehindTrueOne:
    """RFC 8446 §5.2: the forged record ends the connection, and concerns no other."""

    def test_the_application_meets_no_error_of_the_record_behind(self) -> None:
        pair, chunk = forged_behind(b"true")
        queued: list[bool] = []
        pair.server.application.then = lambda data: queued.append(error_queued())
        pair.server.tls.dataReceived(chunk)
        assert queued == [False] and not error_queued()

    def test_it_ends_the_connection_as_without_data_before_it(self) -> None:
        reasons = []
        for data in (b"", b"true"):
            pair, chunk = forged_behind(data)
            pair.server.tls.dataReceived(chunk)
            # An alert has left.
            assert pair.server.written() and pair.server.below.disconnecting
            pair.server.lose(ConnectionDone())
            assert pair.server.application.received == data
            reasons.append((type(pair.server.application.reason), pair.server.application.reason.args))
        assert reasons[0] == reasons[1]
        assert reasons[0][0] is SSL.Error

    def test_no_error_stays_behind_where_the_application_fails(self) -> None:
        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        pair, chunk = forged_behind(b"true")
        pair.server.application.then = fail
        with pytest.raises(ZeroDivisionError):
            pair.server.tls.dataReceived(chunk)
        assert not error_queued()

    def test_an_application_that_aborts_is_not_hindered(self) -> None:
        pair, chunk = forged_behind(b"true")
        pair.server.application.then = lambda data: pair.server.tls.abortConnection()
        pair.server.tls.dataReceived(chunk)
        assert pair.server.below.aborting and pair.server.written() == b""


class TestAbort:
    """RFC 8446 §6.1: a close_notify says that the data is complete."""

    def test_an_abort_writes_nothing(self) -> None:
        pair = Pair()
        pair.exchange()
        pair.server.tls.abortConnection()
        assert pair.server.written() == b"" and pair.server.below.aborting


class Bytes(bytes):
    """A subclass, such as those of numpy."""


class TestOtherTypes:
    """Twisted's own TLS takes any object with bytes in it."""

    @pytest.mark.parametrize("kind", [bytearray, Bytes])
    @pytest.mark.parametrize("at_once", [False, True], ids=["gathered", "at once"])
    def test_what_twisted_writes_and_reads_is_taken(self, kind: Any, at_once: bool) -> None:
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
