"""TLS as the command line asks for it: whom to trust, and what to show."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.protocols.tls import TLSMemoryBIOProtocol


def tls_with(host: str, insecure: bool, authorities: Any, identity: dict[str, Any] | None) -> Any:
    """A client's TLS with ``host``: ``authorities`` None is the platform's, ``identity`` is of `read_identity`."""
    if insecure:
        return UnverifiedTLS(host, identity or {})
    return optionsForClientTLS(host, trustRoot=authorities, extraCertificateOptions=identity)


@implementer(IOpenSSLClientConnectionCreator)
class UnverifiedTLS:
    """Verifies neither who signed the certificate nor whose it is; names ``host`` to the server all the same."""

    def __init__(self, host: str, identity: dict[str, Any]) -> None:
        self._host = host
        self._context: Any = CertificateOptions(**identity).getContext()

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection for one handshake."""
        connection = SSL.Connection(self._context, None)
        if not _is_address(self._host):
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection


def _is_address(host: str) -> bool:
    # RFC 6066 §3: addresses are not names of a server.
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
