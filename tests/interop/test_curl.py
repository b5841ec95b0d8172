"""Refused upgrades as `curl` sees them: ordinary HTTP responses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread

from twisted_beastws import Request, Response, WebSocketProtocol

from ..support.handshakes import UPGRADE_HEADERS
from ..support.loopback import serving
from ..support.patience import PATIENCE

pytestmark = [
    pytest.mark.usefixtures("logged"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="CURL IS NOT TESTED: apt-get install curl"),
]


class Members(WebSocketProtocol):
    def upgrade_requested(self, request: Request) -> Response:
        response = Response(403, body="members only\n")
        response.headers.setRawHeaders("Retry-After", ["60"])
        return response


async def curl(url: str, certificate: Path, fields: dict[str, str]) -> tuple[str, dict[str, str], str]:
    """Return the status line, fields and body that ``curl --include`` prints."""
    headers = [word for name, value in fields.items() for word in ("--header", f"{name}: {value}")]
    command = [
        "curl",
        "--include",
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--cacert",
        str(certificate),
        *headers,
    ]
    done = await deferToThread(lambda: subprocess.run([*command, url], capture_output=True, timeout=PATIENCE))
    assert (done.returncode, done.stderr) == (0, b"")
    head, _, body = done.stdout.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize(
    ("fields", "status", "field", "body"),
    [
        (
            {},
            "426 Upgrade Required",
            ("Upgrade", "websocket"),
            "This is a WebSocket endpoint (RFC 6455, version 13): open it with a WebSocket client, not as a page",
        ),
        (
            {**UPGRADE_HEADERS, "Sec-WebSocket-Version": "12"},
            "426 Upgrade Required",
            ("Sec-WebSocket-Version", "13"),
            "The WebSocket handshake Sec-WebSocket-Version field is invalid",
        ),
        (UPGRADE_HEADERS, "403 Forbidden", ("Retry-After", "60"), "members only\n"),
    ],
    ids=["page", "version", "declined"],
)
@pytest_twisted.ensureDeferred
async def test_curl_can_read_a_rejection(
    fields: dict[Any, Any] | dict[str, str],
    status: str,
    field: tuple[str, str],
    body: str,
    secure: bool,
    certificate: Path,
) -> None:
    async with serving(Members, secure) as url:
        line, received, text = await curl(url.replace("ws", "http", 1), certificate, fields)
    assert (line, text) == (f"HTTP/1.1 {status}", body)
    assert received["Content-Length"] == str(len(body))
    assert field is None or field in received.items()
