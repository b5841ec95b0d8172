"""TLS sockets that one thread may read while another writes, as the `websockets` package's threads do."""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")


class Turns(ssl.SSLSocket):
    """One thread at a time calls OpenSSL, which bears no more.

    Python 3.11 does not see to that: about one connection in five hundred hung.
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
    """Have the context's sockets take turns."""
    context.sslsocket_class = Turns
    return context
