"""Tests of `JSON`: typed messages, converters, and bad messages."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import Any, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from twisted_beastws import JSON, ConnectionClosed, InvalidMessage, LocalError, WebSocketProtocol
from twisted_beastws.testing import Frame, connected_pair, scripted_client

REASON = "the message is not valid JSON of the expected form"


class Said(msgspec.Struct):
    text: str
    times: int = 1


@dataclass
class Point:
    x: int
    y: int


class Named(TypedDict):
    name: str


@attrs.define
class Color:
    red: int


class Model(pydantic.BaseModel):
    text: str
    times: int = 1


@pytest.fixture(params=["msgspec", "orjson", "json"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Select a JSON module by hiding the modules that the codec prefers to it."""
    missing = {"msgspec": (), "orjson": ("msgspec",), "json": ("msgspec", "orjson")}[request.param]
    from importlib.util import find_spec

    monkeypatch.setattr(
        "twisted_beastws.json_codec.find_spec", lambda name: None if name in missing else find_spec(name)
    )
    name: str = request.param
    return name


class TestEncoding:
    """RFC 8259 §6: values as JSON, and back."""

    def test_each_value_is_unchanged_after_encoding_and_decoding(self, backend: str) -> None:
        codec: JSON[Any] = JSON()
        value = {"a": [1, 2.5, None, True, "ü😀"], "b": {}}
        assert codec.decode(codec.encode(value)) == value

    @pytest.mark.parametrize(
        "text", ["", "{", "NaN", "[Infinity]", "[" * 100_000, '{"a": 1,}', "\ufeff1", "1" * 5000 + "x"]
    )
    def test_a_text_that_is_no_json_is_refused(self, backend: str, text: str) -> None:
        with pytest.raises(InvalidMessage):
            JSON().decode(text)

    def test_a_value_that_cannot_be_encoded_is_refused(self, backend: str) -> None:
        with pytest.raises((TypeError, ValueError)):
            JSON().encode(object())


class TestTypes:
    """Types that msgspec, pydantic and attrs check."""

    @pytest.mark.parametrize(
        ("kind", "text", "value"),
        [
            (Said, '{"text": "a"}', Said("a")),
            (Point, '{"x": 1, "y": 2}', Point(1, 2)),
            (Named, '{"name": "a"}', {"name": "a"}),
            (Color, '{"red": 3}', Color(3)),
            (int, "3", 3),
        ],
    )
    def test_msgspec_makes_and_checks_the_type(self, kind: Any, text: str, value: Any) -> None:
        codec: JSON[Any] = JSON(kind)
        assert codec.decode(text) == value
        assert codec.decode(codec.encode(value)) == value
        with pytest.raises(InvalidMessage):
            codec.decode('{"text": 3}')

    def test_a_converter_makes_pydantic_models(self, backend: str) -> None:
        codec = JSON(convert=Model.model_validate, dump=Model.model_dump)
        assert codec.decode('{"text": "a", "times": 2}') == Model(text="a", times=2)
        assert codec.decode(codec.encode(Model(text="b"))) == Model(text="b")
        with pytest.raises(InvalidMessage, match="times"):
            codec.decode('{"text": "a", "times": "often"}')

    def test_a_converter_makes_attrs_classes(self, backend: str) -> None:
        codec = JSON(convert=lambda value: Color(**value), dump=attrs.asdict)
        assert codec.decode(codec.encode(Color(1))) == Color(1)
        for text in ("[]", '{"blue": 1}', "null"):
            with pytest.raises(InvalidMessage):
                codec.decode(text)

    def test_mistakes_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(TypeError, match="give one of them"):
            JSON(Said, convert=Model.model_validate)  # type: ignore[call-overload]
        with pytest.raises(LocalError, match="1006 may not be sent"):
            JSON(code=1006)
        monkeypatch.setattr("twisted_beastws.json_codec.find_spec", lambda name: None)
        with pytest.raises(TypeError, match="install msgspec, or give convert="):
            JSON(Said)


class Chat(WebSocketProtocol):
    codec = JSON(Said)

    def json_received(self, message: Said) -> Any:
        self.send_json(Said(message.text * message.times))


class Strict(Chat):
    codec = JSON(Said, code=4000)


class TestProtocol:
    """A connection with the codec."""

    def test_a_class_with_a_codec_gets_decoded_messages(self) -> None:
        peer = scripted_client(Chat)
        peer.send(Frame.text('{"text": "ab", "times": 2}'))
        peer.expect(Frame.text('{"text":"abab","times":1}'))

    @pytest.mark.parametrize(("kind", "code"), [(Chat, 1007), (Strict, 4000)])
    @pytest.mark.parametrize("text", ["{", "[]", '{"text": 1}', "[" * 100_000])
    def test_a_bad_message_closes_with_the_codecs_code_and_no_traceback(
        self, kind: Any, code: int, text: str, logged: Any
    ) -> None:
        peer = scripted_client(kind)
        peer.send(Frame.text(text))
        peer.expect(Frame.close(code, REASON))

    def test_a_hook_that_takes_time_keeps_the_order(self) -> None:
        class Slow(WebSocketProtocol):
            codec = JSON(int)

            async def json_received(self, message: int) -> None:
                self.send_json(message + 1)

        peer = scripted_client(Slow)
        peer.send(Frame.text("1"), Frame.text("2"))
        peer.expect(Frame.text("2"), Frame.text("3"))

    def test_an_exception_in_the_hook_still_closes_with_1011(self, logged: Any) -> None:
        class Fails(WebSocketProtocol):
            codec: JSON[Any] = JSON()

            def json_received(self, message: Any) -> None:
                raise KeyError(message)

        peer = scripted_client(Fails)
        peer.send(Frame.text("1"))
        peer.expect(Frame.close(1011))
        assert len(logged(KeyError)) == 1

    def test_binary_messages_are_refused_with_1003(self) -> None:
        peer = scripted_client(Chat)
        peer.send(Frame.binary(b"{}"))
        peer.expect(Frame.close(1003))

    def test_a_handler_sends_and_receives_json(self, logged: Any) -> None:
        ended: list[Any] = []

        async def handler(ws: WebSocketProtocol) -> None:
            try:
                while True:
                    ws.send_json([await ws.receive_json()])
            except ConnectionClosed as closed:
                ended.append(closed)
                raise

        peer = scripted_client(handler)
        peer.send(Frame.text('{"a": 1}'))
        peer.expect(Frame.text('[{"a":1}]'))
        peer.send(Frame.text("{"))
        peer.expect(Frame.close(1007, REASON))
        assert len(ended) == 1 and isinstance(ended[0].__cause__, InvalidMessage)

    def test_a_client_uses_the_codec_of_its_class(self) -> None:
        class Client(WebSocketProtocol):
            codec = JSON(Said)

        pair = connected_pair(Chat, Client)
        pair.client.send_json(Said("a", 3))
        pair.flush()
        heard: list[Any] = []

        async def listen() -> None:
            heard.append(await pair.client.receive_json())

        from twisted.internet.defer import Deferred

        Deferred.fromCoroutine(listen())
        assert heard == [Said("aaa", 1)]

    def test_names_of_the_codec_are_free_for_users(self) -> None:
        class Own(WebSocketProtocol):
            codec = "utf-8"

            def send_json(self, value: Any) -> None:  # type: ignore[override]
                self.send(f"own {value}")

            def json_received(self, message: Any) -> None: ...

            def text_received(self, text: str) -> None:
                self.send_json(text)

        peer = scripted_client(Own)
        peer.send(Frame.text("a"))
        peer.expect(Frame.text("own a"))

    @pytest.mark.parametrize("form", ["codec in a base", "codec in a mixin", "both in a mixin", "hook in a base"])
    def test_the_codec_and_the_hook_may_come_from_different_classes(self, form: str) -> None:
        def json_received(self: Any, message: Any) -> None:
            self.send_json([message])

        codec, hook, base = {"codec": JSON(int)}, {"json_received": json_received}, WebSocketProtocol
        kinds = {
            "codec in a base": lambda: type("Sub", (type("Base", (base,), codec),), hook),
            "codec in a mixin": lambda: type("Sub", (type("Mixin", (), codec), base), hook),
            "both in a mixin": lambda: type("Sub", (type("Mixin", (), {**codec, **hook}), base), {}),
            "hook in a base": lambda: type("Sub", (type("Base", (base,), {**hook, "codec": JSON(str)}),), codec),
        }
        peer = scripted_client(kinds[form]())
        peer.send(Frame.text("1"))
        peer.expect(Frame.text("[1]"))

    @pytest.mark.parametrize("attributes", [{}, {"codec": JSON}, {"codec": None}], ids=repr)
    def test_a_json_hook_without_a_codec_gives_a_warning(self, attributes: dict[str, Any]) -> None:
        with pytest.warns(UserWarning) as caught:
            type("Chat", (WebSocketProtocol,), {"json_received": lambda self, message: None, **attributes})
        assert [str(one.message) for one in caught] == [
            "Chat.json_received is never called: give Chat a codec, such as codec = JSON()"
        ]

    def test_a_json_hook_that_the_class_calls_itself_gives_no_warning(self) -> None:
        hooks = {"json_received": lambda self, message: None, "text_received": lambda self, text: None}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            type("Chat", (WebSocketProtocol,), hooks)

    def test_the_package_imports_no_codec_module_by_itself(self) -> None:
        # The codec works with any of these modules, or with none of them.
        assert "pydantic" in sys.modules
        assert JSON().decode("1") == 1
