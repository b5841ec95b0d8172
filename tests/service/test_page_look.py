"""The chat page for the keyboard, the eye, the phone and the screen reader."""

from __future__ import annotations

import re

import pytest

from ..support.waiting import await_that
from .page_tabs import ENTER, ESCAPE, HOME, SHIFT, TAB, Puppet, Tab, as_phone, emulate, fill, from_end, message, of_log

# The text, and the ratio of WCAG 2 between it and the nearest opaque background, of all visible text below 4.5.
LOW_CONTRAST = """
const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const low = [];
window.looked = 0;
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
    const words = texts.currentNode.data.trim();
    let at = texts.currentNode.parentElement;
    if (!words || !at.checkVisibility() || at.closest("script, .unseen")) continue;
    looked++;
    const text = getComputedStyle(at).color;
    while (getComputedStyle(at).backgroundColor === "rgba(0, 0, 0, 0)") at = at.parentElement;
    const [a, b] = [light(text), light(getComputedStyle(at).backgroundColor)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push([words, ratio]);
}
return low;
"""


class TestKeyboard:
    """The page with the keyboard alone."""

    def test_enter_sends_and_the_focus_stays(self, tab: Tab) -> None:
        assert tab.focused == "text"
        for text in ("one", "two"):
            tab.press(text, ENTER)
            tab.await_line(text)
            assert tab.focused == "text"
            assert tab.get("text", "value") == ""

    def test_shift_enter_begins_a_new_line(self, puppet: Puppet) -> None:
        from selenium.webdriver import ActionChains

        puppet.open()
        puppet.press("one")
        ActionChains(puppet.driver).key_down(SHIFT).send_keys(ENTER).key_up(SHIFT).perform()
        puppet.press("two", ENTER)
        assert [each["text"] for each in puppet.sent()] == ["one\ntwo"]

    def test_tab_goes_through_everything_in_order(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.lose(1001)
        puppet.run("document.getElementById('retry').focus()")
        order = []
        for _ in range(8):
            puppet.press(TAB)
            order.append(
                puppet.run("const {id, className, tagName} = document.activeElement; return id || className || tagName")
            )
            assert puppet.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid", order
        assert order == ["share", "A", "room-name", "quiet", "rename", "log", "text", "send"]

    def test_the_send_button_by_keyboard_gives_the_focus_back(self, tab: Tab) -> None:
        tab.press("three", TAB, " ")
        tab.await_line("three")
        assert tab.focused == "text"

    def test_reconnecting_by_keyboard_leads_back_to_the_field(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.lose(1001)
        puppet.run("document.getElementById('retry').focus()")
        puppet.press(ENTER)
        assert puppet.focused == "retry"
        puppet.open()
        assert puppet.focused == "text"

    def test_escape_closes_a_panel_and_the_focus_goes_back(self, puppet: Puppet) -> None:
        as_phone(puppet)
        puppet.open()
        for panel in ("rooms", "members"):
            puppet.click(f"show-{panel}")
            assert puppet.run("return getComputedStyle(document.getElementById(arguments[0])).display", panel) == "flex"
            assert puppet.get("main", "inert") and puppet.get(f"show-{panel}", "ariaExpanded") == "true"
            assert puppet.run("return document.activeElement.textContent") == "Close"
            puppet.press(ESCAPE)
            assert puppet.run("return getComputedStyle(document.getElementById(arguments[0])).display", panel) == "none"
            assert (puppet.focused, puppet.get("main", "inert")) == (f"show-{panel}", False)

    def test_the_log_scrolls_by_keyboard(self, puppet: Puppet) -> None:
        puppet.open()
        fill(puppet, 100)
        await_that("the log is at its end", lambda: from_end(puppet) < 1)
        puppet.run("document.querySelector('.log').focus()")
        puppet.press(HOME)
        await_that("the log is at its top", lambda: of_log(puppet, "scrollTop") == 0)


class TestScrolling:
    """The scrolling of the log."""

    def test_the_page_scrolls_for_a_reader_at_the_end(self, puppet: Puppet) -> None:
        puppet.open()
        for _ in range(3):
            fill(puppet, 30)
            await_that("the log is at its end", lambda: from_end(puppet) < 1)
        assert puppet.get("newer", "hidden")

    def test_the_page_does_not_scroll_for_other_readers(self, puppet: Puppet) -> None:
        puppet.open()
        fill(puppet, 100)
        await_that("the log is at its end", lambda: from_end(puppet) < 1)
        puppet.run("document.querySelector('.log').scrollTop = 200")
        fill(puppet, 10)
        await_that("the page offers the new messages", lambda: not puppet.get("newer", "hidden"))
        assert of_log(puppet, "scrollTop") == 200
        puppet.click("newer")
        assert from_end(puppet) < 1
        assert puppet.get("newer", "hidden")
        assert puppet.focused == "text"

    def test_the_page_stays_at_the_end_when_the_window_shrinks(self, puppet: Puppet) -> None:
        puppet.open()
        fill(puppet, 100)
        await_that("the log is at its end", lambda: from_end(puppet) < 1)
        before = of_log(puppet, "clientHeight")
        as_phone(puppet, height=400)
        await_that("the log is smaller", lambda: of_log(puppet, "clientHeight") < before)
        await_that("the log is at its end", lambda: from_end(puppet) < 1)


class TestLook:
    """The page on phones, in dark mode and without motion."""

    @pytest.mark.parametrize("width", [320, 360])
    def test_a_phone_needs_no_sideways_scrolling(self, puppet: Puppet, width: int) -> None:
        as_phone(puppet, width)
        puppet.open()
        puppet.gets(message(1, "endless" * 100), message(2, "x", "n" * 32), {"type": "join", "name": "m" * 32})
        puppet.say("mine" * 100)
        puppet.lose(1008, "r" * 120)
        assert puppet.run("return innerWidth") == width
        assert puppet.run("return document.documentElement.scrollWidth") == width
        assert of_log(puppet, "scrollWidth") == of_log(puppet, "clientWidth")
        assert puppet.run("return document.documentElement.scrollHeight <= innerHeight")

    def test_the_controls_are_large_enough_for_a_thumb(self, puppet: Puppet) -> None:
        as_phone(puppet)
        puppet.lose(1006)
        for element in ("retry", "text", "send", "share", "show-rooms", "show-members"):
            assert puppet.get(element, "offsetHeight") >= 36
        size = puppet.run("return parseFloat(getComputedStyle(document.getElementById('text')).fontSize)")
        assert size >= 16, "iOS zooms into a smaller field"

    def test_dark_mode_is_dark_and_text_has_contrast_in_both(self, puppet: Puppet) -> None:
        puppet.run("location.hash = '#lunch'")
        await_that("the room is open", lambda: puppet.get("title", "innerText") == "lunch")
        puppet.open()
        names = ["Ann", *(chr(ord("A") + number) for number in range(12))]
        puppet.gets({"type": "here", "names": names, "count": 20})
        puppet.gets(*[message(number, "see https://example.com", name) for number, name in enumerate(names)])
        puppet.gets({"type": "join", "name": "Bob"}, {"type": "history", "complete": False})
        for text in ("sent", "failed", "pending"):
            puppet.say(text)
        sent, failed, _ = puppet.sent()
        puppet.gets(message(90, "sent", "Ann"), {"type": "sent", "id": "1700000000090-0", "ref": sent["ref"]})
        puppet.gets({"type": "error", "reason": "away", "taken": "no", "ref": failed["ref"]})
        puppet.run("sockets[0].open(); sockets[0].get({type: 'message', id: '1-1', name: 'B', text: 'unread'})")
        puppet.lose(1006)
        puppet.click("rename")
        puppet.run(
            "for (const id of ['problem', 'name-problem', 'room-problem', 'newer', 'say']) {"
            " const e = document.getElementById(id); e.hidden = false; e.textContent ||= id; }"
        )
        backgrounds = []
        for scheme in ("light", "dark"):
            emulate(puppet, "prefers-color-scheme", scheme)
            backgrounds.append(puppet.run("return getComputedStyle(document.documentElement).backgroundColor"))
            assert puppet.run(LOW_CONTRAST) == [], scheme
            assert puppet.run("return looked") > 80
        light, dark = ([int(channel) for channel in re.findall(r"\d+", colour)] for colour in backgrounds)
        assert min(light) > 200 and max(dark) < 60

    def test_no_animation_runs_if_the_user_prefers_reduced_motion(self, puppet: Puppet) -> None:
        moving = "return document.getAnimations().length"
        assert puppet.run(moving) == 1
        emulate(puppet, "prefers-reduced-motion", "reduce")
        assert puppet.run(moving) == 0


class TestAccessibility:
    """The page for screen readers."""

    def test_the_controls_have_roles_and_names(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.gets({"type": "here", "names": ["Ann"], "count": 1})
        puppet.lose(1001)
        nodes = puppet.devtools("Accessibility.getFullAXTree")["nodes"]
        found = {(node["role"]["value"], node["name"]["value"]) for node in nodes if "name" in node}
        assert {
            ("log", "Messages in Common room"),
            ("textbox", "Message"),
            ("button", "Send"),
            ("button", "Reconnect now"),
            ("button", "Copy link"),
            ("heading", "Common room"),
            ("heading", "Rooms"),
            ("heading", "Members (1)"),
            ("navigation", "Rooms"),
            ("complementary", "Members"),
            ("link", "Common room , not connected"),
            ("textbox", "Open or create a room"),
            ("RootWebArea", "Common room \u00b7 Chat"),
        } <= found
        assert "status" in {role for role, _ in found}

    def test_news_and_states_are_read_out_but_not_the_countdown_or_the_history(self, puppet: Puppet) -> None:
        puppet.gets({"type": "welcome", "room": "", "name": "Ann"}, message(1, "old"))
        busy = "return document.querySelector('.log').ariaBusy"
        assert puppet.run(busy) == "true"
        puppet.gets({"type": "history", "complete": True})
        assert puppet.run(busy) == "false"
        assert puppet.run("const log = document.querySelector('.log'); return [log.role, log.ariaLive]") == [
            "log",
            "polite",
        ]
        puppet.lose(1001)
        nodes = puppet.devtools("Accessibility.getFullAXTree")["nodes"]
        read = " ".join(str(node["name"].get("value")) for node in nodes if not node["ignored"] and "name" in node)
        assert "Disconnected. The server is going away" in read
        assert "Reconnecting in" not in read
