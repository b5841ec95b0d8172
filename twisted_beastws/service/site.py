"""The answers to plain HTTP: the chat's page at ``/``, and a line of text elsewhere."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html import escape
from importlib.resources import files

from twisted_beastws.wire.fields import Headers
from twisted_beastws.wire.handshake import is_upgrade, is_visit
from twisted_beastws.wire.http import Request, Response

ENDPOINT = "This is the chat's WebSocket endpoint, for WebSocket clients; the page that talks to it is at /\n"
NOT_FOUND = "There is nothing here; the chat's page is at /\n"
NO_ROOM = "This is no room: its name must be 1 to 64 visible characters, percent-encoded, without a slash\n"
NOT_ALLOWED = "The chat's page can only be read: GET or HEAD\n"


class Site:
    """The HTTP side of the service.

    Args:
        chat_path: the chat's path, without a query, as it stands in a request.
        max_message: bytes of a message that the chat accepts, so that the page can refuse a longer one.
    """

    def __init__(self, chat_path: str, max_message: int) -> None:
        self._chat_path = chat_path
        source = (files("twisted_beastws.service") / "page.html").read_text(encoding="utf-8")
        page = source.replace("{{path}}", escape(chat_path)).replace("{{max_message}}", str(max_message))
        self._page = page.encode("utf-8")
        self._page_headers = Headers(
            {
                "Content-Type": ["text/html; charset=utf-8"],
                "Content-Security-Policy": [_policy(page)],
                "X-Content-Type-Options": ["nosniff"],
                "Referrer-Policy": ["no-referrer"],
                "Cache-Control": ["no-store"],
            }
        )

    def answer(self, request: Request) -> Response | None:
        """Return the answer to a request; None leaves it to the WebSocket handshake.

        A chat at ``/`` shares that path with the page: requests for an upgrade are the chat's there, all others the
        page's.
        """
        if request.path == self._chat_path and (request.path != "/" or is_upgrade(request)):
            return self.answer_visit(request)
        if request.target == "*":
            # RFC 9110 §9.3.7: OPTIONS for the server itself.
            return Response(204, headers=Headers({"Allow": ["GET, HEAD"]}))
        if request.path != "/":
            below_chat = self._chat_path != "/" and request.path.startswith(f"{self._chat_path}/")
            return Response(404, body=NO_ROOM if below_chat else NOT_FOUND)
        if request.method not in ("GET", "HEAD"):
            return Response(405, headers=Headers({"Allow": ["GET, HEAD"]}), body=NOT_ALLOWED)
        return Response(200, headers=self._page_headers, body=self._page)

    def answer_visit(self, request: Request) -> Response | None:
        """Answer a browser that opens a room's address as a page with the page's address; None for other requests."""
        return self.endpoint if is_visit(request) else None

    @property
    def endpoint(self) -> Response:
        """The answer to a request for the chat's address that is not a handshake."""
        return Response(426, body=ENDPOINT)


def _policy(page: str) -> str:
    """A Content-Security-Policy under which the page's own script and style are all that runs or is fetched."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(page, 'script')}",
            f"style-src {_hashes(page, 'style')}",
            "img-src data:",
            # Content Security Policy 3 §6.7.2.8: 'self' stands for ws: and wss: of this host too.
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _hashes(page: str, element: str) -> str:
    contents = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = [b64encode(sha256(content.encode("utf-8")).digest()).decode("ascii") for content in contents]
    return " ".join(f"'sha256-{digest}'" for digest in digests)
