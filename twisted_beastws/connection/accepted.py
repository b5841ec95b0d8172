"""`Accepted`: the result of an opening handshake."""

from __future__ import annotations

from typing import NamedTuple

from twisted_beastws.wire.deflate import Negotiated
from twisted_beastws.wire.handshake import success
from twisted_beastws.wire.http import Request, Response


class Accepted(NamedTuple):
    """An opening handshake that succeeded, in either role.

    Attributes:
        request: The request.
        answer: The 101. None stands for the plain 101 that a server without a decorator sends: `response` makes it when
            it is asked for, because its fields are a good part of the memory of an idle connection.
        date: The Date field of a plain 101.
        subprotocol: The subprotocol that both ends agreed on, or None.
        deflate: The compression that both ends agreed on, or None.
        followed: The bytes that followed the handshake: the first frames, or nothing.
    """

    request: Request
    answer: Response | None
    date: str | None = None
    subprotocol: str | None = None
    deflate: Negotiated | None = None
    followed: bytes = b""

    @property
    def extensions(self) -> str | None:
        """The extensions in use, in the words of Sec-WebSocket-Extensions, or None."""
        return None if self.deflate is None else self.deflate.answer

    @property
    def response(self) -> Response:
        """The 101."""
        return self.answer or success(self.request, self.subprotocol, self.extensions, self.date)
