"""`Observer`: watches the connections of a server, to count, log or trace them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


class Observer:
    """A base class of observers, whose methods do nothing: override those that you need.

    Add an instance to a server by `WebSocketServerFactory.add_observer`. ``ws`` is the `WebSocketProtocol` of a
    connection. Without an observer no connection, message or handshake pays for observing.
    """

    def opened(self, ws: Any) -> None:
        """Note that a handshake succeeded. ``ws.opened`` and all messages come after this call."""

    def not_opened(self, ws: Any, error: BaseException | None) -> None:
        """Note that a request opened no WebSocket.

        Args:
            ws: The connection; ``ws.request`` is the request, or None if none was complete.
            error: `UpgradeDeclined` with the ``response`` of a hook or gate, another `HandshakeError` with the
                ``status`` of the answer, or the error that ended the connection.
        """

    def round_trip(self, ws: Any, seconds: float) -> None:
        """Note that a ping was answered after these seconds."""

    def read_too_slowly(self, ws: Any) -> None:
        """Note that a connection is about to close because its peer reads too slowly."""

    def closed(self, ws: Any, seconds: float) -> None:
        """Note the end of a connection that was open for these seconds; ``ws.close_reason`` describes it."""

    def around(self, ws: Any, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        """Return the callable to use in place of a hook of ``ws``; by default the hook itself.

        Args:
            ws: The connection, which has just opened.
            name: ``opened``, ``text_received``, ``binary_received`` or ``fragment_received``. A coroutine function that
                serves a connection runs in its ``opened``.
            hook: The hook. Its result may be a Deferred or a coroutine, which the replacement must return or await.
        """
        return hook


class Observers(Observer):
    """Several observers of the same connections."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def opened(self, ws: Any) -> None:
        for observer in self._observers:
            observer.opened(ws)

    def not_opened(self, ws: Any, error: BaseException | None) -> None:
        for observer in self._observers:
            observer.not_opened(ws, error)

    def round_trip(self, ws: Any, seconds: float) -> None:
        for observer in self._observers:
            observer.round_trip(ws, seconds)

    def read_too_slowly(self, ws: Any) -> None:
        for observer in self._observers:
            observer.read_too_slowly(ws)

    def closed(self, ws: Any, seconds: float) -> None:
        for observer in self._observers:
            observer.closed(ws, seconds)

    def around(self, ws: Any, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        for observer in reversed(self._observers):
            hook = observer.around(ws, name, hook)
        return hook


def joined(observers: Sequence[Observer]) -> Observer | None:
    """Return one observer for all of these; None for none, so that connections without one pay nothing."""
    if len(observers) <= 1:
        return observers[0] if observers else None
    return Observers(observers)
