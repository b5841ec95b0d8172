"""Every error of the package: one class per cause, named as in Boost.Beast's ``websocket::error``.

There are three families. `HandshakeError`: the opening handshake failed. `ProtocolError`: the peer broke the framing
rules of RFC 6455. `LocalError`: the calling program made a mistake. `ConnectionClosed` reports the end of a connection,
which is no fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.error import ConnectionDone, ConnectionLost

from twisted_beastws.wire.close_reason import CloseReason

if TYPE_CHECKING:
    from twisted.web.http_headers import Headers
    from typing_extensions import Self


class WebSocketError(Exception):
    """The base of all errors that this package raises."""


class HandshakeError(WebSocketError):
    """The opening handshake failed. The text of the error is the one-line body of a server's answer.

    Attributes:
        status: The HTTP status of a server's answer.
        retry_after: The seconds after which another attempt may succeed, which the answer states, or None.
    """

    status: int = 400
    message: str = "The WebSocket handshake failed"
    retry_after: int | None = None

    def __init__(self, message: str | None = None, *, retry_after: int | None = None) -> None:
        super().__init__(self.message if message is None else message)
        if retry_after is not None:
            self.retry_after = retry_after


class BadRequest(HandshakeError):
    """The received bytes are not an HTTP request or response (Beast: ``http::error``). The connection is closed."""

    message = "The request is not valid HTTP"


class HeadTooLarge(HandshakeError):
    """The HTTP head exceeds ``Limits.max_head_size`` or ``max_head_lines`` (Beast: ``http::error::header_limit``)."""

    status = 431
    message = "The request's head is too large"


class TargetTooLong(HeadTooLarge):
    """The request line alone exceeds ``Limits.max_head_size`` (RFC 9112 §3)."""

    status = 414
    message = "The request's target is too long"


class UnsupportedVersion(BadRequest):
    """The request is of another major version of HTTP than 1 (RFC 9110 §15.6.6). The connection is closed."""

    status = 505
    message = "The server speaks HTTP/1.1"


class UnexpectedBody(HandshakeError):
    """A request that asks for an upgrade carries a body (Beast: ``http::error::unexpected_body``)."""

    message = "The WebSocket handshake request has a body"


class DuplicateField(HandshakeError):
    """A field that may occur once occurs twice (RFC 6455 §11.3; RFC 9110 §5.3)."""

    message = "The WebSocket handshake has a field twice that may stand once"


class BadHttpVersion(HandshakeError):
    """The request or response is not HTTP/1.1 (Beast: ``bad_http_version``)."""

    message = "The WebSocket handshake was not HTTP/1.1"


class BadMethod(HandshakeError):
    """The request's method is not GET (Beast: ``bad_method``)."""

    message = "The WebSocket handshake method was not GET"


class NoHost(HandshakeError):
    """The request has no Host field (Beast: ``no_host``)."""

    message = "The WebSocket handshake Host field is missing"


class NoConnection(HandshakeError):
    """There is no Connection field (Beast: ``no_connection``); 426 for a request that asks for no WebSocket at all."""

    message = "The WebSocket handshake Connection field is missing"


class NoConnectionUpgrade(HandshakeError):
    """No Connection field lists ``upgrade`` (Beast: ``no_connection_upgrade``); 426 as with `NoConnection`."""

    message = "The WebSocket handshake Connection field is missing the upgrade token"


class NoUpgrade(HandshakeError):
    """There is no Upgrade field (Beast: ``no_upgrade``): the request asks for no WebSocket."""

    status = 426
    message = "The WebSocket handshake Upgrade field is missing"


class NoUpgradeWebsocket(HandshakeError):
    """No Upgrade field lists ``websocket`` (Beast: ``no_upgrade_websocket``): the request asks for no WebSocket."""

    status = 426
    message = "The WebSocket handshake Upgrade field is missing the websocket token"


class NoSecKey(HandshakeError):
    """There is no Sec-WebSocket-Key field (Beast: ``no_sec_key``)."""

    message = "The WebSocket handshake Sec-WebSocket-Key field is missing"


class BadSecKey(HandshakeError):
    """Sec-WebSocket-Key is not the Base64 of 16 bytes (Beast: ``bad_sec_key``)."""

    message = "The WebSocket handshake Sec-WebSocket-Key field is invalid"


class NoSecVersion(HandshakeError):
    """There is no Sec-WebSocket-Version field (Beast: ``no_sec_version``)."""

    message = "The WebSocket handshake Sec-WebSocket-Version field is missing"


class BadSecVersion(HandshakeError):
    """Sec-WebSocket-Version is not 13 (Beast: ``bad_sec_version``)."""

    status = 426
    message = "The WebSocket handshake Sec-WebSocket-Version field is invalid"


class NoSecAccept(HandshakeError):
    """The server's answer has no Sec-WebSocket-Accept field (Beast: ``no_sec_accept``)."""

    message = "The WebSocket handshake Sec-WebSocket-Accept field is missing"


class BadSecAccept(HandshakeError):
    """The server's Sec-WebSocket-Accept does not answer our key (Beast: ``bad_sec_accept``)."""

    message = "The WebSocket handshake Sec-WebSocket-Accept field is invalid"


class BadSubprotocol(HandshakeError):
    """The server chose a subprotocol that was not offered (RFC 6455 §4.1)."""

    message = "The WebSocket handshake Sec-WebSocket-Protocol field names a subprotocol that was not offered"


class BadExtension(HandshakeError):
    """The server chose an extension, or a parameter of one, that was not offered (RFC 6455 §4.1, RFC 7692 §7)."""

    message = "The WebSocket handshake Sec-WebSocket-Extensions field is not an answer to what was offered"


class DecliningResponse(Protocol):
    """The `Response` in an `UpgradeDeclined`: these are its attributes that matter after the end."""

    status: int
    reason: str
    body: bytes
    request: Any

    @property
    def headers(self) -> Headers: ...

    def field(self, name: str) -> str | None: ...


class UpgradeDeclined(HandshakeError):
    """The answer's status is not 101 (Beast: ``upgrade_declined``). ``response`` is the whole answer, with its body."""

    def __init__(self, response: DecliningResponse) -> None:
        # The peer chose the phrase, which must not forge a log line.
        reason = ascii(response.reason[:80])[1:-1]
        super().__init__(f"The WebSocket handshake was declined: {response.status} {reason}")
        self.response = response
        self.status = response.status


class TooManyRedirects(UpgradeDeclined):
    """The server redirects too often, in a circle, away from TLS, or away from an endpoint that the caller gave."""


class ProxyDeclined(UpgradeDeclined):
    """The HTTP proxy declined to CONNECT. ``response`` is its answer."""


class SocksDeclined(HandshakeError):
    """The SOCKS5 proxy does not connect us. ``code`` is its reply (RFC 1928 §6), or None if it sent none."""

    def __init__(self, why: str, code: int | None = None) -> None:
        super().__init__(f"The SOCKS5 proxy does not connect: {why}")
        self.code = code


class PeerNotVerified(HandshakeError):
    """TLS: the server did not prove that it is the host of the URL. No byte of the request was sent."""

    def __init__(self, host: str, why: str) -> None:
        super().__init__(f"the certificate for {host} cannot be accepted: {why}")
        self.host = host
        self.why = why


class OriginRefused(HandshakeError):
    """The browser's Origin is not this site, nor one that `Origins` allows (RFC 6455 §10.2)."""

    status = 403


class TooManyConnections(HandshakeError):
    """``Limits.max_connections``, ``max_connections_per_peer`` or ``max_handshakes`` is reached."""

    status = 503
    message = "The server has too many connections; try again later"
    retry_after = 10


class TooManyRequests(HandshakeError):
    """``Limits.max_handshakes_per_peer`` is reached (RFC 6585 §4). The connection is closed."""

    status = 429
    message = "There are too many requests; try again later"
    retry_after = 1


class HandshakeTimeout(HandshakeError, TimeoutError):
    """``Timeouts.handshake`` ran out (Beast: ``beast::error::timeout``). Nothing is sent. It is a ``TimeoutError``."""

    status = 408
    message = "The WebSocket handshake took too long"


class HookFailed(HandshakeError):
    """A hook of the application raised during the handshake. ``__cause__`` is that exception."""

    status = 500
    message = "Internal Server Error"


class ProtocolError(WebSocketError):
    """The peer broke a rule of RFC 6455 or exceeded a limit. ``close_code`` is the code of our close frame."""

    close_code: int = 1002
    message: str = "protocol error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(self.message if message is None else message)


class BadOpcode(ProtocolError):
    """A reserved opcode (RFC 6455 §5.2; Beast: ``bad_opcode``)."""

    message = "reserved opcode"


class BadDataFrame(ProtocolError):
    """A new message inside a fragmented one (RFC 6455 §5.4; Beast: ``bad_data_frame``)."""

    message = "new message inside a fragmented message"


class BadContinuation(ProtocolError):
    """A continuation frame with nothing to continue (RFC 6455 §5.4; Beast: ``bad_continuation``)."""

    message = "continuation frame without a message"


class BadReservedBits(ProtocolError):
    """A reserved bit is set that no extension gives a meaning (RFC 6455 §5.2; Beast: ``bad_reserved_bits``)."""

    message = "reserved bit set"


class BadControlFragment(ProtocolError):
    """A fragmented control frame (RFC 6455 §5.5; Beast: ``bad_control_fragment``)."""

    message = "fragmented control frame"


class BadControlSize(ProtocolError):
    """A control frame of more than 125 bytes (RFC 6455 §5.5; Beast: ``bad_control_size``)."""

    message = "control frame too long"


class BadUnmaskedFrame(ProtocolError):
    """A client's frame is not masked (RFC 6455 §5.1; Beast: ``bad_unmasked_frame``)."""

    message = "frame is not masked"


class BadMaskedFrame(ProtocolError):
    """A server's frame is masked (RFC 6455 §5.1; Beast: ``bad_masked_frame``)."""

    message = "frame is masked"


class BadSize(ProtocolError):
    """A length not in its shortest form, or with the high bit set (RFC 6455 §5.2; Beast: ``bad_size``)."""

    message = "frame length is not in its shortest form"


class BadFramePayload(ProtocolError):
    """Text that is not UTF-8 (RFC 6455 §8.1; Beast: ``bad_frame_payload``)."""

    close_code = 1007
    message = "text is not UTF-8"


class BadDeflate(ProtocolError):
    """Bytes that do not inflate (RFC 7692 §7.2.2; Beast reports a ``zlib`` error and sends no close)."""

    close_code = 1007
    message = "compressed data is invalid"


class BadCloseCode(ProtocolError):
    """A close code that may not be sent (RFC 6455 §7.4; Beast: ``bad_close_code``)."""

    message = "invalid close code"


class BadCloseSize(ProtocolError):
    """A close frame with one byte of payload (RFC 6455 §5.5.1; Beast: ``bad_close_size``)."""

    message = "close frame of one byte"


class BadClosePayload(ProtocolError):
    """A close reason that is not UTF-8 (RFC 6455 §5.5.1; Beast: ``bad_close_payload``)."""

    message = "close reason is not UTF-8"


class MessageTooBig(ProtocolError):
    """``Limits.max_message_size`` or ``max_frame_size`` is exceeded (Beast: ``message_too_big``)."""

    close_code = 1009
    message = "message too big"


class TooManyFragments(ProtocolError):
    """``Limits.max_fragments`` is exceeded."""

    close_code = 1008
    message = "too many fragments"


class RateExceeded(ProtocolError):
    """``Limits.max_message_rate`` or ``max_byte_rate`` is exceeded."""

    close_code = 1008
    message = "too many messages a second"


class UnacceptableData(ProtocolError):
    """A message of a kind for which the application has no hook (RFC 6455 §7.4.1, code 1003)."""

    close_code = 1003
    message = "unacceptable kind of message"


class ConnectionClosed(WebSocketError):
    """The connection is closing, or has ended.

    It is also a ``ConnectionDone`` of ``twisted.internet.error`` if both ends closed in order, with 1000, 1001 or no
    code, and a ``ConnectionLost`` otherwise. So code that handles these errors, or their base ``ConnectionClosed``,
    handles this one.

    Attributes:
        reason: The `CloseReason`.
    """

    def __new__(cls, reason: CloseReason) -> Self:
        if cls is ConnectionClosed:
            orderly = reason.clean and reason.code in (1000, 1001, 1005)
            kind: Any = _ClosedInOrder if orderly else _ClosedOtherwise
            return super().__new__(kind, reason)  # type: ignore[no-any-return]
        return super().__new__(cls, reason)

    def __init__(self, reason: CloseReason) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.reason)


class _ClosedInOrder(ConnectionClosed, ConnectionDone):
    pass


class _ClosedOtherwise(ConnectionClosed, ConnectionLost):
    pass


for _kind in (_ClosedInOrder, _ClosedOtherwise):
    # Logs and tracebacks show the public name.
    _kind.__name__ = _kind.__qualname__ = ConnectionClosed.__name__
del _kind


class LocalError(WebSocketError):
    """The calling program made a mistake. Nothing was sent."""


class DecoratorError(LocalError):
    """A decorator changed a field that the handshake requires, or chose a subprotocol that was not offered.

    The server answers 500.
    """


class BufferFull(LocalError):
    """A message would exceed ``Limits.max_buffered`` under the policy ``pause``. Nothing of it was sent."""
