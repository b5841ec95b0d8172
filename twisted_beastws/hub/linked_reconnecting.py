"""`Reconnecting`: connects to a backplane's server, and connects again after each loss."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.python.failure import Failure

from twisted_beastws.hub.linked_errors import LinkLost, Refused, Remedy
from twisted_beastws.hub.linked_interfaces import LinkUser

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

CONNECT_TIMEOUT = 5.0
"""Seconds for TCP and TLS to connect."""

REPLY_TIMEOUT = 5.0
"""Seconds without a byte from the server while a reply is due, after which the connection is dropped."""

STOP_TIMEOUT = 1.0
"""Seconds for the last reply when the link stops."""

BEAT = 10.0
"""Seconds between two signs of life, which keep our members' names, too."""

PROBE = 1.0
"""Seconds between two of them while the server refuses writes."""

LEASE = 30
"""Seconds after the last of them, after which our members are no longer listed."""


class LinkConnection(Protocol):
    """One of the connections of a link.

    Attributes:
        gone: fires when it is lost, with the reason.
        ended: the reason, from before the pending commands fail; None until then.
    """

    gone: Deferred[BaseException]
    ended: BaseException | None

    def drop(self, why: BaseException | None = None) -> None: ...


class Reconnecting:
    """Connects, and reconnects after a loss: at first after a quarter of a second, later every ten.

    A subclass opens the connections, and gives the signs of life.

    Args:
        user: the backplane.
        reactor: for connections and time.
    """

    def __init__(self, user: LinkUser, reactor: IReactorTime) -> None:
        self._user = user
        self._reactor = reactor
        self._connections: list[LinkConnection] = []
        self._stopping = self._disconnecting = False
        self._was_linked = False
        self._beating = LoopingCall(self._beat)
        self._beating.clock = reactor
        self._probing: IDelayedCall | None = None

    def start(self) -> None:
        """Connect, until `stop`."""
        self._serving = Deferred.fromCoroutine(self._serve())

    def stop(self) -> Deferred[None]:
        """End the connections and the listing of members; fires when they have ended."""
        serving = self._serving
        self._stopping = True
        serving.addErrback(lambda failure: failure.trap(CancelledError) and None)
        if self._disconnecting:
            # It ends by itself.
            return serving
        if not self._connections:
            serving.cancel()
        else:
            # Replies to all earlier commands come first, so this hub has nothing left to confirm.
            last = self._take_leave().addTimeout(STOP_TIMEOUT, self._reactor)
            last.addBoth(lambda _: serving.cancel())
        return serving

    def restart(self, why: Exception) -> None:
        """Drop the connections, and open others."""
        if self._connections:
            self._connections[0].drop(why)

    # The subclass's part.

    async def _open(self) -> None:
        """Open the connections, and append each to ``_connections``."""
        raise NotImplementedError

    def _take_leave(self) -> Deferred[object]:
        """Send the last commands; fires when they are answered."""
        raise NotImplementedError

    async def _give_sign(self) -> None:
        """Give a sign of life, and report it to the user; fails with `Refused` if the server takes no writes."""
        raise NotImplementedError

    # Connecting.

    async def _serve(self) -> None:
        failures = 0
        while not self._stopping:
            why: BaseException = LinkLost("the connection was lost")
            try:
                await self._open()
                await self._user.linked()
                self._was_linked = True
                self._beating.start(BEAT, now=True).addErrback(ignored)
                since = self._reactor.seconds()
                why = await first_of([each.gone for each in self._connections])
                # The server may let us connect and then refuse each command: the waits grow all the same.
                if not isinstance(why, Refused) or self._reactor.seconds() - since >= BEAT:
                    failures = 0
            except CancelledError:
                return
            except Exception as error:
                why = self._reason(error)
            finally:
                await self._disconnect(why)
            if self._stopping:
                return
            if isinstance(why, Refused) and why.trouble.remedy is Remedy.GIVE_UP and not self._was_linked:
                self._user.gave_up(why)
                return
            failures += 1
            await deferLater(self._reactor, backoff(failures))

    def _reason(self, error: Exception) -> BaseException:
        """Return the reason of the connections' end, if ``error`` has none."""
        reasons = [each.ended for each in self._connections]
        return next(filter(None, reasons), error) if isinstance(error, LinkLost) else error

    async def _disconnect(self, why: BaseException) -> None:
        if self._beating.running:
            self._beating.stop()
        if self._probing is not None and self._probing.active():
            self._probing.cancel()
        connections, self._connections = self._connections, []
        self._user.lost(why)
        for each in connections:
            each.drop()
        self._disconnecting = True
        for each in connections:
            await first_of([each.gone])
        self._disconnecting = False

    # Signs of life.

    def _beat(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._try_sign()).addErrback(ignored)

    async def _try_sign(self) -> None:
        try:
            await self._give_sign()
        except Refused as refused:
            self._user.beat(refused.trouble, None, False)
            # Beats and probes are both refused: one probe follows, or they would become ever more.
            if self._connections and (self._probing is None or not self._probing.active()):
                self._probing = self._reactor.callLater(min(PROBE, BEAT), self._beat)


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row."""
    return min(10.0, 0.25 * 1.7 ** min(failures - 1, 10)) * random.uniform(0.8, 1.2)


def first_of(several: Sequence[Deferred[BaseException]]) -> Deferred[BaseException]:
    """Fires with the result of the first that fires. Cancelling it cancels none of them."""
    first: Deferred[BaseException] = Deferred()

    def fire(result: BaseException) -> BaseException:
        if not first.called:
            first.callback(result)
        return result

    for each in several:
        each.addCallback(fire)
    return first


def ignored(failure: Failure) -> None:
    """Ignore a failure: the link reports a loss itself, and the hub lists a missing name again."""
