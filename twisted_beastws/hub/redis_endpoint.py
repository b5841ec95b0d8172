"""Endpoints to a Redis: over TCP, TLS or a UNIX socket, and to the primary that Sentinels name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from twisted_beastws.hub.linked_errors import LinkLost
from twisted_beastws.hub.redis_url import RedisURL


def redis_endpoint(url: RedisURL, reactor: IReactorTime, timeout: float) -> IStreamClientEndpoint:
    """Return the endpoint of a Redis with a known address.

    Args:
        url: the address.
        reactor: for the connection.
        timeout: seconds for TCP.

    Raises:
        OSError, ValueError: a file of the URL cannot be read any more.
    """
    if url.path:
        return cast(IStreamClientEndpoint, UNIXClientEndpoint(reactor, url.path, timeout=timeout))
    endpoint = cast(IStreamClientEndpoint, HostnameEndpoint(reactor, url.host, url.port, timeout=timeout))
    if not url.tls:
        return endpoint
    from twisted_beastws.tls.endpoint import tls_endpoint

    return tls_endpoint(endpoint, url.host, _tls_options(url))


def _tls_options(url: RedisURL) -> Callable[[str], Any] | None:
    if url.authorities is None and url.certificate is None:
        return None
    from twisted.internet.ssl import optionsForClientTLS

    from twisted_beastws.tls.pem import read_authorities, read_identity

    trust = None if url.authorities is None else read_authorities(url.authorities)
    extra = None if url.certificate is None else read_identity(url.certificate)

    def options(name: str) -> Any:
        return optionsForClientTLS(name, trustRoot=trust, extraCertificateOptions=extra)

    return options


async def primary_of(url: RedisURL, ask: Callable[[RedisURL, str], Awaitable[Any]]) -> RedisURL:
    """Return the address of the primary.

    Args:
        url: an address with Sentinels, or any other, which is returned as it is.
        ask: asks one Sentinel for the primary of a service.

    Raises:
        Exception: the last Sentinel's failure, if none of them knows the primary.
    """
    if not url.sentinels:
        return url
    why: Exception = LinkLost("no Sentinel was asked")
    for host, port in url.sentinels:
        try:
            answer = await ask(url.sentinel(host, port), url.service)
        except Exception as error:
            why = error
        else:
            if answer:
                return url.at(answer[0].decode(), int(answer[1]))
            why = LinkLost(f"the Sentinel {host}:{port} knows no service {url.service!r}")
    raise why
