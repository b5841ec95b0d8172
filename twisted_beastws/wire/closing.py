"""Close codes, close frames and the account of how a connection ended (RFC 6455 §5.5.1, §7)."""

from __future__ import annotations

from typing import Literal

from twisted_beastws.errors import BadCloseCode, BadClosePayload, BadCloseSize, LocalError
from twisted_beastws.wire.close_reason import Close, CloseCode, CloseReason

__all__ = ["MAX_REASON", "Close", "CloseCode", "CloseReason", "close_payload", "may_be_sent", "parse_close"]

MAX_REASON = 123
"""The most bytes of UTF-8 in a close reason: the 125 of a control frame less the code (RFC 6455 §5.5)."""


def may_be_sent(code: int) -> bool:
    """Return whether a close frame may carry ``code`` (RFC 6455 §7.4; 3000-4999 are free, Beast also accepts up to
    65535)."""
    return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


def parse_close(payload: bytes) -> Close:
    """Parse the payload of a close frame. Raises `BadCloseSize`, `BadCloseCode` or `BadClosePayload`."""
    if not payload:
        return Close(CloseCode.NO_STATUS)
    if len(payload) == 1:
        raise BadCloseSize
    code = int.from_bytes(payload[:2], "big")
    if not may_be_sent(code):
        raise BadCloseCode
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise BadClosePayload from None


def close_payload(code: int, reason: str = "") -> bytes:
    """Return the payload of a close frame; it is empty for 1005. A long reason is cut between characters.

    Raises:
        LocalError: The code may not be sent, or a value is of another type.
    """
    if not isinstance(code, int):
        raise LocalError(f"{code!r} is no close code: the code comes first, as in close(1000, 'bye')")
    if not isinstance(reason, str):
        raise LocalError(f"{reason!r} is no close reason: give str")
    if code == CloseCode.NO_STATUS:
        return b""
    if not may_be_sent(code):
        raise LocalError(f"close code {code} may not be sent: use 1000-1003, 1007-1014 or 3000-4999")
    encoded = reason.encode()[:MAX_REASON]
    return code.to_bytes(2, "big") + encoded.decode(errors="ignore").encode()


class ClosingHandshake:
    """The close frames of a connection so far, and the account that they give (RFC 6455 §7.1).

    Attributes:
        sent: Our close frame, or None.
        received: The peer's close frame, or None.
        began: The side that began to close.
        error: The fault for which we closed, or None.
    """

    __slots__ = ("began", "error", "received", "sent")

    def __init__(self) -> None:
        self.sent: Close | None = None
        self.received: Close | None = None
        self.began: Literal["local", "peer", "transport"] = "transport"
        self.error: BaseException | None = None

    @property
    def clean(self) -> bool:
        """Whether both ends sent a close frame."""
        return self.sent is not None and self.received is not None

    @property
    def echo(self) -> int:
        """Return the code that answers the peer's close frame: its own, or 1000 for an empty one, as in Beast."""
        code = self.received.code if self.received is not None else CloseCode.NO_STATUS
        return CloseCode.NORMAL if code == CloseCode.NO_STATUS else code

    def reason(self) -> CloseReason:
        """Return how the connection ended, or is ending."""
        code, text = self.received or (CloseCode.ABNORMAL, "")
        return CloseReason(int(code), text, self.clean, self.began, self.sent, self.received, self.error)
