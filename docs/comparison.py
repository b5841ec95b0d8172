"""What this library and others do in the same situations: ``python docs/comparison.py [LIBRARY ...]`` prints a table.

It needs the extra ``test``, and Linux. Each server is a process of its own, with the library's defaults; the peer is a
bare socket, so that nothing hides the bytes on the wire.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution, version
from typing import Any

from packaging.requirements import Requirement

MIB = 1 << 20
PATIENCE = 40.0  # seconds: longer than the longest default of any of them
FLOOD = 64  # MiB
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)
PACKAGES = {
    "twisted_beastws": "twisted_beastws",
    "autobahn": "autobahn[twisted]",
    "twisted.web.websocket": "twisted[websocket]",
    "websockets": "websockets",
}


# Servers: each echoes, except for four texts: "flood" asks for much, "raise" and "later" do as they say, "end" for the
# end of the server.


def serve_twisted_beastws(port: int, under_web: bool = False) -> None:
    from twisted.internet import reactor

    from twisted_beastws import WebSocketProtocol, WebSocketResource, WebSocketServerFactory

    class Server(WebSocketProtocol):
        def binary_received(self, data: bytes) -> None:
            self.send(data)

        async def text_received(self, text: str) -> None:
            if text == "flood":
                for _ in range(FLOOD):
                    self.send(bytes(MIB))
            elif text == "raise":
                raise ZeroDivisionError
            elif text == "later":
                await after(reactor, 0.1)
                self.send("later")
            elif text == "end":
                factory.drain().addCallback(lambda _: reactor.stop())
            else:
                self.send(text)

    factory = WebSocketServerFactory(Server)
    listen(reactor, port, WebSocketResource(factory) if under_web else factory)


def serve_autobahn(port: int, under_web: bool = False) -> None:
    from autobahn.twisted.resource import WebSocketResource
    from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
    from twisted.internet import reactor

    class Server(WebSocketServerProtocol):
        def onMessage(self, payload: bytes, isBinary: bool) -> Any:
            if payload == b"flood":
                for _ in range(FLOOD):
                    self.sendMessage(bytes(MIB), True)
            elif payload == b"raise":
                raise ZeroDivisionError
            elif payload == b"later":
                return self.later()
            elif payload == b"end":
                reactor.stop()
            else:
                self.sendMessage(payload, isBinary)
            return None

        async def later(self) -> None:
            await after(reactor, 0.1)
            self.sendMessage(b"later")

    factory = WebSocketServerFactory()
    factory.protocol = Server
    if under_web:
        factory.startFactory()
    listen(reactor, port, WebSocketResource(factory) if under_web else factory)


def serve_twisted_web_websocket(port: int, under_web: bool = True) -> None:
    from twisted.internet import reactor
    from twisted.web.websocket import WebSocketResource

    class Server:
        def negotiationStarted(self, transport: Any) -> None:
            self.transport = transport

        def negotiationFinished(self) -> None: ...

        def pongReceived(self, payload: bytes) -> None: ...

        def connectionLost(self, reason: object) -> None: ...

        def bytesMessageReceived(self, data: bytes) -> None:
            self.transport.sendBytesMessage(bytes(data))

        def textMessageReceived(self, text: str) -> Any:
            if text == "flood":
                for _ in range(FLOOD):
                    self.transport.sendBytesMessage(bytes(MIB))
            elif text == "raise":
                raise ZeroDivisionError
            elif text == "later":
                return self.later()
            elif text == "end":
                reactor.stop()
            else:
                self.transport.sendTextMessage(text)
            return None

        async def later(self) -> None:
            await after(reactor, 0.1)
            self.transport.sendTextMessage("later")

    class Factory:
        def buildProtocol(self, request: object) -> Server:
            return Server()

    listen(reactor, port, WebSocketResource(Factory()))


def serve_websockets(port: int, under_web: bool = False) -> None:
    from websockets.asyncio.server import broadcast, serve

    async def handler(ws: Any) -> None:
        async for message in ws:
            if message == "flood":
                # websockets' own means for this; `await ws.send` would wait for the peer.
                for _ in range(FLOOD):
                    broadcast({ws}, bytes(MIB))
            elif message == "raise":
                raise ZeroDivisionError
            elif message == "later":
                await asyncio.sleep(0.1)
                await ws.send("later")
            elif message == "end":
                server.close()
            else:
                await ws.send(message)

    server: Any = None

    async def main() -> None:
        nonlocal server
        server = await serve(handler, "127.0.0.1", port)
        await server.wait_closed()

    asyncio.run(main())


def listen(reactor: Any, port: int, served: Any) -> None:
    from twisted.web.resource import IResource, Resource
    from twisted.web.server import Site

    if IResource.providedBy(served):
        root = Resource()
        root.putChild(b"", served)
        served = Site(root)
    reactor.listenTCP(port, served, interface="127.0.0.1")
    reactor.run()


def after(reactor: Any, seconds: float) -> Any:
    from twisted.internet.task import deferLater

    return deferLater(reactor, seconds)


SERVERS: dict[str, Callable[[int, bool], None]] = {
    "twisted_beastws": serve_twisted_beastws,
    "autobahn": serve_autobahn,
    "twisted.web.websocket": serve_twisted_web_websocket,
    "websockets": serve_websockets,
}


# Clients: each prints how connecting ended.


def run_client(library: str, port: int) -> None:
    url = f"ws://127.0.0.1:{port}/"
    if library == "websockets":
        asyncio.run(_websockets_client(url))
    else:
        from twisted.internet.defer import Deferred
        from twisted.internet.task import react

        react(lambda reactor: Deferred.fromCoroutine(_twisted_client(library, reactor, url)))


async def _websockets_client(url: str) -> None:
    from websockets.asyncio.client import connect

    with told():
        await connect(url, proxy=None)


async def _twisted_client(library: str, reactor: Any, url: str) -> None:
    with told():
        if library == "twisted_beastws":
            from twisted_beastws import connect

            await connect(url, reactor=reactor)
        elif library == "autobahn":
            from autobahn.twisted.websocket import create_client_agent

            await create_client_agent(reactor).open(url, {})
        else:
            from twisted.web.websocket import WebSocketClientEndpoint

            await WebSocketClientEndpoint.new(reactor, url).connect(Nobody())


class Nobody:
    def __getattr__(self, name: str) -> Any:
        return lambda *_: self


@contextmanager
def told() -> Iterator[None]:
    try:
        yield
        print("connected")
    except Exception as error:
        print(type(error).__name__)


# Situations


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame, under a mask of zeros."""
    size = len(payload)
    head = bytes((0x80 | opcode,))
    if size < 126:
        return head + bytes((0x80 | size,)) + bytes(4) + payload
    return head + b"\xff" + size.to_bytes(8, "big") + bytes(4) + payload


class Peer:
    """A client that is a bare socket."""

    def __init__(self, port: int, fields: bytes = b"", behind: bytes = b"", window: int | None = None) -> None:
        self.socket = socket.socket()
        if window is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.connect(("127.0.0.1", port))
        self.socket.settimeout(5)
        self.socket.sendall(REQUEST % (port, fields) + behind)
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        while self.file.readline() not in (b"\r\n", b""):
            pass

    def send(self, payload: bytes, opcode: int = 1) -> None:
        self.socket.sendall(frame(opcode, payload))

    def read(self) -> str:
        """The next frame or the end, in words."""
        try:
            head = self.file.read(2)
            if len(head) < 2:
                return "TCP ends"
            size = head[1]
            if size > 125:
                size = int.from_bytes(self.file.read(2 if size == 126 else 8), "big")
            payload = self.file.read(size)
        except TimeoutError:
            return "nothing"
        except OSError:
            return "TCP is reset"
        if head[0] & 15 == 9:
            return self.read()
        if head[0] & 15 == 8:
            return f"close {int.from_bytes(payload[:2], 'big')}"
        return payload.decode("latin-1") if size < 100 else f"{size} octets"


def under_web(library: str) -> str:
    if library == "websockets":
        return ""
    with server(library, "web") as (port, _):
        return "served" if Peer(port, behind=frame(1, b"early")).read() == "early" else "lost"


def other_site(library: str) -> str:
    with server(library) as (port, _):
        return str(Peer(port, b"Origin: https://elsewhere.example\r\n").status)


def large_message(library: str) -> str:
    with server(library) as (port, _):
        peer = Peer(port)
        with suppress(OSError):
            peer.send(bytes(16 * MIB), 2)
        peer.socket.settimeout(PATIENCE)
        came = peer.read()
        return "taken" if came.endswith("octets") else came


def no_reader(library: str) -> str:
    with server(library) as (port, pid):
        peer = Peer(port, window=1 << 16)
        peer.send(b"warm")
        peer.read()
        before = memory(pid)
        peer.send(b"flood")
        time.sleep(3)
        return f"{max(0, memory(pid) - before)} MiB"


def failing(library: str) -> str:
    with server(library) as (port, _):
        peer = Peer(port)
        peer.send(b"raise")
        return peer.read()


def coroutine(library: str) -> str:
    with server(library) as (port, _):
        peer = Peer(port)
        peer.send(b"later")
        return "runs" if peer.read() == "later" else "never runs"


def ending(library: str) -> str:
    with server(library) as (port, _):
        peer = Peer(port)
        peer.send(b"end")
        return peer.read()


def declined(library: str) -> str:
    return connecting(library, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")


def dropped(library: str) -> str:
    return connecting(library, None)


def silent(library: str) -> str:
    return connecting(library, b"")


def connecting(library: str, answer: bytes | None) -> str:
    """How a client's connecting ends where the server says this, and nothing more; None ends the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [sys.executable, __file__, "client", library, str(listening.getsockname()[1])]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        connection, _ = listening.accept()
        began = time.monotonic()
        connection.recv(1 << 16)
        if answer is None:
            connection.close()
        elif answer:
            connection.sendall(answer)
        try:
            told, _ = client.communicate(timeout=PATIENCE)
            took = time.monotonic() - began
            return f"{told.strip()}{f', {took:.0f} s' if answer == b'' else ''}"
        except subprocess.TimeoutExpired:
            return f"nothing in {PATIENCE:.0f} s"
        finally:
            client.kill()
            client.communicate()
            connection.close()


def packages(library: str) -> str:
    found: set[str] = set()
    todo = [Requirement(PACKAGES[library])]
    while todo:
        requirement = todo.pop()
        name = requirement.name.lower().replace("-", "_")
        with suppress(PackageNotFoundError):
            for line in distribution(requirement.name).requires or ():
                needed = Requirement(line)
                extras = requirement.extras or {""}
                new = f"{needed.name}{sorted(needed.extras)}" not in found
                if new and (needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras)):
                    found.add(f"{needed.name}{sorted(needed.extras)}")
                    todo.append(needed)
            found.add(name)
    return str(len({name.partition("[")[0].lower().replace("-", "_") for name in found}))


SITUATIONS: dict[str, Callable[[str], str]] = {
    "`connect` to a server that answers 401": declined,
    "`connect` to one that ends the connection": dropped,
    "`connect` to one that says nothing": silent,
    "a page of another site connects": other_site,
    "a message of 16 MiB comes": large_message,
    "a peer that does not read is sent 64 MiB; memory grows by": no_reader,
    "a message hook that is a coroutine": coroutine,
    "a message hook raises; the peer gets": failing,
    "the server ends; the peer gets": ending,
    "under twisted.web, a frame comes with the request": under_web,
    "packages that are installed with it": packages,
}


@contextmanager
def server(library: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """A library's server: its port, and its process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "serve", library, str(port), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def memory(pid: int) -> int:
    """Resident memory in MiB."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096 // MIB


def main(libraries: list[str]) -> None:
    names = [f"{library} {version(PACKAGES[library].partition('[')[0])}" for library in libraries]
    print(f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for situation, trial in SITUATIONS.items():
        print(f"| {situation} | {' | '.join(trial(library) for library in libraries)} |", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", library, port, *rest]:
            SERVERS[library](int(port), bool(rest))
        case ["client", library, port]:
            run_client(library, int(port))
        case libraries:
            main(libraries or list(SERVERS))
