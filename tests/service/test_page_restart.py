"""The README's first minutes, as a visitor sees them: a name, a room, a second tab, and the history after a restart."""

from __future__ import annotations

import re
import shlex
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..support.redis_server import redis_running
from ..support.waiting import await_that
from .page_tabs import ENTER, Server, Tab

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_readme_leads_to_a_history_that_outlives_the_service(browser: Any, tmp_path: Path, server: Server) -> None:
    (command,) = re.findall(r"`pip install -e '\.\[redis\]' && twistd -n beastws (--backplane [^`]*)`", README)
    with redis_running(tmp_path) as redis, ExitStack() as stack:
        service = Server(tmp_path, *shlex.split(command.replace("redis://localhost", redis.url)))
        service.start()
        stack.callback(service.stop)
        server.was_away = True
        ann = Tab(browser, service.port, name=None)
        ann.run("document.getElementById('name').focus()")
        ann.press("Ann", ENTER)
        await_that("the name is taken", lambda: ann.members == ["Ann (you)"])
        ann.press("hello", ENTER)
        ann.await_line("hello")
        ann.click("room-name")
        ann.press("garden", ENTER)
        await_that("the room is open", lambda: ann.get("title", "innerText") == "garden" and ann.state == "connected")
        ann.say("in the garden")
        ann.await_line("in the garden")
        bob = Tab(browser, service.port, name="Bob", room="garden")
        bob.await_line("in the garden")
        bob.say("hello Ann")
        ann.await_line("hello Ann")
        assert bob.all(".note") == ann.all(".note") == []
        service.stop(signal.SIGINT)
        ann.await_state("waiting")
        service.start()
        for tab in (ann, bob):
            tab.reconnect()
        await_that("the pages have read the history", lambda: [len(tab.all(".note")) for tab in (ann, bob)] == [1, 1])
        await_that(
            "nothing is missing", lambda: all("Nothing is missing." in tab.all(".note")[0] for tab in (ann, bob))
        )
        new = Tab(browser, service.port, name="Eve", room="garden")
        new.await_line("hello Ann")
        common = Tab(browser, service.port, name="Eve")
        common.await_line("hello")
        for tab, said in (
            (ann, ["in the garden", "hello Ann"]),
            (new, ["in the garden", "hello Ann"]),
            (common, ["hello"]),
        ):
            assert tab.lines() == said
        assert new.all(".note") == common.all(".note") == []
