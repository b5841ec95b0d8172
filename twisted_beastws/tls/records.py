"""The choice of the TLS path: our compiled record path if it is possible, else Twisted's own, or as requested.

Twisted's `TLSMemoryBIOProtocol` handles alerts, errors and the end of TLS. The compiled code takes the steps of the
handshake and moves data: it makes four calls of OpenSSL per message, on the same `OpenSSL.SSL.Connection`. It uses
internals of Twisted and pyOpenSSL, which this module lists and checks. If one is missing, Twisted's own TLS serves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from OpenSSL.SSL import Connection, Error, WantReadError
from twisted.internet.interfaces import IHandshakeListener
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

from twisted_beastws.wire.codec import PURE_VARIABLE

try:
    from cryptography.hazmat.bindings._rust import _openssl
    from OpenSSL._util import ffi as pyopenssl_ffi

    from twisted_beastws.tls._records import Records, bind

    _ffi, _lib = _openssl.ffi, _openssl.lib
    _NOT_IMPORTED = None
except ImportError as _error:
    _NOT_IMPORTED = str(_error)

log = Logger()

TLS_VARIABLE = "TWISTED_BEASTWS_TLS"
"""This environment variable chooses the path: ``compiled``, or ``twisted`` for Twisted's own TLS."""

SIGNATURES = {
    "SSL_read": "int(*)(SSL *, void *, int)",
    "SSL_write": "int(*)(SSL *, void *, int)",
    "BIO_read": "int(*)(BIO *, void *, int)",
    "BIO_write": "int(*)(BIO *, void *, int)",
    "SSL_get_error": "int(*)(SSL *, int)",
    "SSL_do_handshake": "int(*)(SSL *)",
}
"""The functions of OpenSSL that the compiled code calls, as the binding must declare them."""

KINDS = (TLSMemoryBIOProtocol, BufferingTLSTransport)
ATTRIBUTES = ("_handshakeDone", "_lostTLSConnection", "_aborted", "_producer", "_tlsShutdownFinished")
METHODS = (
    "dataReceived",
    "write",
    "writeSequence",
    "_write",
    "_checkHandshakeStatus",
    "_flushReceiveBIO",
    "_flushSendBIO",
    "_unbufferPendingWrites",
    "connectionLost",
)
"""The attributes of Twisted's class that the compiled code reads, and the methods that it replaces or calls."""

REPLACED = ("dataReceived", "_checkHandshakeStatus", "_write", "_flushSendBIO")

MOVING_BUFFER = 0x2
"""SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER: later versions of pyOpenSSL set it for every context."""

WANT_READ = 2
DTLS = 0xFE00
"""The lowest version number of DTLS (RFC 6347 §4.1)."""


class Unsupported(Exception):
    """The compiled path cannot serve a connection; the text gives the reason."""


def attach(protocol: Any) -> Any:
    """Make a `TLSMemoryBIOProtocol` use the compiled path from now on.

    It may be called at any time of the connection, and more than once.

    Returns:
        Its `Records`, or None if Twisted's own code serves it. Then a line of the log at debug level gives the reason.
    """
    try:
        return _attach(protocol)
    except Unsupported as missing:
        log.debug("Twisted's own TLS serves {protocol}: {reason}", protocol=protocol, reason=str(missing))
        return None


def chosen_against(variables: Mapping[str, str]) -> str | None:
    """Return why the environment's variables do not choose the compiled path; None if they do."""
    pure = variables.get(PURE_VARIABLE, "0") not in ("", "0")
    choice = variables.get(TLS_VARIABLE) or ("twisted" if pure else "compiled")
    if choice == "compiled":
        return None
    if choice != "twisted":
        return f"{TLS_VARIABLE} is {choice!r}: it must be 'compiled' or 'twisted'"
    return f"{TLS_VARIABLE} is 'twisted'" if variables.get(TLS_VARIABLE) else f"{PURE_VARIABLE} is set"


def lacking() -> str | None:
    """Return what the installed packages lack for the compiled path, or None."""
    if _NOT_IMPORTED is not None:
        return _NOT_IMPORTED
    for name in (*ATTRIBUTES, *METHODS):
        if not hasattr(TLSMemoryBIOProtocol, name):
            return f"this Twisted's TLSMemoryBIOProtocol has no {name}"
    if not hasattr(Connection, "_raise_ssl_error"):
        return "this pyOpenSSL's Connection has no _raise_ssl_error"
    if pyopenssl_ffi is not _ffi:
        return "pyOpenSSL does not use cryptography's binding"
    for name, signature in SIGNATURES.items():
        try:
            declared = _ffi.typeof(_ffi.addressof(_lib, name)).cname
        except (AttributeError, TypeError):
            return f"cryptography's binding has no {name}"
        if declared != signature:
            return f"in cryptography's binding {name} is {declared}, not {signature}"
    return None if _lib.SSL_ERROR_WANT_READ == WANT_READ else "this OpenSSL numbers its errors differently"


@cache
def unavailable() -> str | None:
    """Return why this process does not use the compiled path, or None. The first call binds it to OpenSSL."""
    reason = chosen_against(os.environ) or lacking()
    if reason is None:
        pointers = {name: _address(_ffi.addressof(_lib, name)) for name in SIGNATURES}
        bind(
            read=pointers["SSL_read"],
            write=pointers["SSL_write"],
            from_bio=pointers["BIO_read"],
            into_bio=pointers["BIO_write"],
            error=pointers["SSL_get_error"],
            handshake=pointers["SSL_do_handshake"],
            protocol=TLSMemoryBIOProtocol,
            failure=Failure,
            listener=IHandshakeListener,
            trouble=Error,
            more=WantReadError,
        )
    return reason


def _attach(protocol: Any) -> Any:
    reason = unavailable()
    if reason is not None:
        raise Unsupported(reason)
    own = vars(protocol)
    attached = getattr(own.get("dataReceived"), "__self__", None)
    if isinstance(attached, Records):
        return attached
    _check_class(type(protocol))
    for name in REPLACED:
        if name in own:
            raise Unsupported(f"its {name} was replaced")
    handle, into_ssl, from_ssl = _pointers(protocol.getHandle())
    records = Records(protocol, handle, *map(_address, (handle, into_ssl, from_ssl)))
    protocol.dataReceived = records.data_received
    protocol._checkHandshakeStatus = records.check_handshake
    protocol._write = records.write_records
    protocol._flushSendBIO = records.flush
    return records


def _check_class(kind: type) -> None:
    if kind in KINDS:
        return
    for name in METHODS:
        if getattr(kind, name) not in [getattr(known, name) for known in KINDS]:
            raise Unsupported(f"{kind.__qualname__} has its own {name}")


def _pointers(connection: Any) -> tuple[Any, Any, Any]:
    """Return a connection's ``SSL*`` and its memory BIOs."""
    if type(connection) is not Connection:
        raise Unsupported(f"its connection is {type(connection).__qualname__}, not OpenSSL.SSL.Connection")
    try:
        pointers = connection._ssl, connection._into_ssl, connection._from_ssl
    except AttributeError as error:
        raise Unsupported(f"pyOpenSSL's connection has no {error.name}") from None
    if None in pointers:
        raise Unsupported("the connection has a socket of its own")
    if _lib.SSL_version(pointers[0]) >= DTLS:
        raise Unsupported("the connection is DTLS")
    # Twisted offers data that OpenSSL did not take again from another place in memory.
    _lib.SSL_set_mode(pointers[0], MOVING_BUFFER)
    return pointers


def _address(pointer: Any) -> int:
    return int(_ffi.cast("uintptr_t", pointer))
