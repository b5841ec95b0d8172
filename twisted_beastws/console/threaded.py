"""Standard input and output for systems such as Windows, on which the reactor cannot watch them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

CHUNK = 1 << 16
"""Bytes read at a time: 64 KiB, as `twisted.internet.stdio` reads."""


class ThreadedIO:
    """The subset of ``twisted.internet.stdio.StandardIO`` that `Pipes` uses. A thread reads; each write blocks.

    Args:
        protocol: Receives the input.
        stdin: The descriptor to read from.
        later: Calls a function in the reactor's thread, as ``callFromThread`` does.
    """

    def __init__(self, protocol: Any, stdin: int, later: Callable[..., object]) -> None:
        self._protocol = protocol
        self._later = later
        self._producer: Any = None
        self._paused = self._owed = False
        # The thread acquires this for each read; the reactor releases it when the protocol has used the input.
        self._turn = threading.Semaphore(1)
        # Unbuffered: a blocking read would hold the lock of a buffer, and Python could not exit meanwhile.
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
        """Write at once; block as long as the output takes."""
        try:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError:
            producer, self._producer = self._producer, None
            if producer is not None:
                producer.stopProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Remember the producer, to stop it when the output is closed. It is never paused."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Stop reading for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Resume reading."""
        self._paused = False
        if self._owed:
            self._owed = False
            self._turn.release()

    def loseConnection(self) -> None:
        """Discard the rest of the input."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            self._later(protocol.connectionLost, Failure(ConnectionDone()))
