"""permessage-deflate: the exact bytes of the handshake response, and conversations with the `websockets` package."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread
from websockets.exceptions import ConnectionClosedError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import ClientConnection, connect

from twisted_beastws import DecoratorError, Limits, WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.options import Deflate

from ..support.patience import PATIENCE
from ..support.protocols import Echo

T = TypeVar("T")
Connect = Callable[..., Any]

TEXT = "Köln, straße: " * 2000
DATA = random.Random(1).randbytes(100_000)
MESSAGES: list[str | bytes] = ["hello", "hello", "", b"", TEXT, DATA, DATA, TEXT, bytes(300_000), "€" * 70_000]

# A message of 1,000,000 bytes is within these limits only if it is compressed, in either direction.
SMALL = Limits(max_frame_size=1 << 16, max_message_size=None, max_buffered=1 << 16, fragment_size=None)
MILLION = b"0123456789" * 100_000


class Known(Echo):
    latest: Known

    def opened(self) -> None:
        Known.latest = self


@asynccontextmanager
async def serving(protocol: type[WebSocketProtocol] = Known, **options: Any) -> AsyncIterator[str]:
    factory = WebSocketServerFactory(protocol, **options)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    try:
        yield f"ws://127.0.0.1:{port.getHost().port}/"
    finally:
        await port.stopListening()
        await factory.drain()


async def in_client(url: str, talk: Callable[[ClientConnection], T], **options: Any) -> T:
    """Call ``talk`` with a client of the `websockets` package, in a thread."""

    def run() -> T:
        with connect(
            url, open_timeout=PATIENCE, close_timeout=PATIENCE, proxy=None, max_size=None, **options
        ) as client:
            return talk(client)

    return await deferToThread(run)


def echoes(*messages: str | bytes) -> Callable[[ClientConnection], str | None]:
    """Return a function that checks the echo of each message and returns the response's extensions."""

    def talk(client: ClientConnection) -> str | None:
        for message in messages:
            client.send(message)
            assert client.recv(timeout=PATIENCE) == message
        assert client.response is not None
        return client.response.headers.get("Sec-WebSocket-Extensions")

    return talk


def offer(peer: Any, offers: str) -> bytes:
    """Return the response to a handshake with these extension offers."""
    peer.sends(peer.HEAD[:-2] + f"Sec-WebSocket-Extensions: {offers}\r\n\r\n".encode())
    answer: bytes = peer.reads()
    return answer


class TestAnswer:
    """RFC 7692 §7.1: the server's answer to an offer, over TCP."""

    def test_the_answer_has_these_bytes(self, connect: Connect) -> None:
        peer = connect(opened=False, deflate=Deflate(server_max_window_bits=10), subprotocols=["chat"])
        answer = offer(peer, "permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Protocol: chat")
        assert answer.partition(b"\r\nDate:")[0] == (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10"
        )
        peer.protocol.send("hello")
        peer.protocol.send("hello", compress=False)
        peer.protocol.send_text("hello", compress=True)
        peer.protocol.send_binary(b"hello", compress=False)
        assert peer.reads() == bytes.fromhex("c107ca48cdc9c90700 810568656c6c6f c105ca00110000 820568656c6c6f")

    @pytest.mark.parametrize("offers", ["permessage-deflate; unknown", "x-webkit-deflate-frame"])
    def test_a_bad_offer_is_declined(self, offers: str, connect: Connect) -> None:
        peer = connect(opened=False, deflate=Deflate())
        head = offer(peer, offers)
        assert head.startswith(b"HTTP/1.1 101 ") and b"Extensions" not in head
        assert peer.protocol.deflate is None
        peer.protocol.send("hello", compress=True)
        assert peer.reads() == b"\x81\x05hello"

    def test_a_malformed_offer_is_answered_400(self, connect: Connect) -> None:
        """A malformed offer fails the handshake (RFC 6455 §9.1); a server without deflate ignores it."""
        peer = connect(opened=False, deflate=Deflate())
        assert offer(peer, "permessage-deflate;").startswith(b"HTTP/1.1 400 ")
        peer = connect(opened=False)
        assert offer(peer, "permessage-deflate;").startswith(b"HTTP/1.1 101 ")

    @pytest.mark.parametrize("values", [None, ["permessage-deflate"], ["x"]])
    @pytest.mark.parametrize("offers", ["permessage-deflate; server_max_window_bits=9", "x"])
    def test_a_decorator_may_not_change_the_answer(
        self, offers: str, values: list[str] | None, connect: Connect, logged: Any
    ) -> None:
        def decorate(response: Any) -> None:
            if values is None:
                response.headers.removeHeader("Sec-WebSocket-Extensions")
            else:
                response.headers.setRawHeaders("Sec-WebSocket-Extensions", values)

        peer = connect(opened=False, deflate=Deflate(), decorator=decorate)
        unchanged = offers == "x" and values is None
        assert offer(peer, offers).startswith(b"HTTP/1.1 101 " if unchanged else b"HTTP/1.1 500 ")
        assert len(logged(DecoratorError)) == (not unchanged)

    def test_a_declining_answer_has_no_extension(self, connect: Connect) -> None:
        def decorate(response: Any) -> None:
            response.status = 403

        peer = connect(opened=False, deflate=Deflate(), decorator=decorate)
        head = offer(peer, "permessage-deflate")
        assert head.startswith(b"HTTP/1.1 403 ") and b"Extensions" not in head


# The parameters that a client offers.
CLIENTS: dict[str, dict[str, Any]] = {
    "plain": {"client_max_window_bits": True},
    "windows of 9": {"server_max_window_bits": 9, "client_max_window_bits": 9},
    "windows of 15": {"server_max_window_bits": 15, "client_max_window_bits": 15},
    "no context takeover": {
        "server_no_context_takeover": True,
        "client_no_context_takeover": True,
        "client_max_window_bits": True,
    },
}
SERVERS = {
    "defaults": Deflate(),
    "smallest": Deflate(9, 9, mem_level=1, level=1),
    "no context takeover": Deflate(12, 12, True, True),
    "threshold": Deflate(threshold=1000, level=9, mem_level=9),
}


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest_twisted.ensureDeferred
async def test_messages_are_compressed_both_ways(client: str, server: str) -> None:
    asked, options = CLIENTS[client], SERVERS[server]
    async with serving(deflate=options) as url:
        answer = await in_client(url, echoes(*MESSAGES), extensions=[ClientPerMessageDeflateFactory(**asked)])
    agreed = Known.latest.deflate
    assert agreed is not None
    assert answer == agreed.answer
    for which in ("server_max_window_bits", "client_max_window_bits"):
        least = 9 if asked.get(which) == 9 else 15
        assert getattr(agreed, which) == min(least, getattr(options, which))
    for which in ("server_no_context_takeover", "client_no_context_takeover"):
        assert getattr(agreed, which) == (which in asked or getattr(options, which))


@pytest_twisted.ensureDeferred
async def test_the_bytes_on_the_wire_are_compressed() -> None:
    async with serving(deflate=Deflate(), limits=SMALL) as url:
        await in_client(url, echoes(MILLION, MILLION))
    with pytest.raises(ConnectionClosedError, match="1009"):
        async with serving(limits=SMALL) as url:
            await in_client(url, echoes(MILLION))


@pytest.mark.parametrize("server", [None, Deflate()])
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest_twisted.ensureDeferred
async def test_messages_are_not_compressed_if_one_end_declines(server: Deflate | None, compression: str | None) -> None:
    async with serving(deflate=server) as url:
        answer = await in_client(url, echoes(*MESSAGES), compression=compression)
    both = server is not None and compression is not None
    assert (answer is not None) == (Known.latest.deflate is not None) == both


@pytest_twisted.ensureDeferred
async def test_a_compressed_message_in_fragments_with_pings_between_is_received() -> None:
    def talk(client: ClientConnection) -> None:
        def parts() -> Iterator[str]:
            for at in range(0, len(TEXT), 1000):
                client.ping()
                yield TEXT[at : at + 1000]

        for _ in range(3):
            client.send(parts())
            assert client.recv(timeout=PATIENCE) == TEXT

    async with serving(deflate=Deflate(), limits=Limits(fragment_size=100)) as url:
        await in_client(url, talk)


class Streaming(WebSocketProtocol):
    """Echo fragmented messages in fragments, with an uncompressed message after each."""

    def fragment_received(self, data: bytes, opcode: int, final: bool) -> None:
        self.parts = [*getattr(self, "parts", []), data]
        if final:
            with self.message(opcode) as message:
                for part in self.parts:
                    message.write(part)
                self.ping()
            self.send("between", compress=False)
            self.parts = []


@pytest_twisted.ensureDeferred
async def test_messages_can_be_streamed() -> None:
    def talk(client: ClientConnection) -> None:
        for message in MESSAGES:
            client.send(message)
            assert client.recv(timeout=PATIENCE) == message
            assert client.recv(timeout=PATIENCE) == "between"

    async with serving(Streaming, deflate=Deflate()) as url:
        await in_client(url, talk)


@pytest_twisted.ensureDeferred
async def test_a_bomb_is_refused() -> None:
    def talk(client: ClientConnection) -> None:
        client.send(bytes(64 << 20))
        with pytest.raises(ConnectionClosedError, match="1009"):
            client.recv(timeout=PATIENCE)

    async with serving(deflate=Deflate()) as url:
        await in_client(url, talk)


@pytest_twisted.ensureDeferred
async def test_many_clients_can_use_one_server() -> None:
    """Connections do not share compression contexts."""
    async with serving(deflate=Deflate()) as url:
        talks = [in_client(url, echoes(*[f"{at} " * 50] * 20)) for at in range(5)]
        for talk in talks:
            await talk
