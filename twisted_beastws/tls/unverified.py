"""TLS without a verified peer, for callers who ask for it by name."""

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
    """Encrypts, but verifies neither the certificate's authority nor its host: anybody on the way can be the peer.

    A creator that verifies in its own way, by a pinned key say, subclasses this: the clients here require a verified
    peer of every other.

    Args:
        host: The host, which is sent as SNI all the same.
        identity: The client's own key and certificate, as ``CertificateOptions`` takes them.
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
