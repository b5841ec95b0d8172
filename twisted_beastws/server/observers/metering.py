"""`Meter`: counts of the messages, handshakes and ends of a factory's connections.

It wraps the hooks and the sender of each session when the connection opens. Without an observer nothing is wrapped, and
messages take the shortest path.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, cast

from twisted_beastws.connection.observer import Observer
from twisted_beastws.errors import HandshakeError, HandshakeTimeout, UpgradeDeclined
from twisted_beastws.protocol import WebSocketProtocol, connection_of
from twisted_beastws.server.observers.traffic import Traffic
from twisted_beastws.wire.frames import Opcode
from twisted_beastws.wire.handshake import is_upgrade
from twisted_beastws.wire.sender import Sender, send_other

if TYPE_CHECKING:
    from twisted_beastws.options import Limits
    from twisted_beastws.wire.closing import CloseReason
    from twisted_beastws.wire.prepared import Prepared

ROUND_TRIPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, in seconds, of the groups that round trips of pings are counted in."""


class TrafficCounter:
    """Counts the messages of one connection: it wraps the hooks that get messages; `MeteredSender` counts the rest."""

    __slots__ = Traffic._fields

    def __init__(self) -> None:
        self.received_texts = self.received_text_octets = self.received_binaries = self.received_binary_octets = 0
        self.sent_texts = self.sent_text_octets = self.sent_binaries = self.sent_binary_octets = 0

    @property
    def traffic(self) -> Traffic:
        """The counts so far."""
        return Traffic(*_counts(self))

    def text_hook(self, hook: Callable[[str], Any]) -> Callable[[str], Any]:
        """Return a hook that counts a text message and passes it to ``hook``."""

        def counted(text: str) -> Any:
            self.received_texts += 1
            self.received_text_octets += len(text) if text.isascii() else len(text.encode())
            return hook(text)

        return counted

    def binary_hook(self, hook: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        """Return a hook that counts a binary message and passes it to ``hook``."""

        def counted(data: bytes) -> Any:
            self.received_binaries += 1
            self.received_binary_octets += len(data)
            return hook(data)

        return counted

    def fragment_hook(self, hook: Callable[[bytes, Opcode, bool], Any]) -> Callable[[bytes, Opcode, bool], Any]:
        """Return a hook that counts a piece of a message and passes it to ``hook``."""

        def counted(data: bytes, opcode: Opcode, final: bool) -> Any:
            if opcode == Opcode.TEXT:
                self.received_texts += final
                self.received_text_octets += len(data)
            else:
                self.received_binaries += final
                self.received_binary_octets += len(data)
            return hook(data, opcode, final)

        return counted

    def count_sent(self, text: bool, messages: int, size: int) -> None:
        """Count messages that were sent, and their bytes."""
        if text:
            self.sent_texts += messages
            self.sent_text_octets += size
        else:
            self.sent_binaries += messages
            self.sent_binary_octets += size


_counts: Callable[[TrafficCounter], tuple[int, ...]] = attrgetter(*Traffic._fields)


class MeteredSender:
    """Counts the messages that the `Sender` which it wraps has taken. A message that it refused does not count."""

    __slots__ = ("__weakref__", "_sender", "_streams_text", "counter")

    def __init__(self, sender: Sender, counter: TrafficCounter) -> None:
        self._sender = sender
        self.counter = counter
        self._streams_text = False

    def send(self, message: Any, *, compress: bool | None = None) -> None:
        """See `Sender.send`."""
        if compress is None and isinstance(message, str):
            self.send_text(message)
        else:
            send_other(self, message, compress)

    def send_text(self, text: str) -> None:
        """See `Sender.send_text`."""
        self._sender.send_text(text)
        self.counter.count_sent(True, 1, len(text) if text.isascii() else len(text.encode()))

    def send_binary(self, data: bytes) -> None:
        """See `Sender.send_binary`."""
        self._sender.send_binary(data)
        self.counter.count_sent(False, 1, len(data))

    def send_message(self, first: int, payload: bytes, compress: bool | None = None) -> None:
        """See `Sender.send_message`."""
        self._sender.send_message(first, payload, compress)
        self.counter.count_sent(bool(first & Opcode.TEXT), 1, len(payload))

    def send_prepared(self, message: Prepared) -> None:
        """See `Sender.send_prepared`."""
        self._sender.send_prepared(message)
        self.counter.count_sent(bool(message.plain.first & Opcode.TEXT), 1, len(message.plain.payload))

    def begin_message(self, opcode: int, compress: bool | None = None) -> None:
        """See `Sender.begin_message`."""
        self._sender.begin_message(opcode, compress)
        self._streams_text = opcode == Opcode.TEXT
        self.counter.count_sent(self._streams_text, 1, 0)

    def write_part(self, part: bytes) -> None:
        """See `Sender.write_part`."""
        self._sender.write_part(part)
        self.counter.count_sent(self._streams_text, 0, len(part))

    def end_message(self, rest: bytes = b"") -> None:
        """See `Sender.end_message`."""
        self._sender.end_message(rest)
        self.counter.count_sent(self._streams_text, 0, len(rest))


def count_traffic(ws: WebSocketProtocol) -> TrafficCounter:
    """Count the messages of a connection that has just opened, once for all observers that ask for it."""
    session = connection_of(ws).require_session()
    if isinstance(session.sender, MeteredSender):
        return session.sender.counter
    counter = TrafficCounter()
    session.wrap_hooks(counter)
    session.sender = MeteredSender(session.sender, counter)
    return counter


def refusal_status(ws: WebSocketProtocol, error: BaseException | None) -> int | None:
    """Return the status of the answer to a handshake that failed; None if there was no answer, or no handshake."""
    if isinstance(error, UpgradeDeclined):
        return error.response.status if ws.request is not None and is_upgrade(ws.request) else None
    return error.status if isinstance(error, HandshakeError) and not isinstance(error, HandshakeTimeout) else None


class Meter(Observer):
    """Counts the events of a factory's connections; `Metrics` shows the counts.

    Attributes:
        handshakes: The handshakes by outcome: the answer's status, or ``timeout``.
        responses: The answers to other requests than handshakes, by status.
        closes: The connections that were open and are gone, by close code and the side that began.
        traffic: The messages of the connections in ``closes``.
        round_trips: The round trips of pings, one count for each of `ROUND_TRIPS` and one beyond.
        round_trip_seconds: The sum of all round trips, in seconds.
        slow_readers: The connections that were closed because their peer read too slowly.
        dropped: The messages that the connections in ``closes`` dropped under the policy ``drop``.
    """

    def __init__(self) -> None:
        self.handshakes: Counter[str] = Counter()
        self.responses: Counter[str] = Counter()
        self.closes: Counter[tuple[str, str]] = Counter()
        self.traffic = Traffic()
        self._counters: dict[WebSocketProtocol, TrafficCounter] = {}
        self.round_trips = [0] * (len(ROUND_TRIPS) + 1)
        self.round_trip_seconds = 0.0
        self.slow_readers = 0
        self.dropped = 0

    def opened(self, ws: WebSocketProtocol) -> None:
        """A handshake succeeded: count the messages."""
        self.handshakes["101"] += 1
        self._counters[ws] = count_traffic(ws)

    def not_opened(self, ws: WebSocketProtocol, error: BaseException | None) -> None:
        """A handshake failed, or another request was answered."""
        status = refusal_status(ws, error)
        if status is not None:
            self.handshakes[str(status)] += 1
        elif isinstance(error, UpgradeDeclined):
            self.responses[str(error.response.status)] += 1
        elif isinstance(error, HandshakeTimeout):
            self.handshakes["timeout"] += 1

    def round_trip(self, ws: WebSocketProtocol, seconds: float) -> None:
        """A pong arrived."""
        self.round_trips[bisect_left(ROUND_TRIPS, seconds)] += 1
        self.round_trip_seconds += seconds

    def read_too_slowly(self, ws: WebSocketProtocol) -> None:
        """A connection is closed because its peer reads too slowly."""
        self.slow_readers += 1

    def closed(self, ws: WebSocketProtocol, seconds: float) -> None:
        """A connection that was open for so many seconds is gone."""
        counter = self._counters.pop(ws, None)
        traffic = Traffic() if counter is None else counter.traffic
        self.traffic = self.traffic.plus(traffic)
        if connection_of(ws).settings.limits.slow_reader == "drop":
            self.dropped += ws.dropped_messages
        reason = cast("CloseReason", ws.close_reason)
        self.closes[code_told(reason), reason.began] += 1

    @property
    def all_traffic(self) -> Traffic:
        """The counts of all connections, those that are open included."""
        return Traffic(*map(sum, zip(self.traffic, *map(_counts, self._counters.values()), strict=True)))


def dropped_by(connections: Iterable[WebSocketProtocol], limits: Limits) -> int:
    """Messages that connections dropped under the policy ``drop``."""
    return sum(protocol.dropped_messages for protocol in connections) if limits.slow_reader == "drop" else 0


def code_told(reason: CloseReason) -> str:
    """The code of the close frame that began the end, 1006 if none did; those that applications define as 3xxx, 4xxx.

    A peer could make up two thousand of them.
    """
    code = int(reason.sent.code if reason.began == "local" and reason.sent is not None else reason.code)
    return f"{code // 1000}xxx" if code >= 3000 else str(code)


def upper_bounds(bounds: Iterable[float]) -> Sequence[str]:
    """The names of the groups of a histogram."""
    return [*map(str, bounds), "+Inf"]
