"""The API's requests as values, and `ApiError`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from twisted_beastws.service import subprotocol
from twisted_beastws.service.names import tidy
from twisted_beastws.wire.closing import CloseCode

MAX_BATCH = 100
"""Messages in one request (Centrifugo's default for a batch is 1000 commands; a message here can be large)."""

MAX_KEY = 128
"""Characters of an idempotency key."""

MAX_ROOM_NAME = 256
"""Characters of a room's name in an application (Centrifugo: 255). In the chat it is `subprotocol.MAX_ROOM`."""

MAX_REASON = 123
"""Bytes of the reason of a close frame (RFC 6455 §5.5)."""

CLOSE_CODES = (1000, 1001, 1008, 1011, 1012, 1013)
"""The registered codes that a server may send for its own reasons; 3000 to 4999 are an application's."""


class ApiError(Exception):
    """A request that gets an error.

    Args:
        status: of the answer.
        code: names the error for programs.
        message: describes it in a sentence.
        more: further fields of the error.
    """

    def __init__(self, status: int, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.fields = {"code": code, "message": message, **{key: value for key, value in more.items() if value}}


class Publication(NamedTuple):
    """A message to publish. room: None is every connection."""

    room: str | None
    text: str
    key: str | None


class Disconnection(NamedTuple):
    """Which connections to close: those for which every field that is given is true."""

    user: str | None
    name: str | None
    room: str | None
    code: int
    reason: str


class Reader:
    """Reads requests for the chat, or for an application.

    Args:
        is_chat: messages are the chat's, with a name; names of rooms are the chat's.
        max_message: bytes of a message's text.
    """

    def __init__(self, is_chat: bool, max_message: int) -> None:
        self._is_chat = is_chat
        self._max_message = max_message

    def publications(self, body: Mapping[str, Any]) -> list[Publication]:
        """Return the messages of a request: one, or those of a batch."""
        if "messages" not in body:
            return [self._publication(body, self.room)]
        _only(body, "messages")
        messages = body["messages"]
        if not isinstance(messages, list) or not 1 <= len(messages) <= MAX_BATCH:
            raise ApiError(400, "bad_batch", f"messages: give a list of 1 to {MAX_BATCH} messages")
        publications = []
        for number, message in enumerate(messages):
            try:
                publications.append(self._publication(_object(message), self.room))
            except ApiError as error:
                code, text = error.fields["code"], f"messages[{number}]: {error}: nothing was published"
                raise ApiError(error.status, code, text) from None
        return publications

    def broadcast(self, body: Mapping[str, Any]) -> Publication:
        """Return a message for every connection."""
        _only(body, "data", "name")
        return self._publication({**body, "room": None}, lambda room: None)

    def disconnection(self, body: Mapping[str, Any]) -> Disconnection:
        """Return which connections to close."""
        _only(body, "user", "name", "room", "code", "reason")
        user, name, room = (body.get(field) for field in ("user", "name", "room"))
        if user is None and name is None and room is None:
            raise ApiError(400, "bad_request", "give user, name or room: the connections to close")
        if name is not None and not self._is_chat:
            raise ApiError(400, "bad_name", "name: only the chat has names; give user or room")
        for field, value in (("user", user), ("name", name)):
            if value is not None and not _is_text(value):
                raise ApiError(400, "bad_request", f"{field}: give a string")
        code, reason = body.get("code", int(CloseCode.POLICY_ERROR)), body.get("reason", "")
        if isinstance(code, bool) or not isinstance(code, int) or not (code in CLOSE_CODES or 3000 <= code <= 4999):
            codes = ", ".join(map(str, CLOSE_CODES))
            raise ApiError(400, "bad_close_code", f"code: give {codes}, or 3000 to 4999")
        if not _is_text(reason) or len(reason.encode()) > MAX_REASON:
            raise ApiError(400, "bad_reason", f"reason: give a string of at most {MAX_REASON} bytes")
        return Disconnection(user, name, None if room is None else self.room(room), code, reason)

    def room(self, room: Any) -> str:
        """Return the name of a room in the form in which the hub knows it."""
        if self._is_chat and isinstance(room, str):
            tidied = "" if room == "" else tidy(room, subprotocol.MAX_ROOM)
            if tidied is None or "/" in tidied:
                most = subprotocol.MAX_ROOM
                raise ApiError(
                    400, "bad_room", f"room: give 1 to {most} visible characters without a slash, or an empty string"
                )
            return tidied
        if not _is_text(room) or len(room) > MAX_ROOM_NAME or room.startswith("\0"):
            raise ApiError(400, "bad_room", f"room: give a string of at most {MAX_ROOM_NAME} characters")
        return str(room)

    def _publication(self, body: Mapping[str, Any], room_of: Callable[[Any], str | None]) -> Publication:
        _only(body, "room", "data", "name", "key")
        for field in ("room", "data"):
            if field not in body:
                raise ApiError(400, "bad_request", f"{field} is missing")
        key = body.get("key")
        if key is not None and (not _is_text(key) or not 1 <= len(key) <= MAX_KEY):
            raise ApiError(400, "bad_key", f"key: give a string of 1 to {MAX_KEY} characters")
        return Publication(room_of(body["room"]), self._text_of(body["data"], body.get("name")), key)

    def _text_of(self, data: Any, name: Any) -> str:
        if self._is_chat:
            if not _is_text(data):
                raise ApiError(400, "bad_data", "data: the chat's messages are strings of whole characters")
            if name is not None and (not isinstance(name, str) or tidy(name, subprotocol.MAX_NAME) is None):
                most = subprotocol.MAX_NAME
                raise ApiError(400, "bad_name", f"name: give 1 to {most} visible characters")
            tidied = None if name is None else tidy(name, subprotocol.MAX_NAME)
            size, text = len(data.encode()), subprotocol.event("message", name=tidied, text=data)
        else:
            if name is not None:
                raise ApiError(400, "bad_name", "name: only the chat has names; put it into data")
            text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
            if not _is_text(text):
                raise ApiError(400, "bad_data", "data: give strings of whole characters")
            size = len(text.encode())
        if size > self._max_message:
            raise ApiError(413, "too_large", f"data has {size} bytes, and --max-message allows {self._max_message}")
        return text


def parse(body: bytes) -> Mapping[str, Any]:
    """Return the JSON object in a request's body. Raises `ApiError`."""
    try:
        return _object(json.loads(body.decode("utf-8")))
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, json.JSONDecodeError) else "not JSON in UTF-8"
        raise ApiError(400, "bad_json", f"the body is not JSON: {why}") from None


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ApiError(400, "bad_request", "give a JSON object")
    return value


def _only(body: Mapping[str, Any], *fields: str) -> None:
    unknown = sorted(set(body) - set(fields))
    if unknown:
        raise ApiError(400, "unknown_field", f"there is no field {unknown[0]!r}: the fields are {', '.join(fields)}")


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    # JSON's escapes can make half of a character.
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
