"""The examples under_twisted_web.py and with_klein.py."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from ..support.patience import PATIENCE
from ..support.waiting import await_that
from .processes import Example

REFUSED = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "short"}


@pytest.fixture(scope="module")
def under_twisted_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    with Example("under_twisted_web", tmp_path_factory.mktemp("under_twisted_web")) as example:
        yield example


@pytest.fixture(scope="module")
def with_klein(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    with Example("with_klein", tmp_path_factory.mktemp("with_klein")) as example:
        yield example


class TestUnderTwistedWeb:
    """The example under_twisted_web.py."""

    def test_the_page_and_its_websocket_are_served(self, under_twisted_web: Example) -> None:
        with under_twisted_web.connect("/echo") as client:
            response, page = under_twisted_web.fetch("/")
            assert (response.status, response.headers["Content-Type"]) == (200, "text/html")
            assert '.replace("http", "ws") + "/echo"' in page
            client.send("text")
            assert client.recv(PATIENCE) == "text"

    def test_one_resource_serves_a_page_and_a_websocket(self, under_twisted_web: Example) -> None:
        with under_twisted_web.connect("/greet") as client:
            client.send("Ada")
            assert client.recv(PATIENCE) == "Hello, Ada! You are 127.0.0.1."
            response, page = under_twisted_web.fetch("/greet")
            assert (response.status, page) == (200, "Send your name to this WebSocket.\n")

    def test_a_bad_handshake_is_refused(self, under_twisted_web: Example) -> None:
        for path in ("/echo", "/greet"):
            assert under_twisted_web.fetch(path, REFUSED)[0].status == 400
        with under_twisted_web.connect("/greet") as client:
            client.send("Ada")
            assert client.recv(PATIENCE) == "Hello, Ada! You are 127.0.0.1."


@pytest.mark.skipif(find_spec("klein") is None, reason="WITH KLEIN NOT TESTED: pip install klein")
class TestWithKlein:
    """The example with_klein.py."""

    def test_rooms_are_separate(self, with_klein: Example) -> None:
        with (
            with_klein.connect("/rooms/a") as one,
            with_klein.connect("/rooms/a") as two,
            with_klein.connect("/rooms/b"),
        ):
            await_that("both are there", lambda: with_klein.fetch("/rooms/a")[1] == "2 in a\n")
            one.send("from one")
            assert one.recv(PATIENCE) == two.recv(PATIENCE) == "from one"
            assert with_klein.fetch("/rooms/b")[1] == "1 in b\n"
            # A client that disconnects without a close frame also leaves the room.
            two.socket.close()
            await_that("it left", lambda: with_klein.fetch("/rooms/a")[1] == "1 in a\n")
        await_that("the other left", lambda: with_klein.fetch("/rooms/a")[1] == "0 in a\n")

    def test_a_route_can_return_a_websocket_resource(self, with_klein: Example) -> None:
        with with_klein.connect("/echo") as client:
            client.send("text")
            assert client.recv(PATIENCE) == "text"

    def test_a_bad_handshake_is_refused(self, with_klein: Example) -> None:
        for path in ("/echo", "/rooms/a"):
            assert with_klein.fetch(path, REFUSED)[0].status == 400
        assert with_klein.fetch("/elsewhere")[0].status == 404
