"""Listening sockets of several processes: one opens and holds them, the others adopt them."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet import tcp, unix
from twisted.protocols.tls import TLSMemoryBIOFactory

from twisted_beastws.service.certificates import ReactorProxy


class HoldingReactor(ReactorProxy):
    """``reactor``, but that what listens by it accepts nobody.

    ports: what listens, in the order in which it was asked for.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.ports: list[Any] = []

    def addReader(self, reader: object) -> None:
        """It is a port, and nobody is to be accepted on it."""

    def removeReader(self, reader: object) -> None:
        """As `addReader`."""

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._hold(tcp.Port(port, factory, backlog, interface, self))  # type: ignore[no-untyped-call, unused-ignore]

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0) -> Any:
        return self._hold(unix.Port(address, factory, backlog, mode, self, wantPID))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        if addressFamily == socket.AF_UNIX:
            return self._hold(SharedUNIXPort.of(self, fileDescriptor, factory))
        return self._hold(tcp.Port._fromListeningDescriptor(self, fileDescriptor, addressFamily, factory))

    def _hold(self, port: Any) -> Any:
        port.startListening()
        self.ports.append(port)
        return port


class AdoptingReactor(ReactorProxy):
    """``reactor``, but that whatever listens by it does so on the next of ``descriptors``.

    They are those of a `HoldingReactor`'s ports on which the same endpoints listen, in the same order.
    """

    def __init__(self, reactor: Any, descriptors: Sequence[int]) -> None:
        super().__init__(reactor)
        self._descriptors = list(descriptors)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._adopt(factory)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self._adopt(TLSMemoryBIOFactory(contextFactory, False, factory))

    def listenUNIX(self, address: Any, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: int = 0) -> Any:
        return self._adopt(factory)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        return self._adopt(factory)

    def _adopt(self, factory: Any) -> Any:
        descriptor = self._descriptors.pop(0)
        # The port has one of its own.
        with socket.socket(fileno=descriptor) as shared:
            if shared.family == socket.AF_UNIX:
                port = SharedUNIXPort.of(self.below, descriptor, factory)
                port.startListening()
                return port
            return self.below.adoptStreamPort(descriptor, shared.family, factory)


class SharedUNIXPort(unix.Port):
    """A port whose file in the file system is another's."""

    @classmethod
    def of(cls, reactor: Any, descriptor: int, factory: Any) -> Any:
        """The port on a socket that listens; the descriptor stays its owner's."""
        port: Any = cls._fromListeningDescriptor(reactor, descriptor, factory)  # type: ignore[no-untyped-call]
        path = port._preexistingSocket.getsockname()
        # When it starts it gives the file a mode: that is to be the one which it has. An abstract socket has no file.
        if isinstance(path, str):
            port.mode = os.stat(path).st_mode & 0o777
        return port

    def connectionLost(self, reason: Any) -> None:
        # What `unix.Port` does before this is to remove the file.
        tcp.Port.connectionLost(self, reason)
