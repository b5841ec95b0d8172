"""Close codes, and the account of how a connection ended (RFC 6455 §7). This module has only values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple


class CloseCode(IntEnum):
    """The registered close codes (RFC 6455 §7.4.1 and IANA; Beast: ``close_code``)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNKNOWN_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    BAD_PAYLOAD = 1007
    POLICY_ERROR = 1008
    TOO_BIG = 1009
    NEEDS_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014


class Close(NamedTuple):
    """The content of one close frame; code 1005 stands for a frame without a code."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CloseReason:
    """How a connection ended.

    Attributes:
        code: The code of the peer's close frame, as a browser reports it: 1005 if the frame had no code, 1006 if no
            close frame arrived.
        reason: The reason in the peer's close frame.
        clean: Both ends sent a close frame.
        began: The side that began to close: ``local``, ``peer``, or ``transport`` when TCP ended without a close frame.
        sent: Our close frame, or None.
        received: The peer's close frame, or None.
        error: The fault that made us close: a `ProtocolError`, a timeout or the transport's failure; or None.
    """

    code: int
    reason: str
    clean: bool
    began: Literal["local", "peer", "transport"]
    sent: Close | None = None
    received: Close | None = None
    error: BaseException | None = None

    def __str__(self) -> str:
        def told(close: Close | None) -> str:
            return "nothing" if close is None else f"{close.code} {close.reason!r}" if close.reason else f"{close.code}"

        fault = "" if self.error is None else f" ({self.error})"
        return f"begun by {self.began}, sent {told(self.sent)}, received {told(self.received)}{fault}"
