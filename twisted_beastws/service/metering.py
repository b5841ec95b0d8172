"""Counting what happens on the connections of a factory whose ``observer`` is a `Meter`.

The session of such a connection is a subclass of what it would be otherwise: where nobody asks for numbers nothing is
counted, and nothing is in the way of a message.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from twisted_beastws.errors import HandshakeError, HandshakeTimeout, UpgradeDeclined
from twisted_beastws.protocol import WebSocketProtocol, connection_of
from twisted_beastws.wire.frames import Opcode
from twisted_beastws.wire.handshake import is_upgrade
from twisted_beastws.wire.session import DeflateSession, Session

if TYPE_CHECKING:
    from twisted_beastws.options import Limits
    from twisted_beastws.service.access_log import AccessLog
    from twisted_beastws.wire.closing import CloseReason
    from twisted_beastws.wire.prepared import Prepared

ROUND_TRIPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, in seconds, of the groups that round trips of pings are counted in."""


# What ``super()`` would find, without a search for each message.
_call_hook, _send_text, _send_binary = Session.call_hook, Session.send_text, Session.send_binary


class Traffic(NamedTuple):
    """Messages and the octets in them, uncompressed, by direction and type."""

    received_texts: int = 0
    received_text_octets: int = 0
    received_binaries: int = 0
    received_binary_octets: int = 0
    sent_texts: int = 0
    sent_text_octets: int = 0
    sent_binaries: int = 0
    sent_binary_octets: int = 0

    def plus(self, other: Traffic) -> Traffic:
        """Both together."""
        return Traffic(*(one + more for one, more in zip(self, other, strict=True)))


_counters: Callable[[Any], tuple[int, ...]] = attrgetter(*Traffic._fields)


class _Counting:
    """The counters of a session, for classes that have the slots for them."""

    # Of two bases one alone may have slots.
    if not TYPE_CHECKING:
        __slots__ = ()
    else:
        received_texts: int
        received_text_octets: int
        received_binaries: int
        received_binary_octets: int
        sent_texts: int
        sent_text_octets: int
        sent_binaries: int
        sent_binary_octets: int
        on_text: Any
        on_binary: Any
        message_opcode: int
        _in_prepared: bool
        _streams_text: bool

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.received_texts = self.received_text_octets = self.received_binaries = self.received_binary_octets = 0
        self.sent_texts = self.sent_text_octets = self.sent_binaries = self.sent_binary_octets = 0
        self._in_prepared = self._streams_text = False

    @property
    def traffic(self) -> Traffic:
        """What was counted so far."""
        return Traffic(*_counters(self))

    # Received.

    def call_hook(self, hook: Any, message: Any) -> None:
        # What waited for a slow hook was counted when it came, and is called by another hook than these.
        if hook is not None and (hook is self.on_text or hook is self.on_binary):
            if type(message) is str:
                self.received_texts += 1
                self.received_text_octets += len(message) if message.isascii() else len(message.encode())
            else:
                self.received_binaries += 1
                self.received_binary_octets += len(message)
        _call_hook(self, hook, message)  # type: ignore[arg-type]

    def _deliver_fragment(self, part: bytes, final: bool) -> None:
        if self.message_opcode == Opcode.TEXT:
            self.received_texts += final
            self.received_text_octets += len(part)
        else:
            self.received_binaries += final
            self.received_binary_octets += len(part)
        super()._deliver_fragment(part, final)  # type: ignore[misc]

    # Sent, or taken to be sent: what raises is not.

    def send_message(self, first: int, payload: bytes, compress: bool | None = None) -> None:
        super().send_message(first, payload, compress)  # type: ignore[misc]
        if self._in_prepared:
            self._in_prepared = False
        else:
            self._count_sent(bool(first & Opcode.TEXT), 1, len(payload))

    def send_prepared(self, message: Prepared) -> None:
        # It may go on by `send_message`.
        self._in_prepared = True
        try:
            super().send_prepared(message)  # type: ignore[misc]
        finally:
            self._in_prepared = False
        self._count_sent(bool(message.plain.first & Opcode.TEXT), 1, len(message.plain.payload))

    def begin_message(self, opcode: int, compress: bool | None = None) -> None:
        super().begin_message(opcode, compress)  # type: ignore[misc]
        self._streams_text = opcode == Opcode.TEXT
        self._count_sent(self._streams_text, 1, 0)

    def write_part(self, part: bytes) -> None:
        super().write_part(part)  # type: ignore[misc]
        self._count_sent(self._streams_text, 0, len(part))

    def _count_sent(self, text: bool, messages: int, octets: int) -> None:
        if text:
            self.sent_texts += messages
            self.sent_text_octets += octets
        else:
            self.sent_binaries += messages
            self.sent_binary_octets += octets


class _CountingPlain(_Counting):
    """The same of a session without compression, whose messages do not all go by its `send_message`."""

    __slots__ = ()

    def send_text(self, text: str) -> None:
        _send_text(self, text)  # type: ignore[arg-type]
        self.sent_texts += 1
        self.sent_text_octets += len(text) if text.isascii() else len(text.encode())

    def send_binary(self, data: bytes) -> None:
        _send_binary(self, data)  # type: ignore[arg-type]
        self.sent_binaries += 1
        self.sent_binary_octets += len(data)


@cache
def metered(kind: Any) -> Any:
    """The subclass of ``kind``, a `Session`, that counts its messages."""
    mixin = _Counting if issubclass(kind, DeflateSession) else _CountingPlain
    slots = {"__slots__": (*Traffic._fields, "_in_prepared", "_streams_text"), "__module__": __name__}
    return type(f"Metered{kind.__name__}", (mixin, kind), {**slots, "__doc__": kind.__doc__})


class Meter:
    """The counts of one factory's connections.

    access_log: gets a line for each; or None.

    handshakes: by outcome: the answer's status, or ``timeout``. responses: answers to other requests than handshakes,
        by status. closes: connections that were open and are gone, by close code and who began.
    traffic: of those. round_trips: of pings, one count for each of `ROUND_TRIPS` and one beyond; round_trip_seconds:
        all together. slow_readers: closed for it. dropped: messages that connections gone dropped under the policy
        ``drop``.
    """

    def __init__(self, access_log: AccessLog | None = None) -> None:
        self.access_log = access_log
        self.handshakes: Counter[str] = Counter()
        self.responses: Counter[str] = Counter()
        self.closes: Counter[tuple[str, str]] = Counter()
        self.traffic = Traffic()
        self.round_trips = [0] * (len(ROUND_TRIPS) + 1)
        self.round_trip_seconds = 0.0
        self.slow_readers = 0
        self.dropped = 0

    def session_types(self, plain: Any, deflating: Any) -> tuple[Any, Any]:
        """Return the subclasses of two classes of sessions that count messages."""
        return metered(plain), metered(deflating)

    def opened(self) -> None:
        """A handshake succeeded."""
        self.handshakes["101"] += 1

    def not_opened(self, protocol: WebSocketProtocol, error: BaseException | None) -> None:
        """One did not, or another request was answered."""
        if isinstance(error, UpgradeDeclined):
            status = error.response.status
            if protocol.request is None or not is_upgrade(protocol.request):
                self.responses[str(status)] += 1
                return
        elif isinstance(error, HandshakeTimeout):
            self.handshakes["timeout"] += 1
            return
        elif isinstance(error, HandshakeError):
            status = error.status
        else:
            return
        self.handshakes[str(status)] += 1
        if self.access_log is not None:
            self.access_log.refused(protocol, status)

    def round_trip(self, seconds: float) -> None:
        """A pong came."""
        self.round_trips[bisect_left(ROUND_TRIPS, seconds)] += 1
        self.round_trip_seconds += seconds

    def read_too_slowly(self) -> None:
        """A connection is closed because its peer reads too slowly."""
        self.slow_readers += 1

    def closed(self, protocol: WebSocketProtocol, session: Session, seconds: float, dropped: int) -> None:
        """A connection that was open for so many seconds is gone."""
        traffic = traffic_of(session)
        self.traffic = self.traffic.plus(traffic)
        if connection_of(protocol).settings.limits.slow_reader == "drop":
            self.dropped += dropped
        reason = cast("CloseReason", protocol.close_reason)
        self.closes[code_told(reason), reason.began] += 1
        if self.access_log is not None:
            self.access_log.closed(protocol, traffic, seconds)

    def traffic_with(self, connections: Iterable[WebSocketProtocol]) -> Traffic:
        """All that was counted, on these connections too."""
        sessions = (connection_of(protocol).session for protocol in connections)
        counted = (_counters(session) for session in sessions if isinstance(session, _Counting))
        return Traffic(*map(sum, zip(self.traffic, *counted, strict=True)))


def traffic_of(session: Session) -> Traffic:
    """What was counted on a session, if it counts."""
    return session.traffic if isinstance(session, _Counting) else Traffic()


def dropped_by(connections: Iterable[WebSocketProtocol], limits: Limits) -> int:
    """Messages that connections dropped under the policy ``drop``."""
    return sum(protocol.dropped_messages for protocol in connections) if limits.slow_reader == "drop" else 0


def code_told(reason: CloseReason) -> str:
    """The code of the close frame that began the end, 1006 if none did; those that applications define as 3xxx, 4xxx.

    A peer could make up two thousand of them.
    """
    code = int(reason.sent.code if reason.began == "local" and reason.sent is not None else reason.code)
    return f"{code // 1000}xxx" if code >= 3000 else str(code)


def upper_bounds() -> Sequence[str]:
    """The names of the groups of round trips."""
    return [*map(str, ROUND_TRIPS), "+Inf"]
