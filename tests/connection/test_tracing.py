"""`trace_frames`: one log line per frame, without secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.logger import LogLevel, globalLogPublisher

from twisted_beastws import Deflate, LocalError, WebSocketProtocol, WebSocketServerFactory, trace_frames
from twisted_beastws.connection.tracing import FrameTrace
from twisted_beastws.testing import Frame, connected_pair, scripted_client, upgrade_request
from twisted_beastws.wire.session import Session

from ..support.inside import inside
from ..support.log import as_observer
from ..support.protocols import Echo

WHERE = Echo.__module__


@pytest.fixture
def lines(logging: None) -> Iterator[list[str]]:
    """The trace lines, without the number of the connection."""
    found: list[str] = []

    def observe(event: Any) -> None:
        if "line" in event and event["log_level"] is LogLevel.debug:
            found.append(event["line"])

    globalLogPublisher.addObserver(as_observer(observe))
    yield found
    globalLogPublisher.removeObserver(as_observer(observe))


@pytest.fixture
def traced() -> Iterator[Callable[[str], None]]:
    """``traced(name)``: trace a namespace until the test ends."""
    names: list[str] = []

    def trace(name: str) -> None:
        names.append(name)
        trace_frames(name)

    yield trace
    for name in names:
        trace_frames(name, on=False)


class TestLines:
    """The lines of the trace (`docs/howto/logging.md`)."""

    def test_each_frame_has_its_opcode_length_mask_and_first_bytes(self, lines: list[str], traced: Any) -> None:
        traced(WHERE + ".Echo")
        peer = scripted_client(Echo)
        lines.clear()
        peer.send(Frame.text("hello"), Frame.ping(b"p"), Frame.close(1000, "bye"))
        # The answers to a chunk leave together, after the server has read all of it.
        assert [line for line in lines if line.startswith("<")] == [
            "< TEXT, 5 bytes, masked: b'hello'",
            "< PING, 1 bytes, masked: b'p'",
            "< CLOSE, 5 bytes, masked: b'\\x03\\xe8bye'",
        ]
        assert [line for line in lines if line.startswith(">")] == [
            "> TEXT, 5 bytes: b'hello'",
            "> PONG, 1 bytes: b'p'",
            "> CLOSE, 2 bytes: b'\\x03\\xe8'",
        ]
        peer.expect(Frame.text("hello"), Frame.pong(b"p"), Frame.close(1000))

    def test_a_long_payload_is_cut_after_32_bytes(self) -> None:
        for length in (31, 32, 33, 200, 70_000):
            written: list[str] = []
            trace = FrameTrace(written.append, "<")
            long = length > 65_535
            size = b"\x7f" + length.to_bytes(8, "big") if long else b"\x7e" + length.to_bytes(2, "big")
            size = bytes((length,)) if length < 126 else size
            trace.feed(b"\x82" + size + b"x" * length + b"\x89\x00")
            shown = "x" * min(length, 32)
            assert written == [
                f"< BINARY, {length} bytes: b'{shown}'{'...' if length > 32 else ''}",
                "< PING, 0 bytes: b''",
            ]

    def test_any_split_of_the_bytes_gives_the_same_lines(self) -> None:
        data = b"\x01\x85abcd" + bytes(one ^ two for one, two in zip(b"hello", b"abcda", strict=True))
        data += b"\x80\x7e\x01\x00" + bytes(256) + b"\xc2\x00\x8b\x00"
        whole: list[str] = []
        FrameTrace(whole.append, ">").feed(data)
        assert whole[0] == "> TEXT, 5 bytes, not final, masked: b'hello'"
        assert whole[2:] == ["> BINARY, 0 bytes, compressed: b''", "> opcode 11, 0 bytes: b''"]
        for size in range(1, 40):
            parts: list[str] = []
            trace = FrameTrace(parts.append, ">")
            for at in range(0, len(data), size):
                trace.feed(data[at : at + size])
            assert parts == whole

    def test_secrets_of_the_handshake_are_hidden(self, lines: list[str], traced: Any) -> None:
        traced("*")
        peer = scripted_client(WebSocketServerFactory(Echo, decorator=set_cookie), opened=False)
        secrets = {"Authorization": "Basic c2VjcmV0", "Cookie": "session=secret", "X-Plain": "shown"}
        peer.send(upgrade_request("/chat?token=secret", headers=secrets))
        request, response = lines
        assert request.startswith("request GET /chat?...: ") and "X-Plain='shown'" in request
        assert "Authorization=(hidden)" in request and "Cookie=(hidden)" in request
        assert response.startswith("response 101: ") and "Set-Cookie=(hidden)" in response
        assert "secret" not in "".join(lines) and "c2VjcmV0" not in "".join(lines)


def set_cookie(response: Any) -> None:
    response.headers.setRawHeaders("Set-Cookie", ["session=secret"])


class TestSwitch:
    """`trace_frames` turns the trace on, for a namespace or for one connection."""

    def test_a_namespace_is_a_module_a_class_or_a_handler(self, lines: list[str], traced: Any) -> None:
        async def handler(ws: WebSocketProtocol) -> None:
            async for message in ws:
                ws.send(message)

        served: Any
        names = WHERE, WHERE + ".Echo", f"{handler.__module__}.{handler.__qualname__}"
        for name, served in zip(names, (Echo, Echo, handler), strict=True):
            trace_frames(name)
            peer = scripted_client(served)
            trace_frames(name, on=False)
            lines.clear()
            peer.send(Frame.text("a"))
            assert lines == ["< TEXT, 1 bytes, masked: b'a'", "> TEXT, 1 bytes: b'a'"]
            scripted_client(served).send(Frame.text("b"))
            assert len(lines) == 2

    @pytest.mark.parametrize("name", ["other", WHERE + ".Ech", WHERE[:-1]])
    def test_another_namespace_traces_nothing(self, name: str, lines: list[str], traced: Any) -> None:
        traced(name)
        scripted_client(Echo).send(Frame.text("a"))
        assert lines == []

    @pytest.mark.parametrize("deflate", [None, Deflate()])
    def test_one_connection_is_traced_from_now_on(self, deflate: Deflate | None, lines: list[str]) -> None:
        pair = connected_pair(Echo, deflate=deflate)
        pair.client.send("before")
        pair.flush()
        trace_frames(pair.server)
        trace_frames(pair.server)
        lines.clear()
        pair.client.send("after")
        pair.flush()
        assert len(lines) == 2 and lines[0].startswith("< TEXT, ")
        assert [pair.client.receive().result for _ in range(2)] == ["before", "after"]
        pair.client.close()
        pair.flush()
        assert [line.split(",")[0] for line in lines[2:]] == ["< CLOSE", "> CLOSE"]

    def test_the_hook_opened_can_start_the_trace(self, lines: list[str]) -> None:
        class Traced(Echo):
            def opened(self) -> None:
                trace_frames(self)

        scripted_client(Traced).send(Frame.text("a"))
        assert lines[-2:] == ["< TEXT, 1 bytes, masked: b'a'", "> TEXT, 1 bytes: b'a'"]

    def test_a_connection_that_is_not_open_is_refused(self) -> None:
        with pytest.raises(LocalError, match="call this in opened"):
            trace_frames(WebSocketProtocol())
        for wrong in (3, "", None):
            with pytest.raises(TypeError, match="give an open connection"):
                trace_frames(wrong)  # type: ignore[arg-type]

    def test_a_connection_without_a_trace_has_no_observer_of_frames(self) -> None:
        session: Session = inside(scripted_client(Echo).protocol).session
        # The session uses the codec's own `feed` and the write buffer itself, with no wrapper in between.
        assert session.feed == session.reader.feed
        assert type(session.writer.sink).__name__ == "Outgoing"

    def test_the_environment_variable_names_the_namespaces(self) -> None:
        program = "from twisted_beastws.connection.tracing import NAMESPACES\nprint(sorted(NAMESPACES))"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "TWISTED_BEASTWS_TRACE": "chat, *", "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "['*', 'chat']\n"
