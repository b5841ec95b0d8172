"""The messages and exit statuses for failed and closed connections."""

from __future__ import annotations

from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet import error

from twisted_beastws import Response
from twisted_beastws.console.failures import Status, how_it_ended, status_of, why_not
from twisted_beastws.errors import (
    BadOpcode,
    BadRequest,
    BadSecAccept,
    HandshakeTimeout,
    PeerNotVerified,
    TooManyRedirects,
    UpgradeDeclined,
)
from twisted_beastws.wire.closing import Close, CloseReason
from twisted_beastws.wire.url import WebSocketURL

URL = WebSocketURL.parse("ws://example.com:1984/chat")
SECURE = WebSocketURL.parse("wss://example.com/")


def trouble(reason: str) -> SSL.Error:
    return SSL.Error([("SSL routines", "", reason)])


def declined(status: int, body: str = "", kind: Any = UpgradeDeclined) -> Exception:
    answer: Exception = kind(Response(status, body=body))
    return answer


NO_TLS = "example.com:443 does not speak TLS; without it the URL begins with ws://"


class TestNotConnected:
    """The explanation of a connection that did not open."""

    @pytest.mark.parametrize(
        ("failure", "told"),
        [
            (error.ConnectionRefusedError(), "example.com:1984 refuses connections: nothing listens there"),
            (
                error.DNSLookupError("x"),
                "example.com is not known: there is no such host, or no name server to ask",
            ),
            (error.TimeoutError(), "example.com:1984 did not answer in time"),
            (HandshakeTimeout(), "example.com:1984 did not answer in time"),
            (error.NoRouteError(osError=113), "example.com:1984 cannot be reached: No route to host"),
            (error.ConnectError(string="odd\x1b"), "example.com:1984 cannot be reached: An error occurred"),
            (PermissionError(13, "Permission denied"), "example.com:1984 cannot be reached: Permission denied"),
            (
                error.ConnectionDone(),
                "example.com:1984 closed the connection without an HTTP answer; if it speaks TLS, the URL begins with wss://",
            ),
            (
                BadRequest(),
                "example.com:1984 does not speak HTTP; if it speaks TLS, the URL begins with wss://",
            ),
            (
                BadSecAccept(),
                "example.com:1984 is no WebSocket server as RFC 6455 has it: "
                "The WebSocket handshake Sec-WebSocket-Accept field is invalid",
            ),
            (declined(404), "example.com:1984 answered 404 Not Found; is the path right?"),
            (
                declined(404, "\nNo \x1b[2Jsuch page\nmore"),
                r"example.com:1984 answered 404 Not Found: No \x1b[2Jsuch page",
            ),
            (
                declined(404, "<html>\n<head><title>404 Not Found</title></head>"),
                "example.com:1984 answered 404 Not Found; is the path right?",
            ),
            (
                declined(200, "\n<!doctype html>\n<html>"),
                "example.com:1984 answered 200 OK; there is a web page, and no WebSocket",
            ),
            (declined(200), "example.com:1984 answered 200 OK; there is a web page, and no WebSocket"),
            (declined(503, "full"), "example.com:1984 answered 503 Service Unavailable: full"),
            (
                declined(302, "moved", TooManyRedirects),
                "example.com:1984 answered 302 Found, a redirect too many, or one away from TLS",
            ),
            (ValueError("\x1b"), r"example.com:1984: ValueError: \x1b"),
        ],
    )
    def test_a_failure_without_tls_is_explained(self, failure: Exception, told: str) -> None:
        assert why_not(failure, URL).startswith(told)
        assert why_not(failure, URL).isprintable()

    @pytest.mark.parametrize(
        ("failure", "told"),
        [
            (
                PeerNotVerified("example.com", "it has expired"),
                "the certificate for example.com cannot be accepted: it has expired; "
                "--cacert trusts its authority, --insecure anybody",
            ),
            (
                trouble("tlsv13 alert certificate required"),
                "example.com:443 asks for a client's certificate; --cert gives one",
            ),
            (trouble("tlsv1 alert unknown ca"), "example.com:443 does not trust the certificate of --cert"),
            (trouble("wrong version number"), NO_TLS),
            (trouble("record layer failure"), NO_TLS),
            (trouble("packet length too long"), NO_TLS),
            (trouble("unsupported protocol"), "example.com:443: TLS failed: unsupported protocol"),
            (SSL.Error([]), "example.com:443: TLS failed: the connection was lost"),
            (
                error.ConnectionLost(),
                "example.com:443 closed the connection without an HTTP answer; "
                "if it speaks no TLS, the URL begins with ws://",
            ),
        ],
    )
    def test_a_failure_of_tls_is_explained(self, failure: Exception, told: str) -> None:
        assert why_not(failure, SECURE) == told


NORMAL, AWAY, OWN = Close(1000), Close(1001), Close(4001, "by\x1be")
CASES: list[tuple[Any, str, Status]] = [
    (CloseReason(1000, "", True, "local", NORMAL, NORMAL), "closed: 1000 (normal)", Status.CLEAN),
    (CloseReason(4001, "", True, "local", OWN, Close(4001)), r"closed: 4001: by\x1be", Status.CLEAN),
    (
        CloseReason(1001, "", True, "local", NORMAL, AWAY),
        "closed: 1000 (normal), answered with 1001 (going away)",
        Status.CLEAN,
    ),
    (CloseReason(1000, "", True, "peer", NORMAL, NORMAL), "closed by the server: 1000 (normal)", Status.CLEAN),
    (CloseReason(1001, "", True, "peer", AWAY, AWAY), "closed by the server: 1001 (going away)", Status.CLEAN),
    (
        CloseReason(1005, "", True, "peer", Close(1005), Close(1005)),
        "closed by the server: 1005 (no status)",
        Status.CLEAN,
    ),
    (CloseReason(4001, "", True, "peer", OWN, OWN), r"closed by the server: 4001: by\x1be", Status.BROKEN),
    (
        CloseReason(1006, "", False, "local", NORMAL),
        "closed with 1000 (normal), and without an answer to it (1006)",
        Status.BROKEN,
    ),
    (
        CloseReason(1006, "", False, "transport", error=error.ConnectionLost()),
        "the connection was lost without a close frame (1006)",
        Status.BROKEN,
    ),
    (
        CloseReason(1002, "", True, "local", Close(1002), Close(1002), BadOpcode()),
        "the server broke the protocol: reserved opcode; closed with 1002 (protocol error)",
        Status.BROKEN,
    ),
]


@pytest.mark.parametrize(("reason", "told", "status"), CASES)
def test_the_end_is_explained(reason: CloseReason, told: str, status: Status) -> None:
    assert how_it_ended(reason) == told
    assert status_of(reason) is status
