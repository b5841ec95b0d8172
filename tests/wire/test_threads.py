"""Sessions in several threads at once, on the compiled codec and with the GIL. The pure codec belongs to one thread."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from . import peer

THREADS, MESSAGES = 4, 2000


def test_each_thread_can_run_its_own_sessions() -> None:
    start = Barrier(THREADS)
    compiled = peer.compiled_codec()

    def echo(thread: int) -> None:
        recorder = peer.Recorder(True, react=lambda self, event: self.session.writer.send(event[1]), on=compiled)
        frames = [peer.Frame(peer.TEXT, f"{thread}: {number}".encode() * (number % 50)) for number in range(MESSAGES)]
        chunks = peer.cut(peer.to(True, *frames), range(0, 1_000_000, 4096))
        start.wait()
        recorder.feed(*chunks)
        assert recorder.sent == frames

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(echo, range(THREADS)))


def test_free_threaded_python_turns_the_gil_on_for_the_compiled_codec() -> None:
    """Free-threaded Python turns the GIL on when it imports a module that does not declare itself safe without it."""
    peer.compiled_codec()
    is_gil_enabled = getattr(sys, "_is_gil_enabled", lambda: True)
    assert is_gil_enabled()
