"""Run the client in a process, with pipes or on a terminal, against servers of the `websockets` package."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from ..support.certificates import identity_pem
from ..support.handshakes import switching
from ..support.patience import PATIENCE
from ..support.turns import in_turns
from ..support.waiting import await_that

COMMAND = [sys.executable, "-m", "twisted_beastws"]
# A session leader must first acquire its terminal; then the terminal sends the signals for Ctrl-C and hanging up.
ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, '-m', 'twisted_beastws', *sys.argv[1:]])"
)
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")},
    # The client imports the same package as these tests, in every directory.
    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    "PYTHONWARNINGS": "error::ResourceWarning",
    "TERM": "xterm",
    "LC_ALL": "C.UTF-8",
}

Handler = Callable[[ServerConnection], None]


# Servers


def echo(ws: ServerConnection) -> None:
    for message in ws:
        ws.send(message)


def echo_only(count: int) -> Handler:
    """Return a handler that echoes `count` messages and then closes, so that the client needs no time limit."""

    def handler(ws: ServerConnection) -> None:
        for _ in range(count):
            ws.send(ws.recv())

    return handler


class Heard:
    """A handler that records a client's messages; ``closed`` has the code and reason of its close frame."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.closed: tuple[int, str] | None = None
        self.ws: Any = None

    def __call__(self, ws: ServerConnection) -> None:
        self.ws = ws
        with suppress(ConnectionClosed):
            for message in ws:
                self.messages.append(message)
        received = ws.protocol.close_rcvd
        self.closed = (1006, "") if received is None else (received.code, received.reason)


def server_context(directory: Path) -> ssl.SSLContext:
    """Return a TLS context with a certificate that no authority has signed."""
    file = directory / "identity.pem"
    file.write_bytes(identity_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return in_turns(context)


@contextmanager
def serving(handler: Handler, **options: Any) -> Iterator[str]:
    """Run a server, and yield its URL; at the end it closes its connections with 1001."""
    with serve(handler, "127.0.0.1", 0, **{"compression": None, **options}) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            scheme = "wss" if "ssl" in options else "ws"
            yield f"{scheme}://localhost:{server.socket.getsockname()[1]}/"
        finally:
            server.shutdown()
            thread.join(PATIENCE)


def deaf(connection: socket.socket) -> None:
    """Accept a WebSocket, then answer nothing until the client disconnects."""
    connection.sendall(switching(connection.recv(1 << 16)))
    while connection.recv(1 << 16):
        pass


@contextmanager
def answering(answer: bytes | Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on the loopback interface, and yield the port; answer each connection with ``answer``, and close it."""

    def respond(connection: socket.socket) -> None:
        if callable(answer):
            answer(connection)
        else:
            connection.recv(1 << 16)
            connection.sendall(answer)

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            with connection, suppress(OSError):
                respond(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


# The client with pipes


def run(*arguments: str, stdin: str | bytes = b"") -> tuple[int, str, str]:
    """Run the client to its end; return its exit status, standard output and standard error."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run([*COMMAND, *arguments], input=data, capture_output=True, env=ENVIRONMENT, timeout=PATIENCE)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@contextmanager
def piped(*arguments: str, stdin: Any = subprocess.PIPE) -> Iterator[Any]:
    """Yield a running client, a ``Popen`` with pipes, and kill it at the end."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, *arguments], env=ENVIRONMENT, stdin=stdin, stdout=pipe, stderr=pipe) as client:
        try:
            yield client
        finally:
            client.kill()


# The client on a terminal


class Screen:
    """A terminal that obeys only the client's own escape sequences; any other control character fails the test."""

    KNOWN = re.compile(r"\x1b\[(\d*)([KCJHm])|\x1b\[\d+;\d+(m)")

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows = [""]
        self.column = 0

    @property
    def row(self) -> str:
        """The last row, where the user types."""
        return self.rows[-1].rstrip()

    def __contains__(self, text: str) -> bool:
        return text in self.rows

    def write(self, text: str) -> None:
        at = 0
        while at < len(text):
            sequence = self.KNOWN.match(text, at)
            if sequence:
                self._obey(sequence[2] or "m", sequence[1])
                at = sequence.end()
            else:
                self._put(text[at])
                at += 1

    def _obey(self, action: str, number: str) -> None:
        if action == "K":
            self.rows[-1] = self.rows[-1][: self.column]
        elif action == "C":
            self.column = min(self.column + int(number), self.columns - 1)
        elif action == "J":
            self.rows = [""]
        elif action == "H":
            self.column = 0

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.rows.append(" " * self.column)
        else:
            assert character.isprintable(), f"{character!r} reached the terminal"
            if self.column == self.columns:
                self.rows.append("")
                self.column = 0
            row = self.rows[-1].ljust(self.column)
            self.rows[-1] = row[: self.column] + character + row[self.column + 1 :]
            self.column += 1


class Console:
    """A client on a pseudo-terminal that the test controls."""

    def __init__(self, *arguments: str, columns: int = 100, **environment: str) -> None:
        self.master, slave = pty.openpty()
        self.screen = Screen(columns)
        self.resize(columns)
        self.mode = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**ENVIRONMENT, **environment},
            start_new_session=True,
        )
        self.slave = slave
        self.output = b""
        self._unfinished = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def types(self, keys: str | bytes) -> None:
        os.write(self.master, keys.encode() if isinstance(keys, str) else keys)

    def shows(self, what: str) -> None:
        """Wait for a row that equals ``what``."""
        self.until(repr(what), lambda screen: what in screen)

    def until(self, what: str, condition: Callable[[Screen], object]) -> None:
        def happened() -> object:
            self._read()
            return condition(self.screen)

        try:
            await_that(what, happened)
        except AssertionError as error:
            raise AssertionError(f"{error}\n" + "\n".join(self.screen.rows)) from None

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def hangs_up(self) -> None:
        """Close the terminal, as closing its window does."""
        os.close(self.slave)
        os.close(self.master)
        self.slave = self.master = -1

    def ends(self) -> int:
        """Wait for the client to exit, and return its exit status."""
        # The client cannot exit before the test has read its output.
        self.until("the client ends", lambda _: self.process.poll() is not None)
        self._read()
        return self.process.returncode

    def _read(self) -> None:
        while self.master >= 0 and select.select([self.master], [], [], 0)[0]:
            data = os.read(self.master, 1 << 16)
            self.output += data
            self._unfinished += self._decoder.decode(data)
            # Keep an incomplete sequence until the rest of it arrives.
            cut = re.search(r"(\x1b(\[[\d;]*)?)?\Z", self._unfinished)
            assert cut
            self.screen.write(self._unfinished[: cut.start()])
            self._unfinished = cut[0]


@contextmanager
def console(*arguments: str, **options: Any) -> Iterator[Console]:
    """Yield a client on a terminal, and kill it at the end."""
    client = Console(*arguments, **options)
    try:
        yield client
    finally:
        if client.process.poll() is None:
            client.process.send_signal(signal.SIGKILL)
        client.process.wait(PATIENCE)
        if client.master >= 0:
            os.close(client.slave)
            os.close(client.master)
