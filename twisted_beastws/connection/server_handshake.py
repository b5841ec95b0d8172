"""The server's opening handshake (RFC 6455 §4.2): it answers requests until one of them upgrades the connection."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.clock import next_turn
from twisted_beastws.connection.accepted import Accepted
from twisted_beastws.connection.operation import HandshakeHost, Operation
from twisted_beastws.connection.peer_text import peer_text
from twisted_beastws.connection.request_budget import RequestBudget
from twisted_beastws.connection.state import State
from twisted_beastws.errors import HandshakeError, HookFailed, LocalError, UpgradeDeclined
from twisted_beastws.options import Decorator
from twisted_beastws.tls.failures import tls_trouble
from twisted_beastws.wire import handshake
from twisted_beastws.wire.dates import http_date
from twisted_beastws.wire.deflate import Negotiated, accept_offer
from twisted_beastws.wire.fields import raw_fields
from twisted_beastws.wire.head_buffer import MAX_EMPTY_LINES
from twisted_beastws.wire.http import Request, Response, parse_request
from twisted_beastws.wire.origin import check_origin

log = Logger()


class ServerHandshake(Operation):
    """Reads requests and answers them, until one of them becomes an `Accepted`."""

    __slots__ = ("_began", "_budget", "_request")

    def __init__(self, host: HandshakeHost) -> None:
        super().__init__(host, "request", MAX_EMPTY_LINES)
        # Most connections have one request, which needs no budget, but the time when it began.
        self._budget: RequestBudget | None = None
        self._began = 0.0
        # The request that waits for an answer.
        self._request: Request | None = None

    def lost(self, failure: Failure) -> None:
        """End the running operation with ``failure``. If none runs, log a TLS failure here; nothing else will."""
        if self._done is None and (trouble := tls_trouble(failure.value)):
            log.info("TLS with {peer} failed: {trouble}", peer=peer_text(self._host.peer), trouble=trouble)
        super().lost(failure)

    def peer_finished(self) -> bool:
        """Return whether there is a request to answer: a client may end its side of TCP after its request."""
        super().peer_finished()
        waits_for_bytes = self._reader is not None or (self._done is None and not self.bytes_wait)
        return self._host.state is State.CONNECTING and (self._request is not None or not waits_for_bytes)

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

    def accept_next(self, done: Callable[[Any], object]) -> None:
        """Perform the WebSocket handshake with the next request; ``done`` gets the request, or a ``Failure``."""
        self.perform(self._accept(None, b"", None, ()), done)
        # No code of the application awaits this, so the first message need not wait for any.
        if not self._receiving:
            self.settle()

    async def _read_admitted(self, decorator: Decorator | None) -> Request:
        while True:
            request = await self._read_request(decorator)
            answer = self._not_here(request)
            gate = None if self._host.server is None else self._host.server.gate
            if answer is None and gate is not None:
                try:
                    asked = self._ask(gate, request, self._host.application)
                    answer = None if asked is None else await asked
                except HookFailed as error:
                    await self._send(handshake.failure(error, request), decorator)
                    raise
            if answer is None:
                return request
            await self._respond(answer)

    async def _read_request(self, decorator: Decorator | None) -> Request:
        if self._request is not None:
            raise LocalError("the request read before is not answered: accept(request) it, or respond()")
        try:
            # The request before this one is answered. This one may name another client, if a proxy forwards both.
            self.request = None
            request = self._request = self.request = self._next_request() or await self._await_request()
            self._check_request(request)
        except HandshakeError as error:
            # RFC 9112 §2.2 and RFC 6585 §5, where Beast sends nothing.
            await self._send(handshake.failure(error, self._request), decorator)
            raise
        return request

    def _next_request(self) -> Request | None:
        """Return the next request if it has arrived and the budget of this turn is not spent, else None."""
        if self._budget is not None and self._budget.spent(self._host):
            return None
        head = self._head.take_usual() or self._head.take()
        if head is None:
            return None
        if self._budget is None:
            self._began = self._host.liveness.now()
        else:
            self._budget.take(self._host)
        return parse_request(head)

    async def _await_request(self) -> Request:
        while True:
            if self._budget is not None and self._budget.spent(self._host):
                await self._next_turn()
                self._budget.renew()
            elif (request := self._next_request()) is not None:
                return request
            else:
                await self.more()

    async def _next_turn(self) -> None:
        begun: Deferred[None] = Deferred()
        self._turn = next_turn(self._host.clock, lambda: begun.callback(None))
        await begun

    def _check_request(self, request: Request) -> None:
        """Count a request, and check which host it is for."""
        if self._host.server is not None:
            self._host.server.count_request(self._host.application)
        handshake.check_host(request)

    def _not_here(self, request: Request) -> Response | None:
        """Return a 404 if the server answers only another path: no login is needed to learn that."""
        target = self._host.settings.target
        if target is None or request.path == target:
            return None
        return Response(404, body="There is no WebSocket here\n")

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
        self._request = self.request = request
        try:
            if elsewhere:
                self._check_request(request)
            answer = await self._judge(request, subprotocols)
            deflate = self._accept_deflate(request) if answer is None else None
            # A hook may have set other options.
            decorator = given or self._host.settings.decorator
        except HandshakeError as error:
            await self._send(handshake.failure(error, request), decorator)
            raise
        if answer is None:
            if decorator is None:
                return self._upgrade(request, None, self.subprotocol, deflate)
            answer = handshake.success(request, self.subprotocol, None if deflate is None else deflate.answer)
            answer = await self._decorate(answer, decorator)
            if answer.status == 101:
                return self._upgrade(request, answer, answer.field("Sec-WebSocket-Protocol"), deflate)
            decorator = None
            for name in handshake.SWITCHING_FIELDS:
                answer.headers.removeHeader(name)
        await self._send(answer, decorator)
        raise UpgradeDeclined(answer)

    def _upgrade(
        self, request: Request, response: Response | None, subprotocol: str | None, deflate: Negotiated | None
    ) -> Accepted:
        """Send the 101: ``response``, or the plain one if no decorator changed it."""
        date = http_date()
        if response is None:
            answer = handshake.success_bytes(request, subprotocol, None if deflate is None else deflate.answer, date)
        else:
            if not response.headers.hasHeader(b"Date"):
                response.headers.setRawHeaders(b"Date", [date])
            answer = response.to_bytes()
        self._host.outgoing.write_admitted(answer)
        return Accepted(request, response, date, subprotocol, deflate, self._head.rest())

    # Judging a request.

    async def _judge(self, request: Request, subprotocols: Sequence[str]) -> Response | None:
        """Return the application's answer to a request, or None if it upgrades. Raises a `HandshakeError`."""
        host = self._host
        application, server = host.application, host.server
        assert application is not None
        answer = self._not_here(request)
        if answer is None and server is not None and server.gate is not None:
            asked = self._ask(server.gate, request, application)
            answer = None if asked is None else await asked
        if answer is None:
            asked = self._ask(application.http_requested, request)
            answer = None if asked is None else await asked
        if answer is not None:
            return answer
        handshake.check_request(request, host_checked=True)
        if b"Origin" in raw_fields(request.headers):
            check_origin(request, host.settings.origins, over_tls=self._over_tls)
        if server is not None:
            server.admit(application)
        self.subprotocol = handshake.select_subprotocol(request, subprotocols or host.settings.subprotocols)
        asked = self._ask(application.upgrade_requested, request)
        answer = None if asked is None else await asked
        if answer is None and self.subprotocol is not None:
            self._check_subprotocol(request, self.subprotocol)
        return answer

    @property
    def _over_tls(self) -> bool:
        return ISSLTransport.providedBy(self._host.transport)

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

    def _ask(self, hook: Callable[..., Any], *arguments: Any) -> Coroutine[Any, Any, Response | None] | None:
        """Call a hook. Return None if it returned None, else a coroutine of its answer.

        Raises:
            HookFailed: The hook raised.
            CancelledError: The hook ended the connection, so it must not open.
        """
        try:
            answer = hook(*arguments)
            if answer is not None:
                return self._answer_of(hook, answer)
            if self.abandoned:
                raise CancelledError
        except Exception as error:
            if self.abandoned:
                raise
            raise self._failure_of(hook) from error
        return None

    async def _answer_of(self, hook: Callable[..., Any], answer: Any) -> Response | None:
        """Return a hook's answer. Raises as `_ask`, and `HookFailed` if the answer cannot be sent."""
        try:
            answer = await self.settled(answer)
            if answer is None:
                return None
            if not isinstance(answer, Response) or answer.status < 200:
                raise TypeError(f"{_name_of(hook)} returned {answer!r}: it may return None or a final Response")
            answer.to_bytes()
        except Exception as error:
            if self.abandoned:
                raise
            raise self._failure_of(hook) from error
        return answer

    def _failure_of(self, hook: Callable[..., Any]) -> HookFailed:
        """Log the exception that a hook raised, which is being handled; return the error to raise in its place."""
        _log_hook_failure(self._host, _name_of(hook), Failure())
        return HookFailed()

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
        host.outgoing.write_admitted(answer)
        if not keep:
            host.tear_down()
            return
        if self._budget is None:
            self._budget = RequestBudget(self._began)
        self._kept = not self.bytes_wait
        timeouts = host.settings.timeouts
        host.liveness.expect(timeouts.keep_alive if self._kept else timeouts.handshake)
        await host.outgoing.drain()


def _name_of(hook: Callable[..., Any]) -> str:
    return str(getattr(hook, "__qualname__", None) or repr(hook))


def _log_hook_failure(host: HandshakeHost, hook: str, failure: Failure) -> None:
    log.failure(
        "{hook} failed; the handshake on connection {connection} is answered 500",
        failure,
        hook=hook,
        connection=host.connection_id,
    )
