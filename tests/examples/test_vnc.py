"""The example vnc.html: noVNC in Chromium through tunnel.py to a VNC server."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from socketserver import BaseServer, StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

from ..support.browser import chromium
from ..support.patience import PATIENCE
from ..support.waiting import await_that
from .processes import Example

WIDTH, HEIGHT = 64, 48
ORANGE = [255, 128, 0, 255]
TRUE_COLOUR = struct.pack("!BBBBHHHBBBxxx", 32, 24, 0, 1, 255, 255, 255, 0, 8, 16)
"""The pixel format that noVNC asks for, too (RFC 6143 §7.4): red, green, blue and a byte of padding."""


class Screen(StreamRequestHandler):
    """A VNC server (RFC 6143) with an orange screen; it notes the keys that the client presses."""

    timeout = PATIENCE
    keys: SimpleQueue[int] = SimpleQueue()

    def handle(self) -> None:
        self.opens()
        # The lengths of the messages (§7.5) after their first byte; two of them have a variable part.
        lengths = {0: 19, 2: 3, 3: 9, 4: 7, 5: 5, 6: 7}
        while kind := self.rfile.read(1):
            message = self.rfile.read(lengths[kind[0]])
            if kind[0] == 2:
                self.rfile.read(4 * int.from_bytes(message[1:3], "big"))
            elif kind[0] == 3:
                self.draws()
            elif kind[0] == 4 and message[0]:
                self.keys.put(int.from_bytes(message[3:7], "big"))
            elif kind[0] == 6:
                self.rfile.read(int.from_bytes(message[3:7], "big"))

    def opens(self) -> None:
        self.wfile.write(b"RFB 003.008\n")
        assert self.rfile.read(12) == b"RFB 003.008\n"
        # §7.1.2: one security type, None; the client selects it, and the server accepts.
        self.wfile.write(b"\x01\x01")
        assert self.rfile.read(1) == b"\x01"
        self.wfile.write(bytes(4))
        self.rfile.read(1)
        name = b"an orange screen"
        self.wfile.write(struct.pack("!HH", WIDTH, HEIGHT) + TRUE_COLOUR + struct.pack("!L", len(name)) + name)

    def draws(self) -> None:
        """Send the whole screen as one rectangle of pixels (§7.6.1)."""
        self.wfile.write(struct.pack("!BxHHHHHl", 0, 1, 0, 0, WIDTH, HEIGHT, 0) + bytes(ORANGE) * (WIDTH * HEIGHT))


class Pages(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(server: BaseServer) -> Iterator[Any]:
    with server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_screen_and_keys_are_passed_through_the_tunnel(tmp_path: Path, javascript: Path) -> None:
    profile = tmp_path / "profile"
    profile.mkdir()
    with (
        chromium(profile, "NOVNC THROUGH THE TUNNEL IS") as driver,
        serving(ThreadingTCPServer(("127.0.0.1", 0), Screen)) as vnc,
        serving(ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(javascript)))) as pages,
    ):
        site = f"http://127.0.0.1:{pages.server_port}"
        listen = "beastws:target=/vnc:origins=" + site.replace(":", r"\:") + ":tcp"
        to = f"tcp:127.0.0.1:{vnc.server_address[1]}"
        with Example("tunnel", tmp_path, "--to", to, listen=listen) as tunnel:
            driver.get(f"{site}/vnc.html#ws://127.0.0.1:{tunnel.port}/vnc")
            pixel = "return [...document.querySelector('canvas').getContext('2d').getImageData(9, 9, 1, 1).data]"
            drawn = partial(driver.execute_script, f"try {{ {pixel} }} catch {{ return [] }}")
            await_that("the page shows the screen", lambda: drawn() == ORANGE, lambda: str(driver.get_log("browser")))
            assert (driver.title, driver.find_element("id", "status").text) == ("an orange screen", "connected")
            driver.find_element("tag name", "canvas").click()
            driver.switch_to.active_element.send_keys("a")
            assert Screen.keys.get(timeout=PATIENCE) == ord("a")
        status = driver.find_element("id", "status")
        await_that("the page shows the end", lambda: status.text not in ("connected", ""), lambda: status.text)
