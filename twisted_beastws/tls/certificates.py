"""Endpoints that can reload their certificates while they listen, and can ask clients for certificates."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IListeningPort, IOpenSSLContextFactory, IStreamServerEndpoint
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger
from zope.interface import directlyProvides, implementer, providedBy

from twisted_beastws.tls.handover import Handed, absolute, read_files
from twisted_beastws.tls.pem import read_authorities
from twisted_beastws.tls.validity import why_invalid_now

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IProtocolFactory


_log = Logger()

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"
"""The cipher suites of TLS 1.2: forward secrecy and AEAD only (RFC 9325 §4.2; Mozilla's "intermediate" list).

Twisted's own list has CBC suites and RSA key exchange, too. Those of TLS 1.3 are all of this kind.
"""

_ENCRYPTED = ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED")


class EncryptedKey(ValueError):
    """A private key needs a passphrase, for which OpenSSL would ask the terminal while everything else waits."""


def refuse_encrypted_keys(description: str) -> None:
    """Raise `EncryptedKey` if a file in an endpoint string has an encrypted key."""
    for path, content in read_files([description]).items():
        if any(mark in content for mark in _ENCRYPTED):
            raise EncryptedKey(
                f"the private key in {path} is encrypted: nobody can be asked for its passphrase when the service "
                "starts again or reads it again; give a key without one, which only the service's user can read"
            )


def why_no_identity(error: Exception, description: str) -> str | None:
    """Return the fault in the key or the certificate of an ``ssl:`` endpoint; None if the error has another cause."""
    from OpenSSL.crypto import Error

    if isinstance(error, EncryptedKey):
        return str(error)
    if isinstance(error, VerifyError):
        return "the private key and the certificate do not fit together"
    if not isinstance(error, Error):
        return None
    if ":certKey=" in description:
        return "privateKey= and certKey= are to name a private key and its certificate (PEM), and do not"
    return "certKey= is missing: the file of privateKey= alone is not both a private key and its certificate (PEM)"


@implementer(IOpenSSLContextFactory)
class ChangingContext:
    """The contexts of another context factory, which may be replaced: TLS asks for one for each connection."""

    def __init__(self, current: Any) -> None:
        self.current = current

    def getContext(self) -> Any:
        return self.current.getContext()


class ReactorProxy:
    """``reactor``, with other context factories for `listenSSL`."""

    def __init__(self, reactor: Any) -> None:
        self.below = reactor
        self.contexts: list[Any] = []
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)


class _AskingReactor(ReactorProxy):
    """A reactor that asks each client of `listenSSL` for a certificate of an authority in the file ``client_ca``."""

    def __init__(self, reactor: Any, client_ca: str | None) -> None:
        super().__init__(reactor)
        self._client_ca = client_ca

    def _ask(self, contextFactory: Any) -> None:
        if self._client_ca is not None:
            if not isinstance(contextFactory, CertificateOptions):
                _refuse()
            contextFactory.trustRoot = read_authorities(self._client_ca)
            contextFactory.verify = contextFactory.requireCertificate = True


def _refuse(*_: Any, **__: Any) -> Any:
    raise ValueError("--client-ca is for ssl: alone")


def _stop_and_refuse(listening: Any) -> Any:
    stop = getattr(listening, "stopListening", None) or getattr(listening, "loseConnection", None)
    if stop is not None:
        stop()
    return _refuse()


def _narrow(context_factory: Any) -> None:
    context_factory.getContext().set_cipher_list(CIPHERS)


def _why_invalid(context_factory: Any) -> str | None:
    certificate = getattr(context_factory, "certificate", None)
    return None if certificate is None else why_invalid_now(certificate)


class _ListeningReactor(_AskingReactor):
    def __init__(self, reactor: Any, client_ca: str | None) -> None:
        super().__init__(reactor, client_ca)
        if client_ca is not None:
            # Only ssl: may listen: other endpoints would not ask for a certificate.
            self.listenTCP = self.listenUNIX = self.adoptStreamPort = _refuse

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, *arguments: Any, **options: Any) -> Any:
        self._ask(contextFactory)
        if IOpenSSLContextFactory.providedBy(contextFactory):
            _narrow(contextFactory)
            if (why := _why_invalid(contextFactory)) is not None:
                _log.warn("ssl: on port {port} has a certificate that clients refuse: {why}", port=port, why=why)
            contextFactory = ChangingContext(contextFactory)
            self.contexts.append(contextFactory)
        return self.below.listenSSL(port, factory, contextFactory, *arguments, **options)


class _ReadingReactor(_AskingReactor):
    """It listens to nothing."""

    refused = "clients refuse the new one"

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, *arguments: Any, **options: Any) -> None:
        self._ask(contextFactory)
        if IOpenSSLContextFactory.providedBy(contextFactory):
            # Fail now if each connection would fail.
            _narrow(contextFactory)
            if (why := _why_invalid(contextFactory)) is not None:
                raise ValueError(f"{self.refused}: {why}")
            self.contexts.append(contextFactory)


class _CheckingReactor(_ReadingReactor):
    """It only looks whether an endpoint could listen."""

    refused = "clients refuse its certificate"

    def listenTCP(self, *arguments: Any, **options: Any) -> None:
        """Do nothing: whether the port is free shows when the service starts."""

    adoptStreamPort = listenTCP

    def listenUNIX(self, address: Any, *arguments: Any, **options: Any) -> None:
        folder = os.path.dirname(os.path.abspath(os.fsdecode(address)))
        if not os.fsdecode(address).startswith("\0") and not os.path.isdir(folder):
            raise ValueError(f"there is no directory {folder}")


@implementer(IStreamServerEndpoint)
class ReloadableEndpoint:
    """An endpoint that can reload its certificates, if it listens by the reactor's ``listenSSL`` as ``ssl:`` does.

    It accepts cipher suites with forward secrecy only, and refuses a private key that needs a passphrase.

    Args:
        reactor: The reactor that listens.
        description: The endpoint string, such as ``ssl:443:privateKey=key.pem:certKey=certificate.pem``, also
            ``haproxy:`` with another one in it.
        client_ca: A file of authorities (PEM); each client needs a certificate that one of them signed.
        handed: The content of files that this process got from the supervisor, and does not read itself.

    Raises:
        ValueError: With client_ca, the endpoint is not ``ssl:``. ``serverFromString`` raises other errors.
    """

    log = Logger()

    def __init__(
        self, reactor: Any, description: str, client_ca: str | None = None, handed: Handed | None = None
    ) -> None:
        self._description = description
        # The working directory may change before the files are read again.
        self._absolute = absolute(description)
        self._client_ca = client_ca
        handed = handed or Handed({})
        self._reactor = _ListeningReactor(reactor, None if client_ca is None else handed.path(client_ca))
        readable = handed.description(self._absolute)
        refuse_encrypted_keys(readable)
        self._endpoint = serverFromString(self._reactor, readable)

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See ``IStreamServerEndpoint``."""
        listening: Deferred[IListeningPort] = self._endpoint.listen(protocolFactory)
        if self._client_ca is not None and not self._reactor.contexts:
            # It listens by itself, as stdio: does, without the reactor.
            listening.addCallback(_stop_and_refuse)
        return listening

    def reload(self) -> bool:
        """Read the key and the certificates again, for the connections from now on.

        Returns:
            True if the new ones are in use. False if that failed: the log has the reason, and the old ones stay.
        """
        if not self._reactor.contexts:
            return True
        try:
            contexts = self._read()
        except Exception as error:
            self.log.error(
                "{endpoint}: the certificate stays as it was: {error}", endpoint=self._description, error=error
            )
            return False
        for changing, context in zip(self._reactor.contexts, contexts, strict=True):
            changing.current = context
        self.log.info("{endpoint}: the certificate was read again", endpoint=self._description)
        return True

    def check(self) -> None:
        """Raise the error of an endpoint that could not listen, or whose certificate clients refuse."""
        self._read(_CheckingReactor)

    def _read(self, kind: type[_ReadingReactor] = _ReadingReactor) -> list[Any]:
        refuse_encrypted_keys(self._absolute)
        reading = kind(self._reactor.below, self._client_ca)
        failures: list[Any] = []
        listening = serverFromString(reading, self._absolute).listen(None)
        listening.addErrback(failures.append)
        if failures:
            failures[0].raiseException()
        return reading.contexts
