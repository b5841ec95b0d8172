"""Ports of the loopback interface for programs that are told theirs."""

from __future__ import annotations

import socket
from contextlib import suppress
from random import SystemRandom

FIRST, BEHIND = 10_240, 32_768


def free_port() -> int:
    """A port that nobody has, below those that Linux gives to connections: none gets it before the program does."""
    while True:
        port = SystemRandom().randrange(FIRST, BEHIND)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
