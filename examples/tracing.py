"""OpenTelemetry spans around handlers, by an observer: ``python tracing.py [--listen tcp:9014]``.

It needs ``pip install opentelemetry-sdk``, and prints each span as JSON when it ends. A span ``websocket opened``
covers the whole run of a coroutine that serves a connection. A span ``websocket text_received`` covers the hook of one
message, until its Deferred or coroutine is done. Spans that a handler starts are children of these.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.trace import SpanKind, Tracer
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IReactorCore
from twisted.internet.task import react
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_beastws import Observer, Router, WebSocketProtocol, WebSocketServerFactory, drain_at_shutdown


class Spans(Observer):
    """Starts a span around each call of a hook."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer

    def around(self, ws: WebSocketProtocol, name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        attributes: dict[str, str | int] = {
            "url.path": ws.request.path if ws.request else "",
            "client.address": str(getattr(ws.peer, "host", "")),
            "websocket.connection_id": ws.connection_id,
        }

        async def traced(*arguments: Any) -> None:
            with self.tracer.start_as_current_span(f"websocket {name}", kind=SpanKind.SERVER, attributes=attributes):
                await maybeDeferred(hook, *arguments)

        return traced


async def price_of(product: str) -> int:
    with trace.get_tracer(__name__).start_as_current_span("look up the price"):
        return len(product)


class Prices(WebSocketProtocol):
    async def text_received(self, text: str) -> None:
        self.send(str(await price_of(text)))


async def echo(ws: WebSocketProtocol) -> None:
    async for message in ws:
        ws.send(message)


async def main(reactor: IReactorCore, listen: str) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    trace.set_tracer_provider(provider)
    factory = WebSocketServerFactory(Router({"/prices": Prices, "/echo": echo}))
    factory.add_observer(Spans(trace.get_tracer("prices")))
    drain_at_shutdown(reactor, factory)
    port: IListeningPort = await serverFromString(reactor, listen).listen(factory)
    print("listening on", port.getHost(), flush=True)
    await Deferred()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="tcp:9014", help="an endpoint string (default: %(default)s)")
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    react(main, [parser.parse_args().listen])
