"""Listening sockets: how the service opens them, and how several processes share them."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from twisted_beastws.tls.certificates import ReactorProxy

if TYPE_CHECKING:
    from twisted_beastws.service.worker import HeldSocket

BACKLOG = 4096
"""Connections that the system keeps until they are accepted: Linux's own limit, ``net.core.somaxconn``."""

_HAS_BACKLOG = re.compile(r"(?<!\\):backlog=")

_STALE_AFTER = 0.1
"""Seconds between two attempts to reach the owner of a UNIX socket: it may be about to listen."""

_ENDPOINT_NAMES: dict[int, str] = {socket.AF_INET: "INET", socket.AF_INET6: "INET6"}


class ServiceReactor(ReactorProxy):
    """``reactor``, but endpoints of the service listen by it as services do.

    TCP and UNIX sockets have a backlog of `BACKLOG`, unless ``description``, the endpoint string, has another. A UNIX
    socket is taken over if its owner is gone. A socket that another program opened must have the family in the
    description, and keeps its file.
    """

    log = Logger()

    def __init__(self, reactor: Any, description: str) -> None:
        super().__init__(reactor)
        self._has_backlog = _HAS_BACKLOG.search(description) is not None

    def _backlog(self, given: int) -> int:
        return given if self._has_backlog else BACKLOG

    def listenTCP(self, port: int, factory: Any, backlog: int = BACKLOG, interface: str = "") -> Any:
        return self.below.listenTCP(port, factory, self._backlog(backlog), interface)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = BACKLOG, interface: str = ""
    ) -> Any:
        return self.below.listenSSL(port, factory, contextFactory, self._backlog(backlog), interface)

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = BACKLOG, mode: int = 0o666, wantPID: int = 0
    ) -> Any:
        if wantPID:
            self._remove_stale(os.fsdecode(address))
        return self.below.listenUNIX(address, factory, self._backlog(backlog), mode, wantPID)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        family = family_of(fileDescriptor)
        if family != addressFamily:
            # Twisted would misread addresses of another family.
            name = _ENDPOINT_NAMES.get(family, "UNIX")
            raise ValueError(f"the socket is of another family: write domain={name}")
        return self.below.adoptStreamPort(fileDescriptor, addressFamily, factory)

    def _remove_stale(self, path: str) -> None:
        """Remove a UNIX socket, and Twisted's lock, if nothing answers on it.

        The lock names a process. In a container each first process has the number 1: it would find that its own
        predecessor lives.
        """
        lock = f"{path}.lock"
        if path.startswith("\0") or not os.path.islink(lock):
            return
        if answers(path):
            return
        time.sleep(_STALE_AFTER)
        if answers(path):
            return
        self.log.info("nothing answers on the socket {path}: it is taken over", path=path)
        for each in (path, lock):
            with suppress(FileNotFoundError):
                if each == lock or stat.S_ISSOCK(os.lstat(each).st_mode):
                    os.unlink(each)


def answers(path: str) -> bool:
    """Return whether a process listens on the UNIX socket ``path``, as far as this one may know."""
    with socket.socket(socket.AF_UNIX) as probe:
        # A busy listener counts as alive, too.
        probe.setblocking(False)
        return probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def family_of(descriptor: int) -> int:
    """Return the family of the addresses of the socket ``descriptor``."""
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        return duplicate.family


class KeepingReactor(ReactorProxy):
    """``reactor``, but a UNIX socket that was opened elsewhere keeps its file, with the mode that it has."""

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        if addressFamily != socket.AF_UNIX:
            return self.below.adoptStreamPort(fileDescriptor, addressFamily, factory)
        port = SharedUNIXPort.of(self.below, fileDescriptor, factory)
        port.startListening()
        return port


class HeldPort:
    """A port that is held for workers. endpoint: the place of its endpoint. kind: the method that asked for it."""

    def __init__(self, endpoint: int, kind: str, port: Any) -> None:
        self.endpoint = endpoint
        self.kind = kind
        self.port = port


class HoldingReactor(ReactorProxy):
    """``reactor``, but ports that listen by it accept no connection.

    Each is added to ``held``, with the place of the ``endpoint`` that listens by this reactor.
    """

    def __init__(self, reactor: Any, endpoint: int, held: list[HeldPort]) -> None:
        super().__init__(reactor)
        self._endpoint = endpoint
        self._held = held

    def addReader(self, reader: object) -> None:
        """Do nothing: the reader is a port, which is to accept no connection."""

    def removeReader(self, reader: object) -> None:
        """Do nothing, as `addReader`."""

    def listenTCP(self, port: int, factory: Any, backlog: int = BACKLOG, interface: str = "") -> Any:
        return self._hold("TCP", tcp.Port(port, factory, backlog, interface, self))  # type: ignore[no-untyped-call, unused-ignore]

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = BACKLOG, interface: str = ""
    ) -> Any:
        return self._hold("SSL", tcp.Port(port, factory, backlog, interface, self))  # type: ignore[no-untyped-call, unused-ignore]

    def listenUNIX(
        self, address: Any, factory: Any, backlog: int = BACKLOG, mode: int = 0o666, wantPID: int = 0
    ) -> Any:
        return self._hold("UNIX", unix.Port(address, factory, backlog, mode, self, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        if addressFamily == socket.AF_UNIX:
            return self._hold("adopted", SharedUNIXPort.of(self, fileDescriptor, factory))
        port = tcp.Port._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory)
        return self._hold("adopted", port)

    def _hold(self, kind: str, port: Any) -> Any:
        port.startListening()
        self._held.append(HeldPort(self._endpoint, kind, port))
        return port


class AdoptingReactor(ReactorProxy):
    """``reactor``, but whatever listens by it does so on a socket that was held for it.

    sockets: those of the one endpoint that listens by this reactor.
    """

    def __init__(self, reactor: Any, sockets: Sequence[HeldSocket]) -> None:
        super().__init__(reactor)
        self._sockets = list(sockets)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._adopt("TCP", factory)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._adopt("SSL", TLSMemoryBIOFactory(contextFactory, False, factory))

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0) -> Any:
        return self._adopt("UNIX", factory)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        return self._adopt("adopted", factory)

    def _adopt(self, kind: str, factory: Any) -> Any:
        held = next((each for each in self._sockets if each.kind == kind), None)
        if held is None:
            raise CannotListenError(None, None, "the supervisor holds no such socket")
        self._sockets.remove(held)
        # The port has a descriptor of its own.
        with socket.socket(fileno=held.descriptor) as shared:
            if shared.family == socket.AF_UNIX:
                port = SharedUNIXPort.of(self.below, held.descriptor, factory)
                port.startListening()
                return port
            return self.below.adoptStreamPort(held.descriptor, shared.family, factory)


class SharedUNIXPort(unix.Port):
    """A listening port; another process owns its file in the file system."""

    @classmethod
    def of(cls, reactor: Any, descriptor: int, factory: Any) -> Any:
        """Return the port on a socket that listens; the descriptor stays its owner's."""
        port: Any = cls._fromListeningDescriptor(reactor, descriptor, factory)  # type: ignore[no-untyped-call]
        path = port._preexistingSocket.getsockname()
        # When it starts it gives the file a mode, and the socket a backlog. An abstract socket has no file.
        port.backlog = BACKLOG
        if isinstance(path, str) and path:
            with suppress(FileNotFoundError):
                port.mode = os.stat(path).st_mode & 0o777
        return port

    def startListening(self) -> None:
        path = self._bindPath
        if not os.path.lexists(path):
            # The file is gone, and its owner goes on without it. As an abstract name, Twisted gives it no mode.
            self._bindPath = b"\0" + path
        super().startListening()  # type: ignore[no-untyped-call]
        self._bindPath = path

    def connectionLost(self, reason: Any) -> None:
        # `unix.Port` would remove the file before this.
        tcp.Port.connectionLost(self, reason)
