"""Descriptions of failures and of the end of a connection: one line for people, an exit status for scripts."""

from __future__ import annotations

import os
from enum import IntEnum

from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)

from twisted_beastws.console.text import escape, first_line
from twisted_beastws.errors import (
    BadRequest,
    HandshakeError,
    HandshakeTimeout,
    PeerNotVerified,
    ProtocolError,
    TooManyRedirects,
    UpgradeDeclined,
)
from twisted_beastws.tls.failures import tls_trouble
from twisted_beastws.wire.closing import Close, CloseCode, CloseReason
from twisted_beastws.wire.url import WebSocketURL


class Status(IntEnum):
    """The exit status of the command."""

    CLEAN = 0
    NOT_CONNECTED = 1
    USAGE = 2
    BROKEN = 3
    INTERRUPTED = 130


_HINTS = {
    200: "; there is a web page, and no WebSocket",
    401: "; credentials go into the URL, or into --header='Authorization: ...'",
    407: "; the proxy wants credentials",
}
_GUESSES = {
    403: "; a browser would send an Origin: try --header='Origin: https://...'",
    404: "; is the path right?",
}
"""Likely causes of answers that give no reason of their own."""


def why_not(error: BaseException, url: WebSocketURL) -> str:
    """Return one line that says why the connection to ``url`` failed."""
    server = f"{url.host}:{url.port}"
    if isinstance(error, ConnectionRefusedError):
        return f"{server} refuses connections: nothing listens there"
    if isinstance(error, DNSLookupError):
        return f"{url.host} is not known: there is no such host, or no name server to ask"
    if isinstance(error, (HandshakeTimeout, TimeoutError)):
        return f"{server} did not answer in time"
    if isinstance(error, HandshakeError):
        return _why_no_handshake(error, server)
    if (trouble := _tls_trouble(error)) is not None:
        return _why_no_tls(trouble, server)
    if isinstance(error, (ConnectionDone, ConnectionLost)):
        hint = "no TLS, the URL begins with ws://" if url.secure else "TLS, the URL begins with wss://"
        return f"{server} closed the connection without an HTTP answer; if it speaks {hint}"
    if isinstance(error, (ConnectError, OSError)):
        return f"{server} cannot be reached: {_system_says(error)}"
    return f"{server}: {type(error).__name__}: {escape(str(error))}"


def _why_no_handshake(error: HandshakeError, server: str) -> str:
    if isinstance(error, PeerNotVerified):
        return f"{error}; --cacert trusts its authority, --insecure anybody"
    if isinstance(error, UpgradeDeclined):
        response = error.response
        what = f"{server} answered {response.status} {escape(response.reason[:80])}".rstrip()
        if isinstance(error, TooManyRedirects):
            return f"{what}, a redirect too many, or one away from TLS"
        body = first_line(response.body)
        hints = _HINTS if body else _HINTS | _GUESSES
        return f"{what}{': ' if body else ''}{body}{hints.get(response.status, '')}"
    if isinstance(error, BadRequest):
        return f"{server} does not speak HTTP; if it speaks TLS, the URL begins with wss://"
    return f"{server} is no WebSocket server as RFC 6455 has it: {error}"


def _tls_trouble(error: BaseException) -> str | None:
    """What went wrong with TLS, or None if it was something else."""
    trouble = tls_trouble(error)
    return "the connection was lost" if trouble == "" else trouble


def _why_no_tls(trouble: str, server: str) -> str:
    if "alert certificate required" in trouble:
        return f"{server} asks for a client's certificate; --cert gives one"
    if "alert unknown ca" in trouble:
        return f"{server} does not trust the certificate of --cert"
    if any(said in trouble for said in ("wrong version number", "http request", "record layer", "packet length")):
        return f"{server} does not speak TLS; without it the URL begins with ws://"
    return f"{server}: TLS failed: {escape(trouble)}"


def _system_says(error: ConnectError | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return os.strerror(error.osError) if isinstance(error.osError, int) else escape(str(error))


def how_it_ended(reason: CloseReason) -> str:
    """Return one line that says how a connection ended, with the close code."""
    if isinstance(reason.error, ProtocolError):
        return f"the server broke the protocol: {reason.error}; closed with {_told(reason.sent)}"
    if reason.began == "peer":
        return f"closed by the server: {_told(reason.received)}"
    if reason.began == "transport":
        return "the connection was lost without a close frame (1006)"
    if not reason.clean:
        return f"closed with {_told(reason.sent)}, and without an answer to it (1006)"
    same = reason.sent is not None and reason.received is not None and reason.sent.code == reason.received.code
    return f"closed: {_told(reason.sent)}{'' if same else f', answered with {_told(reason.received)}'}"


def status_of(reason: CloseReason) -> Status:
    """Return the exit status: 0 for a clean close that we began, or that the server began with an ordinary code."""
    ordinary = (CloseCode.NORMAL, CloseCode.GOING_AWAY, CloseCode.NO_STATUS)
    wanted = reason.began == "local" or reason.code in ordinary
    return Status.CLEAN if reason.clean and wanted and reason.error is None else Status.BROKEN


def _told(close: Close | None) -> str:
    if close is None:
        return "nothing"
    try:
        name = CloseCode(close.code).name.replace("_", " ").lower()
    except ValueError:
        name = ""
    return f"{close.code}{f' ({name})' if name else ''}{f': {escape(close.reason)}' if close.reason else ''}"
