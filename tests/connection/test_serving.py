"""Tests of `twisted_beastws.connection.serving`: the application's own ``serve`` may be a coroutine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from twisted_beastws import WebSocketProtocol

pytestmark = pytest.mark.usefixtures("logged")


class Coroutine(WebSocketProtocol):
    async def serve(self) -> None:
        request = await self.read_request()
        await self.accept(request)
        async for message in self:
            self.send(message)


class TestServe:
    """`WebSocketProtocol.serve` that the application overrides."""

    def test_serve_may_be_a_coroutine(self, connect: Callable[..., Any]) -> None:
        peer = connect(Coroutine, opened=False)
        peer.sends(peer.HEAD, peer.text("hello"))
        assert peer.reads().endswith(b"\r\n\r\n\x81\x05hello")

    def test_a_bad_request_is_answered_and_not_logged_as_a_fault(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]]
    ) -> None:
        peer = connect(Coroutine, opened=False)
        peer.sends(b"nonsense\r\n\r\n")
        assert peer.reads().startswith(b"HTTP/1.1 400 ")
        assert logged(BaseException) == []

    @pytest.mark.parametrize("how", ["raises", "fails", "awaits"])
    def test_an_exception_before_the_opening_drops_the_connection_and_is_logged(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]], how: str
    ) -> None:
        class Failing(WebSocketProtocol):
            def serve(self) -> Any:
                if how == "raises":
                    raise ZeroDivisionError
                deferred: Deferred[None] = Deferred()
                deferred.errback(ZeroDivisionError())
                return deferred if how == "fails" else self.wait(deferred)

            async def wait(self, deferred: Deferred[None]) -> None:
                await deferred

        peer = connect(Failing, opened=False)
        assert peer.transport.disconnected
        assert len(logged(ZeroDivisionError)) == 1

    def test_an_exception_after_the_opening_closes_with_1011(
        self, connect: Callable[..., Any], logged: Callable[..., list[Any]]
    ) -> None:
        class Failing(WebSocketProtocol):
            async def serve(self) -> None:
                await self.accept()
                raise ZeroDivisionError

        peer = connect(Failing, opened=False)
        peer.sends(peer.HEAD)
        assert peer.reads().endswith(b"\x88\x02\x03\xf3")
        assert len(logged(ZeroDivisionError)) == 1

    def test_a_generator_is_refused(self, connect: Callable[..., Any], logged: Callable[..., list[Any]]) -> None:
        class Generating(WebSocketProtocol):
            def serve(self) -> Any:
                yield self.accept()

        assert connect(Generating, opened=False).transport.disconnected
        assert len(logged(TypeError)) == 1
