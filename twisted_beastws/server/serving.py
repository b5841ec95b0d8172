"""A service that listens on endpoints, logs their URLs, and drains the connections when it stops."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger

from twisted_beastws.wire.closing import CloseCode

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
    from twisted.python.failure import Failure

    from twisted_beastws.server.descriptors import DescriptorWatch

# Types of endpoint that have URLs: the end of the scheme, and its default port.
_SCHEMES = {"tcp": ("", 80), "tcp6": ("", 80), "systemd": ("", 80), "ssl": ("s", 443)}
_EVERYWHERE = ("0.0.0.0", "::")


class CannotListen(SystemExit, Exception):
    """An endpoint cannot listen. It ends the program with one line and exit status 1, unless it is caught.

    It is an Exception too, so that twistd removes its PID file and informs the terminal that started it.
    """


@dataclass(frozen=True)
class ShutdownPolicy:
    """The graceful shutdown of connections; see `WebSocketServerFactory.drain`."""

    code: int = CloseCode.GOING_AWAY
    reason: str = "the server is shutting down"
    seconds: float | None = None


class Serving(Service):
    """Serves a factory on endpoints. Starting raises `CannotListen`. Stopping ends listening and drains the factory.

    Args:
        factory: a `WebSocketServerFactory`, or another factory with ``connections`` and ``drain``.
        endpoints: each with its string.
        urls: a scheme and a path for each URL that the log shows, such as ``("http", "/")``.
        shutdown_policy: the close frames of the graceful shutdown.
        option: the option that names the endpoints.

    Attributes:
        ready: it listens on all endpoints, and does not stop yet.
        descriptors: watches the process's file descriptors meanwhile; None for nothing.
    """

    log = Logger()

    def __init__(
        self,
        factory: Any,
        endpoints: Sequence[tuple[str, IStreamServerEndpoint]],
        urls: Sequence[tuple[str, str]],
        shutdown_policy: ShutdownPolicy | None = None,
        option: str = "listen",
    ) -> None:
        self.factory = factory
        self._endpoints = endpoints
        self._urls = urls
        self._shutdown_policy = shutdown_policy or ShutdownPolicy()
        self._option = option
        self.descriptors: DescriptorWatch | None = None
        self._listening = 0
        self._ports: list[Deferred[IListeningPort | None]] = []
        self._starting = False
        self._refused: CannotListen | None = None

    @property
    def ready(self) -> bool:
        return bool(self.running) and self._listening == len(self._endpoints)

    def privilegedStartService(self) -> None:
        """Listen, while twistd still has root's privileges."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._starting = True
        self._ports = [self._listen(description, endpoint) for description, endpoint in self._endpoints]
        self._starting = False
        if self._refused is not None:
            raise self._refused

    def startService(self) -> None:
        """Listen, unless it listens already."""
        super().startService()  # type: ignore[no-untyped-call]
        if not self._ports:
            self.privilegedStartService()

    def stopService(self) -> Deferred[None]:
        """Stop listening, and drain the connections. Fires when all are gone."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        ports, self._ports = self._ports, []
        for listening in ports:
            listening.cancel()
            port = await listening
            if port is not None:
                await self._stop_listening(port)
        if self.factory.connections:
            self.log.info("connections to close: {count}", count=len(self.factory.connections))
        shutdown_policy = self._shutdown_policy
        await self.factory.drain(shutdown_policy.code, shutdown_policy.reason, seconds=shutdown_policy.seconds)

    async def _stop_listening(self, port: IListeningPort) -> None:
        if self.descriptors is not None:
            self.descriptors.discard(port)
        try:
            await maybeDeferred(port.stopListening)
        except OSError as error:
            # The file of a UNIX socket is gone; the graceful shutdown must go on.
            self.log.warn("{port} did not close in order: {error}", port=port, error=error)

    def _listen(self, description: str, endpoint: IStreamServerEndpoint) -> Deferred[IListeningPort | None]:
        listening: Deferred[IListeningPort] = endpoint.listen(self.factory)
        return listening.addCallback(self._listens, description).addErrback(self._failed, description)

    def _listens(self, port: IListeningPort, description: str) -> IListeningPort:
        kind = description.partition(":")[0]
        address = port.getHost()
        self._listening += 1
        if self.descriptors is not None:
            self.descriptors.add(port)
        if kind in _SCHEMES and isinstance(address, (IPv4Address, IPv6Address)):
            urls = " and ".join(_url(scheme, path, kind, address.host, address.port) for scheme, path in self._urls)
            everywhere = f", on every address of this machine ({_place(address)})"
            self.log.info("serving {urls}{place}", urls=urls, place=everywhere if address.host in _EVERYWHERE else "")
        else:
            self.log.info("serving on {endpoint}, at {place}", endpoint=description, place=_place(address))
        return port

    def _failed(self, failure: Failure, description: str) -> None:
        if failure.check(CancelledError):
            return
        # Twisted's CannotListenError has the system's own words one level deeper.
        cause = getattr(failure.value, "socketError", failure.value)
        why = getattr(cause, "strerror", None) or str(cause).removeprefix("bind(): ").rstrip(".")
        line = f"cannot listen on {description}: {why}; give another endpoint with --{self._option}"
        if self._starting:
            self._refused = self._refused or CannotListen(line)
        else:
            self.log.critical("{line}", line=line)


def _place(address: Any) -> str:
    """The address of a port: host and port, or the path of a UNIX socket."""
    if isinstance(address, (IPv4Address, IPv6Address)):
        host = f"[{address.host}]" if ":" in address.host else address.host
        return f"{host}:{address.port}"
    name = getattr(address, "name", None)
    if not name:
        return str(address)
    path = os.fsdecode(name)
    # The form in which ss(8) and systemd show an abstract socket.
    return f"@{path[1:]}" if path.startswith("\0") else path


def _url(scheme: str, path: str, kind: str, host: str, port: int) -> str:
    secure, default = _SCHEMES[kind]
    if host in _EVERYWHERE:
        host = "localhost"
    authority = f"[{host}]" if ":" in host else host
    return f"{scheme}{secure}://{authority}{'' if port == default else f':{port}'}{path}"
