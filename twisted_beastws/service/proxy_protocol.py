"""The PROXY protocol of HAProxy, versions 1 and 2: ``haproxy:`` in an endpoint's description.

Twisted's own reader takes any text for an address, drops a connection if its header is UNKNOWN or comes in two
segments, and holds 64 KiB of header.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.logger import Logger
from twisted.protocols.haproxy._wrapper import HAProxyWrappingFactory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from twisted_beastws.protocol import WebSocketProtocol, connection_of
from twisted_beastws.server.factory import WebSocketServerFactory
from twisted_beastws.server.log_text import host_of
from twisted_beastws.tls.certificates import ReactorProxy

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress

MAX_LINE = 107
"""Bytes of a header of version 1, with its CRLF (the protocol's own limit)."""

MAX_HEADER = 4096
"""Bytes of a header of version 2 (nginx's NGX_PROXY_PROTOCOL_MAX_HEADER)."""

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"

_LINE = re.compile(rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (\d{1,5}) (\d{1,5}))")
_TCP4, _TCP6, _UNIX = 0x11, 0x21, 0x31
_SIZES = {_TCP4: 4, _TCP6: 16}
_FAMILIES, _TRANSPORTS = range(4), range(3)


class BadHeader(ValueError):
    """The bytes are not a header of the PROXY protocol."""


class Header(NamedTuple):
    """A header: the addresses of the client and the server, if it has them, and its size in bytes."""

    source: IAddress | None
    destination: IAddress | None
    size: int


def read_header(data: bytes) -> Header | None:
    """Return the header that ``data`` begins with, or None if more of it must come.

    Raises:
        BadHeader: it begins with none.
    """
    if data[: len(SIGNATURE)] == SIGNATURE[: len(data)]:
        return _read_binary(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _read_line(data)
    raise BadHeader


def _read_line(data: bytes) -> Header | None:
    line, end, _ = data[:MAX_LINE].partition(b"\r\n")
    if not end:
        if len(data) >= MAX_LINE:
            raise BadHeader
        return None
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadHeader
    size = len(line) + 2
    if match[1] is None:
        return Header(None, None, size)
    source, destination = (_address(int(match[1]), match[at].decode(), int(match[at + 2])) for at in (2, 3))
    return Header(source, destination, size)


def _read_binary(data: bytes) -> Header | None:
    if len(data) < 16:
        return None
    version, command = divmod(data[12], 16)
    family, transport = divmod(data[13], 16)
    size = 16 + int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1 or family not in _FAMILIES or transport not in _TRANSPORTS or size > MAX_HEADER:
        raise BadHeader
    if len(data) < size:
        return None
    # LOCAL marks a connection of the proxy itself, such as a health check.
    kind = data[13] if command == 1 else 0
    if kind == _UNIX:
        # The client chooses the name of its socket, so the name proves nothing.
        return Header(UNIXAddress(None), None, size)
    if kind not in _SIZES:
        return Header(None, None, size)
    return Header(*_addresses(data[16:size], _SIZES[kind]), size)


def _addresses(body: bytes, size: int) -> tuple[IAddress, IAddress]:
    if len(body) < 2 * size + 4:
        raise BadHeader
    hosts = (str(ip_address(body[at : at + size])) for at in (0, size))
    ports = (int.from_bytes(body[at : at + 2], "big") for at in (2 * size, 2 * size + 2))
    source, destination = (_address(4 if size == 4 else 6, host, port) for host, port in zip(hosts, ports, strict=True))
    return source, destination


def _address(version: int, host: str, port: int) -> IAddress:
    try:
        address = ip_address(host)
    except ValueError:
        raise BadHeader from None
    if address.version != version or port > 65535:
        raise BadHeader
    kind: Any = IPv4Address if version == 4 else IPv6Address
    return kind("TCP", str(address), port)  # type: ignore[no-any-return]


@implementer(IHalfCloseableProtocol)
class ProxiedProtocol(ProtocolWrapper):
    """Reads the header, and then passes all bytes to the wrapped protocol; its peer is the client."""

    log = Logger()
    transport: Any
    wrappedProtocol: Any
    factory: Any

    def __init__(self, factory: Any, wrappedProtocol: Any) -> None:
        super().__init__(factory, wrappedProtocol)
        self._header: Header | None = None
        self._head = b""

    def dataReceived(self, data: bytes) -> None:
        if self._header is None:
            data = self._read(data)
        if data:
            self.wrappedProtocol.dataReceived(data)

    def _read(self, data: bytes) -> bytes:
        """Return the bytes after the header."""
        self._head += data
        try:
            header = read_header(self._head)
        except BadHeader:
            self._head = b""
            self.log.info(
                "{proxy} did not send the PROXY protocol, and is dropped", proxy=host_of(self.transport.getPeer())
            )
            self.transport.abortConnection()
            return b""
        if header is None:
            return b""
        data, self._head, self._header = self._head[header.size :], b"", header
        self.factory.identify(self.wrappedProtocol, header.source)
        return data

    def readConnectionLost(self) -> None:
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.readConnectionLost()
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self.wrappedProtocol.writeConnectionLost()

    def getPeer(self) -> IAddress:
        source = None if self._header is None else self._header.source
        return self.transport.getPeer() if source is None else source

    def getHost(self) -> IAddress:
        destination = None if self._header is None else self._header.destination
        return self.transport.getHost() if destination is None else destination


class ProxyProtocolFactory(WrappingFactory):
    """Wraps a factory for clients that come through proxies with the PROXY protocol."""

    protocol = ProxiedProtocol
    noisy = False

    def buildProtocol(self, addr: Any) -> Any:
        built: Any = super().buildProtocol(addr)
        if built.wrappedProtocol is None:
            return None
        # The peer is the proxy, not one client.
        self.identify(built.wrappedProtocol, None)
        return built

    def identify(self, protocol: Any, address: IAddress | None) -> None:
        """Count a connection as that of the client at ``address``."""
        # The wrapped factory may be of another protocol.
        server = connection_of(protocol).server if isinstance(protocol, WebSocketProtocol) else None
        if isinstance(server, WebSocketServerFactory):
            server.identify(protocol, address)


class ProxyProtocolReactor(ReactorProxy):
    """``reactor``, but that what listens by it through ``haproxy:`` reads the PROXY protocol as this module does."""

    def listenTCP(self, port: int, factory: Any, *arguments: Any, **options: Any) -> Any:
        return self.below.listenTCP(port, _ours(factory), *arguments, **options)

    def listenSSL(self, port: int, factory: Any, *arguments: Any, **options: Any) -> Any:
        return self.below.listenSSL(port, _ours(factory), *arguments, **options)

    def listenUNIX(self, address: Any, factory: Any, *arguments: Any, **options: Any) -> Any:
        return self.below.listenUNIX(address, _ours(factory), *arguments, **options)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        return self.below.adoptStreamPort(fileDescriptor, addressFamily, _ours(factory))


def _ours(factory: Any) -> Any:
    if not isinstance(factory, HAProxyWrappingFactory):
        return factory
    return ProxyProtocolFactory(factory.wrappedFactory)  # type: ignore[no-untyped-call]
