"""The example live_feed.py."""

from __future__ import annotations

import json
from pathlib import Path

from websockets.sync.client import ClientConnection

from ..support.patience import PATIENCE
from .processes import Example


def values(client: ClientConnection) -> list[float]:
    received: list[float] = json.loads(client.recv(PATIENCE))
    return received


def test_all_viewers_have_the_same_values(tmp_path: Path) -> None:
    with Example("live_feed", tmp_path) as example, example.connect() as early:
        seen = values(early)
        while len(seen) < 20:
            seen += values(early)
        with example.connect(compression=None) as late:
            before = values(late)
            assert before[: len(seen)] == seen
            after = [value for _ in range(5) for value in values(late)]
        while len(seen) < len(before) + len(after):
            seen += values(early)
        assert seen == before + after
        assert len(after) == 5


def test_messages_of_a_viewer_are_ignored(tmp_path: Path) -> None:
    with Example("live_feed", tmp_path) as example, example.connect() as client:
        for _ in range(100):
            client.send("text")
        for _ in range(5):
            values(client)
        client.close()
        assert client.close_code == 1000


def test_the_page_is_served(tmp_path: Path) -> None:
    with Example("live_feed", tmp_path) as example:
        response, page = example.fetch("/")
        assert (response.status, response.headers["Content-Type"]) == (200, "text/html")
        assert "<canvas>" in page
