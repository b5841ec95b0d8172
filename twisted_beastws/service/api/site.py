"""The API over HTTP: requests with a token in, JSON out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from io import BytesIO
from typing import Any, cast
from urllib.parse import parse_qs, unquote

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web import http

from twisted_beastws.service.api.operations import Api
from twisted_beastws.service.api.parsing import ApiError, parse
from twisted_beastws.service.api.tokens import TokenFile

MAX_CONNECTIONS = 100
"""Connections at a time: together they hold at most this many times `MIN_MAX_BODY`, 200 MiB, and need a token to."""

MIN_MAX_BODY = 1 << 21
"""Bytes of a request's body, 2 MiB, or twice a message if that is more (nginx allows 1 MiB)."""

TIMEOUT = 30.0
"""Seconds in which some bytes of a request must come."""

SHUTDOWN = 5.0
"""Seconds that open requests have when the service stops."""

ROOMS = "/api/rooms"

Answer = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class ApiRequest(http.Request):
    """A request to the API."""

    log = Logger()
    factory: ApiFactory
    refusal: ApiError | None = None
    received = 0
    is_gone = False
    content: BytesIO

    def gotLength(self, length: int | None) -> None:
        """Refuse a request before its body comes, which is not kept then."""
        self.content = BytesIO()
        self.refusal = self._refuse(length or 0)

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a part of the body, up to the limit."""
        self.received += len(data)
        if self.received > self.factory.max_body and self.refusal is None:
            self.refusal = self._too_large()
        if self.refusal is None:
            self.content.write(data)
        elif self.received > 2 * self.factory.max_body and self.channel is not None:
            # The client keeps sending a body after it was refused.
            cast(Any, self.channel).transport.abortConnection()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Answer the request."""
        self.method, self.uri, self.clientproto = command, path, version
        Deferred.fromCoroutine(self._answer())

    def connectionLost(self, reason: Any) -> None:
        self.is_gone = True
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def _refuse(self, length: int) -> ApiError | None:
        fields = self.requestHeaders.getRawHeaders(b"Authorization", [])
        if len(fields) != 1 or not self.factory.tokens.accepts(fields[0]):
            client: Any = self.getClientAddress()  # type: ignore[no-untyped-call]
            host = getattr(client, "host", "a UNIX socket")
            what = "a wrong token" if fields else "no token"
            self.log.warn("API request from {host}: 401: {what}", host=host, what=what)
            return ApiError(401, "not_authorized", f"{what}: send the field Authorization: Bearer TOKEN")
        return self._too_large() if length > self.factory.max_body else None

    def _too_large(self) -> ApiError:
        return ApiError(413, "too_large", f"the body has more than {self.factory.max_body} bytes")

    async def _answer(self) -> None:
        try:
            if self.refusal is not None:
                raise self.refusal
            status, answer = await self._perform()
        except ApiError as error:
            status, answer = error.status, {"error": error.fields}
        except Exception:
            self.log.failure("API request {method} {uri} failed", method=self.method, uri=self.uri)
            status, answer = 500, {"error": {"code": "internal", "message": "the service failed; its log has more"}}
        if not self.is_gone:
            self._send(status, answer)

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        self.setResponseCode(status)
        fields = {
            b"Content-Type": b"application/json",
            b"Content-Length": b"%d" % len(body),
            b"Cache-Control": b"no-store",
            b"X-Content-Type-Options": b"nosniff",
        }
        if status == 401:
            fields[b"WWW-Authenticate"] = b'Bearer realm="twisted_beastws API"'
        if status == 503:
            fields[b"Retry-After"] = b"1"
        if self.refusal is not None:
            fields[b"Connection"] = b"close"
        for name, value in fields.items():
            self.responseHeaders.setRawHeaders(name, [value])
        if self.method != b"HEAD":
            self.write(body)  # type: ignore[no-untyped-call]
        self.finish()  # type: ignore[no-untyped-call]

    async def _perform(self) -> tuple[int, dict[str, Any]]:
        path, _, query = self.uri.decode("latin-1").partition("?")
        api = self.factory.api
        posts: dict[str, tuple[int, Answer]] = {
            "/api/publish": (200, api.publish),
            "/api/broadcast": (200, api.broadcast),
            "/api/disconnect": (202, api.disconnect),
        }
        if path in posts:
            self._allow(b"POST")
            status, perform = posts[path]
            return status, await perform(parse(self.content.getvalue()))
        is_room = path.startswith(f"{ROOMS}/")
        if path not in (ROOMS, "/api/openapi.json") and not is_room:
            paths = ", ".join((*posts, ROOMS, f"{ROOMS}/NAME", "/api/openapi.json"))
            raise ApiError(404, "not_found", f"there are {paths}")
        self._allow(b"GET", b"HEAD")
        if path == "/api/openapi.json":
            return 200, openapi()
        after = parse_qs(query, max_num_fields=16).get("after", [None])[-1]
        if not is_room:
            return 200, await api.rooms(after)
        try:
            room = unquote(path[len(ROOMS) + 1 :], errors="strict")
        except UnicodeDecodeError:
            raise ApiError(400, "bad_room", "room: its name is not UTF-8, percent-encoded") from None
        return 200, await api.room(room, after)

    def _allow(self, *methods: bytes) -> None:
        if self.method not in methods:
            self.responseHeaders.setRawHeaders(b"Allow", [b", ".join(methods)])
            raise ApiError(405, "bad_method", f"the method must be {b' or '.join(methods).decode()}")


class ApiChannel(http.HTTPChannel):
    """A connection to the API."""

    factory: ApiFactory

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.factory.connections.add(self)

    def connectionLost(self, reason: Any) -> None:  # type: ignore[override]
        self.factory.connections.discard(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class ApiFactory(http.HTTPFactory):
    """Serves the API.

    Args:
        reactor: provides timers.
        api: does the work.
        tokens: of the programs that may use it.
        max_message: bytes of a message; a request may have twice as many, or `MIN_MAX_BODY`.

    Attributes:
        connections: the open ones.
    """

    protocol = ApiChannel  # type: ignore[assignment]

    def __init__(self, reactor: Any, api: Api, tokens: TokenFile, max_message: int) -> None:
        super().__init__(timeout=TIMEOUT, reactor=reactor)
        self.api = api
        self.tokens = tokens
        self.max_body = max(MIN_MAX_BODY, 2 * max_message)
        self.connections: set[ApiChannel] = set()
        self._reactor = reactor

    def buildProtocol(self, addr: Any) -> Any:
        """Return the protocol of a connection; None, which closes it, if there are too many."""
        if len(self.connections) >= MAX_CONNECTIONS:
            return None
        channel = cast(ApiChannel, super().buildProtocol(addr))
        channel.requestFactory = self._request  # type: ignore[assignment]
        return channel

    def log(self, request: Any) -> None:
        """Write no line for each request to the service's log."""

    async def drain(self, code: int, reason: str, *, seconds: float | None = None) -> None:
        """Close the connections: idle ones at once, the others after `SHUTDOWN`, for both arguments are WebSocket's."""
        for channel in list(self.connections):
            if not channel.requests:
                channel.loseConnection()  # type: ignore[no-untyped-call]
        waited = 0.0
        while self.connections and waited < SHUTDOWN:
            pause: Deferred[None] = Deferred()
            self._reactor.callLater(0.1, pause.callback, None)
            await pause
            waited += 0.1
        for channel in list(self.connections):
            if channel.transport is not None:
                channel.transport.abortConnection()  # type: ignore[attr-defined]

    def _request(self, channel: http.HTTPChannel, *arguments: Any) -> ApiRequest:
        request = ApiRequest(channel, *arguments)
        request.factory = self
        return request


def openapi() -> dict[str, Any]:
    """Return the API's description in OpenAPI 3."""
    text = (files("twisted_beastws.service.api") / "openapi.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))
