"""Interoperability with `aiohttp` as client and server; it can receive fragments, but not send them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from aiohttp import ClientSession, WSMsgType, web

from twisted_beastws import Deflate

from .conversation import (
    MESSAGES,
    OUR_CLOSE,
    PARTS,
    THEIR_CLOSE,
    UNFRAGMENTED,
    asyncio_server,
    converse,
    in_asyncio,
    our_server,
)

pytestmark = pytest.mark.usefixtures("logged")


@pytest_twisted.ensureDeferred
async def test_their_client_can_talk_to_our_server(deflate: Deflate | None, secure: bool, certificate: Path) -> None:
    options: dict[str, Any] = {
        "ssl": ssl.create_default_context(cafile=str(certificate)) if secure else True,
        "compress": 15 if deflate else 0,
        "max_msg_size": 0,
        "autoping": False,
    }

    async def talk() -> None:
        async with ClientSession() as session:
            async with session.ws_connect(url, **options) as ws:
                assert bool(ws.compress) == (deflate is not None)
                for message in (*MESSAGES, "".join(PARTS)):
                    await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
                    assert (await ws.receive()).data == message
                await ws.ping(b"ping")
                pong = await ws.receive()
                assert (pong.type, pong.data) == (WSMsgType.PONG, b"ping")
                code, reason = OUR_CLOSE
                await ws.close(code=code, message=reason.encode())
            async with session.ws_connect(url, **options) as ws:
                await ws.send_str("close")
                close = await ws.receive()
                assert (close.type, close.data, close.extra) == (WSMsgType.CLOSE, *THEIR_CLOSE)

    async with our_server(deflate, secure, UNFRAGMENTED) as url:
        await in_asyncio(talk)


@pytest_twisted.ensureDeferred
async def test_our_client_can_talk_to_their_server(deflate: Deflate | None, secure: bool, certificate: Path) -> None:
    tls = None
    if secure:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=deflate is not None, max_msg_size=0)
        await ws.prepare(request)
        async for message in ws:
            if message.data == "close":
                code, reason = THEIR_CLOSE
                await ws.close(code=code, message=reason.encode())
            elif message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
        return ws

    @asynccontextmanager
    async def server() -> AsyncIterator[int]:
        application = web.Application()
        application.router.add_get("/chat", echo)
        runner = web.AppRunner(application)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    async with asyncio_server(server()) as port:
        await converse(f"ws{'s' * secure}://localhost:{port}/chat", deflate, UNFRAGMENTED)
