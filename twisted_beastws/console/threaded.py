"""Standard input and output for a system whose reactor cannot watch them, such as Windows."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

CHUNK = 1 << 16
"""Bytes that are read at a time, 64 KiB: `twisted.internet.stdio` reads as many."""


class ThreadedIO:
    """What `Pipes` needs of ``twisted.internet.stdio.StandardIO``: a thread reads, and each write is done at once.

    Args:
        protocol: gets the input. stdin: the descriptor to read from.
        later: calls a function in the reactor's thread, as ``callFromThread``.
    """

    def __init__(self, protocol: Any, stdin: int, later: Callable[..., object]) -> None:
        self._protocol = protocol
        self._later = later
        self._producer: Any = None
        self._paused = self._owed = False
        # Taken for each read, given back when the input has been used.
        self._turn = threading.Semaphore(1)
        # Unbuffered: a buffer is locked while a thread waits, and Python cannot end meanwhile.
        self._input = open(stdin, "rb", buffering=0, closefd=False)  # noqa: SIM115
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            self._turn.acquire()
            try:
                data = self._input.read(CHUNK)
            except OSError:
                data = b""
            self._later(self._received, data)
            if not data:
                return

    def _received(self, data: bytes) -> None:
        if self._protocol is None:
            return
        if not data:
            self._protocol.readConnectionLost()
            return
        self._protocol.dataReceived(data)
        self._owed = self._paused
        if not self._paused:
            self._turn.release()

    def write(self, data: bytes) -> None:
        """Write at once, however long the output takes."""
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError:
            producer, self._producer = self._producer, None
            if producer is not None:
                producer.stopProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Remember the producer, to stop it; it is never paused."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Read nothing more for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Read again."""
        self._paused = False
        if self._owed:
            self._owed = False
            self._turn.release()

    def loseConnection(self) -> None:
        """Discard the rest of the input."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            self._later(protocol.connectionLost, Failure(ConnectionDone()))
