"""The reactor: Twisted's asyncio reactor with its own TCP and its own SIGCHLD handler."""

from __future__ import annotations

import socket
import time
from asyncio import AbstractEventLoop, get_running_loop, set_event_loop
from typing import Any, cast

import uvloop
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.base import ReactorBase
from twisted.internet.main import installReactor

from twisted_beastws.server.descriptors import DescriptorWatch
from twisted_beastws.uvreactor.children import SignalHandlingWithChildren
from twisted_beastws.uvreactor.connector import Connector
from twisted_beastws.uvreactor.port import Port, adopt
from twisted_beastws.uvreactor.transport import NativeConnection
from twisted_beastws.wire.places import LOOK

INTERNET = (socket.AF_INET, socket.AF_INET6)


class UvloopReactor(AsyncioSelectorReactor):
    """Twisted's reactor on a uvloop loop.

    Attributes:
        seconds: Returns the time. The clock starts at the time of day and is monotonic, as ``is_monotonic`` says.
        native: The listening ports and connections that uvloop serves; the selector does not watch their descriptors.
        descriptors: Notices when no descriptor is left for a new connection; uvloop then drops it silently.
        short_chunk: The buffer in which connections look for long payloads: uvloop fills it, and passes the size on at
            once.
    """

    is_monotonic = True

    def __init__(self, eventloop: AbstractEventLoop | None = None) -> None:
        if eventloop is None:
            try:
                eventloop = get_running_loop()
            except RuntimeError:
                eventloop = uvloop.new_event_loop()
                set_event_loop(eventloop)
        if not isinstance(eventloop, uvloop.Loop):
            raise TypeError(f"a uvloop loop is needed, not {eventloop!r}")
        self.native: set[Port | NativeConnection] = set()
        # Some programs use `seconds` as the date, as the log of twisted.web does.
        began = time.time() - time.monotonic()
        self.seconds = lambda: time.monotonic() + began
        self.descriptors = DescriptorWatch(eventloop.call_later)
        self.short_chunk = bytearray(LOOK)
        super().__init__(eventloop)

    @property
    def loop(self) -> uvloop.Loop:
        """The uvloop loop of this reactor."""
        return cast(uvloop.Loop, self._asyncioEventloop)

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        listening = Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def connectTCP(self, host: str, port: Any, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Connector:
        connector = Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        if addressFamily not in INTERNET:
            return super().adoptStreamPort(fileDescriptor, addressFamily, factory)  # type: ignore[no-untyped-call]
        port: Port = Port._fromListeningDescriptor(  # type: ignore[no-untyped-call]
            self, fileDescriptor, addressFamily, factory
        )
        port.startListening()
        return port

    def adoptStreamConnection(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        if addressFamily not in INTERNET:
            return super().adoptStreamConnection(fileDescriptor, addressFamily, factory)  # type: ignore[no-untyped-call]
        return adopt(self, fileDescriptor, addressFamily, factory)

    def addReader(self, reader: Any) -> None:
        if isinstance(reader, (NativeConnection, Port)):
            reader.startReading()
        else:
            super().addReader(reader)  # type: ignore[no-untyped-call]

    def removeReader(self, reader: Any) -> None:
        if isinstance(reader, (NativeConnection, Port)):
            reader.stopReading()
        else:
            super().removeReader(reader)  # type: ignore[no-untyped-call]

    def getReaders(self) -> list[Any]:
        reading = [each for each in self.native if each.reading]
        return [*super().getReaders(), *reading]  # type: ignore[no-untyped-call]

    def removeAll(self) -> list[Any]:
        native = list(self.native)
        self.native.clear()
        for each in native:
            each.stopReading()
        return [*super().removeAll(), *native]  # type: ignore[no-untyped-call]

    def _signalsFactory(self) -> SignalHandlingWithChildren:
        # Twisted sets a wakeup descriptor for SIGCHLD, but uvloop replaces that descriptor when it runs.
        return SignalHandlingWithChildren(ReactorBase._signalsFactory(self), self.loop)


def install(eventloop: AbstractEventLoop | None = None) -> None:
    """Make this the reactor of the process; see `twisted_beastws.uvreactor.install`."""
    installReactor(UvloopReactor(eventloop))
