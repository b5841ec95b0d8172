"""`DaphneFactory`: serve the WebSockets of an unchanged Daphne server with this library in place of Autobahn.

Daphne makes its factory from ``daphne.server.WebSocketFactory``, and calls methods of the protocol by Daphne's names.
`install` assigns `DaphneFactory` to that name.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_beastws.asgi.conversation import FORBIDDEN
from twisted_beastws.asgi.events import place_of, subprotocols_of
from twisted_beastws.connection.awaiting import AwaitableDeferred
from twisted_beastws.errors import ConnectionClosed
from twisted_beastws.options import Limits, Origins, Timeouts
from twisted_beastws.protocol import WebSocketProtocol
from twisted_beastws.server.factory import WebSocketServerFactory
from twisted_beastws.wire.closing import CloseCode, CloseReason
from twisted_beastws.wire.http import Request, Response

log = Logger()

Event = dict[str, Any]


class DaphneProtocol(WebSocketProtocol):
    """A connection of a Daphne server. It has the methods that the server calls, under Daphne's names."""

    application_type = "websocket"

    def __init__(self, server: Any) -> None:
        self.server = server
        self.socket_opened = time.time()
        self.decision: Deferred[Response | None] | None = None
        self.queue: Any = None
        self.counted = False
        self.client_addr: list[Any] | None = None
        self.path = ""

    # Hooks.

    async def upgrade_requested(self, request: Request) -> Response | None:
        server, transport = self.server, self.transport
        assert transport is not None
        server.protocol_connected(self)
        self.counted = True
        self.path = request.path
        headers, root_path = _sane_headers(request, server.root_path)
        client, own = place_of(transport.getPeer()), place_of(transport.getHost())
        self.client_addr = None if client is None else list(client)
        if server.proxy_forwarded_address_header:
            self.client_addr = self._forwarded(dict(headers))
        self.decision = AwaitableDeferred()
        self.queue = server.create_application(
            self,
            {
                "type": "websocket",
                "path": unquote(request.path),
                "raw_path": request.path.encode("latin-1"),
                "root_path": root_path,
                "headers": headers,
                "query_string": request.query.encode("latin-1"),
                "client": self.client_addr,
                "server": None if own is None else list(own),
                "subprotocols": subprotocols_of(request),
            },
        )
        self._log_action("connecting")
        if self.queue is not None:
            self.queue.put_nowait({"type": "websocket.connect"})
        return await self.decision

    def _forwarded(self, headers: dict[bytes, bytes]) -> Any:
        from daphne.utils import parse_x_forwarded_for

        server = self.server
        address, _ = parse_x_forwarded_for(
            headers,
            server.proxy_forwarded_address_header,
            server.proxy_forwarded_port_header,
            server.proxy_forwarded_proto_header,
            self.client_addr,
        )
        return address

    def opened(self) -> None:
        self._log_action("connected")

    def text_received(self, text: str) -> None:
        self.queue.put_nowait({"type": "websocket.receive", "text": text})

    def binary_received(self, data: bytes) -> None:
        self.queue.put_nowait({"type": "websocket.receive", "bytes": data})

    def closed(self, reason: CloseReason) -> None:
        self._end(reason.code)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._end(CloseCode.ABNORMAL)

    def _end(self, code: int) -> None:
        if self.counted:
            self.counted = False
            self.server.protocol_disconnected(self)
            if self.queue is not None:
                self.queue.put_nowait({"type": "websocket.disconnect", "code": code})
            self._log_action("disconnected")

    # Daphne's server calls these.

    def handle_reply(self, message: Event) -> None:
        """Carry out an event of the application."""
        kind = message.get("type")
        if kind == "websocket.accept":
            self.subprotocol = message.get("subprotocol")
            self._decide(None)
        elif kind == "websocket.close" and self.decision is not None:
            self._decide(Response(FORBIDDEN))
        elif kind == "websocket.close":
            self.close(message.get("code") or CloseCode.NORMAL, message.get("reason") or "")
        elif kind == "websocket.send":
            self._send(message)
        elif kind is None:
            raise ValueError("Message has no type defined")

    def _send(self, message: Event) -> None:
        if self.decision is not None:
            raise ValueError("Socket has not been accepted, so cannot send over it")
        if message.get("bytes") and message.get("text"):
            raise ValueError(f"Got invalid WebSocket reply message on {message} - contains both bytes and text keys")
        content = message.get("bytes") or message.get("text")
        if content:
            try:
                self.send(content)
            except ConnectionClosed:
                log.debug("an application sent on connection {connection} after its end", connection=self.connection_id)

    def handle_exception(self, exception: BaseException) -> None:
        """Answer 500, or close with 1011: the application failed, and Daphne has logged that."""
        if self.decision is not None:
            self._decide(Response(500))
        else:
            self.close(CloseCode.INTERNAL_ERROR)

    def check_timeouts(self) -> None:
        """Close a connection that is too old, and refuse one without a decision. The library itself pings."""
        server, age = self.server, time.time() - self.socket_opened
        if 0 <= server.websocket_timeout < age:
            self.close()
        elif self.decision is not None and age > server.websocket_connect_timeout:
            self._decide(Response(FORBIDDEN))

    def _decide(self, response: Response | None) -> None:
        decision, self.decision = self.decision, None
        if decision is not None:
            decision.callback(response)

    def _log_action(self, action: str) -> None:
        client = self.client_addr
        details = {"path": self.path, "client": "{}:{}".format(*client) if client else None}
        self.server.log_action("websocket", action, details)


class DaphneFactory(WebSocketServerFactory):
    """Replaces ``daphne.ws_protocol.WebSocketFactory``: it has the same constructor and options."""

    def __init__(self, server_class: Any, *, server: str | None = None) -> None:
        self.server_class = server_class
        # Daphne leaves the check of origins to Channels.
        super().__init__(
            lambda: DaphneProtocol(server_class),
            origins=Origins(allow_any_origin_dangerously=True, allow_null_origin_dangerously=True),
        )

    def setProtocolOptions(
        self,
        autoPingTimeout: float = 0,
        allowNullOrigin: bool = True,
        openHandshakeTimeout: float = 0,
        maxMessagePayloadSize: int | None = None,
        maxFramePayloadSize: int | None = None,
    ) -> None:
        """Set Daphne's options. Zero means no limit, as in Autobahn.

        ``allowNullOrigin`` has no effect: every origin may connect, and Channels checks them.
        """
        limits = Limits(
            max_message_size=maxMessagePayloadSize or None,
            max_frame_size=maxFramePayloadSize or None,
        )
        interval = self.server_class.ping_interval
        timeouts = Timeouts(
            handshake=openHandshakeTimeout or None,
            ping_interval=interval,
            idle=interval + autoPingTimeout if autoPingTimeout else None,
        )
        self.settings = replace(self.settings, limits=limits, timeouts=timeouts)


def install() -> None:
    """Make the Daphne servers of this process use this library. Call this before ``Server.run``."""
    import daphne.server

    daphne.server.WebSocketFactory = DaphneFactory


def _sane_headers(request: Request, root_path: str) -> tuple[list[tuple[bytes, bytes]], str]:
    """Return the header fields as Daphne passes them on, and the root path, which a field may set."""
    headers: list[tuple[bytes, bytes]] = []
    for name, values in request.headers.getAllRawHeaders():
        # CVE-2015-0219: a WSGI-like environment could not distinguish these from names with a hyphen.
        if b"_" in name:
            continue
        for value in values:
            if name.lower() == b"daphne-root-path":
                root_path = unquote(value.decode("latin-1"))
            else:
                headers.append((name.lower(), value))
    return headers, root_path
