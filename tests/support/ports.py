"""Free loopback ports for programs that take their port as an argument."""

from __future__ import annotations

import socket
from contextlib import suppress
from random import SystemRandom

FIRST, BEHIND = 10_240, 32_768


def free_port() -> int:
    """Return a free port below Linux's ephemeral range, so that no outgoing connection takes it before the program."""
    while True:
        port = SystemRandom().randrange(FIRST, BEHIND)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
