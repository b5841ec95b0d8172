"""TLS sockets for the threads of the `websockets` package, of which one reads while another writes."""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")


class Turns(ssl.SSLSocket):
    """A TLS socket with a lock, because OpenSSL allows only one thread at a time to use a connection.

    Python 3.11 has no such lock: about one connection in five hundred hung.
    """

    turn: AbstractContextManager[object] = nullcontext()
    opened = False
    patience: float | None

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        self.patience = self.gettimeout()
        super().settimeout(0.0)
        self.turn = Lock()
        self.opened = True

    def settimeout(self, value: float | None) -> None:
        if self.opened:
            self.patience = value
        else:
            super().settimeout(value)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        return self._in_turn(super().recv, buflen, flags)

    def sendall(self, data: Any, flags: int = 0) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._in_turn(super().send, rest, flags) :]

    def shutdown(self, how: int) -> None:
        with self.turn:
            super().shutdown(how)

    def _in_turn(self, call: Callable[..., T], *arguments: object) -> T:
        while True:
            try:
                with self.turn:
                    return call(*arguments)
            except (ssl.SSLWantReadError, BlockingIOError):
                wanted = select.POLLIN
            except ssl.SSLWantWriteError:
                wanted = select.POLLOUT
            waiting = select.poll()
            waiting.register(self, wanted)
            if not waiting.poll(None if self.patience is None else 1000 * self.patience):
                raise TimeoutError("timed out")


def in_turns(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make the context create `Turns` sockets, and return the context."""
    context.sslsocket_class = Turns
    return context
