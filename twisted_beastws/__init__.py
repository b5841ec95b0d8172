"""WebSocket for Twisted, shaped after Boost.Beast's ``websocket::stream`` and restbed's chat service."""

from twisted_beastws._version import __version__
from twisted_beastws.errors import (
    BufferFull,
    ConnectionClosed,
    DecoratorError,
    HandshakeError,
    LocalError,
    ProtocolError,
    UpgradeDeclined,
    WebSocketError,
)
from twisted_beastws.options import Deflate, Limits, Origins, Role, Timeouts
from twisted_beastws.protocol import State, WebSocketProtocol
from twisted_beastws.schedule import PingScheduler
from twisted_beastws.server import WebSocketServerFactory
from twisted_beastws.wire.closing import CloseCode, CloseReason
from twisted_beastws.wire.codec import ACCELERATED
from twisted_beastws.wire.frames import Opcode
from twisted_beastws.wire.handshake import is_upgrade
from twisted_beastws.wire.http import Headers, Request, Response

__all__ = [
    "ACCELERATED",
    "BufferFull",
    "CloseCode",
    "CloseReason",
    "ConnectionClosed",
    "DecoratorError",
    "Deflate",
    "HandshakeError",
    "Headers",
    "Limits",
    "LocalError",
    "Opcode",
    "Origins",
    "PingScheduler",
    "ProtocolError",
    "Request",
    "Response",
    "Role",
    "State",
    "Timeouts",
    "UpgradeDeclined",
    "WebSocketError",
    "WebSocketProtocol",
    "WebSocketServerFactory",
    "__version__",
    "is_upgrade",
]
