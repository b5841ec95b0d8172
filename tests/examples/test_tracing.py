"""The example tracing.py: spans around handlers, in memory and as the program prints them."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from twisted_beastws import WebSocketServerFactory
from twisted_beastws.testing import Frame, scripted_client

from ..support.patience import PATIENCE
from ..support.waiting import await_that
from .processes import EXAMPLES, Example

pytest.importorskip("opentelemetry.sdk", reason="THE SPANS ARE NOT TESTED: pip install opentelemetry-sdk")


class Traced:
    """A factory with the example's observer, and the spans that ended."""

    def __init__(self, served: Any) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("test")
        self.factory = WebSocketServerFactory(served(self), clock=Clock())
        self.factory.add_observer(runpy.run_path(str(EXAMPLES / "tracing.py"))["Spans"](self.tracer))

    @property
    def ended(self) -> list[tuple[str, str | None, bool]]:
        """Each span's name, the name of its parent, and whether it has recorded an exception."""
        spans = self.exporter.get_finished_spans()
        names = {span.context.span_id: span.name for span in spans}
        return [
            (span.name, None if span.parent is None else names.get(span.parent.span_id, "?"), bool(span.events))
            for span in spans
        ]


def coroutine(traced: Traced) -> Any:
    async def serve(ws: Any) -> None:
        async for text in ws:
            with traced.tracer.start_as_current_span(f"work on {text}"):
                ws.send(text)

    return serve


def test_a_coroutine_has_one_span_until_it_returns() -> None:
    traced = Traced(coroutine)
    peer = scripted_client(traced.factory)
    peer.send(Frame.text("a"), Frame.text("b"))
    peer.expect(Frame.text("a"), Frame.text("b"))
    assert [name for name, *_ in traced.ended] == ["work on a", "work on b"]
    peer.send(Frame.close(1000))
    peer.transport.loseConnection()
    peer.flush()
    opened = "websocket opened"
    assert traced.ended == [("work on a", opened, False), ("work on b", opened, False), (opened, None, False)]


def test_a_hook_has_a_span_for_each_message_and_its_exception(logged: Any) -> None:
    from twisted_beastws import WebSocketProtocol

    def served(traced: Traced) -> Any:
        class Hooked(WebSocketProtocol):
            def text_received(self, text: str) -> None:
                with traced.tracer.start_as_current_span("inner"):
                    self.send(str(1 // int(text)))

        return Hooked

    traced = Traced(served)
    peer = scripted_client(traced.factory)
    peer.send(Frame.text("1"))
    peer.expect(Frame.text("1"))
    peer.send(Frame.text("0"))
    peer.expect(Frame.close(1011))
    text = "websocket text_received"
    assert [entry for entry in traced.ended if entry[0] != "websocket opened"] == [
        ("inner", text, False),
        (text, None, False),
        ("inner", text, True),
        (text, None, True),
    ]
    assert len(logged(ZeroDivisionError)) == 1


def test_the_program_prints_its_spans(tmp_path: Path) -> None:
    with Example("tracing", tmp_path) as example, example.connect("/prices") as client:
        client.send("tea")
        assert client.recv(PATIENCE) == "3"
        printed = r'^\{\n    "name".*?^\}$'
        spans = await_that(
            "both spans are printed",
            lambda: found if len(found := re.findall(printed, example.log, re.MULTILINE | re.DOTALL)) > 2 else None,
            lambda: example.log,
        )
    by_name = {span["name"]: span for span in map(json.loads, spans)}
    inner, outer = by_name["look up the price"], by_name["websocket text_received"]
    assert inner["parent_id"] == outer["context"]["span_id"]
    assert outer["attributes"]["url.path"] == "/prices"
