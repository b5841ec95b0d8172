"""The example chat.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from ..support.patience import PATIENCE
from .processes import Example


@contextmanager
def joined(example: Example) -> Iterator[ClientConnection]:
    with example.connect() as client:
        assert client.recv(PATIENCE) == "Welcome to the chat!"
        yield client


def test_texts_are_sent_to_everyone(tmp_path: Path) -> None:
    with Example("chat", tmp_path) as example, joined(example) as one, joined(example) as other:
        one.send("from one")
        other.send("from the other")
        assert {one.recv(PATIENCE), one.recv(PATIENCE)} == {"from one", "from the other"}
        assert {other.recv(PATIENCE), other.recv(PATIENCE)} == {"from one", "from the other"}


def test_a_binary_message_closes_its_sender(tmp_path: Path) -> None:
    with Example("chat", tmp_path) as example, joined(example) as one, joined(example) as other:
        one.send(b"binary")
        with pytest.raises(ConnectionClosed):
            one.recv(PATIENCE)
        assert (one.close_code, one.close_reason) == (1003, "text only")
        other.send("still here")
        assert other.recv(PATIENCE) == "still here"


def test_clients_are_notified_of_the_end(tmp_path: Path) -> None:
    with Example("chat", tmp_path) as example, joined(example) as one:
        example.terminate()
        with pytest.raises(ConnectionClosed):
            one.recv(PATIENCE)
        assert one.close_code == 1001
