"""`JSON`: messages as JSON, in types of your own."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from twisted.logger import Logger

from twisted_beastws.connection.facts import Described
from twisted_beastws.connection.peer_text import peer_text
from twisted_beastws.wire.closing import CloseCode, close_payload

log = Logger()

T = TypeVar("T")


class Refusable(Described, Protocol):
    """The `WebSocketProtocol` that received a message."""

    def close(self, code: int, reason: str) -> object: ...


class InvalidMessage(ValueError):
    """A message is not JSON, or not of the expected type; ``__cause__`` is the decoder's or the converter's error."""


class JSON(Generic[T]):
    """Encodes and decodes messages as JSON: the ``codec`` of a protocol class.

    A class that has a codec and a method ``json_received``, and no ``text_received``, gets its text messages there,
    decoded::

        class Chat(WebSocketProtocol):
            codec = JSON(Said)

            def json_received(self, message: Said) -> None:
                self.send_json(message)

    `WebSocketProtocol.send_json` and `receive_json` use the codec, too. A message that is not JSON, or not of the type,
    closes the connection with ``code``. The log has the reason at level info, without a traceback.

    msgspec encodes and decodes if it is installed, else orjson, else Python's ``json``.

    Args:
        kind: The type of a message, which msgspec checks: a ``msgspec.Struct``, a dataclass, an attrs class, a
            ``TypedDict`` or a union of them.
        convert: Makes a message from the decoded JSON, such as pydantic's ``Said.model_validate``. An exception that it
            raises counts as the client's mistake.
        dump: Converts a message to an object that can be encoded, such as ``Said.model_dump`` or ``attrs.asdict``.
        code: The close code for a bad message; 1007 by default.

    Raises:
        TypeError: ``kind`` is given without msgspec, or together with ``convert``.
        LocalError: ``code`` may not be sent.
    """

    @overload
    def __init__(self: JSON[Any], *, dump: Callable[[Any], Any] | None = None, code: int = ...) -> None: ...

    @overload
    def __init__(self, kind: type[T], *, dump: Callable[[T], Any] | None = None, code: int = ...) -> None: ...

    @overload
    def __init__(
        self, *, convert: Callable[[Any], T], dump: Callable[[T], Any] | None = None, code: int = ...
    ) -> None: ...

    def __init__(
        self,
        kind: Any = None,
        *,
        convert: Callable[[Any], T] | None = None,
        dump: Callable[[T], Any] | None = None,
        code: int = CloseCode.BAD_PAYLOAD,
    ) -> None:
        if kind is not None and convert is not None:
            raise TypeError("JSON(kind, convert=...): give one of them: a converter makes the type itself")
        if kind is not None and find_spec("msgspec") is None:
            raise TypeError(f"JSON({kind!r}): msgspec checks types: install msgspec, or give convert=")
        close_payload(code)
        self.code = code
        self._convert = convert
        self._dump = dump
        self._loads, self._dumps = _backend(kind)

    def encode(self, message: T) -> str | bytes:
        """Return a message as the payload of a text message."""
        return self._dumps(message if self._dump is None else self._dump(message))

    def decode(self, text: str | bytes) -> T:
        """Return the message that a payload holds.

        Raises:
            InvalidMessage: The payload is not JSON, or not of the type.
        """
        try:
            value = self._loads(text)
            return cast(T, value) if self._convert is None else self._convert(value)
        except Exception as error:
            # A client chose the text, so any error is possible: a RecursionError, or an error of the converter.
            raise InvalidMessage(f"{type(error).__name__}: {error}") from error

    def refuse(self, protocol: Refusable, error: InvalidMessage) -> None:
        """Close a connection whose client sent a bad message."""
        log.info(
            "connection {connection} of {peer} sent a message that is not valid: {error}",
            connection=protocol.connection_id,
            peer=peer_text(protocol.peer),
            error=" ".join(str(error).split()),
        )
        protocol.close(self.code, "the message is not valid JSON of the expected form")


def codec_of(protocol: object) -> JSON[Any]:
    """Return the codec of a protocol's class, or one without a type."""
    codec = getattr(type(protocol), "codec", None)
    return codec if isinstance(codec, JSON) else PLAIN


def text_received_as_json(protocol: Any, text: str) -> Any:
    """The ``text_received`` of a class with a codec and a method ``json_received``."""
    codec = codec_of(protocol)
    try:
        message = codec.decode(text)
    except InvalidMessage as error:
        codec.refuse(protocol, error)
        return None
    return protocol.json_received(message)


def has_codec(kind: type[Any]) -> bool:
    """Return whether a protocol class has a codec, of its own or from a base."""
    return isinstance(getattr(kind, "codec", None), JSON)


def _backend(kind: Any) -> tuple[Callable[[str | bytes], Any], Callable[[Any], str | bytes]]:
    if find_spec("msgspec") is not None:
        import msgspec

        return msgspec.json.Decoder(Any if kind is None else kind).decode, msgspec.json.Encoder().encode
    if find_spec("orjson") is not None:
        import orjson

        return orjson.loads, orjson.dumps
    return _loads, _dumps


def _loads(text: str | bytes) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _refuse_constant(name: str) -> Any:
    # RFC 8259 §6: JSON has no NaN and no infinities.
    raise ValueError(f"{name} is no JSON")


PLAIN: JSON[Any] = JSON()
