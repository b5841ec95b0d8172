"""The events of an ASGI WebSocket connection, and its scope (https://asgi.readthedocs.io/, "WebSocket")."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.http import Request

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

VERSION = {"version": "3.0", "spec_version": "2.5"}

# The library sets these fields of an answer itself.
_OURS = frozenset((b"content-length", b"transfer-encoding", b"connection", b"upgrade"))


class Disconnected(OSError):
    """The application sent an event on a connection that has ended. ASGI asks servers for an ``OSError``."""


class ProtocolMistake(RuntimeError):
    """The application sent an event that ASGI does not allow, or not at this point."""


def scope_of(
    request: Request, *, secure: bool, client: Any, server: Any, root_path: str, state: dict[str, Any] | None
) -> Scope:
    """Return the scope of a connection.

    Args:
        request: The request of the handshake.
        secure: The client uses TLS.
        client: The address of the client.
        server: The address on which the server accepted the connection.
        root_path: The path below which the application is mounted. A proxy has removed it from the request.
        state: The state that the application's lifespan set, or None without a lifespan.
    """
    raw_path = request.path.encode("latin-1")
    scope: Scope = {
        "type": "websocket",
        "asgi": VERSION,
        "http_version": request.version,
        "scheme": "wss" if secure else "ws",
        "path": root_path + unquote_to_bytes(raw_path).decode("utf-8", "replace"),
        "raw_path": root_path.encode("utf-8") + raw_path,
        "query_string": request.query.encode("latin-1"),
        "root_path": root_path,
        "headers": [(name.lower(), value) for name, values in request.headers.getAllRawHeaders() for value in values],
        "client": place_of(client),
        "server": place_of(server),
        "subprotocols": subprotocols_of(request),
        "extensions": {"websocket.http.response": {}},
    }
    if state is not None:
        scope["state"] = state.copy()
    return scope


def place_of(address: Any) -> tuple[str, int | None] | None:
    """Return an address in the form of ASGI: host and port, or the path of a UNIX socket and None."""
    if isinstance(address, (IPv4Address, IPv6Address)):
        return address.host, address.port
    if isinstance(address, UNIXAddress) and address.name:
        return address.name.decode("utf-8", "replace"), None
    return None


def subprotocols_of(request: Request) -> list[str]:
    """Return the subprotocols that the client offers, in its order."""
    fields = request.headers.getRawHeaders("Sec-WebSocket-Protocol") or ()
    return [name.strip() for value in fields for name in value.split(",") if name.strip()]


def headers_of(pairs: Iterable[Iterable[bytes]]) -> Headers:
    """Return the header fields of an application's event, without the fields that the library sets.

    Raises:
        ProtocolMistake: A name or a value is not bytes, or cannot be a field.
    """
    headers = Headers()
    try:
        for name, value in pairs:
            if bytes(name).lower() not in _OURS:
                headers.addRawHeader(bytes(name), bytes(value))
    except (TypeError, ValueError) as error:
        raise ProtocolMistake(f"headers must be pairs of bytes that HTTP allows: {error}") from error
    return headers
