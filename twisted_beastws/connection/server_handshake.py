"""The server's opening handshake (RFC 6455 §4.2): requests in, answers out, until one upgrades."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.connection.awaiting import settled
from twisted_beastws.connection.operation import Operation
from twisted_beastws.errors import HandshakeError, HookFailed, LocalError, UpgradeDeclined
from twisted_beastws.options import Decorator
from twisted_beastws.tls.failures import tls_trouble
from twisted_beastws.wire import handshake
from twisted_beastws.wire.dates import http_date
from twisted_beastws.wire.deflate import Negotiated, accept_offer
from twisted_beastws.wire.http import MAX_EMPTY_LINES, Request, Response, parse_request
from twisted_beastws.wire.origin import check_origin

if TYPE_CHECKING:
    from twisted_beastws.connection.connection import Connection

log = Logger()


class ServerOpening(Operation):
    """Reads requests and answers them; gone once the connection is open."""

    __slots__ = ("_kept", "_request")

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, "request", MAX_EMPTY_LINES)
        self._request: Request | None = None
        # Answered, and without a byte of another request.
        self._kept = False

    def data_received(self, data: bytes) -> None:
        """Take bytes from the transport."""
        if self._kept:
            self._kept = False
            self._connection.expect_handshake()
        super().data_received(data)

    def lost(self, failure: Failure) -> None:
        """End what is under way with ``failure``; if that is nothing, nobody else tells whom TLS kept out."""
        if self._operation is None and (trouble := tls_trouble(failure.value)):
            log.info("TLS with {peer} failed: {trouble}", peer=self._connection.peer, trouble=trouble)
        super().lost(failure)

    def peer_finished(self) -> bool:
        """Return whether there is a request to answer: the client may have ended its side of TCP behind it."""
        super().peer_finished()
        waits_for_bytes = self._reader is not None or (self._operation is None and not self.octets_wait)
        return self._connection.connecting and (self._request is not None or not waits_for_bytes)

    def read_request(self) -> Deferred[Request]:
        """The head of the next request that the server's gate lets in."""
        return self.operate(self._read_admitted(self._connection.settings.decorator))

    def respond(self, response: Response) -> Deferred[None]:
        """Answer the request read last."""
        return self.operate(self._respond(response))

    def accept(
        self, request: Request | None, buffered: bytes, decorator: Decorator | None, subprotocols: Sequence[str]
    ) -> Deferred[Request]:
        """Answer ``request``, or the next one that comes, by the WebSocket handshake."""
        return self.operate(self._accept(request, buffered, decorator, subprotocols))

    @property
    def _gate(self) -> Callable[[Any, Request], Any] | None:
        server = self._connection.server
        return None if server is None else server.gate

    async def _read_admitted(self, decorator: Decorator | None) -> Request:
        while True:
            request = await self._read_request(decorator)
            gate = self._gate
            answer = None if gate is None else await self.settled(gate(self._connection.application, request))
            if answer is None:
                return request
            await self._respond(answer)

    async def _read_request(self, decorator: Decorator | None) -> Request:
        if self._request is not None:
            raise LocalError("the request read before is not answered: accept(request) it, or respond()")
        try:
            # The one before has been answered. This may say for whom a proxy asks, and so who is counted.
            self._connection.request = None
            self._connection.request = self._request = await self._next_request()
            self._connection.count_request()
            handshake.check_host(self._request)
        except HandshakeError as error:
            # RFC 9112 §2.2 and RFC 6585 §5, where Beast sends nothing.
            await self._send(handshake.failure(error, self._request), decorator)
            raise
        return self._request

    async def _next_request(self) -> Request:
        return parse_request(await self.next_head())

    async def _respond(self, response: Response) -> None:
        if self._request is None:
            raise LocalError("respond() answers a request: there is none, or it is answered")
        if response.status < 200:
            raise LocalError(f"a {response.status} is no answer: accept() switches protocols, and nothing comes before")
        await self._send(response, self._connection.settings.decorator)

    async def _accept(
        self, request: Request | None, buffered: bytes, decorator: Decorator | None, subprotocols: Sequence[str]
    ) -> Request:
        if buffered:
            # They were read before all that the transport has given since.
            self._head.feed(bytes(buffered) + self._head.rest())
        decorator = decorator or self._connection.settings.decorator
        if request is None:
            request = await self._read_request(decorator)
        elsewhere = request is not self._request
        self._request = self._connection.request = request
        try:
            if elsewhere:
                self._connection.count_request()
                handshake.check_host(request)
            response = await self._judge(request, subprotocols or self._connection.settings.subprotocols)
        except HandshakeError as error:
            await self._send(handshake.failure(error, request), decorator)
            raise
        if response is None and decorator is None:
            self._upgrade(request, None)
            return request
        if response is None:
            response = await self._decorate(self._success(request), decorator)
            if response.status == 101:
                self._connection.subprotocol = response.field("Sec-WebSocket-Protocol")
                self._upgrade(request, response)
                return request
            decorator = None
            for name in handshake.SWITCHING_FIELDS:
                response.headers.removeHeader(name)
        await self._send(response, decorator)
        raise UpgradeDeclined(response)

    def _upgrade(self, request: Request, response: Response | None) -> None:
        """Become a session; no ``response`` is the answer as it is without a decorator."""
        connection, date = self._connection, http_date()
        if response is None:
            answer = handshake.success_bytes(request, connection.subprotocol, connection.extensions, date)
        else:
            if not response.headers.hasHeader(b"Date"):
                response.headers.setRawHeaders(b"Date", [date])
            answer = response.to_bytes()
        connection.outgoing.write_admitted(answer)
        connection.upgraded(request, response, date)

    def _success(self, request: Request) -> Response:
        return handshake.success(request, self._connection.subprotocol, self._connection.extensions)

    async def _judge(self, request: Request, subprotocols: Sequence[str]) -> Response | None:
        """The answer to a request, or None for its upgrade; raises a `HandshakeError`."""
        connection, gate = self._connection, self._gate
        application: Any = connection.application
        if gate is not None:
            answer = await self._ask(gate, application, request)
            if answer is not None:
                return answer
        answer = await self._ask(application.http_requested, request)
        if answer is not None:
            return answer
        handshake.check_request(request, host_checked=True)
        check_origin(request, connection.settings.origins, over_tls=self._over_tls())
        connection.admit()
        connection.subprotocol = handshake.select_subprotocol(request, subprotocols)
        answer = await self._ask(application.upgrade_requested, request)
        if answer is not None:
            return answer
        self._check_subprotocol(request)
        connection.deflate = self._accept_deflate(request)
        return None

    def _over_tls(self) -> bool:
        """Whether the connection is TLS that ends in this process."""
        return ISSLTransport.providedBy(self._connection.transport)

    def _check_subprotocol(self, request: Request) -> None:
        chosen = self._connection.subprotocol
        if chosen is not None and chosen not in handshake.offered_subprotocols(request):
            mistake = LocalError(
                f"upgrade_requested set self.subprotocol to {chosen!r}, which the client did not offer"
            )
            self._hook_failed("upgrade_requested", Failure(mistake))
            raise HookFailed from mistake

    def _accept_deflate(self, request: Request) -> Negotiated | None:
        options = self._connection.settings.deflate
        if options is None:
            return None
        return accept_offer(request.headers.getRawHeaders(b"Sec-WebSocket-Extensions", ()), options)

    async def _ask(self, hook: Callable[..., Any], *arguments: Any) -> Response | None:
        name = getattr(hook, "__qualname__", repr(hook))
        try:
            answer = hook(*arguments)
            if answer is not None:
                answer = await settled(answer)
            if self.abandoned:
                # The hook ended the connection: nothing is opened on it.
                raise CancelledError
            if answer is None:
                return None
            if not isinstance(answer, Response) or answer.status < 200:
                raise TypeError(f"{name} returned {answer!r}: it may return None or a final Response")
            answer.to_bytes()
        except Exception as error:
            if self.abandoned:
                raise
            self._hook_failed(name, Failure())
            raise HookFailed from error
        return answer

    def _hook_failed(self, hook: str, failure: Failure) -> None:
        log.failure(
            "{hook} failed; the handshake on connection {connection} is answered 500",
            failure,
            hook=hook,
            connection=self._connection.connection_id,
        )

    async def _decorate(self, response: Response, decorator: Decorator | None) -> Response:
        response.request = self._request
        if decorator is None:
            return response
        accept = response.field("Sec-WebSocket-Accept") if response.status == 101 else None
        extensions = response.field("Sec-WebSocket-Extensions")
        try:
            answer = await self.settled(decorator(response))
            if isinstance(answer, Response) and answer is not response:
                # Or whoever it was to keep out would be let in.
                raise TypeError(f"a decorator changes the response that it is given: it returned {answer!r}")
            handshake.check_decorated(response, self._request, accept, extensions)
            # What cannot be written is the decorator's mistake, too.
            response.to_bytes()
        except Exception as error:
            if self.abandoned:
                raise
            self._hook_failed("the decorator", Failure())
            await self._send(handshake.failure(HookFailed(), self._request), None)
            if isinstance(error, LocalError):
                raise
            raise HookFailed from error
        return response

    async def _send(self, response: Response, decorator: Decorator | None) -> None:
        """Send an answer that does not upgrade."""
        await self._write(await self._decorate(response, decorator))

    async def _write(self, response: Response) -> None:
        """Send an answer as it is; close behind it where HTTP does not keep the connection."""
        request = self._request
        # RFC 9112 §9.3: kept unless either side says otherwise; behind a body, unread, nothing could be found.
        keep = request is not None and request.keep_alive and not request.has_body and response.keep_alive
        if self._finished and not self.octets_wait:
            keep = False
        handshake.complete(response, close=not keep, date=http_date())
        answer = response.to_bytes()
        self._request = None
        self._connection.dismiss()
        self._connection.outgoing.write_admitted(answer)
        if not keep:
            self._connection.tear_down()
            return
        self._kept = not self.octets_wait
        if self._kept:
            self._connection.expect_request()
        else:
            self._connection.expect_handshake()
        await self._connection.outgoing.drain()
