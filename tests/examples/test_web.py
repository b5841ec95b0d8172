"""The examples under_twisted_web.py and with_klein.py."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from ..support.patience import PATIENCE
from ..support.waiting import await_that
from .processes import Example

REFUSED = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "short"}


class TestUnderTwistedWeb:
    """The example under_twisted_web.py."""

    def test_the_page_and_its_websocket_are_served(self, tmp_path: Path) -> None:
        with Example("under_twisted_web", tmp_path) as example, example.connect("/echo") as client:
            response, page = example.fetch("/")
            assert (response.status, response.headers["Content-Type"]) == (200, "text/html")
            assert '.replace("http", "ws") + "/echo"' in page
            client.send("text")
            assert client.recv(PATIENCE) == "text"

    def test_one_resource_serves_a_page_and_a_websocket(self, tmp_path: Path) -> None:
        with Example("under_twisted_web", tmp_path) as example, example.connect("/greet") as client:
            client.send("Ada")
            assert client.recv(PATIENCE) == "Hello, Ada! You are 127.0.0.1."
            response, page = example.fetch("/greet")
            assert (response.status, page) == (200, "Send your name to this WebSocket.\n")

    def test_a_bad_handshake_is_refused(self, tmp_path: Path) -> None:
        with Example("under_twisted_web", tmp_path) as example:
            for path in ("/echo", "/greet"):
                assert example.fetch(path, REFUSED)[0].status == 400
            with example.connect("/greet") as client:
                client.send("Ada")
                assert client.recv(PATIENCE) == "Hello, Ada! You are 127.0.0.1."


@pytest.mark.skipif(find_spec("klein") is None, reason="WITH KLEIN NOT TESTED: pip install klein")
class TestWithKlein:
    """The example with_klein.py."""

    def test_rooms_are_separate(self, tmp_path: Path) -> None:
        with Example("with_klein", tmp_path) as example:
            with example.connect("/rooms/a") as one, example.connect("/rooms/a") as two, example.connect("/rooms/b"):
                await_that("both are there", lambda: example.fetch("/rooms/a")[1] == "2 in a\n")
                one.send("from one")
                assert one.recv(PATIENCE) == two.recv(PATIENCE) == "from one"
                assert example.fetch("/rooms/b")[1] == "1 in b\n"
                # A client that disconnects without a close frame also leaves the room.
                two.socket.close()
                await_that("it left", lambda: example.fetch("/rooms/a")[1] == "1 in a\n")
            await_that("the other left", lambda: example.fetch("/rooms/a")[1] == "0 in a\n")

    def test_a_route_can_return_a_websocket_resource(self, tmp_path: Path) -> None:
        with Example("with_klein", tmp_path) as example, example.connect("/echo") as client:
            client.send("text")
            assert client.recv(PATIENCE) == "text"

    def test_a_bad_handshake_is_refused(self, tmp_path: Path) -> None:
        with Example("with_klein", tmp_path) as example:
            for path in ("/echo", "/rooms/a"):
                assert example.fetch(path, REFUSED)[0].status == 400
            assert example.fetch("/elsewhere")[0].status == 404
