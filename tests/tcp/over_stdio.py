"""A WebSocket server on standard input and output; it serves one connection and exits."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.stdio import StandardIO

from twisted_beastws import Timeouts, WebSocketProtocol, WebSocketServerFactory


class OnStandardStreams(WebSocketProtocol):
    def text_received(self, text: str) -> None:
        if text == "close":
            self.close(4000, str(self.peer))
        elif text == "abort":
            self.abort()
        else:
            self.send(text)

    def closed(self, reason: Any) -> None:
        print(f"closed {reason.code}", file=sys.stderr, flush=True)
        reactor.stop()


if __name__ == "__main__":
    StandardIO(WebSocketServerFactory(OnStandardStreams, timeouts=Timeouts(close=0.5)).buildProtocol(None))
    reactor.run()
