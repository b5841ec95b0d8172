"""`WebSocketProtocol`: a WebSocket connection on a Twisted transport, from the opening handshake to the end of TCP."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from enum import Enum
from functools import partial, wraps
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, cast
from warnings import warn

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_beastws.bare_transport import BareTransport, complete
from twisted_beastws.budget import RECEIVED, Account
from twisted_beastws.client_opening import ClientOpening
from twisted_beastws.clock import seconds_of
from twisted_beastws.errors import (
    BufferFull,
    ConnectionClosed,
    HandshakeError,
    HandshakeTimeout,
    LocalError,
    ProtocolError,
    UpgradeDeclined,
    WebSocketError,
)
from twisted_beastws.hook_names import lookalikes
from twisted_beastws.inbox import Inbox
from twisted_beastws.liveness import Liveness
from twisted_beastws.opening import ServerOpening
from twisted_beastws.operation import forget_frames, settled
from twisted_beastws.options import Decorator, Role, Settings, check_decorator, checked_subprotocols
from twisted_beastws.outgoing import Outgoing
from twisted_beastws.producers import PulledProducer, stop
from twisted_beastws.takeover import RequestOpening, WebConnection
from twisted_beastws.unsent import unaccepted
from twisted_beastws.wire.closing import CloseCode, CloseReason
from twisted_beastws.wire.deflate import Negotiated, PerMessageDeflate
from twisted_beastws.wire.frames import FIN_BINARY, FIN_TEXT, Opcode
from twisted_beastws.wire.handshake import success
from twisted_beastws.wire.http import Request, Response
from twisted_beastws.wire.origin import is_host
from twisted_beastws.wire.prepared import Prepared
from twisted_beastws.wire.rate import rate_limited
from twisted_beastws.wire.session import DeflateSession, Session, octets_of

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall, ITransport
    from twisted.web.http import Request as TwistedRequest

    from twisted_beastws.server import WebSocketServerFactory


_connection_ids = count(1)

INBOX, HOOK, APPLICATION = 1, 2, 4
"""Why nothing is read for now: messages wait to be taken, a hook takes its time, the application said so."""


class State(Enum):
    """Where in its life a connection is (the names of the browsers' ``readyState``)."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class MessageWriter:
    """An open streamed message, from `WebSocketProtocol.message`."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def write(self, part: str | bytes) -> None:
        """Send a part; ``bytes`` of a text may end inside a character. Raises `ConnectionClosed`, `BufferFull`."""
        octets = part.encode() if isinstance(part, str) else octets_of(part, "write() takes str or bytes")
        self._session.write_part(octets)


class ApplicationTransport:
    """A connection's transport as its application sees it: the transport below, but for `loseConnection`.

    A transport waits for its producer, which we are, before it lets go; and the peer is to be told.
    """

    __slots__ = ("_protocol", "below")

    def __init__(self, protocol: WebSocketProtocol, below: Any) -> None:
        self._protocol = protocol
        self.below = below

    def loseConnection(self) -> None:
        """Close by the closing handshake, with 1000; before there is a WebSocket, behind the answers that wait."""
        protocol = self._protocol
        if protocol.state is State.CONNECTING:
            protocol.tear_down()
        elif protocol._session is not None:
            protocol.close()

    def abortConnection(self) -> None:
        """As `WebSocketProtocol.abort`."""
        self._protocol.abort()

    def write(self, data: bytes) -> None:
        """Write raw bytes before there is a WebSocket. Raises `LocalError` once there is one: use `send`."""
        self._require_raw("write")
        self.below.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """As `write`."""
        self._require_raw("writeSequence")
        self.below.writeSequence(data)

    def _require_raw(self, method: str) -> None:
        if self._protocol._session is not None or self._protocol.state is State.CLOSED:
            raise LocalError(
                f"transport.{method}() would put raw bytes between a WebSocket's frames: use the connection's send()"
            )

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """The connection is the transport's producer. Raises `LocalError`: register with the connection."""
        raise LocalError("transport.registerProducer(): register the producer with the connection itself")

    def unregisterProducer(self) -> None:
        """Raises `LocalError`, as `registerProducer`."""
        raise LocalError("transport.unregisterProducer(): the producer is registered with the connection itself")

    def startTLS(self, context: Any, normal: bool = True) -> None:
        """Encrypt all that is sent from now on (``ITLSTransport``); what was sent before leaves first, in clear.

        What the peer sent in clear behind the request or response read last is thrown away: whoever is on the way could
        have put it there.
        """
        self._protocol.discard_clear()
        self.below.startTLS(context, normal)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)


@implementer(IHalfCloseableProtocol, IConsumer, IPushProducer)
class WebSocketProtocol(Protocol):
    """A WebSocket connection (Beast: ``websocket::stream``). Subclass it and override the hooks you need.

    There are two ways to receive. A class that overrides `text_received`, `binary_received` or `fragment_received` gets
    its messages there; a message of a kind it has no hook for is refused with 1003. A class that overrides none takes
    them by `receive` or ``async for message in ws``; one that does not stops its peer after ``Limits.max_queued``
    messages. A hook may return a Deferred or be a coroutine: the next message waits for it. An exception in a hook is
    logged once and closes the connection with 1011.

    role: which end this is. settings: what the factory's connections share. server: the factory, if it is ours.
    request: the opening handshake's, None before.
    subprotocol: what was agreed on, or None. user: yours to set, in `upgrade_requested`.
    deflate: the compression that was agreed on (`Negotiated`), or None.
    state: a `State`. outgoing: the write buffer. reading_paused: nothing is read from the peer for now.
    """

    log: ClassVar[Logger] = Logger()
    role: Role = Role.SERVER
    settings: Settings = Settings()
    server: WebSocketServerFactory | None = None
    request: Request | None = None
    subprotocol: str | None = None
    deflate: Negotiated | None = None
    user: Any = None
    reading_paused: bool = False
    outgoing: Outgoing

    _state: State = State.CONNECTING
    _transport: Any = None
    _response: Response | None = None
    _answered_at: str | None = None
    _connection_id: int | None = None
    _in_hook_mode: ClassVar[bool] = False
    _session_types: ClassVar[tuple[type[Session], type[DeflateSession]]] = (Session, DeflateSession)
    _liveness: Liveness
    _opening: ServerOpening | ClientOpening | None = None
    _session: Session | None = None
    _account: Account | None = None
    _inbox: Inbox | None = None
    _receivers: deque[Deferred[str | bytes]] | None = None
    _closers: list[Deferred[CloseReason]] | None = None
    _handling: Deferred[None] | None = None
    _ended: CloseReason | None = None
    _peer_finished: bool = False
    _held: int = 0
    _settling: IDelayedCall | None = None
    _turn: IDelayedCall | None = None
    _end_of_reading: Callable[[], None] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._in_hook_mode = any(map(cls._overrides, ("text_received", "binary_received", "fragment_received")))
        added = [name for name, value in vars(cls).items() if callable(value)]
        for name, meant in lookalikes(added, dir(WebSocketProtocol)):
            warn(
                f"{cls.__qualname__}.{name} is no hook of WebSocketProtocol, which never calls it: override {meant}",
                stacklevel=2,
            )
        if cls._overrides("state"):
            raise TypeError(f"{cls.__qualname__}.state: that name is the connection's; give yours another")
        if cls._overrides("connectionLost") and not hasattr(cls.connectionLost, "runs_ours"):
            cls.connectionLost = _behind_which_ours_runs(cls.connectionLost)  # type: ignore[method-assign]

    @classmethod
    def _overrides(cls, hook: str) -> bool:
        return getattr(cls, hook) is not getattr(WebSocketProtocol, hook)

    # Twisted calls these.

    def makeConnection(self, transport: Any) -> None:
        if isinstance(transport, ApplicationTransport):
            transport = transport.below
        opening: ServerOpening | ClientOpening
        if self.role is Role.CLIENT:
            opening = ClientOpening(self)
        elif isinstance(transport, WebConnection):
            opening = RequestOpening(self, transport)
        else:
            opening = ServerOpening(self)
        try:
            self._connect(transport, opening)
        except BaseException:
            # A subclass's connectionMade failed, which Twisted logs; it would wait for nobody.
            self.abort()
            raise
        # Not in connectionMade, which a subclass may override without calling ours.
        if self.role is Role.SERVER:
            self.serve()

    def _connect(self, transport: Any, opening: ServerOpening | ClientOpening) -> None:
        clock = self.settings.clock
        if clock is None:
            from twisted.internet import reactor

            clock = cast("IReactorTime", reactor)
        self._clock = clock
        self._now = seconds_of(clock)
        transport = complete(transport, clock, self._lost_unnoticed)
        self._liveness = Liveness(self, clock, self.settings.timeouts)
        if self.settings.budget is not None:
            self._account = self.settings.budget.open(self._shed)
        self.outgoing = Outgoing(transport, self.settings.limits, self, self._account)
        self._opening = opening
        # Before connectionMade, in which a subclass may fail: the connection must not stay for ever.
        self._transport = transport
        self._receive_by(opening.data_received)
        self.expect_handshake()
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    @property
    def transport(self) -> ITransport | None:
        """The transport below, on which ``loseConnection`` closes the WebSocket; None before the connection is made."""
        if self._transport is None:
            return None
        return cast("ITransport", ApplicationTransport(self, self._transport))

    @transport.setter
    def transport(self, transport: Any) -> None:
        self._transport = transport

    def readConnectionLost(self) -> None:
        """The peer ended its side of TCP (`IHalfCloseableProtocol`): answer its requests, then end ours."""
        self._settle_opening()
        if self._waits_for_turn(lambda: WebSocketProtocol.readConnectionLost(self)):
            return
        self._peer_finished = True
        if self._opening is None or self._session is not None:
            self._end_with_peer()
        elif not self._opening.peer_finished():
            self._closing()
            self._opening.lost(Failure(ConnectionDone()))
            self._end_with_peer()

    def _end_with_peer(self) -> None:
        """End our side of TCP behind the bytes that are queued."""
        if self._session is not None and not self._session.ended:
            self._session.lost(ConnectionDone())
        if self.outgoing.finished:
            self._transport.loseConnection()
        else:
            self.tear_down()

    def writeConnectionLost(self) -> None:
        """Our side of TCP is ended (`IHalfCloseableProtocol`)."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._ended is not None:
            return
        self._settle_opening()
        if self._waits_for_turn(lambda: WebSocketProtocol.connectionLost(self, reason)):
            # Nothing leaves any more.
            self.outgoing.abandon()
            return
        self._state = State.CLOSED
        session, opening = self._session, self._opening
        self._opening = None
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if session is not None:
            session.lost(reason.value)
        self._ended = self._reason()
        if isinstance(self._ended.error, ProtocolError):
            # Its close frame has the code alone.
            self.log.info(
                "connection {connection} of {peer} was closed: {error}",
                connection=self.connection_id,
                peer=self.peer,
                error=self._ended.error,
            )
        closed = ConnectionClosed(self._ended)
        self._liveness.lost(closed)
        if opening is not None:
            opening.lost(reason)
        self.outgoing.lost(closed)
        forget_frames(reason.value)
        forget_frames(self._ended.error)
        if self._inbox is not None:
            self._inbox.detach()
        if self._account is not None:
            self._account.close()
        if self.server is not None:
            self.server.forget(self)
        self.__dict__.pop("dataReceived", None)
        if session is not None:
            self._settle(closed)
        # Its traceback leads to the frame of a coroutine that caught it, and from there, in Python 3.12, to this one:
        # a cycle that would keep the connection until the collector runs.
        forget_frames(closed)

    def _lost_unnoticed(self) -> None:
        """We dropped the connection, and the transport may never say that it is lost."""
        self.connectionLost(Failure(ConnectionAborted()))

    def _settle(self, closed: ConnectionClosed) -> None:
        while self._receivers:
            # Not with the frames of those that were told before.
            self._receivers.popleft().errback(closed.with_traceback(None))
        closers, self._closers = self._closers, None
        for closer in closers or ():
            closer.callback(self._reason())
        # The hooks of messages that came before go first, however long they take.
        if self._handling is None:
            self._finish()

    def _finish(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.forget()
        if self._in_hook_mode or self._receivers is None:
            self.log_unconsumed()
        self._run_hook(self.closed, self._reason())

    def log_unconsumed(self) -> None:
        """Say in the log how many messages came that the application will not take."""
        if self._inbox:
            self.log.info(
                "connection {connection} of {peer} ended with {count} messages that {protocol} did not take",
                connection=self.connection_id,
                peer=self.peer,
                count=len(self._inbox),
                protocol=type(self).__qualname__,
            )

    # Opening: the server's side.

    def serve(self) -> None:
        """Called when a server's connection is made. The default accepts, again while HTTP keeps the connection.

        Override it to drive `read_request`, `accept` and `respond` by hand.
        """
        self._require_opening(Role.SERVER).when_octets_come(self._serve)

    def _serve(self) -> None:
        accepted = self.accept()
        if self._state is State.OPEN:
            # Most open at once, and no code of the application awaits that.
            self.opening_settled()
        else:
            accepted.addBoth(self._accepted)

    def _accepted(self, result: Request | Failure) -> None:
        again = not isinstance(result, Failure) or self._not_accepted(result)
        # A coroutine, for many requests that came together would be a deep recursion.
        if again and self._state is State.CONNECTING:
            Deferred.fromCoroutine(self._accept_on())

    async def _accept_on(self) -> None:
        again: object = True
        answered, began, limits = 0, self._now(), self.settings.limits
        while again and self._state is State.CONNECTING:
            spent = answered == limits.max_messages_per_turn
            if limits.max_seconds_per_turn is not None:
                spent = spent or self._now() - began > limits.max_seconds_per_turn
            if spent:
                await self._turn_of_opening()
                answered, began = 0, self._now()
                continue
            opening = self._require_opening(Role.SERVER)
            if not opening.octets_wait:
                # Who has been answered and says nothing more is in no handshake that could time out.
                opening.when_octets_come(self._serve)
                return
            again = await self.accept().addErrback(self._not_accepted)
            answered += 1
        self._settle_opening()

    def _turn_of_opening(self) -> Deferred[None]:
        """Fires in the reactor's next turn: requests that came together wait for the other connections' turns."""
        begun: Deferred[None] = Deferred()

        def begin() -> None:
            self._turn = None
            begun.callback(None)

        self._turn = self._clock.callLater(0, begin)
        return begun

    def _not_accepted(self, failure: Failure) -> bool:
        """Whether to accept again."""
        if self._state is State.CONNECTING and not failure.check(WebSocketError):
            self.log.failure("the handshake of {peer} failed; the connection is dropped", failure, peer=self.peer)
            self.abort()
        elif not failure.check(UpgradeDeclined):
            self.log.debug(
                "no WebSocket on connection {connection} of {peer}: {error}",
                connection=self.connection_id,
                peer=self.peer,
                error=failure.value,
            )
        # What is logged may be kept, and must not keep us alive.
        failure.cleanFailure()
        return failure.check(HandshakeError) is not None

    def read_request(self) -> Deferred[Request]:
        """Read the next HTTP request's head.

        Fails with `BadRequest` or `HeadTooLarge` (answered 400 or 431, and closed), `HandshakeTimeout`, or the
        transport's failure. Cancelling aborts the connection. `LocalError` is raised while another operation runs.
        """
        return cast("Deferred[Request]", self._require_opening(Role.SERVER).read_request())

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
        if request is not None and not isinstance(request, Request) and self.role is Role.SERVER:
            request = self._connect_by(request)
            if self._ended is not None:
                return fail(ConnectionLost("the client left before its request was accepted"))
        opening = self._require_opening(Role.SERVER)
        return cast("Deferred[Request]", opening.accept(request, buffered, decorator, subprotocols))

    def _connect_by(self, http_request: TwistedRequest) -> Request:
        """Be connected as the request of twisted.web is."""
        if self._transport is not None:
            raise LocalError("a twisted.web request brings its connection, and this protocol has one")
        connection = WebConnection(http_request)
        self._connect(connection, RequestOpening(self, connection))
        if connection.lost:
            self.connectionLost(Failure(ConnectionLost()))
        return connection.request

    def respond(self, response: Response) -> Deferred[None]:
        """Answer the request that `read_request` gave by any response; fires when it left, or waits behind little.

        HTTP decides whether the connection is kept (RFC 9112 §9.3): while `state` is ``CONNECTING`` the next request
        can be read. Cancelling aborts the connection. Fails with `LocalError` where no request waits for an answer, and
        for a status below 200; `LocalError` is raised while another operation runs.
        """
        return cast("Deferred[None]", self._require_opening(Role.SERVER).respond(response))

    # Opening: the client's side.

    def as_client(self, settings: Settings) -> WebSocketProtocol:
        """Be the client's end, with these settings; returns itself. To be called before the connection is made."""
        self.role, self.settings = Role.CLIENT, settings
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
        opening = self._require_opening(Role.CLIENT)
        if not isinstance(host, str) or not isinstance(target, str):
            raise TypeError("handshake(host, target): give both as str")
        check_decorator(decorator)
        subprotocols = checked_subprotocols(subprotocols) or self.settings.subprotocols
        if not host or not is_host(host):
            wanted = "give the Host field, such as example.com or [::1]:8080"
            return fail(ValueError(f"handshake({host!r}): {wanted}"))
        return cast("Deferred[Response]", opening.handshake(host, target, decorator, subprotocols))

    def _require_opening(self, role: Role) -> Any:
        if self.role is not role:
            raise LocalError(
                f"this is the {self.role.value}'s end of the connection, and that is the {role.value}'s part"
            )
        if self._opening is None or self._state is not State.CONNECTING:
            raise LocalError(f"the opening handshake is over or not begun: the connection is {self._state.value}")
        return self._opening

    # Hooks.

    def http_requested(self, request: Request) -> Any:
        """Any HTTP request, before any check. None goes on with the handshake; a `Response` (or a Deferred of one, or a
        coroutine) is the answer: a page, a health check, a 404."""

    def upgrade_requested(self, request: Request) -> Any:
        """A valid handshake, before its answer. None accepts it; a `Response` (or a Deferred of one, or a coroutine)
        declines. May set ``self.user``, and ``self.subprotocol`` to one that the client offers: another is logged as a
        mistake, and answered 500."""

    def opened(self) -> Any:
        """The connection is open. Where hooks take the messages, they wait for what it returns."""

    def text_received(self, text: str) -> Any:
        """A text message."""

    def binary_received(self, data: bytes) -> Any:
        """A binary message."""

    def fragment_received(self, data: bytes, opcode: Opcode, final: bool) -> Any:
        """A piece of a message as it arrived; ``final`` is its end. Overriding it streams messages in, ungathered:
        ``Limits.max_message_size``, ``max_fragments`` and ``Timeouts.message`` still hold, text is checked, but pieces
        may end inside a character."""

    def ping_received(self, payload: bytes) -> Any:
        """A ping, already answered."""

    def pong_received(self, payload: bytes) -> Any:
        """A pong, asked for or not."""

    def closed(self, reason: CloseReason) -> Any:
        """The connection, which was open, is gone; called exactly once."""

    # Messages.

    def send(self, message: str | bytes | Prepared, *, compress: bool | None = None) -> None:
        """Send a message: ``str`` as text, ``bytes`` as binary, or what `prepare` made, for many receivers.

        It is queued at once, like ``transport.write``.

        compress: whether to, where `deflate` was agreed on; None compresses from ``Deflate.threshold`` octets on. A
            prepared message has its own choice.

        Raises `ConnectionClosed` once closing, `BufferFull` under the policy ``pause``, `LocalError` before the
        connection is open or for more than ``Limits.max_buffered``. Text with lone surrogates raises
        UnicodeEncodeError, what is no message TypeError.
        """
        self._require_session().send(message, compress=compress)

    def send_text(self, text: str | bytes, *, compress: bool | None = None) -> None:
        """Send a text message; ``bytes`` must be UTF-8 already, and are not checked. As `send` otherwise."""
        if compress is None and isinstance(text, str):
            self._require_session().send_text(text)
        else:
            payload = text.encode() if isinstance(text, str) else octets_of(text, "send_text() takes str or bytes")
            self._require_session().send_message(FIN_TEXT, payload, compress)

    def send_binary(self, data: bytes, *, compress: bool | None = None) -> None:
        """Send a binary message. As `send` otherwise."""
        if not isinstance(data, bytes):
            data = octets_of(data, "send_binary() takes bytes")
        if compress is None:
            self._require_session().send_binary(data)
        else:
            self._require_session().send_message(FIN_BINARY, data, compress)

    @contextmanager
    def message(self, opcode: int = Opcode.TEXT, *, compress: bool | None = None) -> Iterator[MessageWriter]:
        """Stream a message out: ``with ws.message() as m: m.write(part)``; each part leaves as a frame.

        opcode: ``Opcode.TEXT`` or ``Opcode.BINARY``, whatever the parts are; raises ValueError for any other.

        What is sent meanwhile leaves behind it, control frames in between. Leaving the block by an exception closes
        with 1011, for the peer must not take what it got for the whole. Raises `ConnectionClosed` once closing,
        `LocalError` while another is open.
        """
        if opcode not in (Opcode.TEXT, Opcode.BINARY):
            raise ValueError(f"message({opcode!r}): must be Opcode.TEXT or Opcode.BINARY")
        session = self._require_session()
        session.begin_message(opcode, compress)
        try:
            yield MessageWriter(session)
        except BaseException as error:
            session.fail(error, CloseCode.INTERNAL_ERROR)
            raise
        session.end_message()

    async def send_stream(
        self, parts: Iterable[str | bytes] | AsyncIterable[str | bytes], opcode: int | None = None
    ) -> None:
        """Send a message whose parts come from an iterable, plain or asynchronous, at the pace of `drain`.

        opcode: as for `message`; None, the default, is text if the first part is a ``str``, or there is none, and
            binary otherwise.
        """
        stream = _each(parts)
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
        if self._ended is not None:
            return fail(ConnectionClosed(self._ended))
        if self._transport is None:
            self._require_session()
        return self.outgoing.drain()

    @property
    def buffered_amount(self) -> int:
        """Octets sent that the operating system may not have taken yet."""
        gathered = self._session.gathered_size if self._session is not None else 0
        return gathered + self.outgoing.buffered

    def receive(self) -> Deferred[str | bytes]:
        """The next message. Fails with `ConnectionClosed` when there will be none; cancelling does no harm.

        Raises `LocalError` in a class that overrides a message hook, and before the connection is open.
        """
        if self._in_hook_mode:
            raise LocalError(f"{type(self).__name__} overrides a message hook: its messages go there, not to receive()")
        if self._receivers is None:
            self._receivers = deque()
        if self._inbox:
            message = self._inbox.take()
            self._count_received()
            return succeed(message)
        if self._ended is not None:
            return fail(ConnectionClosed(self._ended))
        self._require_session()
        receiver: Deferred[str | bytes] = Deferred(self._receivers.remove)
        self._receivers.append(receiver)
        return receiver

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """The messages to the end: a close with 1000 or 1001 ends the loop, any other raises `ConnectionClosed`."""
        return _Messages(self.receive)

    # Keeping pace: we are a consumer of the application's octets, and a producer of messages for it.

    def write(self, data: bytes) -> None:
        """Send a binary message (``IConsumer``). Raises as `send`."""
        self.send_binary(data)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause ``producer`` while more than ``Limits.high_water`` octets wait, until ``low_water`` (``IConsumer``).

        Without ``streaming`` it is asked for more once a turn of the reactor, in between. It is stopped when the
        connection begins to close, or is lost. Raises RuntimeError while another is registered.
        """
        if self._state in (State.CLOSING, State.CLOSED):
            producer.stopProducing()
            return
        if not streaming:
            producer = PulledProducer(producer, self._clock)
        self.outgoing.register(producer)
        if not streaming and self.buffered_amount <= self.settings.limits.high_water:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """Let go of the producer (``IConsumer``)."""
        producer = self.outgoing.unregister()
        if isinstance(producer, PulledProducer):
            producer.pauseProducing()

    def pauseProducing(self) -> None:
        """Deliver no message until `resumeProducing`, and read no more (``IPushProducer``); pings wait as well.

        Once the connection is gone it does nothing. Raises `LocalError` before it is open.
        """
        if self._ended is None:
            self._hold(APPLICATION)

    def resumeProducing(self) -> None:
        """Deliver messages again (``IPushProducer``)."""
        self._release(APPLICATION)
        self._count_received()

    def stopProducing(self) -> None:
        """Close with 1001 (``IPushProducer``)."""
        self.close(CloseCode.GOING_AWAY)

    # Control.

    def ping(self, payload: bytes = b"") -> Deferred[float]:
        """Send a ping of at most 125 octets; fires with the seconds to its pong, or to a later ping's.

        Fails with `ConnectionClosed` when the connection ends first. Cancelling does no harm. Raises `LocalError` for a
        longer payload and before the connection is open, `ConnectionClosed` once closing.
        """
        session = self._require_session()
        # Before the system is called to send it, which takes its time.
        now = self._now()
        session.ping(payload)
        return self._liveness.ping_sent(payload, now)

    def pong(self, payload: bytes = b"") -> None:
        """Send a pong that nobody asked for (RFC 6455 §5.5.3). Raises as `ping`."""
        self._require_session().pong(payload)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> Deferred[CloseReason]:
        """Close by the closing handshake, bounded by ``Timeouts.close`` (RFC 6455 §7.1.2, Beast: ``async_close``).

        code: 1000-1003, 1007-1014, 3000-4999, or 1005 for none. reason: at most 123 octets of UTF-8, the rest is cut.
        Messages that come before the peer's close frame are thrown away. Fires with the `CloseReason`, however it
        ended; calling it again changes nothing. Before the connection is open it is `abort`. Raises `LocalError` for a
        bad code.
        """
        if self._ended is not None:
            return succeed(self._ended)
        if self._session is None:
            self.abort()
            return succeed(self._reason())
        self._session.close(code, reason)
        self._closing()
        return self.when_closed()

    def when_closed(self) -> Deferred[CloseReason]:
        """Fires with the `CloseReason` when the connection, which was open, is gone, however it ended.

        It fires before `closed` is called. Raises `LocalError` before the connection is open.
        """
        if self._ended is not None:
            return succeed(self._ended)
        self._require_session()
        closer: Deferred[CloseReason] = Deferred()
        self._closers = [*(self._closers or ()), closer]
        return closer

    def abort(self) -> None:
        """Drop the connection now, with nothing sent."""
        if self._ended is None and self._transport is not None:
            if self._state is State.CONNECTING:
                # The handshake does not go on, whichever hook this is called in.
                self._closing()
            elif self._session is not None:
                # What is left of the chunk is not delivered, and nothing that a hook sent in it leaves.
                self.outgoing.abandon()
                self._session.lost()
            self._transport.abortConnection()

    @property
    def state(self) -> State:
        """Where in its life the connection is. A subclass's own state needs another name."""
        return self._state

    @property
    def response(self) -> Response | None:
        """The opening handshake's 101, None before."""
        if self._answered_at is not None and self.request is not None:
            # Made when it is asked for: its fields are a good part of what an idle connection would cost.
            return success(self.request, self.subprotocol, self.extensions, self._answered_at)
        return self._response

    @property
    def extensions(self) -> str | None:
        """The extensions in use, in the words of Sec-WebSocket-Extensions (the browsers' ``extensions``), or None."""
        return None if self.deflate is None else self.deflate.answer

    @property
    def close_reason(self) -> CloseReason | None:
        """How the connection ended or is ending; 1006 if it never was open. None before it closes."""
        return None if self._state in (State.CONNECTING, State.OPEN) else self._reason()

    def _reason(self) -> CloseReason:
        if self._ended is not None:
            return self._ended
        if self._session is not None:
            return self._session.reason()
        return CloseReason(CloseCode.ABNORMAL, "", False, "transport")

    @property
    def latency(self) -> float | None:
        """Seconds that the latest ping took to be answered, or None."""
        return self._liveness.latency

    @property
    def connection_id(self) -> int:
        """A number that no other connection of this process has, for logs."""
        if self._connection_id is None:
            self._connection_id = next(_connection_ids)
        return self._connection_id

    @property
    def peer(self) -> IAddress | None:
        """The address of the other end, as the transport gives it; None before it is connected, or if it has none."""
        try:
            return None if self._transport is None else cast("IAddress", self._transport.getPeer())
        except Exception:
            # A process has no such method, and that of an SSH channel in memory fails.
            return None

    def _require_session(self) -> Session:
        if self._session is None:
            if self._ended is not None:
                raise ConnectionClosed(self._ended)
            raise LocalError(f"there is no WebSocket before opened() is called: the connection is {self._state.value}")
        return self._session

    # What the opening handshake calls.

    @property
    def connecting(self) -> bool:
        """The opening handshake may go on."""
        return self._state is State.CONNECTING

    def expect_handshake(self) -> None:
        """Give the handshake its time, from now."""
        self._liveness.expect(self.settings.timeouts.handshake)

    def expect_request(self) -> None:
        """Give the client its time to make another request, from now."""
        self._liveness.expect(self.settings.timeouts.keep_alive)

    def count_request(self) -> None:
        """Raise a `HandshakeError` if the server has too many requests."""
        if self.server is not None:
            self.server.count_request(self)

    def admit(self) -> None:
        """Raise a `HandshakeError` if the server has no place for this connection."""
        if self.server is not None:
            self.server.admit(self)

    def dismiss(self) -> None:
        """Give the place back: the connection did not open."""
        if self.server is not None:
            self.server.dismiss(self)

    def move_to(self, transport: Any) -> Outgoing:
        """Leave the transport of the handshake for ``transport``; returns the write buffer before it."""
        transport = complete(transport, self._clock, self._lost_unnoticed)
        self._transport = transport
        self.outgoing = Outgoing(transport, self.settings.limits, self, self._account)
        return self.outgoing

    def discard_clear(self) -> None:
        """TLS is about to start: send what waits, and forget what came in clear and is not read yet."""
        if self._session is not None and self._session.gathered_size:
            self._session.flush()
        self.outgoing.hand_over_all()
        if self._opening is not None:
            self._opening.discard_waiting()

    def let_go(self) -> None:
        """The request is answered, and the connection was never ours."""
        self._opening = None
        self.connectionLost(Failure(ConnectionDone()))

    def hold_reading(self, hold: bool) -> None:
        """Pause the transport's reading, or let it go on."""
        if hold and self._state is State.CLOSING:
            # What comes while we close is read and thrown away, so that the peer's end is seen.
            hold = self._session is not None and self._session.spent
        if hold != self.reading_paused and self._ended is None:
            self.reading_paused = hold
            if hold:
                self._liveness.paused()
                self._transport.pauseProducing()
            else:
                self._liveness.resumed()
                self._transport.resumeProducing()

    def upgraded(self, request: Request, response: Response | None, date: str | None = None) -> None:
        """Become a session. No ``response`` stands for the plain 101 that answered ``request`` at ``date``."""
        self.request = request
        if response is None:
            self._answered_at = date
        else:
            self._response = response
        session = self._make_session()
        self._session = session
        if type(self).send is _send and "send" not in self.__dict__:
            # A call less for each message.
            self.send = session.send  # type: ignore[method-assign]
        self._direct_messages(session)
        self._state = State.OPEN
        self._liveness.opened(session)
        if self._in_hook_mode:
            session.call_hook(lambda _: self.opened(), None)
        else:
            self._run_hook(self.opened)

    def _make_session(self) -> Session:
        server, now, settings = self.role is Role.SERVER, self._now, self.settings
        (plain, deflating), limits = self._session_types, settings.limits
        limited = limits.max_message_rate is not None or limits.max_byte_rate is not None
        if limited:
            plain, deflating = rate_limited(plain), rate_limited(deflating)
        if self.deflate is None or settings.deflate is None:
            session = plain(server, self, self.outgoing, now, limits)
        else:
            deflate = PerMessageDeflate(self.deflate, settings.deflate, server)
            session = deflating(server, self, self.outgoing, now, limits, deflate)
        session.one_chunk_a_turn = self.outgoing.direct
        if limited:
            cast(Any, session).limit(limits, Counter() if self.server is None else self.server.refusals)
        return session

    def settle_soon(self) -> None:
        """Do the same as `opening_settled` in the reactor's next turn; at once if no bytes wait."""
        if self._session is not None and self._opening is not None and self._opening.octets_wait:
            self._settling = self._clock.callLater(0, self.opening_settled)
        else:
            self.opening_settled()

    def _settle_opening(self) -> None:
        if self._opening is not None:
            self._opening.settle()

    def opening_settled(self) -> None:
        """Feed the session the bytes behind the handshake that opened it, and all that come from now on.

        The first message follows the code that awaits the handshake: `Operation` calls this behind that code.
        """
        if self._settling is not None:
            if self._settling.active():
                self._settling.cancel()
            self._settling = None
        session, opening = self._session, self._opening
        if session is None or opening is None:
            return
        self._opening = None
        self.hold_reading(session.paused)
        if not session.ended:
            self._receive_by(session.feed)
            rest = opening.rest()
            if rest:
                session.feed(rest)
        if self._peer_finished:
            self._end_with_peer()

    # A process-wide budget.

    def _receive_by(self, receive: Callable[[bytes], None]) -> None:
        """Give data from the transport to ``receive``, and count it if there is a budget."""
        if isinstance(self._transport, BareTransport) and not self._transport.pausable:
            receive = partial(self._receive_bounded, receive)
        if self._account is not None:
            # Without one, nothing is in the way of a chunk.
            receive = partial(self._receive_counted, receive)
        self.dataReceived = receive  # type: ignore[assignment, method-assign]

    def _receive_bounded(self, receive: Callable[[bytes], None], data: bytes) -> None:
        """Receive from a transport that goes on reading while we are paused."""
        receive(data)
        session, limit = self._session, self.settings.limits.max_buffered
        if session is not None and session.unparsed_size > limit and session.paused:
            waiting = f"{session.unparsed_size} bytes wait for the application on a transport that cannot be paused"
            session.fail(BufferFull(f"{waiting}: Limits.max_buffered is {limit}"), CloseCode.TRY_AGAIN_LATER)

    def _receive_counted(self, receive: Callable[[bytes], None], data: bytes) -> None:
        receive(data)
        self._count_received()

    def _count_received(self) -> None:
        if self._account is None:
            return
        size = 0 if self._inbox is None else self._inbox.size
        if self._session is not None:
            size += self._session.received_size
        if self._opening is not None:
            size += self._opening.waiting
        self._account.count(RECEIVED, size)

    def _shed(self) -> None:
        """The process's `MemoryBudget` is spent, and this connection holds most: free its memory, close with 1013."""
        session = self._session
        if self._state is not State.OPEN or session is None or session.sent is not None:
            self.abort()
            self.outgoing.abandon()
            if self._account is not None:
                # The rest goes with the transport, at once or in this turn.
                self._account.count(RECEIVED, 0)
        else:
            self.outgoing.discard()
            if self._inbox is not None:
                self._inbox.clear()
            session.close(CloseCode.TRY_AGAIN_LATER, "the server is short of memory")
            self._closing()
            self._count_received()

    # What the session calls, and where its messages go.

    def _direct_messages(self, session: Session) -> None:
        if self._overrides("fragment_received"):
            session.stream_to(self.fragment_received)
        elif self._in_hook_mode:
            session.on_text = self.text_received if self._overrides("text_received") else None
            session.on_binary = self.binary_received if self._overrides("binary_received") else None
        else:
            session.on_text = session.on_binary = self._keep_message

    def _keep_message(self, message: str | bytes) -> None:
        if self._receivers:
            self._receivers.popleft().callback(message)
        else:
            self._require_inbox().put(message)

    def _require_inbox(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(self.settings.limits, self._inbox_full, self._inbox_low)
        return self._inbox

    def _inbox_full(self) -> None:
        if self._receivers is None and not self._in_hook_mode:
            self._receivers = deque()
            self.log.info(
                "{count} messages wait on connection {connection} of {peer}, which cannot send more: {protocol} "
                "overrides no message hook, and nobody has called receive()",
                count=len(self._require_inbox()),
                connection=self.connection_id,
                peer=self.peer,
                protocol=type(self).__qualname__,
            )
        self._hold(INBOX)

    def _inbox_low(self) -> None:
        self._release(INBOX)

    def _hold(self, reason: int) -> None:
        self._held |= reason
        session = self._require_session()
        session.pause()
        self.hold_reading(session.paused)

    def _release(self, reason: int) -> None:
        self._held &= ~reason
        if self._held or self._session is None:
            return
        session = self._session
        session.resume()
        self.hold_reading(session.paused)

    def clock_was_set(self) -> None:
        """Somebody set the clock that the reactor goes by."""
        self._liveness.clock_was_set()

    def turn_awaited(self) -> None:
        """The session spent its budget for this turn of the reactor, or half of it."""
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._next_turn)
        self.hold_reading(self._require_session().paused)

    def _next_turn(self) -> None:
        self._turn = None
        session = self._require_session()
        session.next_turn()
        self._count_received()
        self.hold_reading(session.paused)
        if self._end_of_reading is not None and not session.spent:
            end, self._end_of_reading = self._end_of_reading, None
            end()

    def _waits_for_turn(self, end: Callable[[], None]) -> bool:
        """Whether part of a chunk waits for a turn; ``end`` is called when the hooks have had it."""
        if self._session is None or not self._session.spent:
            return False
        self._end_of_reading = end
        return True

    def hook_returned(self, result: Any) -> None:
        """A message hook returned something; if that takes time, what comes behind it waits in the inbox."""
        handling = _deferred(result)
        if handling is None:
            return
        handling.addErrback(self._application_failed)
        if handling.called and not handling.paused:
            return
        self._handling = handling
        session = self._require_session()
        if session.on_fragment is not None:
            self._hold(HOOK)
        else:
            keep = self._require_inbox().put
            session.on_text = session.on_text and keep
            session.on_binary = session.on_binary and keep
        handling.addCallback(self._handled)

    def _handled(self, _: object) -> None:
        self._handling = None
        session = self._require_session()
        while self._inbox and self._handling is None and session.began != "local":
            message = self._inbox.take()
            self._count_received()
            session.call_hook(self.text_received if isinstance(message, str) else self.binary_received, message)
        if self._handling is not None:
            return
        if self._ended is not None:
            self._finish()
        elif session.on_fragment is not None:
            self._release(HOOK)
        else:
            self._direct_messages(session)

    def hook_failed(self) -> None:
        """A hook raised: log it once and close with 1011."""
        self._application_failed(Failure())

    def _application_failed(self, failure: Failure) -> None:
        if failure.check(ConnectionClosed):
            failure.cleanFailure()
            return
        session = self._session
        failing = session is not None and not session.closed
        self.log.failure(
            "the application failed on connection {connection} of {peer}{outcome}",
            failure,
            connection=self.connection_id,
            peer=self.peer,
            outcome=", which is closed with 1011" if failing else "",
        )
        # Its traceback's frames would keep us alive.
        failure.cleanFailure()
        if session is not None:
            session.fail(cast(BaseException, failure.value), CloseCode.INTERNAL_ERROR)

    def _run_hook(self, hook: Any, *arguments: Any) -> None:
        try:
            running = _deferred(hook(*arguments))
            if running is not None:
                running.addErrback(self._application_failed)
        except Exception:
            self.hook_failed()

    def control_received(self, opcode: int, payload: bytes) -> None:
        """A ping, which is answered already, or a pong."""
        if opcode == Opcode.PING:
            self._run_hook(self.ping_received, payload)
        else:
            self._liveness.pong_received(payload)
            self._run_hook(self.pong_received, payload)

    def session_ended(self) -> None:
        """The session neither reads nor writes any more: end TCP."""
        if self._state is not State.CLOSED:
            self.tear_down()

    # What the write buffer and the liveness call.

    def transport_leaving(self) -> None:
        """Somebody told the transport below to close: tell the peer, and let it go."""
        if self._session is not None:
            self._session.close()
        self._closing()
        self.outgoing.finish(lambda: None)

    def overflowed(self) -> None:
        """The peer reads too slowly (``Limits.slow_reader``): forget what waits, close with 1013."""
        session = self._session
        if session is not None and session.sent is None:
            self.outgoing.discard()
            session.close(CloseCode.TRY_AGAIN_LATER, "too slow a reader")
            self._closing()

    def may_ping(self) -> bool:
        """A ping would leave now."""
        return self.outgoing.free

    def turns(self) -> int:
        """How often the peer made room for what waits."""
        return self.outgoing.turns

    def unaccepted(self) -> int:
        """Bytes in the system's buffer that the peer has not accepted, or 0 if that is unknown."""
        return unaccepted(self._transport)

    def stopped_reading(self, what: str) -> None:
        """The peer accepts no data: forget what waits for it, and end."""
        self.outgoing.discard()
        self.timed_out(what)

    def timed_out(self, what: str) -> None:
        """The peer of an open connection is silent or slow: tell it, and end."""
        self._require_session().fail(TimeoutError(what), CloseCode.INTERNAL_ERROR, what)

    def deadline_passed(self) -> None:
        """The handshake, the connection's life or its closing had its time."""
        if self._state is State.OPEN:
            self.close(CloseCode.GOING_AWAY, "the connection has reached its maximum lifetime")
        elif self._state is State.CONNECTING and self._opening is not None:
            self._closing()
            self._opening.lost(Failure(HandshakeTimeout()))
            # What was answered before had its time to be read: there is no end of the peer's to wait for.
            self.dataReceived = _discard  # type: ignore[method-assign]
            self.outgoing.finish(self._transport.loseConnection)
        else:
            self.abort()

    # Closing.

    def _closing(self) -> None:
        if self._state in (State.CONNECTING, State.OPEN):
            self._state = State.CLOSING
            self._liveness.closing()
            self.hold_reading(self._session is not None and self._session.paused)
            # What it would send now is too late.
            stop(self.outgoing.unregister())

    def tear_down(self) -> None:
        """End TCP behind what is queued, so that the peer can read it all (RFC 6455 §7.1.1, RFC 9112 §9.6).

        After the closing handshake a server closes. Otherwise we end our side and throw away what comes until the peer
        ends its own, or ``Timeouts.close`` has passed: closing at once could reset the connection, and take our last
        octets from the peer.
        """
        if self._ended is not None:
            return
        self._closing()
        self.hold_reading(False)
        self.dataReceived = _discard  # type: ignore[method-assign]
        server_closes = self.role is Role.CLIENT and self._closed_cleanly and not self._peer_finished
        # RFC 6455 §7.1.1: after the closing handshake a client waits for the server to end TCP.
        if not server_closes:
            self.outgoing.finish(self._end_writing)

    @property
    def _closed_cleanly(self) -> bool:
        return self._session is not None and self._session.clean

    def _end_writing(self) -> None:
        # TLS has no half-close; its shutdown waits for the peer's just so. Behind both close frames nothing comes that
        # could reset the connection.
        if self.outgoing.direct and not self._peer_finished and not self._closed_cleanly:
            self._transport.loseWriteConnection()
        else:
            self._transport.loseConnection()


# To know a ``send`` that somebody put in its place.
_send = WebSocketProtocol.send


class _Messages:
    """What ``async for`` goes through. No generator: one left early asyncio would keep until its loop turns."""

    __slots__ = ("_receive",)

    def __init__(self, receive: Callable[[], Deferred[str | bytes]]) -> None:
        self._receive = receive

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self._receive()
        except ConnectionClosed as error:
            # Awaiting a Deferred that has failed already makes a cycle of the error, its Failure and the frames.
            forget_frames(error)
            if error.reason.code in (CloseCode.NORMAL, CloseCode.GOING_AWAY):
                raise StopAsyncIteration from None
            raise type(error)(error.reason) from None


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


def _deferred(result: Any) -> Deferred[Any] | None:
    """A Deferred of what a hook returned, or None for None. Raises TypeError for what a hook must not return."""
    if result is None or isinstance(result, Deferred):
        return result
    if isinstance(result, (Generator, AsyncGenerator)):
        raise TypeError(f"{result!r}: a hook with yield in it runs only in inlineCallbacks, or as async def with await")
    if hasattr(result, "__await__"):
        return Deferred.fromCoroutine(settled(result))
    raise TypeError(f"a hook returned {result!r}: it may return None, a Deferred or a coroutine")


async def _each(parts: Iterable[str | bytes] | AsyncIterable[str | bytes]) -> AsyncIterator[str | bytes]:
    if isinstance(parts, AsyncIterable):
        async for part in parts:
            yield part
    else:
        for part in parts:
            yield part


def _discard(data: bytes) -> None:
    """Octets behind the end."""
