"""Tests of `twisted_beastws.hook_names`, of the values that hooks return, and of unconsumed messages."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from twisted_beastws import WebSocketProtocol, WebSocketServerFactory
from twisted_beastws.hook_names import HOOKS, hook_meant

from .support.log import as_observer

pytestmark = pytest.mark.usefixtures("logged")

MEANT = {
    "onMessage": "text_received and binary_received",
    "on_message": "text_received and binary_received",
    "onOpen": "opened",
    "on_open": "opened",
    "onClose": "closed",
    "onConnect": "upgrade_requested",
    "onMessageFrameData": "fragment_received",
    "text_recieved": "text_received",
    "textReceived": "text_received",
    "text_recived": "text_received",
    "binary_receivedd": "binary_received",
    "messageReceived": "text_received and binary_received",
    "upgrade_request": None,
    "fragment_recieved": "fragment_received",
    "close": "closed",
    "opend": "opened",
    "text_receiver": None,
    "_text_recieved": None,
    "handle": None,
    "open_door": None,
    **dict.fromkeys(HOOKS),
}


@pytest.mark.parametrize(("name", "meant"), MEANT.items())
def test_the_meant_hook_is_found(name: str, meant: str | None) -> None:
    assert hook_meant(name) == meant


class TestWarning:
    """A warning for a misspelled hook."""

    @pytest.mark.parametrize("name", ["onMessage", "text_recieved", "on_message"])
    def test_a_misspelled_hook_gives_a_warning_when_the_class_is_made(self, name: str) -> None:
        with pytest.warns(UserWarning) as caught:
            type("Chat", (WebSocketProtocol,), {name: lambda self, message: None})
        expected = (
            f"Chat.{name} is no hook of WebSocketProtocol, which never calls it: override "
            f"text_received{' and binary_received' if 'essage' in name else ''}"
        )
        assert [str(one.message) for one in caught] == [expected]

    def test_right_names_give_no_warning(self) -> None:
        names = (*HOOKS, "connectionLost", "serve", "handle", "name", "receiver", "pinged", "turns", "write")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            type("Chat", (WebSocketProtocol,), {name: lambda self, *_: None for name in names})
            # An attribute that is not callable cannot be a misspelled hook.
            type("Chat", (WebSocketProtocol,), {"onMessage": 5})

    def test_the_warning_names_the_line_of_the_class(self) -> None:
        with pytest.warns(UserWarning) as caught:

            class Chat(WebSocketProtocol):
                def onOpen(self) -> None: ...

        assert caught[0].filename == __file__


class TestReturnedValues:
    """The values that hooks may return."""

    @pytest.mark.parametrize("value", [True, "text", 0, [], object()], ids=repr)
    @pytest.mark.parametrize("hook", ["text_received", "opened"])
    def test_a_hook_that_returns_a_value_closes_with_1011(
        self, connect: Any, logged: Any, hook: str, value: object
    ) -> None:
        hooks: dict[str, Callable[..., object]] = {
            "text_received": lambda self, text: None,
            hook: lambda self, *_: value,
        }
        peer = connect(type("Chat", (WebSocketProtocol,), hooks), opened=False)
        peer.sends(peer.HEAD, peer.text("a"))
        assert peer.reads().endswith(b"\r\n\r\n\x88\x02\x03\xf3")
        (error,) = logged(TypeError)
        assert str(error) == f"a hook returned {value!r}: it may return None, a Deferred or a coroutine"

    @pytest.mark.parametrize("value", [None, succeed(None), succeed("x")], ids=["None", "Deferred", "value"])
    def test_a_hook_may_return_none_or_a_deferred(self, connect: Any, value: Any) -> None:
        peer = connect(type("Chat", (WebSocketProtocol,), {"text_received": lambda self, text: value}))
        peer.sends(peer.text("a"), peer.frame(0x89))
        assert peer.reads() == b"\x8a\x00"

    @pytest.mark.parametrize("hook", ["text_received", "ping_received"])
    def test_an_async_generator_closes_with_1011(self, connect: Any, logged: Any, hook: str) -> None:
        async def body(self: Any, message: Any) -> Any:
            yield message

        peer = connect(type("Chat", (WebSocketProtocol,), {"text_received": lambda self, text: None, hook: body}))
        peer.sends(peer.text("a") if hook == "text_received" else peer.frame(0x89))
        assert peer.reads().endswith(b"\x88\x02\x03\xf3")
        (error,) = logged(TypeError)
        assert "a hook with yield in it runs only in inlineCallbacks, or as async def with await" in str(error)

    def test_a_handler_that_is_an_async_generator_is_refused(self) -> None:
        async def handler(ws: Any) -> Any:
            yield ws

        with pytest.raises(TypeError, match="is an async generator function: use await in it instead of yield"):
            WebSocketServerFactory(handler)


class Told(list[str]):
    def observe(self, event: Any) -> None:
        text = event.get("log_format") or ""
        if "did not take" in text:
            self.append(text.format(**{key: value for key, value in event.items() if key.isidentifier()}))


@pytest.fixture
def told() -> Any:
    from twisted.logger import globalLogPublisher

    told = Told()
    globalLogPublisher.addObserver(as_observer(told.observe))
    yield told
    globalLogPublisher.removeObserver(as_observer(told.observe))


class TestUnconsumedMessages:
    """Messages that the application never consumes are logged."""

    def test_the_unconsumed_messages_of_a_class_without_hooks_are_logged(self, connect: Any, told: Told) -> None:
        peer = connect(WebSocketProtocol)
        peer.sends(peer.text("a"), peer.text("b"))
        peer.leaves()
        assert len(told) == 1 and "ended with 2 messages that WebSocketProtocol did not take" in told[0]

    def test_the_messages_that_a_handler_left_are_logged(self, connect: Any, told: Told) -> None:
        wait: Deferred[None] = Deferred()

        async def handler(ws: WebSocketProtocol) -> None:
            await ws.receive()
            await wait

        peer = connect(handler)
        peer.sends(*(peer.text(letter) for letter in "abc"))
        peer.leaves()
        # The handler still runs and may receive them.
        assert told == []
        wait.callback(None)
        assert len(told) == 1 and "ended with 2 messages that handler did not take" in told[0]

    def test_messages_after_a_hook_that_closes_are_logged(self, connect: Any, told: Told) -> None:
        wait: Deferred[None] = Deferred()
        peer = connect(type("Chat", (WebSocketProtocol,), {"text_received": lambda self, text: wait}))
        peer.sends(*(peer.text(letter) for letter in "abc"))
        peer.protocol.close()
        peer.leaves()
        wait.callback(None)
        assert len(told) == 1 and "2 messages that Chat did not take" in told[0]

    def test_nothing_is_logged_if_all_messages_were_consumed(self, connect: Any, told: Told) -> None:
        async def handler(ws: WebSocketProtocol) -> None:
            async for _ in ws:
                pass

        peer = connect(handler)
        peer.sends(peer.text("a"), peer.close(1000))
        peer.leaves()
        assert told == []
