"""The server's opening handshake (RFC 6455 §4.2): it answers requests until one of them upgrades the connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.connection.accepted import Accepted
from twisted_beastws.connection.interfaces import HandshakeHost
from twisted_beastws.connection.operation import Operation
from twisted_beastws.connection.peer_text import peer_text
from twisted_beastws.connection.request_budget import RequestBudget
from twisted_beastws.connection.running import settled
from twisted_beastws.errors import HandshakeError, HookFailed, LocalError, UpgradeDeclined
from twisted_beastws.options import Decorator
from twisted_beastws.tls.failures import tls_trouble
from twisted_beastws.wire import handshake
from twisted_beastws.wire.dates import http_date
from twisted_beastws.wire.deflate import Negotiated, accept_offer
from twisted_beastws.wire.http import MAX_EMPTY_LINES, Request, Response, parse_request
from twisted_beastws.wire.origin import check_origin

log = Logger()


class Agreement(NamedTuple):
    """The terms of a valid upgrade request."""

    subprotocol: str | None
    deflate: Negotiated | None

    @property
    def extensions(self) -> str | None:
        """The extensions in use, in the words of Sec-WebSocket-Extensions, or None."""
        return None if self.deflate is None else self.deflate.answer


class ServerHandshake(Operation):
    """Reads requests and answers them, until one of them becomes an `Accepted`."""

    __slots__ = ("_budget", "_kept", "_request")

    def __init__(self, host: HandshakeHost) -> None:
        super().__init__(host, "request", MAX_EMPTY_LINES)
        self._budget = RequestBudget(host)
        self._request: Request | None = None
        # The last request is answered, and no byte of another one has arrived.
        self._kept = False

    def data_received(self, data: bytes) -> None:
        """Take bytes from the transport."""
        if self._kept:
            self._kept = False
            self._host.expect_handshake()
        super().data_received(data)

    def lost(self, failure: Failure) -> None:
        """End the running operation with ``failure``. If none runs, log a TLS failure here; nothing else will."""
        if self._operation is None and (trouble := tls_trouble(failure.value)):
            log.info("TLS with {peer} failed: {trouble}", peer=peer_text(self._host.peer), trouble=trouble)
        super().lost(failure)

    def peer_finished(self) -> bool:
        """Return whether there is a request to answer: a client may end its side of TCP after its request."""
        super().peer_finished()
        waits_for_bytes = self._reader is not None or (self._operation is None and not self.bytes_wait)
        return self._host.connecting and (self._request is not None or not waits_for_bytes)

    # The operations.

    def read_request(self) -> Deferred[Request]:
        """Read the next request that the server's gate lets in."""
        return self.operate(self._read_admitted(self._host.settings.decorator))

    def respond(self, response: Response) -> Deferred[None]:
        """Answer the request that was read last."""
        return self.operate(self._respond(response))

    def accept(
        self, request: Request | None, buffered: bytes, decorator: Decorator | None, subprotocols: Sequence[str]
    ) -> Deferred[Request]:
        """Perform the WebSocket handshake with ``request``, or with the next one."""
        return self.operate(self._accept(request, buffered, decorator, subprotocols))

    async def _read_admitted(self, decorator: Decorator | None) -> Request:
        while True:
            request = await self._read_request(decorator)
            answer = self._not_here(request)
            gate = None if self._host.server is None else self._host.server.gate
            if answer is None and gate is not None:
                answer = await self.settled(gate(self._host.application, request))
            if answer is None:
                return request
            await self._respond(answer)

    async def _read_request(self, decorator: Decorator | None) -> Request:
        if self._request is not None:
            raise LocalError("the request read before is not answered: accept(request) it, or respond()")
        try:
            # The request before this one is answered. This one may name another client, if a proxy forwards both.
            self._host.request_read(None)
            self._request = await self._next_request()
            self._host.request_read(self._request)
            self._count_request()
            handshake.check_host(self._request)
        except HandshakeError as error:
            # RFC 9112 §2.2 and RFC 6585 §5, where Beast sends nothing.
            await self._send(handshake.failure(error, self._request), decorator)
            raise
        return self._request

    def _not_here(self, request: Request) -> Response | None:
        """Return a 404 if the server answers only another path: no login is needed to learn that."""
        target = self._host.settings.target
        if target is None or request.path == target:
            return None
        return Response(404, body="There is no WebSocket here\n")

    def _count_request(self) -> None:
        if self._host.server is not None:
            self._host.server.count_request(self._host.application)

    async def _next_request(self) -> Request:
        await self._budget.take()
        return parse_request(await self.next_head())

    async def _respond(self, response: Response) -> None:
        if self._request is None:
            raise LocalError("respond() answers a request: there is none, or it is answered")
        if response.status < 200:
            raise LocalError(f"a {response.status} is no answer: accept() switches protocols, and nothing comes before")
        await self._send(response, self._host.settings.decorator)

    async def _accept(
        self, request: Request | None, buffered: bytes, decorator: Decorator | None, subprotocols: Sequence[str]
    ) -> Accepted:
        if buffered:
            # These bytes were read before all bytes that came from the transport since.
            self._head.feed(bytes(buffered) + self._head.rest())
        given, decorator = decorator, decorator or self._host.settings.decorator
        if request is None:
            request = await self._read_request(decorator)
        elsewhere = request is not self._request
        self._request = request
        try:
            if elsewhere:
                self._host.request_read(request)
                self._count_request()
                handshake.check_host(request)
            answer = await self._judge(request, subprotocols)
            # A hook may have set other options.
            decorator = given or self._host.settings.decorator
        except HandshakeError as error:
            await self._send(handshake.failure(error, request), decorator)
            raise
        if isinstance(answer, Agreement) and decorator is None:
            return self._upgrade(request, None, answer)
        if isinstance(answer, Agreement):
            response = handshake.success(request, answer.subprotocol, answer.extensions)
            response = await self._decorate(response, decorator)
            if response.status == 101:
                chosen = response.field("Sec-WebSocket-Protocol")
                return self._upgrade(request, response, Agreement(chosen, answer.deflate))
            decorator, answer = None, response
            for name in handshake.SWITCHING_FIELDS:
                response.headers.removeHeader(name)
        await self._send(answer, decorator)
        raise UpgradeDeclined(answer)

    def _upgrade(self, request: Request, response: Response | None, agreed: Agreement) -> Accepted:
        """Send the 101: ``response``, or the plain one if no decorator changed it."""
        date = http_date()
        if response is None:
            answer = handshake.success_bytes(request, agreed.subprotocol, agreed.extensions, date)
        else:
            if not response.headers.hasHeader(b"Date"):
                response.headers.setRawHeaders(b"Date", [date])
            answer = response.to_bytes()
        self._host.send(answer)
        return Accepted(request, response, date, agreed.subprotocol, agreed.deflate, self.rest())

    # Judging a request.

    async def _judge(self, request: Request, subprotocols: Sequence[str]) -> Agreement | Response:
        """Return the application's answer to a request, or `Agreement` if it upgrades. Raises a `HandshakeError`."""
        host = self._host
        application, server = host.application, host.server
        answer = self._not_here(request)
        if answer is not None:
            return answer
        if server is not None and server.gate is not None:
            answer = await self._ask(server.gate, application, request)
            if answer is not None:
                return answer
        answer = await self._ask(application.http_requested, request)
        if answer is not None:
            return answer
        handshake.check_request(request, host_checked=True)
        check_origin(request, host.settings.origins, over_tls=self._over_tls)
        if server is not None:
            server.admit(application)
        host.propose(handshake.select_subprotocol(request, subprotocols or host.settings.subprotocols))
        answer = await self._ask(application.upgrade_requested, request)
        if answer is not None:
            return answer
        chosen = host.chosen_subprotocol
        if chosen is not None:
            self._check_subprotocol(request, chosen)
        return Agreement(chosen, self._accept_deflate(request))

    @property
    def _over_tls(self) -> bool:
        return self._host.over_tls

    def _check_subprotocol(self, request: Request, chosen: str) -> None:
        if chosen not in handshake.offered_subprotocols(request):
            mistake = LocalError(
                f"upgrade_requested set self.subprotocol to {chosen!r}, which the client did not offer"
            )
            _log_hook_failure(self._host, "upgrade_requested", Failure(mistake))
            raise HookFailed from mistake

    def _accept_deflate(self, request: Request) -> Negotiated | None:
        options = self._host.settings.deflate
        if options is None:
            return None
        return accept_offer(request.headers.getRawHeaders(b"Sec-WebSocket-Extensions", ()), options)

    async def _ask(self, hook: Callable[..., Any], *arguments: Any) -> Response | None:
        """Call a hook, and return its answer. Raises `HookFailed` if the hook raises or returns anything else."""
        name = getattr(hook, "__qualname__", repr(hook))
        try:
            answer = hook(*arguments)
            if answer is not None:
                answer = await settled(answer)
            if self.abandoned:
                # The hook ended the connection, so it must not open.
                raise CancelledError
            if answer is None:
                return None
            if not isinstance(answer, Response) or answer.status < 200:
                raise TypeError(f"{name} returned {answer!r}: it may return None or a final Response")
            answer.to_bytes()
        except Exception as error:
            if self.abandoned:
                raise
            _log_hook_failure(self._host, name, Failure())
            raise HookFailed from error
        return answer

    # Answers other than 101.

    async def _decorate(self, response: Response, decorator: Decorator | None) -> Response:
        response.request = self._request
        if decorator is None:
            return response
        accept = response.field("Sec-WebSocket-Accept") if response.status == 101 else None
        extensions = response.field("Sec-WebSocket-Extensions")
        try:
            answer = await self.settled(decorator(response))
            if isinstance(answer, Response) and answer is not response:
                # The decorator may have meant to refuse the request by this response.
                raise TypeError(f"a decorator changes the response that it is given: it returned {answer!r}")
            handshake.check_decorated(response, self._request, accept, extensions)
            # A response that cannot be written is the decorator's mistake, too.
            response.to_bytes()
        except Exception as error:
            if self.abandoned:
                raise
            _log_hook_failure(self._host, "the decorator", Failure())
            await self._send(handshake.failure(HookFailed(), self._request), None)
            if isinstance(error, LocalError):
                raise
            raise HookFailed from error
        return response

    async def _send(self, response: Response, decorator: Decorator | None) -> None:
        await self._write(await self._decorate(response, decorator))

    async def _write(self, response: Response) -> None:
        """Send an answer, and close after it if HTTP does not keep the connection."""
        request, host = self._request, self._host
        # RFC 9112 §9.3: both sides decide. After an unread body no next request could be found.
        keep = request is not None and request.keep_alive and not request.has_body and response.keep_alive
        if self._finished and not self.bytes_wait:
            keep = False
        handshake.complete(response, close=not keep, date=http_date())
        answer = response.to_bytes()
        self._request = None
        if host.server is not None:
            host.server.dismiss(host.application)
        host.send(answer)
        if not keep:
            host.tear_down()
            return
        self._kept = not self.bytes_wait
        if self._kept:
            host.expect_request()
        else:
            host.expect_handshake()
        await host.drain()


def _log_hook_failure(host: HandshakeHost, hook: str, failure: Failure) -> None:
    log.failure(
        "{hook} failed; the handshake on connection {connection} is answered 500",
        failure,
        hook=hook,
        connection=host.connection_id,
    )
