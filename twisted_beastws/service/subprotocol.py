"""The chat's subprotocol ``chat.v1+json``, as values: docs/chat.md describes it."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

from twisted_beastws.hub import Message
from twisted_beastws.hub.backplane import order_of
from twisted_beastws.service.names import MAX_MARKS, tidy

CHAT_V1 = "chat.v1+json"

MAX_NAME = 32
"""Characters of a member's name."""

MAX_ROOM = 64
"""Characters of a room's name."""

MAX_REF = 64
"""Characters by which a client refers to a request of its own."""

MIN_SHARED_REF = 16
"""Characters from which on a ref identifies a message on its client's next connection, too.

A shorter one may be a count, which starts again on each connection, and two clients may have one name.
"""

MAX_LISTED = 1000
"""Names in one answer to ``who``."""

MAX_PARTS = 64
"""Values in a request. It needs four; a parser takes long for a message that is nothing but brackets and commas."""

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_SEPARATOR = re.compile(r"[\[{,]")


class ChatEntry(NamedTuple):
    """The query of a chat's address: the member's name, and the id of the last message that it saw."""

    name: str | None
    after: str | None


class ChatCommand(NamedTuple):
    """A client's request: a message, ``auth`` if it has a token, else ``who``.

    Attributes:
        text: of a message.
        ref: goes into the answer.
        after: list later names.
        token: the new token of the user.
    """

    text: str | None
    ref: str | None
    after: str | None = None
    token: str | None = None


class BadCommand(ValueError):
    """A client's request is invalid; ``str(error)`` gives the reason."""

    def __init__(self, reason: str, ref: str | None = None) -> None:
        super().__init__(reason)
        self.ref = ref


def room_of(path: str, chat_path: str) -> str | None:
    """The room at ``path``: empty for the common one, None if there cannot be one."""
    if path == chat_path:
        return ""
    prefix = chat_path.rstrip("/") + "/"
    if not path.startswith(prefix):
        return None
    try:
        room = unquote(path[len(prefix) :], errors="strict")
    except UnicodeDecodeError:
        return None
    room = tidy(room, MAX_ROOM) or ""
    return room if room and "/" not in room else None


def entry_of(query: str) -> ChatEntry:
    """What ``name=NAME&after=ID`` says; other fields mean nothing. Raises `BadCommand`."""
    try:
        fields = parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=16)
    except ValueError:
        raise BadCommand("the query is not of the form name=NAME&after=ID in UTF-8") from None
    name, after = fields.get("name", [None])[-1], fields.get("after", [None])[-1]
    if name is not None:
        name = tidy(name, MAX_NAME)
        if name is None:
            marks = f"at most {MAX_MARKS} combining marks on each"
            raise BadCommand(f"the name must be 1 to {MAX_NAME} visible characters, {marks}, no space at its ends")
    if after is not None:
        try:
            order_of(after)
        except ValueError:
            raise BadCommand("after must be a message's id, such as 1700000000000-0, or 0-0 for all") from None
    return ChatEntry(name, after)


def is_entry(query: str) -> bool:
    """Return whether a query has a field that `entry_of` reads."""
    return any(field.partition("=")[0] in ("name", "after") for field in query.split("&"))


def read(text: str) -> ChatCommand:
    """Return the request in a client's message. Raises `BadCommand`."""
    if _has_many_parts(text):
        raise BadCommand(f"not JSON, or more than {MAX_PARTS} values in it")
    try:
        # A number of many digits would take an int long.
        request = json.loads(text, parse_int=float)
    except (ValueError, RecursionError):
        raise BadCommand("not JSON") from None
    if not isinstance(request, dict):
        raise BadCommand("not a JSON object")
    ref = request.get("ref")
    if ref is not None and (not isinstance(ref, str) or len(ref) > MAX_REF or not _is_text(ref)):
        raise BadCommand(f"ref must be a string of at most {MAX_REF} characters")
    kind, said = request.get("type"), request.get("text")
    if kind == "who":
        after = request.get("after")
        if after is not None and (not isinstance(after, str) or len(after) > MAX_NAME or not _is_text(after)):
            raise BadCommand("after must be the last name of the answer before", ref)
        return ChatCommand(None, ref, after)
    if kind == "auth":
        token = request.get("token")
        if not isinstance(token, str) or not token.isascii():
            raise BadCommand("token must be a string", ref)
        return ChatCommand(None, ref, token=token)
    if kind != "message":
        raise BadCommand("type must be message, who or auth", ref)
    if not isinstance(said, str) or not _is_text(said):
        raise BadCommand("text must be a string of whole characters", ref)
    return ChatCommand(said, ref)


def event(kind: str, **fields: Any) -> str:
    """Return the text of an event. Fields that are None are left out, except the name."""
    present = {name: value for name, value in fields.items() if value is not None or name == "name"}
    return json.dumps({"type": kind, **present}, ensure_ascii=False, separators=(",", ":"))


def with_id(message: Message) -> str | bytes:
    """Return an event from the hub for clients of the subprotocol, with its id if it has one."""
    if message.id is None or isinstance(message.data, bytes):
        return message.data
    return f'{{"id":"{message.id}",{message.data[1:]}'


def as_gap(message: Message) -> str:
    """An event for a gap: messages may be missing before the next one."""
    return event("history", complete=False)


def retry_key(name: str | None, connection: str, ref: str, text: str) -> str:
    """The idempotency key of a message: two with the same key are one, said twice by a client that got no answer."""
    return json.dumps([name, None if len(ref) >= MIN_SHARED_REF else connection, ref, text])


def as_text(message: Message) -> str | None:
    """Return an event from the hub for plain clients: the text of a message, and None for other events."""
    said = json.loads(message.data)
    return said["text"] if said["type"] == "message" else None


def _has_many_parts(text: str) -> bool:
    if len(text) <= MAX_PARTS:
        return False
    return len(_SEPARATOR.findall(_STRING.sub("", text))) > MAX_PARTS


def _is_text(text: str) -> bool:
    # JSON's escapes can make half of a character.
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
