"""TLS without a verified peer, for callers that ask for it explicitly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions
from zope.interface import implementer

from twisted_beastws.tls.verification import is_address, tls_name

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol


@implementer(IOpenSSLClientConnectionCreator)
class UnverifiedTLS:
    """Encrypts, but verifies neither the certificate's authority nor its host: an attacker on the way can be the peer.

    Subclass this for a creator that verifies in its own way, for example by a pinned key: for all other creators the
    clients here verify the peer themselves.

    Args:
        host: The host. It is still sent as SNI.
        identity: The client's own key and certificate, as arguments for ``CertificateOptions``.
    """

    def __init__(self, host: str, identity: dict[str, Any] | None = None) -> None:
        self._name = tls_name(host)
        self._context: Any = CertificateOptions(**(identity or {})).getContext()

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a connection for one handshake."""
        connection = SSL.Connection(self._context, None)
        if not is_address(self._name):
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        return connection
