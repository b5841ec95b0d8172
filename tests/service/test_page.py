"""The chat page: its source, and its conduct in headless Chromium against a service that comes and goes."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import pytest
from websockets.sync.client import connect

from ..support.browser import chromium
from ..support.patience import PATIENCE
from ..support.ports import free_port

LINES_KEPT = 500
WELCOME = "Welcome to the chat!"
ENTER, TAB, HOME = "\ue007", "\ue004", "\ue011"  # WebDriver's names of the keys
PAGE = files("twisted_beastws") / "service" / "page.html"


def wait_until(what: str, happened: Any, patience: float = PATIENCE) -> Any:
    """Poll `happened` until it is true and return that value; fail with `what` and the last value otherwise."""
    deadline = time.monotonic() + patience
    while not (value := happened()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {patience:g} s: {what} (last: {value!r})")
        time.sleep(0.02)
    return value


# The source


class Elements(HTMLParser):
    """Every start tag of a page, with its attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


class TestSource:
    source = PAGE.read_text(encoding="utf-8")
    elements = Elements(source).found

    def test_has_one_placeholder_and_it_is_an_attribute(self) -> None:
        assert self.source.count("{{") == self.source.count("}}") == 1
        assert [attrs["data-path"] for tag, attrs in self.elements if "data-path" in attrs] == ["{{path}}"]

    def test_can_live_under_a_policy_of_two_hashes(self) -> None:
        tags = [tag for tag, _ in self.elements]
        assert tags.count("script") == tags.count("style") == 1
        attributes = {name for _, attrs in self.elements for name in attrs}
        assert not {name for name in attributes if name == "style" or name.startswith("on")}

    def test_fetches_nothing(self) -> None:
        references = [
            value for _, attrs in self.elements for name, value in attrs.items() if name in {"src", "href", "srcset"}
        ]
        assert references and all(value and value.startswith("data:") for value in references)
        assert not re.search(r"@import|url\(|fetch\(|\bimport\b", self.source)

    def test_never_makes_markup_of_text(self) -> None:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", self.source)

    def test_is_small(self) -> None:
        assert len(PAGE.read_bytes()) < 12 * 1024


# The service and the browser


def server_command(port: int) -> list[str]:
    twistd = Path(sys.executable).with_name("twistd")
    return [str(twistd), "-n", "--pidfile=", "beastws", "--listen", f"tcp:{port}:interface=127.0.0.1"]


class Server:
    """The service as its own process, on a port that stays the same from start to start."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.was_away = False
        self.port = free_port()

    def start(self) -> None:
        output: IO[bytes]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                server_command(self.port), cwd=self.directory, stdout=output, stderr=subprocess.STDOUT
            )
        wait_until("the server answers", self._answers)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.was_away = True
        self.process.send_signal(by)
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"the server ended at once:\n{self.log.read_text()}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    service = Server(tmp_path_factory.mktemp("service"))
    try:
        yield service
    finally:
        if service.process is not None:
            service.stop()


@pytest.fixture
def server(service: Server) -> Iterator[Server]:
    """The service, running when the test begins; nothing that a browser does may upset it."""
    if service.process is None:
        service.start()
    service.was_away = False
    yield service
    log = service.log.read_text()
    assert "Traceback" not in log and "Unhandled" not in log, log


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium"), "THE PAGE IS") as driver:
        yield driver


class Tab:
    """One tab with the page in it; `before` is a script that runs in it before the page's own."""

    def __init__(self, driver: Any, port: int, *, before: str = "", until: str = "connected") -> None:
        self.driver = driver
        driver.switch_to.new_window("tab")
        self.handle = driver.current_window_handle
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": before})
        driver.get(f"http://127.0.0.1:{port}/")
        self.await_state(until)

    def to_front(self) -> None:
        if self.driver.current_window_handle != self.handle:
            self.driver.switch_to.window(self.handle)

    def run(self, script: str, *arguments: object) -> Any:
        self.to_front()
        return self.driver.execute_script(script, *arguments)

    def devtools(self, command: str, **parameters: object) -> Any:
        self.to_front()
        return self.driver.execute_cdp_cmd(command, parameters)

    def press(self, *keys: str) -> None:
        """Type to whatever has the focus."""
        from selenium.webdriver import ActionChains

        self.to_front()
        ActionChains(self.driver).send_keys(*keys).perform()

    def click(self, element: str) -> None:
        self.to_front()
        self.driver.find_element("id", element).click()

    def say(self, text: str) -> None:
        self.run("document.getElementById('text').value = arguments[0]", text)
        self.click("send")

    def get(self, element: str, name: str) -> Any:
        """A property of the element with that id."""
        return self.run("return document.getElementById(arguments[0])[arguments[1]]", element, name)

    @property
    def state(self) -> str:
        return str(self.run("return document.body.dataset.state"))

    @property
    def focused(self) -> str:
        return str(self.run("return document.activeElement.id"))

    def lines(self, kind: str = "message") -> list[str]:
        script = "return [...document.querySelectorAll(`#log .${arguments[0]} span`)].map(e => e.textContent)"
        return list(self.run(script, kind))

    def await_state(self, state: str) -> None:
        wait_until(f"the page is {state}", lambda: self.state == state)

    def await_line(self, text: str) -> None:
        wait_until(f"the page shows {text!r}", lambda: text in self.lines())


# Sockets that the test opens and closes in the server's stead, with any code; no timer of the page's fires.
PUPPETS = """
window.sockets = [];
window.WebSocket = class {
    static OPEN = 1;
    constructor(address) { this.address = address; this.readyState = 0; sockets.push(this); }
    open() { this.readyState = 1; this.onopen(new Event("open")); }
    lose(code, reason) { this.readyState = 3; this.onclose(new CloseEvent("close", {code, reason})); }
    close() { this.abandoned = true; }
};
window.timers = [];
window.setInterval = () => 0;
window.setTimeout = (call, delay) => timers.push({call, delay});
"""


class Puppet(Tab):
    """A page whose connections are the test's own."""

    def __init__(self, driver: Any, port: int) -> None:
        super().__init__(driver, port, before=PUPPETS, until="connecting")

    def open(self) -> None:
        self.run("sockets.at(-1).open()")

    def lose(self, code: int, reason: str = "") -> None:
        self.run("sockets.at(-1).lose(...arguments)", code, reason)


@pytest.fixture
def browser(driver: Any, server: Server) -> Iterator[Any]:
    """The driver. A test's tabs are closed behind it; only the server's absence may have left a line in the console."""
    first = driver.current_window_handle
    driver.get_log("browser")
    yield driver
    console = [entry["message"] for entry in driver.get_log("browser")]
    for handle in driver.window_handles:
        if handle != first:
            driver.switch_to.window(handle)
            driver.close()
    driver.switch_to.window(first)
    assert [line for line in console if not (server.was_away and "WebSocket connection to" in line)] == []


@pytest.fixture
def tab(browser: Any, server: Server) -> Tab:
    tab = Tab(browser, server.port)
    tab.await_line(WELCOME)
    return tab


@pytest.fixture
def puppet(browser: Any, server: Server) -> Puppet:
    return Puppet(browser, server.port)


# The page's conduct


class TestTalk:
    def test_two_tabs_read_each_other(self, browser: Any, server: Server, tab: Tab) -> None:
        other = Tab(browser, server.port)
        other.await_line(WELCOME)
        tab.say("from one")
        other.await_line("from one")
        other.say("from the other")
        tab.await_line("from the other")
        assert tab.lines() == other.lines() == [WELCOME, "from one", "from the other"]

    def test_markup_is_shown_not_obeyed(self, tab: Tab) -> None:
        text = "<b>bold</b> & <img src=x onerror=alert(1)> &amp;"
        tab.say(text)
        tab.await_line(text)
        assert text in tab.get("log", "innerText")
        assert tab.run("return document.querySelectorAll('#log b, #log img').length") == 0

    def test_text_of_any_script_arrives_whole(self, tab: Tab) -> None:
        text = "na\u00efve \u05e9\u05dc\u05d5\u05dd \u4f60\u597d \U0001f469\u200d\U0001f467 \u202eabc"
        tab.say(text)
        tab.await_line(text)

    def test_nothing_is_sent_of_an_empty_field(self, tab: Tab) -> None:
        tab.click("send")
        tab.say("after")
        tab.await_line("after")
        assert tab.lines() == [WELCOME, "after"]

    def test_keeps_the_last_lines_only(self, server: Server, tab: Tab) -> None:
        last = f"message {LINES_KEPT + 99}"
        with connect(f"ws://127.0.0.1:{server.port}/chat") as client:
            for number in range(LINES_KEPT + 100):
                client.send(f"message {number}")
                client.recv(PATIENCE)
            tab.await_line(last)
        assert tab.lines() == [f"message {number}" for number in range(100, LINES_KEPT + 100)]

    def test_fetches_nothing_beside_itself(self, tab: Tab) -> None:
        assert tab.run("return performance.getEntriesByType('resource').map(entry => entry.name)") == []

    def test_the_policy_lets_no_other_script_run(self, browser: Any, puppet: Puppet) -> None:
        injected = (
            "const e = document.createElement('script'); e.textContent = 'window.injected = 1'; document.body.append(e)"
        )
        puppet.run(injected)
        assert puppet.run("return window.injected") is None
        assert "Content Security Policy" in browser.get_log("browser")[0]["message"]

    def test_talks_to_the_path_it_was_given_on_its_own_host(self, server: Server, puppet: Puppet) -> None:
        assert puppet.run("return sockets.map(s => s.address)") == [f"ws://127.0.0.1:{server.port}/chat"]

    def test_counts_in_its_title_what_came_unseen(self, server: Server, puppet: Puppet) -> None:
        puppet.run("Object.defineProperty(document, 'hidden', {get: () => window.unseen})")
        puppet.open()
        puppet.run("sockets[0].onmessage({data: 'seen'})")
        assert puppet.run("return document.title") == "Chat"
        puppet.run("window.unseen = true; for (const data of 'ab') sockets[0].onmessage({data})")
        assert puppet.run("return document.title") == "(2) Chat"
        puppet.run("window.unseen = false; document.dispatchEvent(new Event('visibilitychange'))")
        assert puppet.run("return document.title") == "Chat"


class TestLoss:
    @pytest.mark.parametrize(
        ("by", "words"),
        [
            (signal.SIGTERM, "The server is going away (code 1001"),
            (signal.SIGKILL, "The connection was lost (code 1006"),
        ],
        ids=["terminated", "killed"],
    )
    def test_comes_back_when_the_server_does(self, server: Server, tab: Tab, by: signal.Signals, words: str) -> None:
        server.stop(by)
        tab.await_state("waiting")
        assert tab.get("status", "innerText").startswith(f"Disconnected. {words}")
        wait_until(
            "the countdown shows", lambda: re.fullmatch(r"Reconnecting in \d+ s", tab.get("countdown", "innerText"))
        )
        server.start()
        tab.await_state("connected")
        assert tab.get("status", "innerText") == "Connected"
        assert tab.get("countdown", "innerText") == ""
        wait_until("a second welcome", lambda: tab.lines() == [WELCOME, WELCOME])
        tab.say("here again")
        tab.await_line("here again")
        (note,) = tab.lines("note")
        assert note.startswith(words)
        assert re.search(r"\)\. Back after \d+ s; what was said meanwhile is missing\.$", note)

    def test_text_written_meanwhile_is_kept(self, server: Server, tab: Tab) -> None:
        server.stop()
        tab.await_state("waiting")
        assert tab.get("send", "ariaDisabled") == "true"
        tab.say("not yet")
        assert tab.get("text", "value") == "not yet"
        server.start()
        tab.await_state("connected")
        tab.click("send")
        tab.await_line("not yet")
        assert tab.get("text", "value") == ""

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
    def test_waits_longer_each_time_and_half_of_it_is_chance(
        self, puppet: Puppet, chance: float, seconds: list[int]
    ) -> None:
        puppet.run(f"Math.random = () => {chance}")
        shown = []
        for _ in seconds:
            puppet.lose(1006)
            shown.append(int(puppet.get("countdown", "innerText").split()[2]))
            puppet.click("retry")
        assert shown == seconds

    def test_only_a_connection_that_lasted_starts_the_backoff_anew(self, puppet: Puppet) -> None:
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

    def test_gives_up_an_attempt_that_gets_no_answer(self, puppet: Puppet) -> None:
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
            (4000, "", "waiting", "Disconnected. The server closed (code 4000)."),
        ],
    )
    def test_says_why_and_asks_again_where_that_may_help(
        self, puppet: Puppet, code: int, reason: str, state: str, words: str
    ) -> None:
        puppet.open()
        puppet.lose(code, reason)
        assert puppet.state == state
        assert puppet.get("status", "innerText") == words
        assert bool(puppet.get("countdown", "innerText")) == (state == "waiting")
        puppet.click("retry")
        assert puppet.run("return sockets.length") == 2

    def test_a_failed_attempt_keeps_the_first_cause(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.lose(1012)
        puppet.click("retry")
        puppet.lose(1006)
        assert puppet.get("status", "innerText") == "Disconnected. The server is restarting (code 1012)."

    def test_a_server_that_never_answered_was_not_lost(self, puppet: Puppet) -> None:
        puppet.lose(1006)
        assert puppet.get("status", "innerText") == "Disconnected. The server cannot be reached (code 1006)."
        puppet.click("retry")
        puppet.open()
        assert puppet.lines("note") == []


class TestKeyboard:
    def test_enter_sends_and_the_focus_stays(self, tab: Tab) -> None:
        assert tab.focused == "text"
        for text in ("one", "two"):
            tab.press(text, ENTER)
            tab.await_line(text)
            assert tab.focused == "text"
            assert tab.get("text", "value") == ""

    def test_tab_goes_through_everything_in_order(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.lose(1001)
        puppet.run("document.getElementById('retry').focus()")
        order = [puppet.focused]
        for _ in range(3):
            puppet.press(TAB)
            order.append(puppet.focused)
        assert order == ["retry", "log", "text", "send"]
        assert puppet.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"

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

    def test_the_log_scrolls_by_keyboard(self, puppet: Puppet) -> None:
        puppet.open()
        fill(puppet, 100)
        wait_until("the log is at its end", lambda: from_end(puppet) < 1)
        puppet.run("document.getElementById('log').focus()")
        puppet.press(HOME)
        wait_until("the log is at its top", lambda: puppet.get("log", "scrollTop") == 0)


def fill(puppet: Puppet, lines: int) -> None:
    puppet.run("for (let i = 0; i < arguments[0]; i++) sockets.at(-1).onmessage({data: `line ${i}`})", lines)


def from_end(tab: Tab) -> float:
    return float(tab.get("log", "scrollHeight") - tab.get("log", "scrollTop") - tab.get("log", "clientHeight"))


class TestScrolling:
    def test_follows_a_reader_who_is_at_the_end(self, puppet: Puppet) -> None:
        puppet.open()
        for _ in range(5):
            fill(puppet, 30)
            wait_until("the log is at its end", lambda: from_end(puppet) < 1)
        assert puppet.get("newer", "hidden")

    def test_leaves_a_reader_where_they_are(self, puppet: Puppet) -> None:
        puppet.open()
        fill(puppet, 100)
        wait_until("the log is at its end", lambda: from_end(puppet) < 1)
        puppet.run("document.getElementById('log').scrollTop = 200")
        fill(puppet, 10)
        wait_until("the page tells of news", lambda: not puppet.get("newer", "hidden"))
        assert puppet.get("log", "scrollTop") == 200
        puppet.click("newer")
        assert from_end(puppet) < 1
        assert puppet.get("newer", "hidden")
        assert puppet.focused == "text"

    def test_stays_at_the_end_when_the_window_shrinks(self, puppet: Puppet) -> None:
        puppet.open()
        fill(puppet, 100)
        wait_until("the log is at its end", lambda: from_end(puppet) < 1)
        before = puppet.get("log", "clientHeight")
        as_phone(puppet, height=300)
        wait_until("the log is smaller", lambda: puppet.get("log", "clientHeight") < before)
        wait_until("the log is at its end", lambda: from_end(puppet) < 1)


def as_phone(tab: Tab, width: int = 360, height: int = 640) -> None:
    tab.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=True)


def emulate(tab: Tab, feature: str, value: str) -> None:
    tab.devtools("Emulation.setEmulatedMedia", features=[{"name": feature, "value": value}])


def contrast(tab: Tab, element: str) -> float:
    """The ratio of WCAG 2 between an element's text and the nearest opaque background."""
    colours = tab.run(
        """
        let at = document.getElementById(arguments[0]);
        const text = getComputedStyle(at).color;
        while (getComputedStyle(at).backgroundColor === "rgba(0, 0, 0, 0)") at = at.parentElement;
        return [text, getComputedStyle(at).backgroundColor];
        """,
        element,
    )
    lights = []
    for colour in colours:
        channels = [int(channel) / 255 for channel in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


class TestLook:
    @pytest.mark.parametrize("width", [320, 360])
    def test_a_phone_needs_no_sideways_scrolling(self, puppet: Puppet, width: int) -> None:
        as_phone(puppet, width)
        puppet.open()
        puppet.run("sockets[0].onmessage({data: 'endless'.repeat(100)})")
        puppet.lose(1008, "r" * 120)
        assert puppet.run("return innerWidth") == width
        assert puppet.run("return document.documentElement.scrollWidth") == width
        assert puppet.get("log", "scrollWidth") == puppet.get("log", "clientWidth")
        assert puppet.run("return document.documentElement.scrollHeight <= innerHeight")

    def test_a_thumb_finds_the_controls(self, puppet: Puppet) -> None:
        as_phone(puppet)
        puppet.lose(1006)
        for element in ("retry", "text", "send"):
            assert puppet.get(element, "offsetHeight") >= 36
        size = puppet.run("return parseFloat(getComputedStyle(document.getElementById('text')).fontSize)")
        assert size >= 16, "iOS zooms into a smaller field"

    def test_dark_mode_is_dark(self, puppet: Puppet) -> None:
        backgrounds = []
        for scheme in ("light", "dark"):
            emulate(puppet, "prefers-color-scheme", scheme)
            backgrounds.append(puppet.run("return getComputedStyle(document.documentElement).backgroundColor"))
        light, dark = ([int(channel) for channel in re.findall(r"\d+", colour)] for colour in backgrounds)
        assert min(light) > 200 and max(dark) < 60

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_has_contrast(self, puppet: Puppet, scheme: str) -> None:
        emulate(puppet, "prefers-color-scheme", scheme)
        puppet.lose(1006)
        for element in ("status", "countdown", "retry", "log", "text", "newer"):
            assert contrast(puppet, element) >= 4.5, element

    def test_nothing_moves_for_who_wants_no_motion(self, puppet: Puppet) -> None:
        moving = "return document.getAnimations().length"
        assert puppet.run(moving) == 1
        emulate(puppet, "prefers-reduced-motion", "reduce")
        assert puppet.run(moving) == 0


class TestAccessibility:
    def test_roles_and_names(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.lose(1001)
        nodes = puppet.devtools("Accessibility.getFullAXTree")["nodes"]
        found = {(node["role"]["value"], node["name"]["value"]) for node in nodes if "name" in node}
        assert {
            ("log", "Messages"),
            ("textbox", "Message"),
            ("button", "Send"),
            ("button", "Reconnect now"),
            ("heading", "Chat"),
            ("RootWebArea", "Chat"),
        } <= found
        assert "status" in {role for role, _ in found}

    def test_news_and_states_are_read_out_but_the_countdown_is_not(self, puppet: Puppet) -> None:
        puppet.open()
        puppet.lose(1001)
        assert puppet.get("log", "role") == "log" and puppet.get("log", "ariaLive") == "polite"
        nodes = puppet.devtools("Accessibility.getFullAXTree")["nodes"]
        read = " ".join(str(node["name"].get("value")) for node in nodes if not node["ignored"] and "name" in node)
        assert "Disconnected. The server is going away" in read
        assert "Reconnecting in" not in read
