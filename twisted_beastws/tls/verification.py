"""Verify a TLS peer: its certificate is trusted, and it is for the host that the caller asked for."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from OpenSSL import SSL, crypto
from service_identity.cryptography import extract_patterns, verify_certificate_hostname, verify_certificate_ip_address

from twisted_beastws.errors import PeerNotVerified

MAX_NAMES = 3
"""The most names of a foreign certificate that an error shows."""

MAX_NAME = 80
"""The most characters of each name."""

_CODES = SSL.X509VerificationCodes
_UNKNOWN_AUTHORITY = "no authority that this client trusts has signed it"
_WHY = {
    _CODES.ERR_UNABLE_TO_GET_ISSUER_CERT: _UNKNOWN_AUTHORITY,
    _CODES.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: _UNKNOWN_AUTHORITY,
    _CODES.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: _UNKNOWN_AUTHORITY,
    _CODES.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: _UNKNOWN_AUTHORITY,
    _CODES.ERR_SELF_SIGNED_CERT_IN_CHAIN: _UNKNOWN_AUTHORITY,
    _CODES.ERR_CERT_HAS_EXPIRED: "it has expired",
    _CODES.ERR_CERT_NOT_YET_VALID: "it is not valid yet",
    _CODES.ERR_CERT_REVOKED: "it is revoked",
    _CODES.ERR_INVALID_PURPOSE: "it is not for servers",
}

VERIFY = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT


def is_address(host: str) -> bool:
    """Whether ``host`` is an IP address: RFC 6066 §3 allows no address as a server name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def tls_name(host: str) -> str:
    """Return the name that SNI sends and a certificate states: ``host`` without the dot of the DNS root."""
    # RFC 6066 §3: "without a trailing dot".
    return host.removesuffix(".")


def verify_peer(connection: SSL.Connection, host: str) -> None:
    """Verify the peer of a TLS connection whose handshake is complete.

    The check does not depend on a verification callback of OpenSSL: Twisted 26's accepts a certificate with a missing
    or malformed subjectAltName, and OpenSSL calls no callback when it resumes a session.

    Args:
        connection: The connection of pyOpenSSL, as a TLS transport's ``getHandle()`` returns it.
        host: The host name or IP address that the caller asked for.

    Raises:
        PeerNotVerified: The certificate is missing, not trusted, expired, unreadable or for another host.
    """
    check_settings(connection, host)
    certificate = connection.get_peer_certificate()
    if certificate is None:
        raise PeerNotVerified(host, "the server sent none")
    _verify_chain(connection, certificate, host)
    _verify_name(certificate, host)


def check_settings(connection: SSL.Connection, host: str) -> None:
    """Raise `PeerNotVerified` if the settings of a connection make OpenSSL verify nothing."""
    if not connection.get_verify_mode() & SSL.VERIFY_PEER:
        raise PeerNotVerified(host, "the TLS settings of this client verify none")


def refuse_early(connection: SSL.Connection, host: str, refused: Callable[[PeerNotVerified], None]) -> None:
    """Replace the verification callback of a connection before its handshake.

    A peer that our callback refuses gets an alert, but neither the client certificate nor our last handshake message.
    Twisted's callback logs a traceback for a certificate that cannot be parsed.

    Args:
        connection: The connection of pyOpenSSL.
        host: The host name or IP address that the caller asked for.
        refused: Called with the reason before the handshake fails.

    Raises:
        PeerNotVerified: The settings of the connection make OpenSSL verify nothing.
    """
    check_settings(connection, host)

    def verified(_: SSL.Connection, certificate: crypto.X509, code: int, depth: int, trusted: int) -> bool:
        try:
            if not trusted:
                raise PeerNotVerified(host, _why_untrusted(code))
            if depth == 0:
                _verify_name(certificate, host)
        except PeerNotVerified as error:
            refused(error.with_traceback(None))
            return False
        return True

    connection.set_verify(VERIFY, verified)


def _verify_chain(connection: SSL.Connection, certificate: crypto.X509, host: str) -> None:
    store = connection.get_context().get_cert_store()
    if store is None:
        raise PeerNotVerified(host, _UNKNOWN_AUTHORITY)
    try:
        crypto.X509StoreContext(store, certificate, connection.get_peer_cert_chain()).verify_certificate()
    except crypto.X509StoreContextError as error:
        raise PeerNotVerified(host, _why_untrusted(error.errors[0])) from None


def _verify_name(certificate: crypto.X509, host: str) -> None:
    name = tls_name(host)
    verify = verify_certificate_ip_address if is_address(name) else verify_certificate_hostname
    try:
        verify(certificate.to_cryptography(), name)
    # The peer made the certificate, so parsing it can raise many kinds of errors.
    except Exception:
        raise PeerNotVerified(host, _why_another(certificate)) from None


def _why_untrusted(code: int) -> str:
    return _WHY.get(code, f"its chain is not valid (OpenSSL's verification code {code})")


def _why_another(certificate: crypto.X509) -> str:
    try:
        patterns = extract_patterns(certificate.to_cryptography())
    except Exception:
        return "its subjectAltName cannot be read"
    if not patterns:
        return "it has no subjectAltName that names a host"
    names = [_shown(pattern) for pattern in patterns[:MAX_NAMES]]
    return f"it is for {', '.join(names)}{' and others' if len(patterns) > MAX_NAMES else ''}"


def _shown(pattern: Any) -> str:
    value = getattr(pattern, "pattern", None)
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or type(pattern).__name__)
    # The peer chose the text; a log line must stay one line.
    return ascii(text[:MAX_NAME])[1:-1]
