"""Small writes to TLS, joined: Twisted's TLS keeps each write of a reactor turn as an object of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted_beastws.clock import PendingTurn, next_turn

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

SMALL = 1 << 10
"""Bytes from which a write is not joined: 1 KiB. The overhead of a larger object is below 5 %."""

PASSED_ON = 256
"""Small writes that the transport gets as they are before joining begins: their objects cost it 16 KiB."""

AT_ONCE = 1 << 14
"""Joined bytes that are written without waiting for the next turn: 16 KiB, a TLS record's content (RFC 8446 §5.1)."""


class JoinedWrites:
    """Passes writes on in order, and joins the small ones of a reactor turn that has many.

    A connection that writes little per turn loses no time: its writes are passed on at once.
    """

    __slots__ = ("_call", "_clock", "_passed", "_transport", "_waiting")

    def __init__(self, transport: Any, clock: IReactorTime) -> None:
        self._transport = transport
        self._clock = clock
        self._passed = 0
        self._waiting = bytearray()
        self._call: PendingTurn | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Write ``data`` now, or with the other small writes of this turn."""
        if self._call is None:
            if len(data) >= SMALL:
                self._transport.write(data)
                return
            if self._passed < PASSED_ON:
                self._passed += 1
                self._transport.write(data)
                return
            self._call = next_turn(self._clock, self._turn)
        if self._waiting and len(self._waiting) + len(data) > AT_ONCE:
            self.flush()
        if len(data) >= AT_ONCE:
            self._transport.write(data)
        else:
            self._waiting += data

    def flush(self) -> None:
        """Write the waiting bytes now."""
        if self._waiting:
            waiting, self._waiting = self._waiting, bytearray()
            self._transport.write(bytes(waiting))

    def discard(self) -> None:
        """Forget the waiting bytes."""
        self._waiting = bytearray()
        self._passed = 0
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _turn(self) -> None:
        self._call = None
        self._passed = 0
        self.flush()
