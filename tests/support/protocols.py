"""The protocols of servers in tests."""

from __future__ import annotations

from typing import Any

from twisted_beastws import WebSocketProtocol


class Echo(WebSocketProtocol):
    """Echoes each message."""

    def text_received(self, text: str) -> Any:
        self.send(text)

    def binary_received(self, data: bytes) -> Any:
        self.send(data)


class Commanded(Echo):
    """Echoes messages, except for the texts ``close``, ``abort`` and ``fail``, which it obeys.

    Attributes:
        closing: The arguments of the `close`.
    """

    closing: tuple[int, str] = (1000, "")

    def text_received(self, text: str) -> None:
        if text == "close":
            self.close(*self.closing)
        elif text == "abort":
            self.abort()
        elif text == "fail":
            raise ZeroDivisionError
        else:
            self.send(text)
