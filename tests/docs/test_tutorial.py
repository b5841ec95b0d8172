"""The tutorial, from its first command to its last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from twisted_beastws.hub.redis import RedisBackplane

from ..support.browser import chromium
from ..support.patience import PATIENCE
from ..support.ports import free_port
from .programs import defined, get, listings, printed, run, running, talking, until


class TestTutorial:
    """The programs of `docs/tutorial.md`, in their order."""

    echo, room, rooms, head, test, joined = listings("tutorial")
    (page,) = listings("tutorial", "html")
    commands = "".join(listings("tutorial", "sh")).splitlines()
    shown = listings("tutorial", "text")

    @pytest.fixture
    def serve(self, tmp_path: Path) -> Callable[[str], Any]:
        (server,) = (command for command in self.commands if command.startswith("twistd "))

        @contextmanager
        def serve(listing: str) -> Iterator[int]:
            (tmp_path / "talk.py").write_text(listing, encoding="utf-8")
            (tmp_path / "talk.html").write_text(self.page, encoding="utf-8")
            port = free_port()
            with running(printed(server, port), tmp_path, port):
                yield port

        return serve

    @property
    def whole(self) -> str:
        """Return the final ``talk.py``."""
        return self.head + "\n" + self.rooms.partition("WebSocketProtocol):\n")[2]

    def test_the_echo_server_can_echo(self, serve: Callable[[str], Any], tmp_path: Path) -> None:
        (client,) = (command for command in self.commands if command.endswith(":8000/"))
        with serve(self.echo) as port:
            done = run([*printed(client, port), "--exec", "hello"], tmp_path)
        assert (done.returncode, done.stdout) == (0, "hello\n")

    def test_a_room_is_shared(self, serve: Callable[[str], Any]) -> None:
        with serve(self.room) as port, talking(port) as ann, talking(port) as bob:
            bob.send("hello")
            assert ann.recv(PATIENCE) == bob.recv(PATIENCE) == "hello"

    @pytest.mark.parametrize("whole", [False, True])
    def test_the_output_is_that_of_the_page(self, serve: Callable[[str], Any], tmp_path: Path, whole: bool) -> None:
        clients = [command for command in self.commands if "/tea" in command]
        with serve(self.whole if whole else self.rooms) as port, ThreadPoolExecutor(1) as beside:
            # Meanwhile somebody is in another room.
            coming = beside.submit(run, printed(clients[2].replace("tea", "coffee"), port), tmp_path)
            nobody, ann, bob = (run(printed(command, port), tmp_path) for command in clients)
            elsewhere = coming.result()
        assert nobody.returncode == 1
        assert nobody.stderr.replace(f"127.0.0.1:{port}", "localhost:8000") == self.shown[0]
        assert [done.stdout for done in (ann, bob)] == self.shown[1:]
        assert elsewhere.stdout == "Bob came in\nHere are Bob\n"

    def test_the_page_is_usable(self, serve: Callable[[str], Any], browser: Any) -> None:
        with serve(self.whole) as port, talking(port, "/tea?name=Bob") as bob:
            assert get(port, "/tea") == (200, self.page)
            browser.get(f"http://127.0.0.1:{port}/tea")
            asked = until(lambda: browser.switch_to.alert)
            asked.send_keys("Ann")
            asked.accept()
            assert [bob.recv(PATIENCE) for _ in range(2)] == ["Bob came in", "Ann came in"]
            until(lambda: browser.find_elements("css selector", "li"))
            browser.find_element("css selector", "input").send_keys("<b>hello</b>\ue007")
            assert bob.recv(PATIENCE) == "Ann: <b>hello</b>"
            until(lambda: "Ann: <b>hello</b>" in browser.find_element("css selector", "ul").text)

    def test_the_test_of_the_page_is_passed(self, tmp_path: Path) -> None:
        (command,) = (command for command in self.commands if "pytest" in command)
        (tmp_path / "talk.py").write_text(self.rooms)
        (tmp_path / "test_talk.py").write_text(self.test)
        done = run([*printed(command, 0), "-p", "no:cacheprovider"], tmp_path)
        assert done.returncode == 0, done.stdout

    def test_hubs_are_joined(self) -> None:
        assert isinstance(defined(self.joined)["hub"].backplane, RedisBackplane)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium"), "THE TUTORIAL'S PAGE IS") as browser:
        yield browser
