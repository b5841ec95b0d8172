"""Notices for systemd (``Type=notify``): when the service is ready, reloads and stops, and that its reactor runs."""

from __future__ import annotations

import faulthandler
import os
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_beastws.connection.running import settled
from twisted_beastws.server.observers.heartbeat import Heartbeat

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

POLL = 0.2
"""Seconds between two looks whether the service is ready, until it is."""

BEATS = 3
"""Signs of life in the time after which systemd misses them; sd_watchdog_enabled(3) recommends two or more."""

MAX_WAIT = 1.0
"""Seconds that a notice waits while systemd's queue is full."""


class NoticeSocket:
    """Sends notices to systemd.

    The socket stays open, so that the signs of life go on when the process has no free file descriptor.

    Args:
        address: the path of systemd's socket; ``@`` begins an abstract one.
    """

    log = Logger()

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(MAX_WAIT)

    def send(self, *assignments: str) -> None:
        """Send one notice, with lines such as ``READY=1``. A failure is logged."""
        try:
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            self.log.warn("systemd was not notified of {what}: {error}", what=assignments[0], error=error)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class Systemd(Service):
    """Notifies systemd.

    ``READY=1`` goes out when the service is ready for the first time, ``STOPPING=1`` when its shutdown begins. With a
    watchdog, ``WATCHDOG=1`` goes out as long as the reactor runs; if systemd misses it, it ends the process by
    SIGABRT, and the log shows the line at which each thread stood.

    Args:
        reactor: runs the service.
        notices: the socket.
        watchdog: seconds after which systemd misses a sign of life; None without a watchdog.
        ready: returns whether the service is ready, or awaits it.
    """

    def __init__(
        self,
        reactor: Any,
        notices: NoticeSocket,
        watchdog: float | None,
        ready: Callable[[], bool | Awaitable[bool]],
    ) -> None:
        self._reactor = reactor
        self._notices = notices
        self._ready = ready
        self._announced = False
        self._looking: IDelayedCall | None = None
        self._heart: Heartbeat | None = None
        if watchdog is not None:
            self._heart = Heartbeat(reactor, watchdog / BEATS, self._beat)

    @classmethod
    def of(
        cls, environment: MutableMapping[str, str], reactor: Any, ready: Callable[[], bool | Awaitable[bool]]
    ) -> Systemd | None:
        """Return the service for an environment; None if systemd expects no notices.

        The variables are removed, so that no program which this one starts notifies systemd.
        """
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", "")
        if not address.startswith(("/", "@")):
            return None
        watchdog = None
        if microseconds.isdecimal() and int(microseconds) and process in ("", str(os.getpid())):
            watchdog = int(microseconds) / 1e6
        return cls(reactor, NoticeSocket(address), watchdog, ready)

    def startService(self) -> None:
        """Start to look whether the service is ready, once the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stopping)
        self._reactor.callWhenRunning(self._start)

    def stopService(self) -> None:
        """Stop: systemd hears no more of this process."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._heart is not None:
            self._heart.stop()
        self._notices.close()

    def reloading(self) -> None:
        """Notify systemd that the service begins to reload."""
        if self._announced:
            self._notices.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Notify systemd that the service has reloaded."""
        if self._announced:
            self._notices.send("READY=1")

    def _start(self) -> None:
        if not self.running:
            return
        self._notices.send("STATUS=Waiting for the listeners and the backplane")
        if self._heart is not None:
            # Not sys.stderr, which a log may replace. The program that started this one may have closed it.
            with suppress(OSError, ValueError):
                faulthandler.enable(2)
            self._heart.start()
        self._look()

    def _look(self) -> None:
        self._looking = None
        Deferred.fromCoroutine(self._announce_if_ready())

    async def _announce_if_ready(self) -> None:
        is_ready = await settled(self._ready())
        if not self.running:
            return
        if is_ready:
            self._announced = True
            self._notices.send("READY=1", "STATUS=Serving")
        else:
            self._looking = self._reactor.callLater(POLL, self._look)

    def _beat(self, lag: float) -> None:
        self._notices.send("WATCHDOG=1")

    def _stopping(self) -> None:
        if self.running:
            self._notices.send("STOPPING=1", "STATUS=Closing the connections")
