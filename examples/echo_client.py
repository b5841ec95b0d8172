"""An echo client for a conformance suite's fuzzing server: ``python echo_client.py [--url ws://127.0.0.1:9001]``.

It asks for the number of cases, echoes in each case until the server closes, and asks for the reports.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_beastws import CloseReason, Deflate, Limits, Timeouts, WebSocketProtocol, connect

AGENT = "twisted_beastws"
LIMITS = Limits(max_message_size=16 << 20)
# A suite reports an unexpected ping as a fault.
TIMEOUTS = Timeouts(ping_interval=None)


class Echo(WebSocketProtocol):
    """Echoes messages. ``over`` fires when the connection has ended, for whatever reason."""

    def __init__(self) -> None:
        self.over: Deferred[CloseReason] = Deferred()

    def text_received(self, text: str) -> None:
        self.send(text)

    def binary_received(self, data: bytes) -> None:
        self.send(data)

    def closed(self, reason: CloseReason) -> None:
        self.over.callback(reason)


class Client:
    def __init__(self, url: str, deflate: Deflate) -> None:
        self.url = url
        self.deflate = deflate

    async def run(self, parallel: int) -> int:
        number = await self.count()
        # Shared: each client takes the next case when it has finished one.
        cases = iter(range(1, number + 1))
        await gatherResults([Deferred.fromCoroutine(self.take(cases)) for _ in range(parallel)], consumeErrors=True)
        await self.echo(f"/updateReports?agent={AGENT}")
        return number

    async def count(self) -> int:
        ws = await connect(f"{self.url}/getCaseCount")
        number = int(await ws.receive())
        await ws.close()
        return number

    async def take(self, cases: Iterator[int]) -> None:
        for case in cases:
            await self.echo(f"/runCase?case={case}&agent={AGENT}")

    async def echo(self, target: str) -> None:
        ws = await connect(self.url + target, protocol=Echo, limits=LIMITS, timeouts=TIMEOUTS, deflate=self.deflate)
        await ws.over


async def main(reactor: object, options: argparse.Namespace) -> None:
    client = Client(options.url, Deflate(client_no_context_takeover=options.no_context_takeover))
    print("echoed in", await client.run(options.parallel), "cases", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://127.0.0.1:9001", help="of the fuzzing server (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=1, help="cases at a time (default: %(default)s)")
    parser.add_argument("--no-context-takeover", action="store_true", help="compress each message by itself")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [parser.parse_args()])
