"""The service as a process, and tabs of a browser with its page."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import pytest

from ..support.patience import PATIENCE
from ..support.ports import free_port
from ..support.waiting import await_that

MAX_MESSAGE = 2000
ENTER, TAB, HOME, ESCAPE, SHIFT = "\ue007", "\ue004", "\ue011", "\ue00c", "\ue008"  # WebDriver's names of the keys
PAGE = files("twisted_beastws") / "service" / "page.html"


class Server:
    """The service as its own process, on a port that stays the same from start to start."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.arguments = arguments
        self.log = directory / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.was_away = False
        self.port = free_port()

    def start(self) -> None:
        output: IO[bytes]
        twistd = str(Path(sys.executable).with_name("twistd"))
        listen = f"--listen=tcp:{self.port}:interface=127.0.0.1"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [twistd, "-n", "--pidfile=", "beastws", listen, *self.arguments],
                cwd=self.directory,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        await_that("the server answers", self._answers)

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        if self.process is None:
            return
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


class Tab:
    """One tab with the page in it.

    Args:
        name: the user's name; None leaves it to the page to ask.
        room: the room in the address.
        before: a script that runs before the page's own.
        until: the state to wait for.
        login: ``user:password`` in the address.
    """

    def __init__(
        self,
        driver: Any,
        port: int,
        *,
        name: str | None = "Ann",
        room: str = "",
        before: str = "",
        until: str = "connected",
        login: str = "",
    ) -> None:
        self.driver = driver
        driver.switch_to.new_window("tab")
        self.handle = driver.current_window_handle
        remembered = f"sessionStorage['chat.name'] ??= JSON.stringify({json.dumps(name)});" if name else ""
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": remembered + before})
        driver.get(f"http://{login and login + '@'}127.0.0.1:{port}/#{room}")
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

    def all(self, selector: str) -> list[str]:
        """The texts of the elements in the room on the screen that match a selector."""
        script = "return [...document.querySelectorAll('.log:not([hidden]) ' + arguments[0])].map(e => e.textContent)"
        return list(self.run(script, selector))

    @property
    def state(self) -> str:
        return str(self.run("return document.body.dataset.state"))

    @property
    def status(self) -> str:
        return str(self.get("status", "innerText"))

    @property
    def title(self) -> str:
        return str(self.run("return document.title"))

    @property
    def focused(self) -> str:
        return str(self.run("return document.activeElement.id"))

    @property
    def members(self) -> list[str]:
        script = "return [...document.querySelectorAll('#member-list li')].map(e => e.textContent.slice(1))"
        return list(self.run(script))

    def lines(self) -> list[str]:
        """The texts of the messages that the server sent."""
        return self.all(".lines .said")

    def await_state(self, state: str) -> None:
        await_that(f"the page is {state}", lambda: self.state == state)

    def reconnect(self, until: str = "connected") -> None:
        """End the page's wait as the return of the network does, and await the state."""
        self.run("window.dispatchEvent(new Event('online'))")
        self.await_state(until)

    def await_line(self, text: str) -> None:
        await_that(f"the page shows {text!r}", lambda: text in self.lines())


# Sockets that the test opens and closes in the server's stead, with any code; no timer of the page's fires, and the
# page's question why a handshake failed gets the test's answer.
PUPPETS = """
window.sockets = [];
window.WebSocket = class {
    constructor(address, subprotocols) { Object.assign(this, {address, subprotocols, sent: []}); sockets.push(this); }
    get room() { return decodeURIComponent(new URL(this.address).pathname.slice("/chat/".length)); }
    get(event) { this.onmessage?.({data: JSON.stringify(event)}); }
    open(more) {
        this.get({type: "welcome", room: this.room, name: new URL(this.address).searchParams.get("name"), ...more});
        this.get({type: "history", complete: true});
    }
    lose(code, reason) { this.onclose?.(new CloseEvent("close", {code, reason})); }
    send(frame) { this.sent.push(JSON.parse(frame)); }
    close() { this.abandoned = true; }
};
window.timers = [];
window.setInterval = () => 0;
window.setTimeout = (call, delay) => timers.push({call, delay});
window.answer = null;
window.fetch = async address => {
    window.asked = address;
    if (!answer) throw new TypeError("Failed to fetch");
    return new Response(answer.body ?? "", {status: answer.status, headers: answer.headers});
};
"""


class Puppet(Tab):
    """A page with connections that the test controls."""

    def __init__(self, driver: Any, port: int, *, name: str | None = "Ann") -> None:
        super().__init__(driver, port, name=name, before=PUPPETS, until="connecting")

    def open(self, **welcome: object) -> None:
        self.run("sockets.at(-1).open(arguments[0])", welcome)

    def gets(self, *events: dict[str, Any]) -> None:
        self.run("for (const event of arguments[0]) sockets.at(-1).get(event)", list(events))

    def lose(self, code: int, reason: str = "") -> None:
        self.run("sockets.at(-1).lose(...arguments)", code, reason)

    def refuse(self, status: int, body: str = "", headers: dict[str, str] | None = None) -> None:
        self.run("window.answer = arguments[0]", {"status": status, "body": body, "headers": headers or {}})
        self.lose(1006)

    def sent(self) -> list[dict[str, Any]]:
        """The messages that the page sent on its last connection, without its questions for the members."""
        return [each for each in self.run("return sockets.at(-1).sent") if each["type"] == "message"]


def message(number: int, text: str, name: str | None = "Bob") -> dict[str, Any]:
    return {"type": "message", "id": f"{1700000000000 + number}-0", "name": name, "text": text}


def fill(puppet: Puppet, lines: int) -> None:
    puppet.run(
        "for (let i = 0; i < arguments[0]; i++)"
        " sockets.at(-1).get({type: 'message', id: `170000000${i}-0`, name: 'Bob', text: `line ${i}`})",
        lines,
    )


def of_log(tab: Tab, name: str) -> float:
    return float(tab.run("return document.querySelector('.log:not([hidden])')[arguments[0]]", name))


def from_end(tab: Tab) -> float:
    return of_log(tab, "scrollHeight") - of_log(tab, "scrollTop") - of_log(tab, "clientHeight")


def as_phone(tab: Tab, width: int = 360, height: int = 640) -> None:
    tab.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=True)


def emulate(tab: Tab, feature: str, value: str) -> None:
    tab.devtools("Emulation.setEmulatedMedia", features=[{"name": feature, "value": value}])
