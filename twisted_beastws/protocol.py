"""`WebSocketProtocol`: what users subclass. Each `Connection` has one, and calls its hooks."""

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

from twisted_beastws.connection import option_changes, pacing
from twisted_beastws.connection.application_transport import ApplicationTransport
from twisted_beastws.connection.connection import Connection
from twisted_beastws.connection.delivery import Messages
from twisted_beastws.connection.hooks import default
from twisted_beastws.connection.serving import AcceptLoop
from twisted_beastws.connection.state import State
from twisted_beastws.connection.streaming import MessageWriter, check_opcode, each, streamed_message
from twisted_beastws.connection.takeover import WebConnection
from twisted_beastws.errors import ConnectionClosed, LocalError
from twisted_beastws.hook_names import HOOKS, lookalikes
from twisted_beastws.json_codec import InvalidMessage, codec_of
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
    """A WebSocket connection (Beast: ``websocket::stream``). Subclass it and override the hooks you need.

    There are two ways to receive. A class that overrides `text_received`, `binary_received` or `fragment_received` gets
    its messages there; a message of a kind it has no hook for is refused with 1003. A class that overrides none takes
    them by `receive` or ``async for message in ws``; one that does not stops its peer after ``Limits.max_queued``
    messages. A hook may return a Deferred or be a coroutine: the next message waits for it. An exception in a hook is
    logged once and closes the connection with 1011. A hook that is assigned to an instance before the connection opens
    is called like one of the class.

    All names but those on this page are yours: the library keeps what it knows of the connection in one private
    attribute. A class whose own attribute would hide one of these names, and is no hook, cannot be made: it raises
    ``TypeError``.

    Attributes:
        user: yours to set, in `upgrade_requested`.
        log: a ``Logger``; a class may have another.
    """

    log: ClassVar[Logger] = Logger()
    user: Any = None

    _websocket_connection: Connection

    if not TYPE_CHECKING:
        # Not in __init__, which a subclass may override without calling ours.
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
        overridden = cls.connectionLost is not WebSocketProtocol.connectionLost
        if overridden and not hasattr(cls.connectionLost, "runs_ours"):
            cls.connectionLost = _behind_which_ours_runs(cls.connectionLost)  # type: ignore[method-assign]

    # Twisted calls these.

    def makeConnection(self, transport: Any) -> None:
        if isinstance(transport, ApplicationTransport):
            transport = transport.below
        connection = self._websocket_connection
        try:
            super().makeConnection(connection.connect(self, transport))  # type: ignore[no-untyped-call]
        except BaseException:
            # A subclass's connectionMade failed, which Twisted logs; it would wait for nobody.
            connection.abort()
            raise
        # Not in connectionMade, which a subclass may override without calling ours.
        if connection.role is Role.SERVER:
            self.serve()

    @property
    def transport(self) -> ITransport | None:
        """The transport below, on which ``loseConnection`` closes the WebSocket; None before the connection is made."""
        below = self._websocket_connection.transport
        if below is None:
            return None
        return cast("ITransport", ApplicationTransport(self._websocket_connection, below))

    @transport.setter
    def transport(self, transport: Any) -> None:
        self._websocket_connection.transport = transport

    def readConnectionLost(self) -> None:
        """The peer ended its side of TCP (`IHalfCloseableProtocol`): answer its requests, then end ours."""
        self._websocket_connection.reading_lost()

    def writeConnectionLost(self) -> None:
        """Our side of TCP is ended (`IHalfCloseableProtocol`)."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._websocket_connection.lost(reason)

    # Opening: the server's side.

    def serve(self) -> None:
        """Called when a server's connection is made. The default accepts, again while HTTP keeps the connection.

        Override it to drive `read_request`, `accept` and `respond` by hand.
        """
        AcceptLoop(self._websocket_connection).begin()

    def read_request(self) -> Deferred[Request]:
        """Read the next HTTP request's head.

        Fails with `BadRequest` or `HeadTooLarge` (answered 400 or 431, and closed), `HandshakeTimeout`, or the
        transport's failure. Cancelling aborts the connection. `LocalError` is raised while another operation runs.
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

        request: the request to answer, from `read_request`; None reads the next one. On a protocol that has no
            connection, one of twisted.web, whose ``render`` returns ``NOT_DONE_YET``: a 101 takes its connection over;
            any other answer leaves through twisted.web, which keeps the connection, and `state` is ``CLOSED``.
        buffered: octets read off the wire already; they may hold the request, what is behind it, or parts of either.
        decorator: gets the `Response` before it is sent, failures too; may be a coroutine function; default: the
            factory's. If it sets Sec-WebSocket-Protocol of a 101 to another that the client offers, `subprotocol`
            follows.
        subprotocols: those spoken here, the preferred first; default: the factory's.

        Fires with the request when the connection is open: `opened` is called first, then the code that awaits this
        runs, then the first message is delivered. Fails with a `HandshakeError` when the request was answered
        otherwise: while `state` is still ``CONNECTING``, HTTP keeps the connection and you may accept again. Fails with
        `DecoratorError`, `HandshakeTimeout` or the transport's failure, too. Cancelling aborts the connection.
        `LocalError` is raised while another operation runs, and for a request of twisted.web whose answer has begun.
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
        return connection.accept(cast("Request | None", request), buffered, decorator, subprotocols)

    def respond(self, response: Response) -> Deferred[None]:
        """Answer the request that `read_request` gave by any response; fires when it left, or waits behind little.

        HTTP decides whether the connection is kept (RFC 9112 §9.3): while `state` is ``CONNECTING`` the next request
        can be read. Cancelling aborts the connection. Fails with `LocalError` where no request waits for an answer, and
        for a status below 200; `LocalError` is raised while another operation runs.
        """
        return cast("Deferred[None]", self._websocket_connection.require_handshake(Role.SERVER).respond(response))

    # Opening: the client's side.

    def as_client(self, settings: Settings) -> WebSocketProtocol:
        """Be the client's end, with these settings; returns itself. To be called before the connection is made."""
        self._websocket_connection.be_client(settings)
        return self

    def handshake(
        self, host: str, target: str = "/", *, decorator: Decorator | None = None, subprotocols: Sequence[str] = ()
    ) -> Deferred[Response]:
        """Perform the client's opening handshake (Beast: ``async_handshake``, RFC 6455 §4.1).

        host: the Host field, with a port where it is not the scheme's default. target: path and query.
        decorator: gets the `Request` before it is sent and may add fields; default: the settings'.
        subprotocols: those offered, the preferred first; default: the settings'.

        Fires with the response when the connection is open: `opened` is called first, then the code that awaits this
        runs, then the first message is delivered. Fails with a `HandshakeError`: `UpgradeDeclined` has the
        whole response, 64 KiB of its body at most; while `state` is still ``CONNECTING``, HTTP keeps the connection and
        you may try again. Fails with `DecoratorError`, `HandshakeTimeout` or the transport's failure, too; with
        ``ValueError`` for a host or target that is none. Cancelling aborts the connection. `LocalError` is raised while
        another runs.
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
        """Any HTTP request, before any check. None goes on with the handshake; a `Response` (or a Deferred of one, or a
        coroutine) is the answer: a page, a health check, a 404."""

    @default
    def upgrade_requested(self, request: Request) -> Any:
        """A valid handshake, before its answer. None accepts it; a `Response` (or a Deferred of one, or a coroutine)
        declines. May set ``self.user``, and ``self.subprotocol`` to one that the client offers: another is logged as a
        mistake, and answered 500."""

    @default
    def opened(self) -> Any:
        """The connection is open. Where hooks take the messages, they wait for what it returns."""

    @default
    def text_received(self, text: str) -> Any:
        """A text message."""

    @default
    def binary_received(self, data: bytes) -> Any:
        """A binary message."""

    @default
    def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> Any:
        """A piece of a message as it arrived; ``final`` is its end. Overriding it streams messages in, ungathered:
        ``Limits.max_message_size``, ``max_fragments`` and ``Timeouts.message`` still hold, text is checked, but pieces
        may end inside a character."""

    @default
    def ping_received(self, payload: bytes) -> Any:
        """A ping, already answered."""

    @default
    def pong_received(self, payload: bytes) -> Any:
        """A pong, asked for or not."""

    @default
    def closed(self, reason: CloseReason) -> Any:
        """The connection, which was open, is gone; called exactly once."""

    # Messages.

    @default
    def send(self, message: str | bytes | Prepared, *, compress: bool | None = None) -> None:
        """Send a message: ``str`` as text, ``bytes`` as binary, or what `prepare` made, for many receivers.

        It is queued at once, like ``transport.write``.

        compress: whether to, where `deflate` was agreed on; None compresses from ``Deflate.threshold`` octets on. A
            prepared message has its own choice.

        Raises `ConnectionClosed` once closing, `BufferFull` under the policy ``pause``, `LocalError` before the
        connection is open or for more than ``Limits.max_buffered``. Text with lone surrogates raises
        UnicodeEncodeError, what is no message TypeError.
        """
        self._websocket_connection.require_session().sender.send(message, compress=compress)

    def send_text(self, text: str | bytes, *, compress: bool | None = None) -> None:
        """Send a text message; ``bytes`` must be UTF-8 already, and are not checked. As `send` otherwise."""
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
        """Send a binary message. As `send` otherwise."""
        if not isinstance(data, bytes):
            data = as_bytes(data, "send_binary() takes bytes")
        if compress is None:
            self._websocket_connection.require_session().sender.send_binary(data)
        else:
            self._websocket_connection.require_session().sender.send_message(FIN_BINARY, data, compress)

    def message(
        self, opcode: int = Opcode.TEXT, *, compress: bool | None = None
    ) -> AbstractContextManager[MessageWriter]:
        """Stream a message out: ``with ws.message() as m: m.write(part)``; each part leaves as a frame.

        opcode: ``Opcode.TEXT`` or ``Opcode.BINARY``, whatever the parts are; raises ValueError for any other.

        What is sent meanwhile leaves behind it, control frames in between. Leaving the block by an exception closes
        with 1011, for the peer must not take what it got for the whole. Raises `ConnectionClosed` once closing,
        `LocalError` while another is open.
        """
        check_opcode(opcode)
        return streamed_message(self._websocket_connection.require_session(), opcode, compress)

    async def send_stream(
        self, parts: Iterable[str | bytes] | AsyncIterable[str | bytes], opcode: int | None = None
    ) -> None:
        """Send a message whose parts come from an iterable, plain or asynchronous, at the pace of `drain`.

        opcode: as for `message`; None, the default, is text if the first part is a ``str``, or there is none, and
            binary otherwise.
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
        """Fires when at most ``Limits.low_water`` octets wait to be sent; fails with `ConnectionClosed` if it is lost.

        Raises `LocalError` before there is a connection. Cancelling does no harm.
        """
        return pacing.drain(self._websocket_connection)

    def flush(self) -> Deferred[None]:
        """Wait until all data sent so far has left.

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
        """Octets sent that the operating system may not have taken yet."""
        return pacing.buffered_amount(self._websocket_connection)

    @property
    def dropped_messages(self) -> int:
        """Messages that were dropped because the peer reads too slowly, under the policy ``drop``."""
        connection = self._websocket_connection
        return 0 if connection.transport is None else connection.outgoing.dropped

    def receive(self) -> Deferred[str | bytes]:
        """The next message. Fails with `ConnectionClosed` when there will be none; cancelling does no harm.

        Raises `LocalError` in a class that overrides a message hook, and before the connection is open.
        """
        return self._websocket_connection.receive(self)

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """The messages to the end: a close with 1000 or 1001 ends the loop, any other raises `ConnectionClosed`."""
        return Messages(self.receive)

    # Keeping pace: we are a consumer of the application's bytes, and a producer of messages for it.

    def write(self, data: bytes) -> None:
        """Send a binary message (``IConsumer``). Raises as `send`."""
        self.send_binary(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause ``producer`` while more than ``Limits.high_water`` octets wait, until ``low_water`` (``IConsumer``).

        Without ``streaming`` it is asked for more once a turn of the reactor, in between. It is stopped when the
        connection begins to close, or is lost. Raises RuntimeError while another is registered.
        """
        pacing.register(self._websocket_connection, producer, streaming)

    def unregisterProducer(self) -> None:
        """Let go of the producer (``IConsumer``)."""
        pacing.unregister(self._websocket_connection)

    def pauseProducing(self) -> None:
        """Deliver no message until `resumeProducing`, and read no more (``IPushProducer``); pings wait as well.

        Once the connection is gone it does nothing. Raises `LocalError` before it is open.
        """
        self._websocket_connection.pause()

    def resumeProducing(self) -> None:
        """Deliver messages again (``IPushProducer``)."""
        self._websocket_connection.resume()

    def stopProducing(self) -> None:
        """Close with 1001 (``IPushProducer``)."""
        self.close(CloseCode.GOING_AWAY)

    # Control.

    def ping(self, payload: bytes = b"") -> Deferred[float]:
        """Send a ping of at most 125 octets; fires with the seconds to its pong, or to a later ping's.

        Fails with `ConnectionClosed` when the connection ends first. Cancelling does no harm. Raises `LocalError` for a
        longer payload and before the connection is open, `ConnectionClosed` once closing.
        """
        return self._websocket_connection.ping(payload)

    def pong(self, payload: bytes = b"") -> None:
        """Send a pong that nobody asked for (RFC 6455 §5.5.3). Raises as `ping`."""
        self._websocket_connection.require_session().pong(payload)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> Deferred[CloseReason]:
        """Close by the closing handshake, bounded by ``Timeouts.close`` (RFC 6455 §7.1.2, Beast: ``async_close``).

        code: 1000-1003, 1007-1014, 3000-4999, or 1005 for none. reason: at most 123 octets of UTF-8, the rest is cut.
        Messages that come before the peer's close frame are thrown away. Fires with the `CloseReason`, however it
        ended; calling it again changes nothing. Before the connection is open it is `abort`. Raises `LocalError` for a
        bad code.
        """
        return self._websocket_connection.close(code, reason)

    def when_closed(self) -> Deferred[CloseReason]:
        """Fires with the `CloseReason` when the connection, which was open, is gone, however it ended.

        It fires before `closed` is called. Raises `LocalError` before the connection is open.
        """
        return self._websocket_connection.when_closed()

    def abort(self) -> None:
        """Drop the connection now, with nothing sent."""
        self._websocket_connection.abort()

    # What is known of the connection.

    @property
    def state(self) -> State:
        """Where in its life the connection is."""
        return self._websocket_connection.state

    @property
    def request(self) -> Request | None:
        """The opening handshake's request, None before."""
        return self._websocket_connection.request

    @property
    def response(self) -> Response | None:
        """The opening handshake's 101, None before."""
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
        """The extensions in use, in the words of Sec-WebSocket-Extensions (the browsers' ``extensions``), or None."""
        accepted = self._websocket_connection.accepted
        return None if accepted is None else accepted.extensions

    @property
    def deflate(self) -> Negotiated | None:
        """The compression that was agreed on, or None."""
        accepted = self._websocket_connection.accepted
        return None if accepted is None else accepted.deflate

    @property
    def close_reason(self) -> CloseReason | None:
        """How the connection ended or is ending; 1006 if it never was open. None before it closes."""
        return self._websocket_connection.close_reason

    @property
    def latency(self) -> float | None:
        """Seconds that the latest ping took to be answered, or None."""
        return self._websocket_connection.latency

    @property
    def connection_id(self) -> int:
        """A number that no other connection of this process has, for logs."""
        return self._websocket_connection.connection_id

    @property
    def peer(self) -> IAddress | None:
        """The address of the other end, as the transport gives it; None before it is connected, or if it has none."""
        return self._websocket_connection.peer


def _taken_over(connection: Connection, http_request: TwistedRequest) -> WebConnection:
    if connection.transport is not None:
        raise LocalError("a twisted.web request brings its connection, and this protocol has one")
    return WebConnection(http_request)


def connection_of(protocol: WebSocketProtocol) -> Connection:
    """Return the `Connection` of a protocol, for the other modules of this package."""
    return protocol._websocket_connection


def share(protocol: WebSocketProtocol, connection: Connection) -> None:
    """Let a new protocol use the connection of another one, in whose place it is to open it."""
    protocol._websocket_connection = connection


_TWISTEDS = frozenset((*dir(Protocol), "write"))
# The library does not call these itself, or it calls them so that a subclass can override them.
_REPLACEABLE = ("serve", "log", "send_json", "receive_json")
_OURS = frozenset(
    name
    for name in (*vars(WebSocketProtocol), "_websocket_connection")
    if name.islower() and not name.startswith("__") and name not in _TWISTEDS and name not in (*HOOKS, *_REPLACEABLE)
)
"""The names that a subclass may not have for anything else."""


def _behind_which_ours_runs(overriding: Any) -> Any:
    """A subclass's ``connectionLost``, which may well not call ours: nobody but us knows how the connection ends."""

    @wraps(overriding)
    def connection_lost(self: WebSocketProtocol, reason: Failure = connectionDone) -> None:
        try:
            overriding(self, reason)
        finally:
            WebSocketProtocol.connectionLost(self, reason)

    connection_lost.runs_ours = True  # type: ignore[attr-defined]
    return connection_lost
