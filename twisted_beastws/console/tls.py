"""TLS according to the command line: the trusted authorities and the client's certificate."""

from __future__ import annotations

from typing import Any

from twisted.internet.ssl import optionsForClientTLS

from twisted_beastws.tls.unverified import UnverifiedTLS


def tls_with(host: str, insecure: bool, authorities: Any, identity: dict[str, Any] | None) -> Any:
    """Return the TLS options of a client for ``host``.

    Args:
        host: The host name or IP address.
        insecure: Verify nothing.
        authorities: The trusted authorities, from `read_authorities`; None for the platform's.
        identity: The client's own key and certificate, from `read_identity`, or None.
    """
    if insecure:
        return UnverifiedTLS(host, identity)
    return optionsForClientTLS(host, trustRoot=authorities, extraCertificateOptions=identity)
