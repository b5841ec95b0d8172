"""Which path TLS takes: our compiled record path where it can, Twisted's own otherwise or on request.

The handshake, alerts, errors and the end of TLS stay with Twisted's `TLSMemoryBIOProtocol`. What is compiled is the way
of data: four calls of OpenSSL a message, on the same `OpenSSL.SSL.Connection`. This file alone names internals of
Twisted and pyOpenSSL. Each is looked for before it is used, and without it Twisted's own TLS serves.
"""

from __future__ import annotations

import os
from typing import Any

from OpenSSL.SSL import Connection
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOProtocol

log = Logger()

TLS_VARIABLE = "TWISTED_BEASTWS_TLS"
"""This environment variable chooses the path of TLS: ``compiled``, or ``twisted`` for Twisted's own."""

DEFAULT = "compiled"

SIGNATURES = {
    "SSL_read": "int(*)(SSL *, void *, int)",
    "SSL_write": "int(*)(SSL *, void *, int)",
    "BIO_read": "int(*)(BIO *, void *, int)",
    "BIO_write": "int(*)(BIO *, void *, int)",
    "SSL_get_error": "int(*)(SSL *, int)",
    "SSL_set_mode": "long(*)(SSL *, long)",
    "SSL_version": "int(*)(SSL *)",
}
"""The functions of OpenSSL that are called, as the binding must declare them."""

ATTRIBUTES = ("_handshakeDone", "_lostTLSConnection", "_aborted", "_producer")
METHODS = ("dataReceived", "write", "writeSequence", "_write", "_flushReceiveBIO", "_flushSendBIO", "connectionLost")

TAKEN_OVER = ("dataReceived", "_write", "_flushSendBIO")
"""The methods of the protocol that are replaced."""

MOVING_BUFFER = 0x2
"""SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER: pyOpenSSL sets it for every context."""

WANT_READ = 2
DTLS = 0xFE00
"""From here on, a version is one of DTLS (RFC 6347 §4.1: 1's complement)."""


class Unsupported(Exception):
    """Something that the compiled path needs is missing: the text says what."""


def attach(protocol: Any) -> Any:
    """Have a `TLSMemoryBIOProtocol` use the compiled path from now on.

    Returns:
        Its `Records`, or None if Twisted's own code serves it. A line of the log at debug level gives the reason.
    """
    try:
        return _attach(protocol)
    except Unsupported as missing:
        log.debug("Twisted's own TLS serves {protocol}: {reason}", protocol=protocol, reason=str(missing))
        return None


def _attach(protocol: Any) -> Any:
    if _UNAVAILABLE is not None:
        raise Unsupported(_UNAVAILABLE)
    own = vars(protocol)
    attached = getattr(own.get("dataReceived"), "__self__", None)
    if isinstance(attached, Records):
        return attached
    kind = type(protocol)
    if kind not in _KINDS:
        for name in METHODS:
            if getattr(kind, name, None) not in (getattr(known, name) for known in _KINDS):
                raise Unsupported(f"{kind.__qualname__} has a {name} of its own")
    if not own.keys().isdisjoint(TAKEN_OVER):
        raise Unsupported("another program replaced a method of the protocol")
    connection = protocol.getHandle()
    if type(connection) is not Connection:
        raise Unsupported(f"its connection is a {type(connection).__qualname__}, not pyOpenSSL's")
    try:
        handle, into_ssl, from_ssl = connection._ssl, connection._into_ssl, connection._from_ssl
        own["_appSendBuffer"]
    except (AttributeError, KeyError) as error:
        raise Unsupported(f"the connection has no {error}") from None
    if into_ssl is None or from_ssl is None:
        raise Unsupported("the connection has a socket of its own")
    if _lib.SSL_version(handle) >= DTLS:
        raise Unsupported("the connection is DTLS")
    if not _lib.SSL_set_mode(handle, 0) & MOVING_BUFFER:
        raise Unsupported("the connection does not accept moving write buffers")
    records = Records(protocol, handle, *(_address(pointer) for pointer in (handle, into_ssl, from_ssl)))
    protocol.dataReceived = records.data_received
    protocol._write = records.write_records
    protocol._flushSendBIO = records.flush
    return records


def _address(pointer: Any) -> int:
    return int(_ffi.cast("uintptr_t", pointer))


def _prepare() -> str | None:
    """Bind the compiled code to OpenSSL; returns the reason if the compiled path is not available."""
    choice = os.environ.get(TLS_VARIABLE) or DEFAULT
    if choice == "twisted":
        return f"{TLS_VARIABLE} asks for it"
    if choice != "compiled":
        return f"{TLS_VARIABLE} is {choice!r}, which is neither 'compiled' nor 'twisted'"
    if _MISSING is not None:
        return _MISSING
    for name in (*ATTRIBUTES, *METHODS):
        if not hasattr(TLSMemoryBIOProtocol, name):
            return f"this Twisted's TLSMemoryBIOProtocol has no {name}"
    pointers = {}
    for name, signature in SIGNATURES.items():
        try:
            pointer = _ffi.addressof(_lib, name)
        except (AttributeError, TypeError):
            return f"the binding of this cryptography has no {name}"
        if _ffi.typeof(pointer).cname != signature:
            return f"{name} of this cryptography's binding is {_ffi.typeof(pointer).cname}, not {signature}"
        pointers[name] = _address(pointer)
    if _lib.SSL_ERROR_WANT_READ != WANT_READ:
        return "this OpenSSL numbers its errors differently"
    bind(
        read=pointers["SSL_read"],
        write=pointers["SSL_write"],
        from_bio=pointers["BIO_read"],
        into_bio=pointers["BIO_write"],
        error=pointers["SSL_get_error"],
        protocol=TLSMemoryBIOProtocol,
    )
    return None


_MISSING: str | None = None
_KINDS = (TLSMemoryBIOProtocol, BufferingTLSTransport)
try:
    from cryptography.hazmat.bindings._rust import _openssl

    from twisted_beastws.tls._records import Records, bind

    _ffi, _lib = _openssl.ffi, _openssl.lib
except ImportError as _error:
    _MISSING = str(_error)
_UNAVAILABLE = _prepare()
