"""Helpers of the hub's tests: a member that is no connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed

from twisted_beastws import CloseReason, Prepared, State, WebSocketProtocol
from twisted_beastws.hub import Hub, PublishError
from twisted_beastws.hub.backplane import BackplaneState

from ..support.loopback import until


async def connected(*hubs: Hub) -> None:
    """Wait until the backplanes of hubs are connected."""
    await until(lambda: all(hub.backplane.state is BackplaneState.CONNECTED for hub in hubs))


class Stub:
    """A member of a room.

    Args:
        sending: called with each message, before the member hears it.

    Attributes:
        heard: the messages that the member was sent.
    """

    peer = "stub"

    def __init__(self, sending: Callable[[str | bytes], object] = lambda message: None) -> None:
        self.sending = sending
        self.heard: list[str | bytes] = []
        self.frames: list[bytes] = []
        self.state = State.OPEN
        self.aborted = self.overflowed_at = False
        self.buffered_amount = 0
        self.close_reason = CloseReason(1006, "", False, "transport")
        self.ended: Deferred[CloseReason] = Deferred()
        self.draining: Deferred[None] = succeed(None)

    def send(self, message: Prepared) -> None:
        frame = message.plain
        said = frame.payload.decode() if frame.first & 1 else frame.payload
        self.sending(said)
        self.heard.append(said)
        self.frames.append(frame.frame)

    def when_closed(self) -> Deferred[CloseReason]:
        return self.ended

    def drain(self) -> Deferred[None]:
        return self.draining

    def abort(self) -> None:
        self.aborted = True

    def overflowed(self) -> None:
        self.overflowed_at = True

    def ends(self) -> None:
        self.state = State.CLOSED
        self.ended.callback(self.close_reason)

    @property
    def _websocket_connection(self) -> Stub:
        # The hub calls `overflowed` here when the peer reads too slowly.
        return self

    @property
    def connection(self) -> WebSocketProtocol:
        return cast(WebSocketProtocol, self)


def outcome(deferred: Deferred[Any]) -> Any:
    """Return the result of a Deferred, or the exception with which it failed; None before it fired."""
    results: list[Any] = []
    deferred.addCallbacks(results.append, lambda failure: results.append(failure.value))
    return results[0] if results else None


def done(deferred: Deferred[Any]) -> Any:
    """Return the result of a Deferred, as often as a test asks."""
    result = outcome(deferred)
    deferred.addCallback(lambda _: result)
    return result


def said_of(error: Any) -> str:
    assert isinstance(error, PublishError)
    return str(error)
