"""Tests of `twisted_beastws.connection.unsent`."""

from __future__ import annotations

import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.testing import StringTransport

from twisted_beastws.connection.unsent import unaccepted

from ..support.patience import PATIENCE


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells it of any socket")
def test_the_unsent_bytes_are_those_that_the_reader_has_not_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        reader = socket.create_connection(listener.getsockname(), PATIENCE)
        writer, _ = listener.accept()
    with reader, writer:
        writer.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                sent += writer.send(bytes(1 << 16))
        waiting = unaccepted(writer)
        assert 0 < waiting <= sent
        while sent:
            sent -= len(reader.recv(1 << 16))
        # The last acknowledgement may still be in transit.
        while unaccepted(writer):
            pass
        assert unaccepted(writer) == 0


@pytest.mark.parametrize(
    "transport",
    [StringTransport(), SimpleNamespace(fileno=lambda: -1), SimpleNamespace(fileno=lambda: None), object()],
    ids=["none", "closed", "other", "object"],
)
def test_an_unknown_number_of_unsent_bytes_is_zero(transport: Any) -> None:
    assert unaccepted(transport) == 0
