"""Taking a connection over from twisted.web, which has read the upgrade request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from twisted_beastws.connection.accepted import Accepted
from twisted_beastws.connection.interfaces import Application
from twisted_beastws.connection.operation import HandshakeHost
from twisted_beastws.connection.server_handshake import ServerHandshake
from twisted_beastws.errors import BadHttpVersion, LocalError
from twisted_beastws.wire import handshake
from twisted_beastws.wire.closing import CloseCode, CloseReason
from twisted_beastws.wire.dates import http_date
from twisted_beastws.wire.deflate import Negotiated
from twisted_beastws.wire.handshake import is_upgrade
from twisted_beastws.wire.http import Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Closing(Protocol):
    """The connection, as the request that it took over sees it."""

    @property
    def close_reason(self) -> CloseReason | None: ...

    def close(self, code: int) -> Any: ...


# These fields describe a body, and a 101 has none. `Response.to_bytes` leaves out the length of a body.
_OF_A_BODY = frozenset((b"Content-Encoding", b"Content-Type"))
# RFC 9113 §8.2.2: these must not be sent in HTTP/2.
_OF_A_CONNECTION = frozenset((b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Transfer-Encoding", b"Upgrade"))


class WebConnection:
    """A twisted.web ``Request`` with its connection: a transport for the time before the real one is taken over.

    During the handshake twisted.web reads the connection and is the transport's producer. A response other than 101
    leaves through twisted.web, which keeps the connection. After a 101, `take_over` makes the channel pass all received
    bytes to the WebSocket, and the request ends with the connection.

    Attributes:
        request: The same request, as our `Request`.

    Raises:
        LocalError: The response to the request has begun.
    """

    def __init__(self, http_request: Any) -> None:
        if http_request.startedWriting or http_request.finished:
            raise LocalError(f"the answer to {http_request!r} has begun: no WebSocket can come of it")
        self.request = Request.from_twisted(http_request)
        # A program in front of twisted.web may not have read the body of an upgrade, so treat the body as unread.
        self.request.body_read = not is_upgrade(self.request)
        self._http_request = http_request
        self._channel = http_request.channel
        self._connection: Closing | None = None
        self._application: Application | None = None

    def belong_to(self, connection: Closing, application: Application) -> None:
        """Call the application's ``connectionLost`` when the connection is lost."""
        self._connection, self._application = connection, application
        self._http_request.notifyFinish().addBoth(self._request_ended)

    @property
    def lost(self) -> bool:
        """The client left before the request came here."""
        return self._channel is None

    @property
    def over_http2(self) -> bool:
        """The request has a stream, not a connection."""
        return self.request.version == "2"

    # The transport's part, while twisted.web has it.

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """twisted.web is the transport's producer."""

    def unregisterProducer(self) -> None:
        """As `registerProducer`."""

    def getPeer(self) -> Any:
        return self._http_request.getClientAddress()

    def getHost(self) -> Any:
        return self._http_request.getHost()

    @property
    def over_tls(self) -> bool:
        """Whether twisted.web got the request over TLS."""
        return bool(self._http_request.isSecure())

    def loseConnection(self) -> None:
        if self.over_http2:
            self.abortConnection()
        elif self._channel is not None:
            self._channel.loseConnection()

    def abortConnection(self) -> None:
        channel = self._channel
        if channel is None:
            return
        if self.over_http2:
            # This resets the stream, which does not notify the request.
            channel.abortConnection()
            self._http_request.connectionLost(Failure(ConnectionAborted()))
        else:
            channel.transport.abortConnection()

    def __getattr__(self, name: str) -> Any:
        # All other names are the transport's, such as the methods of TLS. A stream has none.
        return getattr(None if self._channel is None else self._channel.transport, name)

    def give_back(self) -> Any:
        """Leave the request to twisted.web, which has not answered it, and return it."""
        self._request_ended(None)
        return self._http_request

    def _request_ended(self, result: object) -> None:
        """Code outside this package ended the request."""
        application = self._release()
        if application is not None:
            application.connectionLost(result if isinstance(result, Failure) else Failure(ConnectionDone()))

    def _release(self) -> Application | None:
        application, self._application = self._application, None
        self._connection = self._channel = None
        return application

    # Answers.

    def answer(self, response: Response) -> None:
        """Send an answer other than 101 through twisted.web, with the fields that the site and the application set."""
        request, headers = self._http_request, response.headers
        if not self.over_http2:
            # RFC 9112 §9.6: twisted.web looks at the request's Connection field, not at the answer's.
            self._channel.persistent = self._channel.persistent and response.keep_alive
        self._release()
        request.setResponseCode(response.status, response.reason.encode("latin-1", "replace"))
        # RFC 9110 §8.3: a missing Content-Type means unknown; twisted.web's default would be HTML.
        request.defaultContentType = None
        request.responseHeaders.removeHeader(b"Content-Length")
        for name, values in headers.getAllRawHeaders():
            if name == b"Set-Cookie":
                request.cookies.extend(values)
            elif name not in (b"Content-Length", b"Transfer-Encoding") and not (
                self.over_http2 and name in _OF_A_CONNECTION
            ):
                request.responseHeaders.setRawHeaders(name, values)
        if not request.responseHeaders.hasHeader(b"Date"):
            request.responseHeaders.setRawHeaders(b"Date", [http_date()])
        # RFC 9110 §8.6: these have no body, and no length.
        if response.status not in (204, 304):
            request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(response.body)])
        request.write(response.body)
        request.finish()

    def add_fields(self, response: Response) -> None:
        """Add to a 101 the fields that the site and the application set on the request: cookies, Server and Date."""
        headers = response.headers
        for name, values in self._http_request.responseHeaders.getAllRawHeaders():
            # The handshake negotiates its own fields with the client; a site must not change them.
            ours = name in _OF_A_BODY or name.startswith(b"Sec-Websocket-")
            if not ours and not headers.hasHeader(name):
                headers.setRawHeaders(name, values)
        for cookie in self._http_request.cookies:
            headers.addRawHeader(b"Set-Cookie", cookie)
        if not headers.hasHeader(b"Date"):
            headers.setRawHeaders(b"Date", [http_date()])

    # The take-over.

    def take_over(self) -> tuple[Any, bytes]:
        """End HTTP on the connection.

        Returns:
            The transport, without a producer, and the bytes that followed the request.
        """
        request, channel = self._http_request, self._channel
        transport = channel.transport
        followed: list[bytes] = []
        tail = channel.clearLineBuffer()
        # After the request the channel reads on, if it is persistent, and replays the bytes that came in between.
        channel.dataReceived = followed.append
        channel.persistent = True
        channel.requestDone(request)
        channel.setTimeout(None)
        followed.append(tail)
        # Wrappers of the channel, such as TLS or a proxy's header, stay in place, as twisted.web itself does it.
        channel.dataReceived = self._data_received
        channel.connectionLost = self._connection_lost
        transport.unregisterProducer()
        transport.resumeProducing()
        request.setResponseCode(101)
        request.startedWriting = 1
        request.write = _ignore
        request.finish = self._finished
        return transport, b"".join(followed)

    def allow_half_close(self, transport: Any) -> None:
        """Notify the protocol when the peer ends its side of a plain TCP or UNIX transport."""
        outermost, application = transport.protocol, self._application
        assert application is not None
        outermost.readConnectionLost = application.readConnectionLost
        outermost.writeConnectionLost = application.writeConnectionLost
        alsoProvides(outermost, IHalfCloseableProtocol)

    def _data_received(self, data: bytes) -> None:
        assert self._application is not None
        self._application.dataReceived(data)

    def _finished(self) -> None:
        """The application, or twisted.web when ``render`` raised, finished the request."""
        if self._connection is not None:
            failed = self._http_request.code != 101
            self._connection.close(CloseCode.INTERNAL_ERROR if failed else CloseCode.NORMAL)

    def _connection_lost(self, reason: Failure) -> None:
        request, channel, connection = self._http_request, self._channel, self._connection
        application = self._release()
        assert application is not None and connection is not None
        try:
            application.connectionLost(reason)
        finally:
            for changed, names in ((channel, ("dataReceived", "connectionLost")), (request, ("write", "finish"))):
                for name in names:
                    changed.__dict__.pop(name, None)
            channel.connectionLost(reason)
            if channel.factory is not None:
                channel.factory.log(request)
            if connection.close_reason is not None and connection.close_reason.clean:
                # ``notifyFinish`` fires with None after a clean end, and with the failure otherwise.
                notifications, request.notifications = request.notifications, []
                for notification in notifications:
                    notification.callback(None)
            request.connectionLost(reason)


class WebHost(HandshakeHost, Protocol):
    """The connection of a request of twisted.web."""

    def move_to(self, transport: Any, answer: bytes) -> bool:
        """Leave the transport of the handshake for ``transport``, and send ``answer`` there first.

        Returns whether it is a plain TCP or UNIX transport, with two directions that end one after the other.
        """

    def let_go(self) -> None:
        """twisted.web answered the request and keeps its connection."""


class RequestHandshake(ServerHandshake):
    """The opening handshake with the one request that twisted.web read."""

    __slots__ = ("_web", "_web_host")

    def __init__(self, host: WebHost, web: WebConnection) -> None:
        super().__init__(host)
        self._web_host = host
        self._web = web

    def when_bytes_come(self, begin: Callable[[], None]) -> None:
        begin()

    def _next_request(self) -> Request:
        return self._web.request

    @property
    def _over_tls(self) -> bool:
        return self._web.over_tls

    async def _judge(self, request: Request, subprotocols: Sequence[str]) -> Response | None:
        try:
            return await super()._judge(request, subprotocols)
        except BadHttpVersion as error:
            if self._web.over_http2:
                # RFC 9113 §8.6: HTTP/2 has no 101, and twisted.web does not know RFC 8441, which replaces it.
                error.status = 501
            raise

    def _upgrade(
        self, request: Request, response: Response | None, subprotocol: str | None, deflate: Negotiated | None
    ) -> Accepted:
        web = self._web
        if response is None:
            response = handshake.success(request, subprotocol, None if deflate is None else deflate.answer)
        web.add_fields(response)
        answer = response.to_bytes()
        transport, followed = web.take_over()
        if self._web_host.move_to(transport, answer):
            web.allow_half_close(transport)
        return Accepted(request, response, None, subprotocol, deflate, followed)

    async def _write(self, response: Response) -> None:
        self._request = None
        handshake.complete(response)
        self._web.answer(response)
        self._web_host.let_go()


def _ignore(data: bytes) -> None:
    """Discard a write to a request that became a WebSocket: the peer would read it as a frame."""
