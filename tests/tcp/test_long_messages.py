"""The memory of a process for one message of 64 MiB that it receives and sends back."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ..support.handshakes import switching
from ..support.patience import PATIENCE
from .test_server import HEAD, read_head

SIZE = 1 << 26
FACTOR = 2.2
"""The most memory that a message may take, in multiples of its size."""
FRAGMENT = 1 << 18
"""The default of ``Limits.fragment_size``."""
KEY = b"\x01\x02\x03\x04"
UNITS = ((1, b"a"), (2, b"\0"), (1, "\u00e9".encode()), (1, "\U0001f600".encode()))
"""The opcode of a message, and the bytes that it repeats."""
NAMES = ("ascii", "binary", "latin", "emoji")
Units = tuple[tuple[int, bytes], ...]
ROLES: list[Any] = [
    pytest.param("server", UNITS, id="server-all"),
    # A process for each: glibc 2.43 keeps the memory of a client's frames when they are sent, as much as one message.
    *(pytest.param("client", (unit,), id=f"client-{name}") for unit, name in zip(UNITS, NAMES, strict=True)),
]
PROGRAM = Path(__file__).with_name("echoing.py")


class Peer:
    """The other end, on a blocking socket."""

    def __init__(self, connection: socket.socket, masks: bool) -> None:
        self.connection = connection
        self.masks = masks
        connection.settimeout(PATIENCE)

    def send(self, opcode: int, unit: bytes, size: int) -> None:
        """Send a message that repeats ``unit``, whose length is a divisor of 4."""
        if self.masks:
            unit = bytes(byte ^ mask for byte, mask in zip(unit * (4 // len(unit)), KEY, strict=True))
        header = bytes([0x80 | opcode, 127 | 0x80 * self.masks]) + size.to_bytes(8, "big")
        if size < 126:
            header = bytes([0x80 | opcode, size | 0x80 * self.masks])
        self.connection.sendall(header + KEY * self.masks)
        chunk = unit * (min(size, 1 << 20) // len(unit))
        for _ in range(0, size, 1 << 20):
            self.connection.sendall(chunk)

    def skip(self, size: int) -> None:
        """Read a message of ``size`` bytes."""
        header = 2 if size < 126 else 10
        left = size + -(-size // FRAGMENT) * (header + (0 if self.masks else 4))
        room = bytearray(1 << 20)
        while left:
            got = self.connection.recv_into(room, min(left, 1 << 20))
            assert got, "the process closed the connection"
            left -= got


@pytest.mark.skipif(
    find_spec("twisted_beastws.wire._speedups") is None,
    reason="THE MEMORY OF LONG MESSAGES IS NOT TESTED: apt-get install gcc libc6-dev python3-dev, repeat pip install",
)
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="MEMORY IS NOT MEASURED: that takes Linux's /proc"
)
@pytest.mark.parametrize("reactor", ["default", "uvloop"])
@pytest.mark.parametrize(("role", "units"), ROLES)
def test_a_message_of_64_mib_takes_at_most_2_2_times_its_size(role: str, units: Units, reactor: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # The pure codec copies more.
    environment.pop("TWISTED_BEASTWS_PURE", None)
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        arguments = [role, reactor, str(SIZE), str(listening.getsockname()[1])]
        command = [sys.executable, str(PROGRAM), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert process.stdout is not None
        stack.enter_context(process.stdout)
        if role == "server":
            connection = socket.create_connection(("127.0.0.1", int(process.stdout.readline())), PATIENCE)
        else:
            listening.settimeout(PATIENCE)
            connection, _ = listening.accept()
        peer = Peer(stack.enter_context(connection), role == "server")
        open_as(role, connection)
        growth = {}
        for opcode, unit in units:
            for size in 4, SIZE:
                peer.send(opcode, unit, size)
                peer.skip(size)
            growth[opcode, unit] = int(process.stdout.readline()) / SIZE
    assert {kind: times for kind, times in growth.items() if not 0.9 < times <= FACTOR} == {}


def open_as(role: str, connection: socket.socket) -> None:
    """Do the opening handshake with a process in this role."""
    if role == "server":
        connection.sendall(HEAD)
        read_head(connection)
    else:
        connection.sendall(switching(read_head(connection)))
