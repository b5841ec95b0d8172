"""The chat page: its source, names, talk and rooms, in headless Chromium."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from websockets import Subprotocol
from websockets.sync.client import connect

from ..support.waiting import await_that
from .page_tabs import ENTER, PAGE, Puppet, Server, Tab, fill, message

LINES_KEPT = 500


class Elements(HTMLParser):
    """Every start tag of a page, with its attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


class TestSource:
    """The source of the page."""

    source = PAGE.read_text(encoding="utf-8")
    elements = Elements(source).found

    def test_each_placeholder_is_an_attribute(self) -> None:
        assert self.source.count("{{") == self.source.count("}}") == 2
        (body,) = [attrs for tag, attrs in self.elements if tag == "body"]
        assert (body["data-path"], body["data-max-message"]) == ("{{path}}", "{{max_message}}")

    def test_the_page_can_have_a_policy_of_two_hashes(self) -> None:
        tags = [tag for tag, _ in self.elements]
        assert tags.count("script") == tags.count("style") == 1
        attributes = {name for _, attrs in self.elements for name in attrs}
        assert not {name for name in attributes if name == "style" or name.startswith("on")}

    def test_nothing_is_fetched(self) -> None:
        references = [
            value for _, attrs in self.elements for name, value in attrs.items() if name in {"src", "href", "srcset"}
        ]
        assert references and all(value and value.startswith("data:") for value in references)
        assert not re.search(r"@import|url\(|\bimport\b", self.source)
        assert self.source.count("fetch(") == 1, "only the question why a handshake failed"

    def test_the_script_never_makes_markup_of_text(self) -> None:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", self.source)

    def test_the_page_is_small(self) -> None:
        assert len(PAGE.read_bytes()) < 48 * 1024


class TestNames:
    """Names of users on the page."""

    def test_a_new_user_reads_at_once_and_chooses_a_name_to_write(self, browser: Any, server: Server) -> None:
        with connect(
            f"ws://127.0.0.1:{server.port}/chat/new?name=Bob", subprotocols=[Subprotocol("chat.v1+json")]
        ) as bob:
            bob.send('{"type": "message", "text": "hello"}')
            tab = Tab(browser, server.port, name=None, room="new")
            tab.await_line("hello")
            assert (tab.get("say", "hidden"), tab.get("introduce", "hidden")) == (True, False)
            assert tab.get("me-as", "innerText") == "You have no name yet"
            tab.run("document.getElementById('name').focus()")
            tab.press("Ann", ENTER)
            await_that("Ann is a member", lambda: tab.members == ["Ann (you)", "Bob"])
            assert tab.focused == "text"
            tab.press("hi Bob", ENTER)
            tab.await_line("hi Bob")
            assert tab.lines() == ["hello", "hi Bob"], "the history comes once"
            assert tab.all(".mine .said") == ["hi Bob"]
            tab.run("location.reload()")
            tab.await_line("hi Bob")
            assert tab.get("my-name", "innerText") == "Ann", "the page remembers the name"
            assert tab.all(".mine .said") == ["hi Bob"], "and its own messages"

    def test_a_change_of_the_name_keeps_the_messages(self, server: Server, tab: Tab) -> None:
        tab.say("as Ann")
        tab.await_line("as Ann")
        tab.click("rename")
        assert (tab.focused, tab.get("name", "value")) == ("name", "Ann")
        tab.press("Eve", ENTER)
        await_that("Eve is the only member", lambda: tab.members == ["Eve (you)"])
        tab.say("as Eve")
        tab.await_line("as Eve")
        assert tab.lines()[-2:] == ["as Ann", "as Eve"]

    def test_a_refused_name_gets_the_reason_and_the_old_name_stays(self, server: Server, tab: Tab) -> None:
        server.was_away = True
        tab.click("rename")
        tab.press("a\u2800", ENTER)
        await_that("the reason shows", lambda: not tab.get("name-problem", "hidden"))
        assert tab.get("name-problem", "innerText").startswith(
            "The server does not accept this name: the name must be 1 to 32 visible characters"
        )
        await_that("the old name is in use", lambda: tab.members == ["Ann (you)"])
        assert tab.state == "connected"
        tab.click("keep-name")
        assert tab.get("introduce", "hidden") and not tab.get("say", "hidden")

    def test_the_name_of_a_login_is_shown_and_cannot_be_changed(self, nameless: Puppet) -> None:
        nameless.open(name="ann", user="ann")
        assert nameless.get("me", "innerText").split() == ["Logged", "in", "as", "ann"]
        assert nameless.get("rename", "hidden") and nameless.get("introduce", "hidden")
        assert not nameless.get("say", "hidden")


def await_own(tab: Tab, said: list[str]) -> None:
    """Wait until these messages, and no others, are marked as the user's own."""
    await_that("own messages are marked", lambda: tab.all(".mine .said") == said)


class TestTalk:
    """Messages on the page."""

    def test_two_people_can_talk_in_three_rooms(self, browser: Any, server: Server) -> None:
        ann, bob = Tab(browser, server.port), Tab(browser, server.port, name="Bob")
        await_that("both are listed", lambda: ann.members == ["Ann (you)", "Bob"])
        await_that("the join shows", lambda: ann.all("summary") == ["Bob joined"])
        bob.say("in the common room")
        ann.await_line("in the common room")
        for tab in (ann, bob):
            tab.run("document.getElementById('room-name').focus()")
            tab.press("lunch", ENTER)
            await_that("the room is open", lambda: tab.get("title", "innerText") == "lunch")  # noqa: B023
        assert ann.run("return location.hash") == "#lunch"
        bob.say("in lunch")
        ann.await_line("in lunch")
        ann.run("location.hash = '#Caf\u00e9'")
        await_that("the room is open", lambda: ann.get("title", "innerText") == "Caf\u00e9")
        bob.say("unread")
        await_that("the unread message counts", lambda: ann.title == "(1) Caf\u00e9 \u00b7 Chat")
        ann.run("history.back()")
        await_that("the room before is open", lambda: ann.title == "lunch \u00b7 Chat")
        assert ann.lines()[-2:] == ["in lunch", "unread"]
        ann.run("history.back()")
        await_that("the common room is open", lambda: ann.title == "Common room \u00b7 Chat")
        assert ann.run("return document.querySelectorAll('#room-list li').length") == 3

    def test_a_person_with_two_tabs_is_one_member(self, puppet: Puppet) -> None:
        puppet.open()
        for name in ("Ann", "Bob"):
            puppet.gets({"type": "here", "names": ["Ann", "Bob"], "count": 3})
            assert puppet.members == ["Ann (you)", "Bob"] and puppet.get("more-members", "innerText") == ""
            # The other tab joins and leaves; the page cannot know that a person of Bob's name has another one.
            puppet.gets({"type": "join", "name": name}, {"type": "leave", "name": name})
            assert puppet.members == {"Ann": ["Ann (you)", "Bob"], "Bob": ["Ann (you)"]}[name]
            assert puppet.get("member-count", "innerText") == f"({len(puppet.members)})"
        puppet.gets({"type": "here", "names": [f"{i:04}" for i in range(1000)], "count": 1500})
        assert puppet.get("more-members", "innerText") == "and 500 more"

    def test_own_messages_are_marked_in_all_tabs_of_a_person(self, browser: Any, server: Server, tab: Tab) -> None:
        second, bob = Tab(browser, server.port, room="tabs"), Tab(browser, server.port, name="Bob", room="tabs")
        tab.run("location.hash = 'tabs'")
        await_that("both of Ann's tabs are in the room", lambda: tab.members == second.members == ["Ann (you)", "Bob"])
        tab.say("from the first tab")
        second.await_line("from the first tab")
        second.say("from the second tab")
        bob.await_line("from the second tab")
        bob.say("from Bob")
        said = ["from the first tab", "from the second tab", "from Bob"]
        for each, own in ((tab, said[:2]), (second, said[:2]), (bob, said[2:])):
            each.await_line("from Bob")
            await_own(each, own)
            each.run("location.reload()")
            each.await_line("from Bob")
            assert (each.lines(), each.all(".mine .said")) == (said, own)

    def test_markup_is_shown_as_text(self, tab: Tab) -> None:
        text = "<b>bold</b> & <img src=x onerror=alert(1)> &amp;"
        tab.say(text)
        tab.await_line(text)
        assert tab.run("return document.querySelectorAll('.log b, .log img').length") == 0

    def test_text_of_any_script_is_shown_whole(self, tab: Tab) -> None:
        text = "na\u00efve \u05e9\u05dc\u05d5\u05dd \u4f60\u597d \U0001f469\u200d\U0001f467 \u202eabc\nsecond line"
        tab.say(text)
        tab.await_line(text)

    def test_an_empty_field_sends_nothing(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.say(" \n ")
        puppet.say("after")
        assert [each["text"] for each in puppet.sent()] == ["after"]

    def test_only_the_last_lines_are_kept(self, puppet: Puppet) -> None:
        puppet.open()
        fill(puppet, LINES_KEPT + 100)
        assert puppet.lines() == [f"line {number}" for number in range(100, LINES_KEPT + 100)]

    def test_nothing_is_fetched_but_the_page(self, tab: Tab) -> None:
        assert tab.run("return performance.getEntriesByType('resource').map(entry => entry.name)") == []

    def test_the_policy_lets_no_other_script_run(self, browser: Any, puppet: Puppet) -> None:
        injected = (
            "const e = document.createElement('script'); e.textContent = 'window.injected = 1'; document.body.append(e)"
        )
        puppet.run(injected)
        assert puppet.run("return window.injected") is None
        assert "Content Security Policy" in browser.get_log("browser")[0]["message"]

    def test_links_are_safe_and_end_before_punctuation(self, puppet: Puppet) -> None:
        puppet.open()
        text = "see https://example.com/a?b=1#c. (http://example.org) ftp://no javascript:no https://x.y/(z)"
        puppet.gets(message(1, text))
        found = "return [...document.querySelectorAll('.said a')].map(a => [a.textContent, a.rel, a.target])"
        rel = "noopener noreferrer nofollow"
        assert puppet.run(found) == [
            ["https://example.com/a?b=1#c", rel, "_blank"],
            ["http://example.org", rel, "_blank"],
            ["https://x.y/(z)", rel, "_blank"],
        ]
        assert puppet.lines() == [text]

    def test_a_long_message_is_folded(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.gets(message(1, "word " * 1000), message(2, "short"), message(3, "\U0001f389\U0001f389"))
        height = "return [...document.querySelectorAll('.said')].map(each => each.offsetHeight)"
        folded, short, emoji = puppet.run(height)
        assert short < emoji < folded <= 256
        puppet.run("document.querySelector('.bubble button').click()")
        assert puppet.run(height)[0] > 256

    def test_joins_and_leaves_fold_into_one_line(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.gets(
            *[{"type": kind, "name": name} for kind, name in (("join", "Bob"), ("join", "Eve"), ("leave", "Bob"))]
        )
        assert puppet.all("summary") == ["2 joined, 1 left"]
        shown = [re.sub(r"^[\d: APM\u202f]+", "", line) for line in puppet.all("details li")]
        assert shown == ["Bob joined", "Eve joined", "Bob left"]
        assert not puppet.run("return document.querySelector('.log details').open")
        puppet.gets(message(1, "hello"), {"type": "join", "name": "Ann", "names": ["Ann", "Kim"], "count": 120})
        assert puppet.all("summary") == ["2 joined, 1 left", "120 joined"]
        assert puppet.all("details:last-child li")[0].endswith("Ann, Kim and 118 more joined")

    def test_unseen_messages_are_counted_in_the_title(self, puppet: Puppet) -> None:
        puppet.run("Object.defineProperty(document, 'hidden', {get: () => window.unseen})")
        puppet.open()
        puppet.gets(message(1, "seen"))
        assert puppet.title == "Common room \u00b7 Chat"
        puppet.run("window.unseen = true")
        puppet.gets(message(2, "a"), message(3, "b"))
        assert puppet.title == "(2) Common room \u00b7 Chat"
        puppet.run("window.unseen = false; document.dispatchEvent(new Event('visibilitychange'))")
        assert puppet.title == "Common room \u00b7 Chat"


class TestRooms:
    """Rooms on the page."""

    def test_the_address_names_the_room(self, server: Server, puppet: Puppet) -> None:
        puppet.run("location.hash = '#a%20b%3F'")
        await_that("the room has a connection", lambda: puppet.run("return sockets.length") == 2)
        host = f"ws://127.0.0.1:{server.port}"
        assert puppet.run("return sockets.map(s => s.address)") == [
            f"{host}/chat?after=0-0&name=Ann",
            f"{host}/chat/a%20b%3F?after=0-0&name=Ann",
        ]

    @pytest.mark.parametrize(
        ("room", "problem"),
        [
            ("a/b", "A room's name cannot contain a slash."),
            ("..", "A room's name cannot be dots alone."),
            ("", "Write the room's name first."),
        ],
    )
    def test_an_impossible_name_gets_the_reason(self, puppet: Puppet, room: str, problem: str) -> None:
        puppet.run("document.getElementById('room-name').focus()")
        puppet.press(*([room] if room else []), ENTER)
        assert puppet.get("room-problem", "innerText") == problem
        assert puppet.run("return sockets.length") == 1

    def test_a_room_can_be_left(self, puppet: Puppet) -> None:
        puppet.run("location.hash = '#lunch'")
        await_that("the room is open", lambda: puppet.get("title", "innerText") == "lunch")
        puppet.open()
        puppet.run("document.querySelector('#rooms li button').click()")
        assert puppet.get("title", "innerText") == "Common room"
        assert puppet.run("return sockets[1].abandoned")
        assert puppet.run("return JSON.parse(localStorage['chat.rooms'])") == [""]

    def test_a_room_gets_the_name_that_the_server_gives_it(self, puppet: Puppet) -> None:
        puppet.run("location.hash = '#\uff21'")
        await_that("the room is open", lambda: puppet.run("return sockets.length") == 2)
        puppet.open(room="A")
        assert puppet.get("title", "innerText") == "A"
        assert puppet.run("return location.hash") == "#A"

    def test_each_room_keeps_its_draft(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.press("half a mess")
        puppet.run("location.hash = '#b'")
        await_that("the room is open", lambda: puppet.get("title", "innerText") == "b")
        assert puppet.get("text", "value") == ""
        puppet.run("history.back()")
        await_that("the draft is back", lambda: puppet.get("text", "value") == "half a mess")
