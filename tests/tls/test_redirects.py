"""Redirects to another origin, with TLS options that include a client certificate."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.ssl import Certificate, CertificateOptions, optionsForClientTLS

from twisted_beastws import Response, WebSocketProtocol, WebSocketServerFactory, connect
from twisted_beastws.errors import TooManyRedirects

from ..support.certificates import identity, identity_pem
from ..support.loopback import failure_of, listening

pytestmark = pytest.mark.usefixtures("logged")


class Server:
    """A server that requests a client certificate and records the one it gets."""

    def __init__(self, location: str | None = None) -> None:
        self.location = location
        self.seen: list[Any] = []
        server = self

        class Noting(WebSocketProtocol):
            def http_requested(self, request: Any) -> Response | None:
                get_certificate = getattr(self.transport, "getPeerCertificate", lambda: None)
                server.seen.append(get_certificate())
                if server.location is None:
                    return None
                return Response(307, headers={"Location": server.location})

        self.factory = WebSocketServerFactory(Noting, clock=reactor)

    def listening(self, secure: bool = True) -> Any:
        options = CertificateOptions(
            privateKey=identity().privateKey.original,
            certificate=identity().original,
            trustRoot=Certificate.loadPEM(identity_pem()),
        )
        return listening(self.factory, options if secure else False)


def with_certificate(host: str = "localhost") -> Any:
    return optionsForClientTLS(host, Certificate.loadPEM(identity_pem()), identity())


@pytest_twisted.ensureDeferred
async def test_another_origin_never_sees_a_fixed_certificate() -> None:
    other, first = Server(), Server()
    async with other.listening() as there, first.listening() as here:
        first.location = f"wss://localhost:{there}/"
        failure = await failure_of(connect(f"wss://localhost:{here}/", tls=with_certificate()))
    assert type(failure) is TooManyRedirects
    assert [certificate is not None for certificate in first.seen] == [True]
    assert other.seen == []


@pytest_twisted.ensureDeferred
async def test_a_function_decides_for_each_host() -> None:
    other, first = Server(), Server()
    async with other.listening() as there, first.listening() as here:
        first.location = f"wss://localhost:{there}/"
        ws = await connect(f"wss://localhost:{here}/", tls=with_certificate)
        await ws.close()
    assert [certificate is not None for certificate in other.seen] == [True]


@pytest_twisted.ensureDeferred
async def test_a_redirect_within_the_origin_keeps_the_certificate() -> None:
    server = Server()
    async with server.listening() as port:

        def moved(request: Any) -> None:
            if request.target == "/new":
                server.location = None

        server.location = "/new"
        server.factory.add_gate(lambda request, _: moved(request))
        ws = await connect(f"wss://localhost:{port}/", tls=with_certificate())
        await ws.close()
    assert [certificate is not None for certificate in server.seen] == [True, True]


@pytest_twisted.ensureDeferred
async def test_a_redirect_from_the_clear_port_of_the_same_host_is_followed() -> None:
    secure, clear = Server(), Server()
    async with secure.listening() as there, clear.listening(False) as here:
        clear.location = f"wss://localhost:{there}/"
        ws = await connect(f"ws://localhost:{here}/", tls=with_certificate())
        await ws.close()
    assert [certificate is not None for certificate in secure.seen] == [True]
