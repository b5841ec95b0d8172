"""`Observer`: watches the connections of a server, to count, log or trace them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()


class Observer:
    """A base class of observers, whose methods do nothing: override those that you need.

    Add an instance to a server by `WebSocketServerFactory.add_observer`. ``ws`` is the `WebSocketProtocol` of a
    connection. Without an observer no connection, message or handshake pays for observing. An exception of an observer
    is logged, and changes nothing for the connection.
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
    """Calls several observers of the same connections. One that fails is logged, and costs no connection anything."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def opened(self, ws: Any) -> None:
        self._each(lambda observer: observer.opened(ws))

    def not_opened(self, ws: Any, error: BaseException | None) -> None:
        self._each(lambda observer: observer.not_opened(ws, error))

    def round_trip(self, ws: Any, seconds: float) -> None:
        self._each(lambda observer: observer.round_trip(ws, seconds))

    def read_too_slowly(self, ws: Any) -> None:
        self._each(lambda observer: observer.read_too_slowly(ws))

    def closed(self, ws: Any, seconds: float) -> None:
        self._each(lambda observer: observer.closed(ws, seconds))

    def around(self, ws: Any, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        for observer in reversed(self._observers):
            try:
                hook = observer.around(ws, name, hook)
            except Exception:
                _log_failure(observer)
        return hook

    def _each(self, call: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                call(observer)
            except Exception:
                _log_failure(observer)


def _log_failure(observer: Observer) -> None:
    failure = Failure()
    log.failure("the observer {observer} failed", failure, observer=type(observer).__qualname__)
    # The frames of its traceback would keep the connection alive.
    failure.cleanFailure()


def joined(observers: Sequence[Observer]) -> Observer | None:
    """Return one observer for all of these; None for none, so that connections without one pay nothing."""
    return Observers(observers) if observers else None
