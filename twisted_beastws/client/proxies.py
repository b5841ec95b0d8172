"""The proxy that a client connects through, and its endpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

from twisted.internet.interfaces import IStreamClientEndpoint

from twisted_beastws.wire.url import WebSocketURL

ENVIRONMENT = "env"
"""The value of ``proxy`` for the proxy that the environment names."""

_HTTP = {"http": "ws", "https": "wss"}
_SOCKS = frozenset(("socks5", "socks5h"))
_SOCKS_PORT = 1080


class Proxy:
    """The address of a proxy, and our credentials for it.

    Attributes:
        host: The host.
        port: The port.
        secure: The connection to the proxy uses TLS.
        socks: The proxy speaks SOCKS5; otherwise HTTP.
    """

    def __init__(self, url: WebSocketURL, socks: bool) -> None:
        self.host = url.host
        self.port = url.port
        self.secure = url.secure
        self.socks = socks
        self.user = url.user
        self.password = url.password
        self.authorization = url.authorization


def parse_proxy(text: Any) -> Proxy | str:
    """Read the argument ``proxy``.

    Returns:
        The proxy, or `ENVIRONMENT`.

    Raises:
        TypeError: It is not a ``str``.
        ValueError: It is not the URL of a proxy; the text says why, without the password.
    """
    if not isinstance(text, str):
        raise TypeError(f"proxy: give a URL as str, not {type(text).__name__}")
    if text == ENVIRONMENT:
        return ENVIRONMENT
    scheme, colon, rest = text.strip().partition("://")
    socks = scheme.lower() in _SOCKS
    if not colon or not (socks or scheme.lower() in _HTTP):
        raise ValueError(f"proxy: {without_userinfo(text)!r} does not begin with http://, https:// or socks5://")
    parsed = f"{'http' if socks else scheme}://{rest}"
    try:
        url = WebSocketURL.parse(parsed)
        if socks and not urlsplit(parsed).port:
            url = replace(url, port=_SOCKS_PORT)
    except ValueError as error:
        why = str(error).removeprefix("not a WebSocket URL: ").replace(repr(parsed), repr(without_userinfo(text)))
        raise ValueError(f"proxy: {why}") from None
    return Proxy(url, socks)


def without_userinfo(text: str) -> str:
    """Return a URL, valid or not, without its user and password, for the text of an error."""
    scheme, colon, rest = text.rpartition("://")
    return f"{scheme}{colon}{rest.rpartition('@')[2]}"


def proxy_from_environment(url: WebSocketURL) -> Proxy | None:
    """Return the proxy that the environment names for ``url``, or None.

    RFC 6455 §4.1 prefers the proxy for HTTPS to that for HTTP, because only the former must support CONNECT. A value
    without a scheme is an HTTP proxy, as in curl.

    Raises:
        ValueError: The variable that applies is not the URL of a proxy.
    """
    proxies = getproxies_environment()
    if proxy_bypass_environment(f"{url.host.removesuffix('.')}:{url.port}", proxies):
        return None
    for name in ("https", "all") if url.secure else ("https", "http", "all"):
        if value := proxies.get(name):
            try:
                proxy = parse_proxy(value if "://" in value else f"http://{value}")
            except ValueError as error:
                raise ValueError(f"the environment's {name}_proxy: {str(error).removeprefix('proxy: ')}") from None
            assert isinstance(proxy, Proxy)
            return proxy
    return None


def endpoint_through(reactor: Any, proxy: Proxy | str | None, url: WebSocketURL) -> IStreamClientEndpoint:
    """Return an endpoint that connects to the host and port of ``url``, through ``proxy`` if it is one."""
    from twisted.internet.endpoints import HostnameEndpoint

    if isinstance(proxy, str):
        proxy = proxy_from_environment(url)
    if proxy is None:
        return HostnameEndpoint(reactor, url.host, url.port)
    below: IStreamClientEndpoint = HostnameEndpoint(reactor, proxy.host, proxy.port)
    if proxy.secure:
        below = over_tls(below, proxy.host, None)
    if proxy.socks:
        from twisted_beastws.client.socks_proxy import SocksEndpoint

        return SocksEndpoint(below, url.host, url.port, proxy.user, proxy.password)
    from twisted_beastws.client.http_proxy import ProxyEndpoint

    return ProxyEndpoint(below, url.host, url.port, proxy.authorization)


def over_tls(endpoint: IStreamClientEndpoint, host: str, tls: Any) -> IStreamClientEndpoint:
    """Return `twisted_beastws.tls.endpoint.tls_endpoint`, imported when it is needed: pyOpenSSL is slow to import."""
    from twisted_beastws.tls.endpoint import tls_endpoint

    return tls_endpoint(endpoint, host, tls)
