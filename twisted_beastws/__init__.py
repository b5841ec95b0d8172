"""WebSocket for Twisted, shaped after Boost.Beast's ``websocket::stream`` and restbed's chat service."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from twisted_beastws._version import __version__
from twisted_beastws.budget import MemoryBudget
from twisted_beastws.connection.observer import Observer
from twisted_beastws.connection.scheduler import PingScheduler
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
from twisted_beastws.json_codec import JSON, InvalidMessage
from twisted_beastws.options import Deflate, Limits, Origins, Role, Timeouts
from twisted_beastws.protocol import State, WebSocketProtocol
from twisted_beastws.server.factory import WebSocketServerFactory
from twisted_beastws.wire.closing import CloseCode, CloseReason
from twisted_beastws.wire.codec import ACCELERATED
from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.frames import Opcode
from twisted_beastws.wire.handshake import is_upgrade
from twisted_beastws.wire.http import Request, Response
from twisted_beastws.wire.prepared import Prepared, prepare

if TYPE_CHECKING:
    from twisted_beastws.asgi.factory import ASGIFactory
    from twisted_beastws.client.connect import WebSocketClientEndpoint, connect
    from twisted_beastws.client.factory import WebSocketClientFactory
    from twisted_beastws.client.reconnecting import is_retryable, reconnecting
    from twisted_beastws.connection.broadcasting import broadcast
    from twisted_beastws.hub import Hub
    from twisted_beastws.server.garbage import ShortCollections
    from twisted_beastws.server.gates.admin_pages import AdminPages
    from twisted_beastws.server.gates.forwarded import TrustedProxies
    from twisted_beastws.server.gates.login import CertificateLogin, LoginGate, PasswordLogin
    from twisted_beastws.server.observers.access_log import AccessLog
    from twisted_beastws.server.observers.metrics import Metrics
    from twisted_beastws.server.router import Router
    from twisted_beastws.server.stopping import drain_at_shutdown
    from twisted_beastws.tls.certificates import ReloadableEndpoint
    from twisted_beastws.trace import trace_frames
    from twisted_beastws.web.resource import WebSocketResource

__all__ = [
    "ACCELERATED",
    "JSON",
    "ASGIFactory",
    "AccessLog",
    "AdminPages",
    "BufferFull",
    "CertificateLogin",
    "CloseCode",
    "CloseReason",
    "ConnectionClosed",
    "DecoratorError",
    "Deflate",
    "HandshakeError",
    "Headers",
    "Hub",
    "InvalidMessage",
    "Limits",
    "LocalError",
    "LoginGate",
    "MemoryBudget",
    "Metrics",
    "Observer",
    "Opcode",
    "Origins",
    "PasswordLogin",
    "PingScheduler",
    "Prepared",
    "ProtocolError",
    "ReloadableEndpoint",
    "Request",
    "Response",
    "Role",
    "Router",
    "ShortCollections",
    "State",
    "Timeouts",
    "TrustedProxies",
    "UpgradeDeclined",
    "WebSocketClientEndpoint",
    "WebSocketClientFactory",
    "WebSocketError",
    "WebSocketProtocol",
    "WebSocketResource",
    "WebSocketServerFactory",
    "__version__",
    "broadcast",
    "connect",
    "drain_at_shutdown",
    "is_retryable",
    "is_upgrade",
    "prepare",
    "reconnecting",
    "trace_frames",
]

# These are imported on first use, because they import twisted.web's server, twisted.application or TLS.
_LATER = {
    "ASGIFactory": "asgi.factory",
    "AccessLog": "server.observers.access_log",
    "AdminPages": "server.gates.admin_pages",
    "CertificateLogin": "server.gates.login",
    "Hub": "hub",
    "LoginGate": "server.gates.login",
    "Metrics": "server.observers.metrics",
    "PasswordLogin": "server.gates.login",
    "ReloadableEndpoint": "tls.certificates",
    "Router": "server.router",
    "ShortCollections": "server.garbage",
    "TrustedProxies": "server.gates.forwarded",
    "WebSocketClientEndpoint": "client.connect",
    "WebSocketClientFactory": "client.factory",
    "WebSocketResource": "web.resource",
    "broadcast": "connection.broadcasting",
    "connect": "client.connect",
    "drain_at_shutdown": "server.stopping",
    "is_retryable": "client.reconnecting",
    "reconnecting": "client.reconnecting",
    "trace_frames": "trace",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
