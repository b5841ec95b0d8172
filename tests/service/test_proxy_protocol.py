"""The PROXY protocol before an endpoint."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from twisted_beastws import Limits, Request, Response, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.service.proxy_protocol import (
    MAX_HEADER,
    MAX_LINE,
    SIGNATURE,
    BadHeader,
    ProxyProtocolFactory,
    read_header,
)

PROXY = IPv4Address("TCP", "10.0.0.1", 4711)
GET = b"GET /peer HTTP/1.1\r\nHost: h\r\n\r\n"
LINE = b"PROXY TCP4 192.0.2.1 10.0.0.2 56324 443\r\n"
# An IPv4 address, in version 2.
BINARY = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes((192, 0, 2, 1)) + bytes((10, 0, 0, 2)) + b"\xdc\x04" + b"\x01\xbb"
)


def binary(command: int, kind: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body)) + body


def tcp(version: int, host: str, port: int) -> Any:
    return (IPv4Address if version == 4 else IPv6Address)("TCP", host, port)


class TestHeaders:
    """The header, as HAProxy's specification of the PROXY protocol defines it."""

    @pytest.mark.parametrize(
        ("header", "source", "destination"),
        [
            (LINE, tcp(4, "192.0.2.1", 56324), tcp(4, "10.0.0.2", 443)),
            (
                b"PROXY TCP6 2001:DB8::1 ::1 1 65535\r\n",
                tcp(6, "2001:db8::1", 1),
                tcp(6, "::1", 65535),
            ),
            (b"PROXY UNKNOWN\r\n", None, None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None, None),
            (b"PROXY UNKNOWN whatever \x1b[2J\r\n", None, None),
            (BINARY, tcp(4, "192.0.2.1", 56324), tcp(4, "10.0.0.2", 443)),
            (
                binary(0x21, 0x21, bytes(15) + b"\1" + bytes(15) + b"\2" + b"\0\1\0\2" + b"\x03\0\4TLV!"),
                tcp(6, "::1", 1),
                tcp(6, "::2", 2),
            ),
            # LOCAL: a health check; UNSPEC; UDP; a UNIX socket.
            (binary(0x20, 0, b""), None, None),
            (binary(0x20, 0x11, BINARY[16:]), None, None),
            (binary(0x21, 0, b"any"), None, None),
            (binary(0x21, 0x12, BINARY[16:]), None, None),
            (binary(0x21, 0x31, b"/run/\x1b[2J\n".ljust(216, b"\0")), UNIXAddress(None), None),
        ],
    )
    def test_headers_of_both_versions_are_read(self, header: bytes, source: Any, destination: Any) -> None:
        assert read_header(header + b"more") == (source, destination, len(header))
        for size in range(1, len(header)):
            assert read_header(header[:size]) is None

    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01",
            b"PROXY\r\n",
            b"PROXY TCP4\r\n",
            b"PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \xd9\xa1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.256 1 2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3.4\x1b[2J 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 1.2.3.4\n2026 1.2.3.4 1 2\r\n",
            b"PROXY TCP4 \xff 1.2.3.4 1 2\r\n",
            b"PROXY UNKNOWN\n\r\n",
            b"PROXY " + b"x" * MAX_LINE,
            binary(0x11, 0x11, BINARY[16:]),
            binary(0x22, 0x11, BINARY[16:]),
            binary(0x21, 0x41, BINARY[16:]),
            binary(0x21, 0x13, BINARY[16:]),
            binary(0x21, 0x11, BINARY[16:-1]),
            binary(0x21, 0x21, bytes(35)),
        ],
    )
    def test_a_bad_header_is_refused(self, data: bytes) -> None:
        with pytest.raises(BadHeader):
            read_header(data)

    @pytest.mark.parametrize(("size", "good"), [(MAX_LINE - 1, True), (MAX_LINE, True), (MAX_LINE + 1, False)])
    def test_a_line_has_a_limit(self, size: int, good: bool) -> None:
        line = b"PROXY UNKNOWN ".ljust(size - 2, b"x") + b"\r\n"
        if good:
            assert read_header(line) == (None, None, size)
        else:
            with pytest.raises(BadHeader):
                read_header(line)

    @pytest.mark.parametrize(("size", "good"), [(MAX_HEADER - 1, True), (MAX_HEADER, True), (MAX_HEADER + 1, False)])
    def test_a_binary_header_has_a_limit(self, size: int, good: bool) -> None:
        header = binary(0x20, 0, bytes(size - 16))
        if good:
            assert read_header(header) == (None, None, size)
        else:
            with pytest.raises(BadHeader):
                read_header(header[:16])

    @given(st.sampled_from([b"PROXY ", SIGNATURE, b""]), st.binary(max_size=300))
    def test_any_bytes_are_parsed_or_refused(self, start: bytes, data: bytes) -> None:
        try:
            header = read_header(start + data)
        except BadHeader:
            return
        assert header is None or header.size <= len(start + data)


class Told(WebSocketProtocol):
    def http_requested(self, request: Request) -> Response | None:
        return Response(200, body=f"{self.peer}") if request.path == "/peer" else None


class Transport(StringTransport):
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Endpoint:
    def __init__(self, clock: Clock, **limits: Any) -> None:
        self.factory = WebSocketServerFactory(Told, clock=clock, limits=Limits(**limits))
        self._wrapping: Any = ProxyProtocolFactory(self.factory)  # type: ignore[no-untyped-call]

    def connect(self) -> tuple[Any, Transport]:
        protocol, transport = self._wrapping.buildProtocol(PROXY), Transport(peerAddress=PROXY)
        protocol.makeConnection(transport)
        return protocol, transport


@pytest.fixture
def serve(clock: Clock, logged: Any) -> Callable[..., Endpoint]:
    return lambda **limits: Endpoint(clock, **limits)


class TestConnections:
    """Connections behind an endpoint with the PROXY protocol."""

    @pytest.mark.parametrize(
        ("header", "peer"),
        [
            (LINE, tcp(4, "192.0.2.1", 56324)),
            (BINARY, tcp(4, "192.0.2.1", 56324)),
            (b"PROXY UNKNOWN\r\n", PROXY),
            (binary(0x20, 0, b""), PROXY),
        ],
    )
    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_connections_have_the_clients_address(self, serve: Any, header: bytes, peer: object, size: int) -> None:
        protocol, transport = serve().connect()
        data = header + GET
        for at in range(0, len(data), size):
            protocol.dataReceived(data[at : at + size])
        assert transport.value().endswith(f"\r\n\r\n{peer}".encode())

    def test_a_connection_without_a_header_is_dropped(self, serve: Any) -> None:
        protocol, transport = serve().connect()
        protocol.dataReceived(GET)
        assert transport.aborted and transport.value() == b""

    def test_connections_are_limited_by_client_before_their_requests(self, serve: Any) -> None:
        endpoint = serve(max_opening_per_peer=2)
        connected = [endpoint.connect() for _ in range(5)]
        assert not any(transport.aborted for _, transport in connected)
        for protocol, _ in connected[:3]:
            protocol.dataReceived(LINE)
        assert [transport.aborted for _, transport in connected] == [True, False, False, False, False]
        connected[3][0].dataReceived(LINE.replace(b".1 ", b".9 "))
        assert [transport.aborted for _, transport in connected] == [True, False, False, False, False]

    def test_connections_without_a_client_address_do_not_count_as_one_client(self, serve: Any) -> None:
        endpoint = serve(max_opening_per_peer=1)
        connected = [endpoint.connect() for _ in range(3)]
        for protocol, _ in connected:
            protocol.dataReceived(b"PROXY UNKNOWN\r\n")
        assert not any(transport.aborted for _, transport in connected)
