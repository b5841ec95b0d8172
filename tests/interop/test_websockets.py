"""Interoperability with the `websockets` package as client and server."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_twisted
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError

from twisted_beastws import Deflate

from .conversation import (
    FRAGMENTED,
    MESSAGES,
    OUR_CLOSE,
    PART,
    PARTS,
    THEIR_CLOSE,
    asyncio_server,
    converse,
    in_asyncio,
    our_server,
    pieces,
)

pytestmark = pytest.mark.usefixtures("logged")


@pytest_twisted.ensureDeferred
async def test_their_client_can_talk_to_our_server(deflate: Deflate | None, secure: bool, certificate: Path) -> None:
    tls = ssl.create_default_context(cafile=str(certificate)) if secure else None
    compression = "deflate" if deflate else None

    async def talk() -> None:
        async with connect(url, ssl=tls, compression=compression, max_size=None, proxy=None) as ws:
            assert ws.response is not None
            assert ("Sec-WebSocket-Extensions" in ws.response.headers) == (deflate is not None)
            for message in MESSAGES:
                await ws.send(message if len(message) <= PART else pieces(message))
                assert await ws.recv() == message
            await ws.send(PARTS)
            assert await ws.recv() == "".join(PARTS)
            await (await ws.ping(b"ping"))
            await ws.close(*OUR_CLOSE)
        async with connect(url, ssl=tls, compression=compression, proxy=None) as ws:
            await ws.send("close")
            with pytest.raises(ConnectionClosedError):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == THEIR_CLOSE

    async with our_server(deflate, secure, FRAGMENTED) as url:
        await in_asyncio(talk)


async def echo(ws: ServerConnection) -> None:
    async for message in ws:
        if message == "close":
            await ws.close(*THEIR_CLOSE)
        else:
            await ws.send(message if len(message) <= PART else pieces(message))


@pytest_twisted.ensureDeferred
async def test_our_client_can_talk_to_their_server(deflate: Deflate | None, secure: bool, certificate: Path) -> None:
    tls = None
    if secure:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)

    @asynccontextmanager
    async def server() -> AsyncIterator[int]:
        compression = "deflate" if deflate else None
        async with serve(echo, "127.0.0.1", 0, ssl=tls, compression=compression, max_size=None) as listening:
            yield next(iter(listening.sockets)).getsockname()[1]

    async with asyncio_server(server()) as port:
        await converse(f"ws{'s' * secure}://localhost:{port}/chat", deflate, FRAGMENTED)
