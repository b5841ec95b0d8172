"""The chat page with messages that are not sent yet, lost connections and refusals."""

from __future__ import annotations

import json
import re
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ..support.redis_server import redis_running
from ..support.waiting import await_that
from .page_tabs import ENTER, MAX_MESSAGE, Puppet, Server, Tab, message


class TestSending:
    """Messages that the server has not confirmed yet."""

    def test_a_message_is_pending_until_the_server_answers(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.say("hello")
        (sent,) = puppet.sent()
        assert (sent["text"], len(sent["ref"])) == ("hello", 32)
        assert puppet.all(".pending .said") == ["hello"] and puppet.all(".fate") == ["Sending\u2026"]
        puppet.gets(message(1, "hello", "Ann"), {"type": "sent", "id": "1700000000001-0", "ref": sent["ref"]})
        assert puppet.all(".pending .said") == [] and puppet.all(".mine .said") == puppet.lines() == ["hello"]
        assert puppet.all(".mine .when")[0].endswith("\u2713 sent")

    def test_a_message_of_a_namesake_is_not_ours(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.gets(message(1, "hello", "Ann"))
        assert puppet.all(".mine .said") == []

    @pytest.mark.parametrize(
        ("taken", "words"),
        [("no", "Not sent: away."), ("unknown", "Perhaps not sent: away."), ("here", "Sent to a part of the members")],
    )
    def test_a_message_that_was_not_accepted_can_be_sent_again_with_its_ref(
        self, puppet: Puppet, taken: str, words: str
    ) -> None:
        puppet.open()
        puppet.say("hello")
        ref = puppet.sent()[0]["ref"]
        puppet.gets({"type": "error", "reason": "away", "taken": taken, "ref": ref})
        assert puppet.all(".failed .fate span")[0].startswith(words)
        puppet.run("document.querySelector('.fate button').click()")
        assert [each["ref"] for each in puppet.sent()] == [ref, ref]
        puppet.gets({"type": "error", "reason": "away", "taken": taken, "ref": ref})
        puppet.run("document.querySelectorAll('.fate button')[1].click()")
        assert puppet.all(".outbox .said") == []

    def test_messages_without_an_answer_are_sent_again_after_a_loss(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.say("one")
        puppet.lose(1006)
        puppet.say("two")
        assert puppet.all(".fate")[1] == "Waiting for the connection\u2026"
        first = puppet.run("return sockets[0].sent.filter(each => each.type === 'message')")
        puppet.click("retry")
        puppet.open()
        again = puppet.sent()
        assert [each["text"] for each in again] == ["one", "two"]
        assert again[0]["ref"] == first[0]["ref"]

    def test_a_message_older_than_the_server_recognizes_is_not_sent_by_itself(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.say("one")
        puppet.lose(1006)
        puppet.run("const now = Date.now; Date.now = () => now() + 270001")
        puppet.click("retry")
        puppet.open()
        assert puppet.sent() == []
        assert puppet.all(".failed .fate span") == ["Perhaps not sent."]

    def test_a_server_without_history_still_marks_own_messages(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.say("hello")
        ref = puppet.sent()[0]["ref"]
        puppet.gets({"type": "message", "name": "Ann", "text": "hello"}, {"type": "sent", "ref": ref})
        assert puppet.all(".mine .said") == ["hello"] and puppet.all(".outbox .said") == []

    def test_a_message_above_the_size_limit_is_refused_in_words(self, puppet: Puppet) -> None:
        puppet.open()
        around = len(json.dumps({"type": "message", "text": "", "ref": "0" * 32}, separators=(",", ":")))
        puppet.say("\u00e9" * ((MAX_MESSAGE - around) // 2 + 1))
        assert re.fullmatch(
            r"The message has 2,00[12] bytes, and the server accepts 2,000: shorten it\.",
            puppet.get("problem", "innerText"),
        )
        assert puppet.sent() == []
        puppet.say("\u00e9" * ((MAX_MESSAGE - around) // 2))
        assert len(puppet.sent()) == 1 and puppet.get("problem", "hidden")

    def test_a_size_that_the_server_refuses_fails_the_longest_message(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.say("short")
        puppet.say("long " * 10)
        puppet.lose(1009)
        assert puppet.all(".failed .fate span") == ["Not sent: it is too long for the server."]
        assert puppet.all(".pending .said") == ["short"]

    def test_a_rate_that_the_server_refuses_fails_the_messages(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.say("hello")
        puppet.lose(1008, "more than 100 messages a second")
        assert puppet.state == "closed"
        assert puppet.all(".failed .fate span") == ["Perhaps not sent: more than 100 messages a second."]


class TestLoss:
    """The page loses its connection."""

    @pytest.mark.parametrize(
        ("by", "words"),
        [
            (signal.SIGTERM, "The server is going away (code 1001"),
            (signal.SIGKILL, "The connection was lost (code 1006"),
        ],
        ids=["terminated", "killed"],
    )
    def test_the_page_reconnects_when_the_server_is_back(
        self, server: Server, tab: Tab, by: signal.Signals, words: str
    ) -> None:
        tab.say("before")
        tab.await_line("before")
        server.stop(by)
        tab.await_state("waiting")
        assert tab.status.startswith(f"Disconnected. {words}")
        meanwhile = f"while it was {by.name}"
        tab.say(meanwhile)
        server.start()
        tab.await_line(meanwhile)
        assert (tab.state, tab.status, tab.get("countdown", "innerText")) == ("connected", "Connected", "")
        note, gap = tab.all(".note")
        assert note.startswith(words)
        assert re.search(r"\)\. Connected again after \d+ s\.$", note)
        assert gap == "Messages of that time may be missing here: the server has not kept them all."
        assert tab.lines()[-2:] == ["before", meanwhile]

    def test_the_history_fills_the_gap(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.gets(message(1, "before"))
        puppet.lose(1006)
        puppet.click("retry")
        assert "after=1700000000001-0" in puppet.run("return sockets[1].address")
        puppet.gets({"type": "welcome", "room": "", "name": "Ann"}, message(2, "missed"))
        puppet.gets({"type": "history", "complete": True})
        assert puppet.all(".lines .said, .note")[::2] == ["before", "missed"]
        assert puppet.all(".note")[0].endswith("Nothing is missing.")

    def test_a_notice_stands_where_messages_may_be_missing(self, puppet: Puppet) -> None:
        puppet.gets({"type": "welcome", "room": "", "name": "Ann"}, message(1, "first kept"))
        puppet.gets({"type": "history", "complete": False})
        puppet.gets(message(2, "second"), {"type": "history", "complete": False}, message(3, "third"))
        assert puppet.all(".gap, .lines .said") == [
            "There may be earlier messages, which the server no longer keeps.",
            "first kept",
            "second",
            "Messages may be missing here.",
            "third",
        ]

    def test_the_button_reconnects_at_once(self, puppet: Puppet) -> None:
        puppet.open()
        assert puppet.get("retry", "hidden")
        puppet.lose(1001)
        assert puppet.state == "waiting"
        puppet.click("retry")
        puppet.click("retry")
        assert puppet.run("return sockets.length") == 2, "one attempt at a time"
        assert puppet.get("countdown", "innerText") == "Connecting\u2026"
        puppet.open()
        assert puppet.state == "connected"
        assert puppet.get("retry", "hidden")

    @pytest.mark.parametrize("event", ["window, 'online'", "document, 'visibilitychange'"])
    def test_a_network_or_a_reader_that_is_back_ends_the_wait(self, puppet: Puppet, event: str) -> None:
        tell = f"const tell = (target, type) => target.dispatchEvent(new Event(type)); tell({event})"
        puppet.open()
        puppet.run(tell)
        assert puppet.run("return sockets.length") == 1
        puppet.lose(1006)
        assert puppet.run("return sockets.length") == 1
        puppet.run(tell)
        assert puppet.run("return sockets.length") == 2

    @pytest.mark.parametrize(("chance", "seconds"), [(0.0, [1, 2, 4, 8, 15, 15]), (0.999, [2, 4, 8, 16, 30, 30])])
    def test_the_page_waits_longer_each_time_with_random_delays(
        self, puppet: Puppet, chance: float, seconds: list[int]
    ) -> None:
        puppet.run(f"Math.random = () => {chance}")
        shown = []
        for _ in seconds:
            puppet.lose(1006)
            shown.append(int(puppet.get("countdown", "innerText").split()[2]))
            puppet.click("retry")
        assert shown == seconds

    def test_only_a_connection_that_lasted_resets_the_delays(self, puppet: Puppet) -> None:
        puppet.run("Math.random = () => 0")
        puppet.run("const now = Date.now; window.ahead = 0; Date.now = () => now() + ahead")
        shown = []
        for lasted in (9000, 9000, 11000):
            puppet.open()
            puppet.run("window.ahead += arguments[0]", lasted)
            puppet.lose(1001)
            shown.append(puppet.get("countdown", "innerText"))
            puppet.click("retry")
        assert shown == ["Reconnecting in 1 s", "Reconnecting in 2 s", "Reconnecting in 1 s"]

    def test_the_page_ends_an_attempt_without_answer(self, puppet: Puppet) -> None:
        assert puppet.run("return timers.map(timer => timer.delay)") == [10000]
        puppet.run("timers[0].call()")
        assert puppet.run("return sockets[0].abandoned")

    @pytest.mark.parametrize(
        ("code", "reason", "state", "words"),
        [
            (1000, "", "closed", "Closed. The server ended the chat (code 1000)."),
            (1008, "<i>no</i>", "closed", "Closed. The server does not allow this (code 1008: <i>no</i>)."),
            (1009, "", "waiting", "Disconnected. The message was too long for the server (code 1009)."),
            (1012, "new version", "waiting", "Disconnected. The server is restarting (code 1012: new version)."),
            (4000, "", "waiting", "Disconnected. The server closed the connection (code 4000)."),
        ],
    )
    def test_the_page_shows_the_reason_and_reconnects_if_that_may_help(
        self, puppet: Puppet, code: int, reason: str, state: str, words: str
    ) -> None:
        puppet.open()
        puppet.lose(code, reason)
        assert puppet.state == state
        assert puppet.status == words
        assert bool(puppet.get("countdown", "innerText")) == (state == "waiting")
        puppet.click("retry")
        assert puppet.run("return sockets.length") == 2

    def test_a_failed_attempt_keeps_the_first_cause(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.lose(1012)
        puppet.click("retry")
        puppet.lose(1006)
        assert puppet.status == "Disconnected. The server is restarting (code 1012)."

    def test_a_server_that_never_answered_is_not_shown_as_lost(self, puppet: Puppet) -> None:
        puppet.lose(1006)
        assert puppet.status == "Disconnected. The server cannot be reached."
        puppet.click("retry")
        puppet.open()
        assert puppet.all(".note") == []


class TestRefusal:
    """The server refuses the page."""

    @pytest.mark.parametrize(
        ("status", "body", "state", "words"),
        [
            (401, "", "closed", "The server does not accept your login. Reload the page to log in again."),
            (403, "not you", "closed", "The server refuses the connection: not you"),
            (404, "", "closed", "There cannot be a room with this name."),
            (426, "", "waiting", "Disconnected. The server answers, but refuses the connection."),
            (503, "", "waiting", "The server is too busy."),
        ],
    )
    def test_the_reason_is_shown(self, puppet: Puppet, status: int, body: str, state: str, words: str) -> None:
        puppet.refuse(status, body)
        assert (puppet.state, puppet.status) == (state, words)
        assert puppet.run("return window.asked") == puppet.run("return sockets[0].address").replace("ws:", "http:")

    def test_the_page_waits_as_long_as_the_server_asks(self, puppet: Puppet) -> None:
        puppet.refuse(429, headers={"Retry-After": "77"})
        assert puppet.status == "Too many connections from your network: the server asks you to wait."
        assert puppet.get("countdown", "innerText") == "Reconnecting in 77 s"

    def test_a_user_whose_first_name_is_refused_stays_a_reader(self, nameless: Puppet) -> None:
        nameless.open()
        nameless.run("document.getElementById('name').focus()")
        nameless.press("x", ENTER)
        nameless.refuse(400, "the name must be longer")
        assert nameless.get("name-problem", "innerText") == (
            "The server does not accept this name: the name must be longer."
        )
        assert "name=" not in nameless.run("return sockets.at(-1).address")
        assert nameless.focused == "name"

    def test_a_login_that_a_restart_ended_is_not_tried_without_end(
        self, browser: Any, tmp_path: Path, server: Server
    ) -> None:
        passwords = tmp_path / "passwords"
        passwords.write_text("ann:secret\n")
        guarded = Server(tmp_path, f"--auth=file:{passwords}")
        guarded.start()
        with ExitStack() as stack:
            stack.callback(guarded.stop)
            server.was_away = True
            tab = Tab(browser, guarded.port, name=None, login="ann:secret")
            assert tab.get("me", "innerText").split() == ["Logged", "in", "as", "ann"]
            tab.say("mine")
            tab.await_line("mine")
            guarded.stop()
            passwords.write_text("ann:changed\n")
            guarded.start()
            tab.reconnect("closed")
            assert tab.status == "The server does not accept your login. Reload the page to log in again."
            assert tab.get("retry", "innerText") == "Reload the page"


class TestTokens:
    """The page on a service with tokens."""

    CHALLENGE: ClassVar = {"WWW-Authenticate": 'Bearer realm="twisted_beastws"'}

    def test_the_page_asks_for_a_token_and_sends_it_as_a_subprotocol(self, nameless: Puppet) -> None:
        nameless.refuse(401, "there is no token", self.CHALLENGE)
        assert nameless.status == "The server asks for an access token."
        assert (nameless.get("grant", "hidden"), nameless.get("introduce", "hidden")) == (False, True)
        nameless.run("document.getElementById('token').focus()")
        nameless.press("a token", ENTER)
        assert nameless.get("token-problem", "innerText") == "This is no access token: it has other characters."
        nameless.run("document.getElementById('token').value = ''")
        nameless.press("aaa.bbb-_.ccc", ENTER)
        assert nameless.run("return sockets.at(-1).subprotocols") == ["chat.v1+json", "access_token", "aaa.bbb-_.ccc"]
        nameless.open(name="ann", user="ann", write=False)
        assert nameless.get("grant", "hidden") and nameless.get("say", "hidden")
        assert not nameless.get("read-only", "hidden")
        assert nameless.run("return localStorage['chat.token'] ?? null") is None, "a token is for this tab alone"

    def test_the_page_says_that_the_token_is_wrong_or_expired(self, nameless: Puppet) -> None:
        nameless.refuse(401, "there is no token", self.CHALLENGE)
        nameless.run("document.getElementById('token').focus()")
        nameless.press("aaa.bbb.ccc", ENTER)
        nameless.refuse(401, "the signature is wrong", self.CHALLENGE)
        assert nameless.get("token-problem", "innerText") == (
            "The server does not accept this token: the signature is wrong."
        )
        nameless.press("aaa.bbb.ddd", ENTER)
        nameless.open(name="ann", user="ann")
        nameless.lose(4401, "the token has expired")
        assert nameless.state == "closed" and not nameless.get("grant", "hidden")
        assert nameless.get("token-problem", "innerText") == ("The server ended the connection: the token has expired.")


class TestWorkers:
    """The page on a service with several workers."""

    def test_two_workers_are_one_chat_and_keep_it_over_a_restart(
        self, browser: Any, tmp_path: Path, server: Server
    ) -> None:
        with redis_running(tmp_path) as redis, ExitStack() as stack:
            workers = Server(tmp_path, "--workers=2", f"--backplane={redis.url}")
            workers.start()
            stack.callback(workers.stop)
            server.was_away = True
            ann, bob = Tab(browser, workers.port, room="w"), Tab(browser, workers.port, name="Bob", room="w")
            await_that("both are listed", lambda: ann.members == ["Ann (you)", "Bob"])
            for tab, text in ((ann, "from Ann"), (bob, "from Bob")):
                tab.say(text)
                ann.await_line(text)
                bob.await_line(text)
            workers.stop()
            ann.await_state("waiting")
            ann.say("meanwhile")
            workers.start()
            ann.reconnect()
            bob.reconnect()
            bob.await_line("meanwhile")
            assert bob.lines() == ann.lines() == ["from Ann", "from Bob", "meanwhile"]
            assert bob.all(".note")[0].endswith("Nothing is missing.")
