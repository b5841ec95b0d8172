"""Endpoint strings: ``beastws:`` around any other endpoint, and ``ws:`` and ``wss:``.

Any stream protocol of Twisted can listen or connect there: its bytes travel in binary messages. A
`WebSocketServerFactory`, or a client's `WebSocketProtocol`, speaks WebSocket itself and is not wrapped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, clientFromString, quoteStringArgument, serverFromString
from twisted.internet.interfaces import IProtocolNegotiationFactory, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.client.connect import WebSocketClientEndpoint, shown
from twisted_beastws.connection.awaiting import awaitable
from twisted_beastws.options import Settings, Timeouts
from twisted_beastws.protocol import connection_of
from twisted_beastws.server.factory import WebSocketServerFactory
from twisted_beastws.streams.endpoint_keys import Keys
from twisted_beastws.streams.tunnel import SUBPROTOCOLS, ClientTunnelFactory, Tunnel, TunnelFactory
from twisted_beastws.wire.handshake import ANY_SUBPROTOCOL
from twisted_beastws.wire.url import WebSocketURL, ascii_name

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol, IProtocolFactory


SERVER_KEYS = ("target", "subprotocols", "origins", "ping", "idle")
CLIENT_KEYS = ("target", "subprotocols", "authority", "ping", "idle")


@implementer(IProtocolNegotiationFactory)
class ConfiguredFactory(Factory):
    """Makes the protocols of ``factory``, which stays unchanged, with the settings of ``keys``."""

    noisy = False

    def __init__(self, factory: WebSocketServerFactory, keys: Keys) -> None:
        self._factory: Any = factory
        self._keys = keys
        self._settings: tuple[Settings, Settings] | None = None

    def logPrefix(self) -> str:
        return cast(str, self._factory.logPrefix())

    def acceptableProtocols(self) -> list[bytes]:
        return cast("list[bytes]", self._factory.acceptableProtocols())

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol: Any = self._factory.buildProtocol(addr)
        if protocol is None:
            return None
        connection = connection_of(protocol)
        connection.settings = self._applied(connection.settings)
        return protocol

    def _applied(self, settings: Settings) -> Settings:
        # All connections share one object, as without keys.
        if self._settings is None or self._settings[0] is not settings:
            self._settings = settings, self._keys.applied_to(settings)
        return self._settings[1]


@implementer(IStreamServerEndpoint)
class ServerEndpoint:
    """Listens on ``endpoint``, as ``beastws:`` does, for streams or for the messages of a `WebSocketServerFactory`."""

    def __init__(self, reactor: Any, endpoint: IStreamServerEndpoint, keys: Keys) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._keys = keys

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen.

        Returns:
            A Deferred of the port of ``endpoint``. It fails with ``ValueError`` if the keys do not fit the factory's
            settings.
        """
        factory: Any = protocolFactory
        if not isinstance(factory, WebSocketServerFactory):
            factory = TunnelFactory(protocolFactory, clock=self._reactor)
        try:
            self._keys.check_with(factory.settings)
        except ValueError:
            return fail()
        return awaitable(self._endpoint.listen(ConfiguredFactory(factory, self._keys)))


@implementer(IStreamClientEndpoint)
class ClientEndpoint:
    """Connects a stream or a `WebSocketProtocol` through ``endpoint``, as ``beastws:`` does. It follows no redirects.

    Args:
        reactor: The reactor.
        endpoint: The inner endpoint.
        host: The host for the Host field, unless ``keys`` has another.
        port: The port for the Host field.
        secure: The connection uses TLS.
        keys: The keys of the endpoint string.
    """

    def __init__(
        self, reactor: Any, endpoint: IStreamClientEndpoint, host: str, port: int, secure: bool, keys: Keys
    ) -> None:
        url = WebSocketURL("wss" if secure else "ws", host, port, keys.target or "/")
        authority = keys.authority or url.host_field
        self._url = url
        self.reactor = reactor
        if keys.subprotocols is not None and ANY_SUBPROTOCOL in keys.subprotocols:
            raise ValueError("subprotocols=*: that is for servers; a client offers names, such as binary")
        self._subprotocols = SUBPROTOCOLS if keys.subprotocols is None else keys.subprotocols
        # TLS, if any, belongs to the inner endpoint.
        self._endpoint = WebSocketClientEndpoint(
            reactor,
            f"ws://{authority}{url.target}",
            endpoint=endpoint,
            headers={"Host": authority},
            subprotocols=keys.subprotocols or (),
            timeouts=Timeouts(**keys.timeouts),
            max_redirects=0,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shown(self._url)}>"

    @property
    def last_failure(self) -> Failure | None:
        """Why the latest attempt failed, or None."""
        return self._endpoint.last_failure

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect. The Deferred fires with the factory's own protocol; see `WebSocketClientEndpoint.connect`."""
        try:
            factory = ClientTunnelFactory(protocolFactory, self._subprotocols)
        except TypeError:
            return fail()
        return self._endpoint.connect(factory).addCallback(_carried)


def _carried(protocol: Any) -> Any:
    return protocol.stream if isinstance(protocol, Tunnel) else protocol


# From strings


def parse_server(reactor: Any, arguments: Sequence[str], keywords: Mapping[str, str]) -> ServerEndpoint:
    """Return the endpoint of a server's ``beastws:`` string. Raises ``ValueError`` with the reason."""
    inner = dict(keywords)
    keys = Keys.take("beastws", SERVER_KEYS, inner)
    if keys.target is not None and "?" in keys.target:
        raise ValueError(f"beastws: target={keys.target}: a server's is a path, without a query")
    return ServerEndpoint(reactor, _parsed("beastws", SERVER_KEYS, serverFromString, reactor, arguments, inner), keys)


def parse_client(reactor: Any, arguments: Sequence[str], keywords: Mapping[str, str]) -> ClientEndpoint:
    """Return the endpoint of a client's ``beastws:`` string. Raises ``ValueError`` with the reason."""
    inner = dict(keywords)
    keys = Keys.take("beastws", CLIENT_KEYS, inner)
    arguments, inner = _dialable(list(arguments), inner)
    endpoint = _parsed("beastws", CLIENT_KEYS, clientFromString, reactor, arguments, inner)
    secure = arguments[0].lower() in ("ssl", "tls")
    if secure:
        endpoint = _verified(endpoint, _certified_host(arguments[1:], inner))
    return ClientEndpoint(reactor, endpoint, *_place(arguments[1:], inner, secure), secure, keys)


def parse_short_client(
    scheme: str, reactor: Any, arguments: Sequence[str], keywords: Mapping[str, str]
) -> ClientEndpoint:
    """Return the endpoint of a ``ws:`` or ``wss:`` string. Raises ``ValueError`` with the reason."""
    if any(argument.startswith("//") for argument in arguments):
        raise ValueError(f"{scheme}: this is an endpoint string, not a URL: write {scheme}:HOST:PORT:target=/PATH")
    inner = dict(keywords)
    keys = Keys.take(scheme, CLIENT_KEYS, inner)
    host, port = _host_and_port(scheme, list(arguments), inner)
    secure = scheme == "wss"
    if secure:
        inside = _dialable(["tls", host, str(port)], inner)
        endpoint = _verified(_parsed(scheme, CLIENT_KEYS, clientFromString, reactor, *inside), host)
    else:
        endpoint = _hostname_endpoint(reactor, host, port, inner)
    return ClientEndpoint(reactor, endpoint, *_place((host, str(port)), {}, secure), secure, keys)


def _parsed(
    prefix: str,
    names: Sequence[str],
    parse: Callable[[Any, str], Any],
    reactor: Any,
    arguments: Sequence[str],
    keywords: Mapping[str, str],
) -> Any:
    if not any(arguments):
        raise ValueError(f"{prefix}: name the endpoint within, as in {prefix}:tcp:1984")
    description = _described(arguments, keywords)
    try:
        return parse(reactor, description)
    except (TypeError, ValueError) as error:
        why = " ".join(map(str, error.args))
        hint = _hint(arguments, keywords) or f"beyond the endpoint's own keys there are {', '.join(names)}"
        raise ValueError(f"{prefix}: {description}: {why} ({hint})") from error


def _described(arguments: Sequence[str], keywords: Mapping[str, str]) -> str:
    positional = [quoteStringArgument(argument).replace("=", "\\=") for argument in arguments]
    return ":".join([*positional, *(f"{key}={quoteStringArgument(value)}" for key, value in keywords.items())])


def _hint(arguments: Sequence[str], keywords: Mapping[str, str]) -> str:
    cut = next((f"{key}=" for key, value in keywords.items() if not value), None)
    if cut is None and "" not in arguments:
        return ""
    return (
        f"{cut or 'an argument'} is empty: the colons of an IPv6 address are written with a backslash before each, "
        f"{cut or ''}\\:\\:1"
    )


def _verified(endpoint: IStreamClientEndpoint, host: str) -> IStreamClientEndpoint:
    # pyOpenSSL is slow to import, and ws: does without it.
    from twisted_beastws.tls.endpoint import VerifiedEndpoint

    return VerifiedEndpoint(endpoint, host)


def _certified_host(arguments: Sequence[str], keywords: Mapping[str, str]) -> str:
    """Return the host for which the certificate of a ``tls:`` or ``ssl:`` endpoint must be valid."""
    return ascii_name(keywords.get("hostname") or keywords.get("host") or arguments[0])


def _dialable(arguments: list[str], keywords: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the arguments of a client's string in a form that Twisted understands.

    Twisted converts international names by IDNA 2003 in ``tcp:``, and accepts no IPv6 address in ``tls:``.
    """
    kind = arguments[0].lower() if arguments else ""
    host = keywords.get("host") or (arguments[1] if len(arguments) > 1 else "")
    if kind in ("tcp", "ssl", "tls") and not host.isascii():
        return _dialable(*_with_host(ascii_name(host), arguments, keywords))
    if kind != "tls" or ":" not in host or "endpoint" in keywords:
        return arguments, keywords
    arguments, keywords = _with_host(host, arguments, keywords)
    port = keywords.get("port") or arguments[-1]
    inside: dict[str, str] = {name: keywords.pop(name) for name in ("timeout", "bindAddress") if name in keywords}
    return arguments, {**keywords, "endpoint": _described(("tcp", host, port), inside)}


def _with_host(host: str, arguments: list[str], keywords: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    if "host" in keywords:
        return arguments, {**keywords, "host": host}
    return [arguments[0], host, *arguments[2:]], dict(keywords)


def _place(arguments: Sequence[str], keywords: Mapping[str, str], secure: bool) -> tuple[str, int]:
    """Return the host and port that the arguments of an endpoint name; this machine if they name none."""
    rest = list(arguments)
    host = keywords.get("host") or (rest.pop(0) if rest else "")
    port = keywords.get("port") or (rest.pop(0) if rest else "")
    try:
        url = WebSocketURL.parse(f"ws{'s' * secure}://{f'[{host}]' if ':' in host else host}:{port}")
    except ValueError:
        url = WebSocketURL.parse(f"ws{'s' * secure}://localhost")
    return url.host, url.port


def _host_and_port(scheme: str, arguments: list[str], keywords: dict[str, str]) -> tuple[str, int]:
    """Remove the host and port from the arguments of a ``ws:`` or ``wss:`` string, and return them."""
    host = keywords.pop("host", None) or (arguments.pop(0) if arguments else "")
    port = keywords.pop("port", None) or (arguments.pop(0) if arguments else "")
    if arguments or not host:
        raise ValueError(
            f"{scheme}: give a host and a port, as in {scheme}:example.com:8080; the colons of an IPv6 address are "
            f"written with a backslash before each, {scheme}:\\:\\:1:8080"
        )
    if port and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 1 << 16):
        raise ValueError(f"{scheme}: port={port}: give a number from 1 to 65535")
    try:
        host = ascii_name(host)
    except ValueError as error:
        raise ValueError(f"{scheme}: {host}: {error}") from None
    return host, int(port) if port else WebSocketURL.DEFAULT_PORTS[scheme]


def _hostname_endpoint(reactor: Any, host: str, port: int, keywords: Mapping[str, str]) -> HostnameEndpoint:
    options: dict[str, Any] = {}
    for key, value in keywords.items():
        if key == "bindAddress":
            options[key] = (value, 0)
        elif key == "timeout" and value.isdecimal():
            options[key] = int(value)
        elif key == "timeout":
            raise ValueError(f"ws: timeout={value}: give whole seconds")
        else:
            raise ValueError(f"ws: {key}= is none of its keys: {', '.join((*CLIENT_KEYS, 'timeout', 'bindAddress'))}")
    return HostnameEndpoint(reactor, host, port, **options)
