"""`WebSocketProtocol`: the class that users subclass. Each `Connection` has one, and calls its hooks."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast
from warnings import warn

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.connection import option_changes, pacing, requests
from twisted_beastws.connection.application_transport import ApplicationTransport
from twisted_beastws.connection.connection import Connection
from twisted_beastws.connection.delivery import Messages
from twisted_beastws.connection.hooks import default
from twisted_beastws.connection.serving import AcceptLoop, begin_to_serve
from twisted_beastws.connection.state import State
from twisted_beastws.connection.streaming import MessageWriter, check_opcode, each, streamed_message
from twisted_beastws.connection.takeover import WebConnection
from twisted_beastws.errors import ConnectionClosed, LocalError
from twisted_beastws.hook_names import HOOKS, lookalikes
from twisted_beastws.json_codec import InvalidMessage, codec_of, has_codec, text_received_as_json
from twisted_beastws.options import (
    Decorator,
    Deflate,
    Limits,
    Role,
    Settings,
    Timeouts,
    check_decorator,
    checked_subprotocols,
)
from twisted_beastws.wire.closing import CloseCode, CloseReason
from twisted_beastws.wire.deflate import Negotiated
from twisted_beastws.wire.frames import FIN_BINARY, FIN_TEXT, Opcode
from twisted_beastws.wire.http import Request, Response
from twisted_beastws.wire.origin import is_host
from twisted_beastws.wire.prepared import Prepared
from twisted_beastws.wire.sender import as_bytes

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, ITransport
    from twisted.web.http import Request as TwistedRequest

__all__ = ["MessageWriter", "State", "WebSocketProtocol", "connection_of"]


@implementer(IHalfCloseableProtocol, IConsumer, IPushProducer)
class WebSocketProtocol(Protocol):
    """A WebSocket connection (Beast: ``websocket::stream``). Subclass it and override the hooks that you need.

    There are two ways to receive. A class that overrides `text_received`, `binary_received` or `fragment_received` gets
    its messages there; the connection refuses a message without a hook with 1003. A class that overrides none of them
    takes messages by `receive` or ``async for message in ws``; if it does not, reading pauses after
    ``Limits.max_queued`` messages. A hook may return a Deferred or be a coroutine: the next message waits for it. An
    exception in a hook is logged once and closes the connection with 1011. A hook that you assign to an instance before
    the connection opens works like a hook of the class.

    All names except those on this page are yours: the library keeps its own data in one private attribute. If an
    attribute of your class would hide a name on this page that is not a hook, creating the class raises ``TypeError``.

    Attributes:
        user: The user's name or account, which you may set in `upgrade_requested`.
        log: A ``Logger``; a class may have another.
    """

    log: ClassVar[Logger] = Logger()
    user: Any = None

    _websocket_connection: Connection

    if not TYPE_CHECKING:
        # Not in __init__: a subclass may override it without calling ours.
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            if (args or kwargs) and cls.__init__ is object.__init__:
                raise TypeError(f"{cls.__qualname__}() takes no arguments")
            protocol = super().__new__(cls)
            protocol._websocket_connection = Connection()
            return protocol

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        for name in own:
            if name in _OURS:
                raise TypeError(
                    f"{cls.__qualname__}.{name} would hide WebSocketProtocol.{name}, which is no hook: "
                    "give yours another name"
                )
        added = [name for name, value in own.items() if callable(value)]
        for name, meant in lookalikes(added, dir(WebSocketProtocol)):
            warn(
                f"{cls.__qualname__}.{name} is no hook of WebSocketProtocol, which never calls it: override {meant}",
                stacklevel=2,
            )
        _connect_json_hook(cls)
        overridden = cls.connectionLost is not WebSocketProtocol.connectionLost
        if overridden and not hasattr(cls.connectionLost, "runs_ours"):
            cls.connectionLost = _followed_by_ours(cls.connectionLost)  # type: ignore[method-assign]

    # Twisted calls these.

    def makeConnection(self, transport: Any) -> None:
        if isinstance(transport, ApplicationTransport):
            transport = transport.below
        connection = self._websocket_connection
        try:
            super().makeConnection(connection.connect(self, transport))  # type: ignore[no-untyped-call]
        except BaseException:
            # A subclass's connectionMade failed. Twisted logs that; no handshake will follow.
            connection.abort()
            raise
        # Not in connectionMade: a subclass may override it without calling ours.
        if connection.role is Role.SERVER:
            begin_to_serve(connection, self.serve)

    @property
    def transport(self) -> ITransport | None:
        """The transport; its ``loseConnection`` closes the WebSocket. None before the connection is made."""
        below = self._websocket_connection.transport
        if below is None:
            return None
        return cast("ITransport", ApplicationTransport(self._websocket_connection, below))

    @transport.setter
    def transport(self, transport: Any) -> None:
        self._websocket_connection.transport = transport

    def readConnectionLost(self) -> None:
        """The peer ended its side of TCP (``IHalfCloseableProtocol``): answer its requests, then end ours."""
        self._websocket_connection.reading_lost()

    def writeConnectionLost(self) -> None:
        """Our side of TCP has ended (``IHalfCloseableProtocol``)."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._websocket_connection.lost(reason)

    # Opening: the server's side.

    def serve(self) -> Any:
        """Serve the connection. It is called when the connection of a server is made.

        The default accepts requests as long as HTTP keeps the connection. Override it to call `read_request`, `accept`
        and `respond` yourself.

        Returns:
            None, a Deferred or a coroutine. A failure of yours is logged, and ends the connection: before it is open
            by dropping it, after that with 1011.
        """
        AcceptLoop(self._websocket_connection).begin()

    def read_request(self) -> Deferred[Request]:
        """Read the next request's head.

        Returns:
            A Deferred of the request. It fails with `BadRequest` or `HeadTooLarge`, which are answered with 400 or 431
            and close the connection, with `HandshakeTimeout`, or with the failure of the transport. Cancelling it
            aborts the connection.

        Raises:
            LocalError: Another operation runs.
        """
        return cast("Deferred[Request]", self._websocket_connection.require_handshake(Role.SERVER).read_request())

    def accept(
        self,
        request: Request | TwistedRequest | None = None,
        buffered: bytes = b"",
        *,
        decorator: Decorator | None = None,
        subprotocols: Sequence[str] = (),
    ) -> Deferred[Request]:
        """Perform the server's opening handshake (Beast: ``async_accept``, RFC 6455 §4.2).

        Args:
            request: The request to answer, from `read_request`; None reads the next one. On a protocol without a
                connection, a request of twisted.web, whose ``render`` returns ``NOT_DONE_YET``: a 101 takes its
                connection over; any other answer leaves through twisted.web, which keeps the connection, and `state` is
                ``CLOSED``.
            buffered: Bytes that you have already read from the connection: the request, the bytes after it, or parts of
                either.
            decorator: Gets the `Response` before it is sent, failures included; may be a coroutine function. None is
                the factory's. If it changes the Sec-WebSocket-Protocol of a 101 to another one that the client offers,
                `subprotocol` follows.
            subprotocols: The supported subprotocols, the preferred one first; empty is the factory's.

        Returns:
            A Deferred of the request, which fires when the connection is open: first `opened` is called, then the code
            that awaits this runs, then the first message is delivered. It fails with a `HandshakeError` if the request
            was answered otherwise: while `state` is still ``CONNECTING``, HTTP keeps the connection and you may accept
            again. It also fails with `DecoratorError`, `HandshakeTimeout` or the failure of the transport. Cancelling
            it aborts the connection.

        Raises:
            LocalError: Another operation runs, or the response to the request of twisted.web has begun.
            TypeError: An argument is of another type.
        """
        check_decorator(decorator)
        subprotocols = checked_subprotocols(subprotocols)
        if isinstance(request, (str, bytes, bytearray)):
            raise TypeError("accept(request): give a Request; bytes that were read already are accept(buffered=...)")
        if not isinstance(buffered, (bytes, bytearray, memoryview)):
            raise TypeError(f"accept(buffered=...): give bytes, not {type(buffered).__name__}")
        connection = self._websocket_connection
        if request is not None and not isinstance(request, Request) and connection.role is Role.SERVER:
            web = _taken_over(connection, request)
            super().makeConnection(connection.connect(self, web))  # type: ignore[no-untyped-call]
            if web.lost:
                self.connectionLost(Failure(ConnectionLost()))
            request = web.request
        return requests.accept(connection, cast("Request | None", request), buffered, decorator, subprotocols)

    def respond(self, response: Response) -> Deferred[None]:
        """Answer the request that `read_request` returned with any response.

        HTTP decides whether the connection is kept (RFC 9112 §9.3): while `state` is ``CONNECTING`` you can read the
        next request.

        Returns:
            A Deferred that fires when most of the response is sent. It fails with `LocalError` if no request waits for
            an answer, and for a status below 200. Cancelling it aborts the connection.

        Raises:
            LocalError: Another operation runs.
        """
        return cast("Deferred[None]", self._websocket_connection.require_handshake(Role.SERVER).respond(response))

    # Opening: the client's side.

    def as_client(self, settings: Settings) -> WebSocketProtocol:
        """Make this the client's end of its connection, and return it. `WebSocketClientFactory` calls this before the
        connection is made.
        """
        self._websocket_connection.be_client(settings)
        return self

    def handshake(
        self, host: str, target: str = "/", *, decorator: Decorator | None = None, subprotocols: Sequence[str] = ()
    ) -> Deferred[Response]:
        """Perform the client's opening handshake (Beast: ``async_handshake``, RFC 6455 §4.1).

        Args:
            host: The Host field, with the port if it is not the default of the scheme.
            target: The path and query.
            decorator: Gets the `Request` before it is sent, and may add fields; None is the factory's.
            subprotocols: The subprotocols to offer, the preferred one first; empty is the factory's.

        Returns:
            A Deferred of the response, which fires when the connection is open: first `opened` is called, then the code
            that awaits this runs, then the first message is delivered. It fails with a `HandshakeError`:
            `UpgradeDeclined` has the whole response, with at most 64 KiB of its body; while `state` is still
            ``CONNECTING``, HTTP keeps the connection and you may try again. It also fails with `DecoratorError`,
            `HandshakeTimeout` or the failure of the transport, and with ``ValueError`` for an invalid host or target.
            Cancelling it aborts the connection.

        Raises:
            LocalError: Another handshake runs.
            TypeError: An argument is of another type.
        """
        connection = self._websocket_connection
        opening = connection.require_handshake(Role.CLIENT)
        if not isinstance(host, str) or not isinstance(target, str):
            raise TypeError("handshake(host, target): give both as str")
        check_decorator(decorator)
        subprotocols = checked_subprotocols(subprotocols) or connection.settings.subprotocols
        if not host or not is_host(host):
            wanted = "give the Host field, such as example.com or [::1]:8080"
            return fail(ValueError(f"handshake({host!r}): {wanted}"))
        return cast("Deferred[Response]", opening.handshake(host, target, decorator, subprotocols))

    # Hooks.

    @default
    def http_requested(self, request: Request) -> Any:
        """Called with each HTTP request, before all checks.

        Return None to continue with the handshake, or a `Response` (or a Deferred or coroutine of one) to answer: a
        page, a health check, a 404.
        """

    @default
    def upgrade_requested(self, request: Request) -> Any:
        """Called with the request of a valid handshake, before it is answered.

        Return None to accept it, or a `Response` (or a Deferred or coroutine of one) to decline it. The hook may set
        ``self.user``, and ``self.subprotocol`` to one that the client offers; any other subprotocol is a mistake, which
        is logged and answered with 500.
        """

    @default
    def opened(self) -> Any:
        """Called when the connection is open. If hooks get the messages, the first message waits for the Deferred that
        this returns.
        """

    @default
    def text_received(self, text: str) -> Any:
        """Called with each text message."""

    @default
    def binary_received(self, data: bytes) -> Any:
        """Called with each binary message."""

    @default
    def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> Any:
        """Called with each piece of a message as it arrives; ``final`` marks the end of the message.

        Override this to stream messages in without gathering them. ``Limits.max_message_size``, ``max_fragments`` and
        ``Timeouts.message`` still apply, and text is checked, but a piece may end inside a character.
        """

    @default
    def ping_received(self, payload: bytes) -> Any:
        """Called with each ping, which is already answered."""

    @default
    def pong_received(self, payload: bytes) -> Any:
        """Called with each pong, whether or not it answers a ping."""

    @default
    def closed(self, reason: CloseReason) -> Any:
        """Called exactly once, when a connection that was open has ended."""

    # Messages.

    @default
    def send(self, message: str | bytes | Prepared, *, compress: bool | None = None) -> None:
        """Send a message: ``str`` as text, ``bytes`` as binary, or a message from `prepare` for many receivers.

        It is queued at once, like ``transport.write``.

        Args:
            message: The message.
            compress: Whether to compress the message, if both ends agreed on `deflate`; None compresses from
                ``Deflate.threshold`` bytes on. A prepared message has its own choice.

        Raises:
            ConnectionClosed: The connection is closing, or has ended.
            BufferFull: The write buffer is full, under the policy ``pause``.
            LocalError: The connection is not open yet, or the message is larger than ``Limits.max_buffered``.
            UnicodeEncodeError: The text has lone surrogates.
            TypeError: The message is of another type.
        """
        self._websocket_connection.require_session().sender.send(message, compress=compress)

    def send_text(self, text: str | bytes, *, compress: bool | None = None) -> None:
        """Send a text message. ``bytes`` must be UTF-8 already, and are not checked. Otherwise as `send`."""
        if compress is None and isinstance(text, str):
            self._websocket_connection.require_session().sender.send_text(text)
        else:
            payload = text.encode() if isinstance(text, str) else as_bytes(text, "send_text() takes str or bytes")
            self._websocket_connection.require_session().sender.send_message(FIN_TEXT, payload, compress)

    def send_json(self, message: Any, *, compress: bool | None = None) -> None:
        """Send a message as JSON, encoded by the class's ``codec`` (see `JSON`). As `send` otherwise.

        Raises:
            TypeError, ValueError: The message cannot be encoded.
        """
        self.send_text(codec_of(self).encode(message), compress=compress)

    async def receive_json(self) -> Any:
        """Receive a message, and decode it by the class's ``codec`` (see `JSON`). As `receive` otherwise.

        Raises:
            ConnectionClosed: The connection has ended, or the message is not valid: then it closes with the code of the
                codec.
        """
        message, codec = await self.receive(), codec_of(self)
        try:
            return codec.decode(message)
        except InvalidMessage as error:
            codec.refuse(self, error)
            raise ConnectionClosed(cast("CloseReason", self.close_reason)) from error

    def send_binary(self, data: bytes, *, compress: bool | None = None) -> None:
        """Send a binary message. Otherwise as `send`."""
        if not isinstance(data, bytes):
            data = as_bytes(data, "send_binary() takes bytes")
        if compress is None:
            self._websocket_connection.require_session().sender.send_binary(data)
        else:
            self._websocket_connection.require_session().sender.send_message(FIN_BINARY, data, compress)

    def message(
        self, opcode: int = Opcode.TEXT, *, compress: bool | None = None
    ) -> AbstractContextManager[MessageWriter]:
        """Stream a message out: ``with ws.message() as m: m.write(part)``. Each part is sent as a frame.

        Messages that you send meanwhile are sent after it; control frames are sent in between. If an exception leaves
        the block, the connection closes with 1011, because the peer must not take an incomplete message for the whole.

        Args:
            opcode: ``Opcode.TEXT`` or ``Opcode.BINARY``, whatever the type of the parts.
            compress: As for `send`.

        Raises:
            ConnectionClosed: The connection is closing, or has ended.
            LocalError: Another streamed message is open.
            ValueError: The opcode is not that of a message.
        """
        check_opcode(opcode)
        return streamed_message(self._websocket_connection.require_session(), opcode, compress)

    async def send_stream(
        self, parts: Iterable[str | bytes] | AsyncIterable[str | bytes], opcode: int | None = None
    ) -> None:
        """Send a message whose parts come from an iterable, plain or asynchronous, at the pace of `drain`.

        Args:
            parts: The parts of the message.
            opcode: As for `message`; None is text if the first part is a ``str`` or if there are no parts, else binary.
        """
        stream = each(parts)
        first = await anext(stream, "")
        if opcode is None:
            opcode = Opcode.TEXT if isinstance(first, str) else Opcode.BINARY
        with self.message(opcode) as message:
            if first:
                message.write(first)
                await self.drain()
            async for part in stream:
                message.write(part)
                await self.drain()

    def drain(self) -> Deferred[None]:
        """Wait until the write buffer is nearly empty.

        Returns:
            A Deferred that fires when at most ``Limits.low_water`` bytes wait to be sent. It fails with
            `ConnectionClosed` if the connection is lost. Cancelling it does no harm.

        Raises:
            LocalError: There is no connection yet.
        """
        return pacing.drain(self._websocket_connection)

    def flush(self) -> Deferred[None]:
        """Wait until the operating system has taken all data sent so far.

        Returns:
            A Deferred that fires when the operating system has taken all bytes that were sent before this call, or,
            over TLS, when the TLS layer has passed them on. Data that is sent later does not delay it. Messages that
            wait for the end of a streamed `message` are not counted. It fails with `ConnectionClosed` if the
            connection ends first. Cancelling it does no harm.

        Raises:
            LocalError: There is no connection yet.
        """
        return pacing.flush(self._websocket_connection)

    def set_options(
        self,
        *,
        timeouts: Timeouts | None = None,
        limits: Limits | None = None,
        deflate: Deflate | Literal[False] | None = None,
    ) -> None:
        """Replace options of this connection alone (Beast: ``set_option``). None leaves an option as it is.

        In `http_requested` and `upgrade_requested` the request can decide. In an open connection the timeouts apply at
        once, and the limits from the next frame and the next write on.

        Args:
            timeouts: The timeouts. Their ``handshake`` applies to the next request.
            limits: The limits. Those of the HTTP head and of the number of connections and requests belong to the
                factory, and have no effect here.
            deflate: The compression to accept or to offer, or False for none.

        Raises:
            LocalError: The connection is open, and ``deflate``, or a rate in ``limits``, cannot change any more.
            ConnectionClosed: The connection has ended.
            TypeError: An argument is of another type.
        """
        option_changes.set_options(self._websocket_connection, timeouts, limits, deflate)

    @property
    def buffered_amount(self) -> int:
        """The number of bytes sent that the operating system may not have taken yet."""
        return pacing.buffered_amount(self._websocket_connection)

    @property
    def dropped_messages(self) -> int:
        """The number of messages dropped because the peer reads too slowly, under the policy ``drop``."""
        connection = self._websocket_connection
        return 0 if connection.transport is None else connection.outgoing.dropped

    def receive(self) -> Deferred[str | bytes]:
        """Receive the next message.

        Returns:
            A Deferred of the message. It fails with `ConnectionClosed` when no more messages will come. Cancelling it
            does no harm.

        Raises:
            LocalError: The class overrides a message hook, or the connection is not open yet.
        """
        return requests.receive(self._websocket_connection, self)

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """Iterate over the messages. A close with 1000 or 1001 ends the loop; any other raises `ConnectionClosed`."""
        return Messages(self.receive)

    # Flow control: the protocol consumes the application's bytes, and produces messages for it.

    def write(self, data: bytes) -> None:
        """Send a binary message (``IConsumer``). Raises the errors of `send`."""
        self.send_binary(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause ``producer`` while more than ``Limits.high_water`` bytes wait, until ``low_water`` (``IConsumer``).

        A producer without ``streaming`` is asked for more once per turn of the reactor. The producer is stopped when
        the connection begins to close or is lost.

        Raises:
            RuntimeError: Another producer is registered.
        """
        pacing.register(self._websocket_connection, producer, streaming)

    def unregisterProducer(self) -> None:
        """Release the producer (``IConsumer``)."""
        pacing.unregister(self._websocket_connection)

    def pauseProducing(self) -> None:
        """Deliver no message until `resumeProducing`, and stop reading (``IPushProducer``); pings wait as well.

        After the end of the connection it does nothing.

        Raises:
            LocalError: The connection is not open yet.
        """
        requests.pause(self._websocket_connection)

    def resumeProducing(self) -> None:
        """Deliver messages again (``IPushProducer``)."""
        requests.resume(self._websocket_connection)

    def stopProducing(self) -> None:
        """Close with 1001 (``IPushProducer``)."""
        self.close(CloseCode.GOING_AWAY)

    # Control.

    def ping(self, payload: bytes = b"") -> Deferred[float]:
        """Send a ping, and measure the round trip.

        Args:
            payload: At most 125 bytes.

        Returns:
            A Deferred of the time until its pong, or the pong of a later ping, in seconds. It fails with
            `ConnectionClosed` if the connection ends first. Cancelling it does no harm.

        Raises:
            LocalError: The payload is longer, or the connection is not open yet.
            ConnectionClosed: The connection is closing, or has ended.
        """
        return requests.ping(self._websocket_connection, payload)

    def pong(self, payload: bytes = b"") -> None:
        """Send an unsolicited pong (RFC 6455 §5.5.3). Raises the errors of `ping`."""
        self._websocket_connection.require_session().pong(payload)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> Deferred[CloseReason]:
        """Close with the closing handshake (RFC 6455 §7.1.2, Beast: ``async_close``), which ``Timeouts.close`` bounds.

        Messages that arrive before the peer's close frame are discarded. Calling it again changes nothing. Before the
        connection is open it is `abort`.

        Args:
            code: 1000-1003, 1007-1014, 3000-4999, or 1005 for a close frame without a code.
            reason: At most 123 bytes of UTF-8; the rest is cut off.

        Returns:
            A Deferred of the `CloseReason`, which fires at the end of the connection, however it ends.

        Raises:
            LocalError: The code must not be sent.
        """
        return self._websocket_connection.close(code, reason)

    def when_closed(self) -> Deferred[CloseReason]:
        """Wait for the end of an open connection.

        Returns:
            A Deferred of the `CloseReason`, which fires however the connection ends, before `closed` is called.

        Raises:
            LocalError: The connection is not open yet.
        """
        return requests.when_closed(self._websocket_connection)

    def abort(self) -> None:
        """Drop the connection now, without sending anything."""
        self._websocket_connection.abort()

    # Information about the connection.

    @property
    def state(self) -> State:
        """The state of the connection."""
        return self._websocket_connection.state

    @property
    def request(self) -> Request | None:
        """The request of the opening handshake; None before it."""
        return self._websocket_connection.request

    @property
    def response(self) -> Response | None:
        """The 101 of the opening handshake; None before it."""
        accepted = self._websocket_connection.accepted
        return None if accepted is None else accepted.response

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on, or None. `upgrade_requested` may set it."""
        return self._websocket_connection.subprotocol

    @subprotocol.setter
    def subprotocol(self, subprotocol: str | None) -> None:
        self._websocket_connection.subprotocol = subprotocol

    @property
    def extensions(self) -> str | None:
        """The extensions in use, in the words of Sec-WebSocket-Extensions (``extensions`` in browsers), or None."""
        accepted = self._websocket_connection.accepted
        return None if accepted is None else accepted.extensions

    @property
    def deflate(self) -> Negotiated | None:
        """The compression that both ends agreed on, or None."""
        accepted = self._websocket_connection.accepted
        return None if accepted is None else accepted.deflate

    @property
    def close_reason(self) -> CloseReason | None:
        """How the connection ended or is ending; 1006 if it never was open. None before it closes."""
        return self._websocket_connection.close_reason

    @property
    def latency(self) -> float | None:
        """The round-trip time of the latest answered ping in seconds, or None."""
        return requests.latency(self._websocket_connection)

    @property
    def connection_id(self) -> int:
        """A number that no other connection of this process has, for logs."""
        return self._websocket_connection.connection_id

    @property
    def peer(self) -> IAddress | None:
        """The address of the peer, or of the client that a trusted proxy names. None before the connection is made, or
        if it has none.
        """
        return self._websocket_connection.peer


def _taken_over(connection: Connection, http_request: TwistedRequest) -> WebConnection:
    if connection.transport is not None:
        raise LocalError("a twisted.web request brings its connection, and this protocol has one")
    return WebConnection(http_request)


def connection_of(protocol: WebSocketProtocol) -> Connection:
    """Return the `Connection` of a protocol, for the other modules of this package."""
    return protocol._websocket_connection


def share(protocol: WebSocketProtocol, connection: Connection) -> None:
    """Give a new protocol the connection of another one; the new protocol will open it."""
    protocol._websocket_connection = connection


_TWISTEDS = frozenset((*dir(Protocol), "write"))
# The library does not call these itself, or it calls them so that a subclass can override them.
_REPLACEABLE = ("serve", "log", "send_json", "receive_json")
_OURS = frozenset(
    name
    for name in (*vars(WebSocketProtocol), "_websocket_connection")
    if name.islower() and not name.startswith("__") and name not in _TWISTEDS and name not in (*HOOKS, *_REPLACEABLE)
)
"""The names that a subclass must not use for anything else."""


def _connect_json_hook(kind: type[WebSocketProtocol]) -> None:
    """Let a class with a codec get its text messages in ``json_received``, unless it has a ``text_received``."""
    own = vars(kind)
    has_text_hook = kind.text_received is not WebSocketProtocol.text_received
    if "text_received" in own or not callable(getattr(kind, "json_received", None)):
        return
    if has_codec(kind):
        if not has_text_hook or "codec" in own or "json_received" in own:
            kind.text_received = text_received_as_json  # type: ignore[method-assign, assignment]
    elif not has_text_hook and "json_received" in own:
        name = kind.__qualname__
        warn(f"{name}.json_received is never called: give {name} a codec, such as codec = JSON()", stacklevel=3)


def _followed_by_ours(overriding: Any) -> Any:
    """Return a subclass's ``connectionLost``, followed by ours: without ours the connection would never end."""

    @wraps(overriding)
    def connection_lost(self: WebSocketProtocol, reason: Failure = connectionDone) -> None:
        try:
            overriding(self, reason)
        finally:
            WebSocketProtocol.connectionLost(self, reason)

    connection_lost.runs_ours = True  # type: ignore[attr-defined]
    return connection_lost
