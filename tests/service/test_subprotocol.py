"""``chat.v1+json`` as values."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from twisted_beastws.hub import Message
from twisted_beastws.service.subprotocol import (
    MAX_PARTS,
    BadCommand,
    ChatCommand,
    ChatEntry,
    as_text,
    entry_of,
    event,
    read,
    room_of,
    with_id,
)


class TestRooms:
    """The room that a path names."""

    @pytest.mark.parametrize(
        ("path", "room"),
        [
            ("/chat", ""),
            ("/chat/a", "a"),
            ("/chat/a%20b", "a b"),
            ("/chat/caf%C3%A9", "caf\u00e9"),
            ("/chat/" + "a" * 64, "a" * 64),
            ("/chat/" + "a" * 65, None),
            ("/chat/", None),
            ("/chat/a/b", None),
            ("/chat/a%2Fb", None),
            ("/chat/a%0Ab", None),
            ("/chat/%20a", None),
            ("/chat/%FF", None),
            ("/chat/%E2%80%AE", None),
            ("/chat/%E2%A0%80", None),
            ("/chat/cafe%CC%81", "caf\u00e9"),
            ("/chat/%EF%BC%8F", None),
            ("/chat/%EF%BC%A1", "A"),
            ("/chatter", None),
            ("/", None),
        ],
    )
    def test_rooms_are_below_the_chat(self, path: str, room: str | None) -> None:
        assert room_of(path, "/chat") == room

    @pytest.mark.parametrize(("path", "room"), [("/", ""), ("/a", "a"), ("/a/b", None), ("//", None)])
    def test_rooms_are_below_a_chat_at_the_root(self, path: str, room: str | None) -> None:
        assert room_of(path, "/") == room


class TestEntry:
    """The query of the request."""

    @pytest.mark.parametrize(
        ("query", "entry"),
        [
            ("", ChatEntry(None, None)),
            ("other=1&empty", ChatEntry(None, None)),
            ("name=ann", ChatEntry("ann", None)),
            ("name=Ann+B.%20%C3%A9", ChatEntry("Ann B. \u00e9", None)),
            ("name=" + "a" * 32, ChatEntry("a" * 32, None)),
            ("after=1700000000000-0&name=ann", ChatEntry("ann", "1700000000000-0")),
            ("name=a&name=b", ChatEntry("b", None)),
        ],
    )
    def test_the_entry_has_the_values_of_the_query(self, query: str, entry: ChatEntry) -> None:
        assert entry_of(query) == entry

    @pytest.mark.parametrize(
        ("query", "reason"),
        [
            ("name=", "the name must be"),
            ("name=" + "a" * 33, "the name must be"),
            ("name=a%0A", "the name must be"),
            ("name=+a", "the name must be"),
            ("name=%E2%80%AEa", "the name must be"),
            ("name=%FF", "the query is not"),
            ("name=%ED%A0%80", "the query is not"),
            ("&".join(["a=1"] * 17), "the query is not"),
            ("after=", "after must be"),
            ("after=1", "after must be"),
        ],
    )
    def test_a_bad_query_is_refused(self, query: str, reason: str) -> None:
        with pytest.raises(BadCommand, match=reason):
            entry_of(query)


class TestRequests:
    """The messages of clients."""

    @pytest.mark.parametrize(
        ("text", "request_"),
        [
            ('{"type":"message","text":"hello"}', ChatCommand("hello", None)),
            ('{"type":"message","text":"","ref":"7","more":[1]}', ChatCommand("", "7")),
            ('{"type":"message","text":"\\u0000\\ud83d\\ude00"}', ChatCommand("\0\U0001f600", None)),
            ('{"type":"who"}', ChatCommand(None, None)),
            ('{"type":"who","ref":"' + "x" * 64 + '"}', ChatCommand(None, "x" * 64)),
        ],
    )
    def test_a_request_is_read(self, text: str, request_: ChatCommand) -> None:
        assert read(text) == request_

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "not JSON"),
            ("hello", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("1" * 500_000, "not a JSON object"),
            ('"message"', "not a JSON object"),
            ("[]", "not a JSON object"),
            ("{}", "type must be message, who or auth"),
            ('{"type":["who"]}', "type must be message, who or auth"),
            ('{"type":"message"}', "text must be"),
            ('{"type":"message","text":7}', "text must be"),
            ('{"type":"message","text":"\\ud83d"}', "text must be"),
            ('{"type":"who","ref":7}', "ref must be"),
            ('{"type":"who","ref":"' + "x" * 65 + '"}', "ref must be"),
            ('{"type":"who","ref":"\\ud83d"}', "ref must be"),
        ],
    )
    def test_a_bad_request_is_refused(self, text: str, reason: str) -> None:
        with pytest.raises(BadCommand, match=reason):
            read(text)

    def test_a_refusal_has_the_ref_of_the_request(self) -> None:
        with pytest.raises(BadCommand) as caught:
            read('{"type":"dance","ref":"7"}')
        assert caught.value.ref == "7"


class TestEvents:
    """The messages to clients."""

    @pytest.mark.parametrize(
        ("fields", "sent"),
        [
            ({"name": None, "text": "\u00e9\n"}, '{"type":"x","name":null,"text":"\u00e9\\n"}'),
            ({"ref": None, "id": "1-0"}, '{"type":"x","id":"1-0"}'),
            ({"names": [], "complete": False}, '{"type":"x","names":[],"complete":false}'),
        ],
    )
    def test_an_event_is_written(self, fields: dict[str, Any], sent: str) -> None:
        assert event("x", **fields) == sent

    def test_events_have_the_id_of_their_message(self) -> None:
        said = event("message", name="ann", text="hello")
        assert with_id(Message("", said)) == said
        assert json.loads(with_id(Message("", said, "1-0"))) == {"id": "1-0", **json.loads(said)}

    def test_an_event_is_a_bare_text_for_other_clients(self) -> None:
        assert as_text(Message("", event("message", name="ann", text="hello"))) == "hello"
        assert as_text(Message("", event("join", name="ann"))) is None


class TestParts:
    """Limits on the parts of a message."""

    @pytest.mark.parametrize("parts", [MAX_PARTS - 1, MAX_PARTS, MAX_PARTS + 1])
    def test_the_number_of_values_in_a_request_is_limited(self, parts: int) -> None:
        # One for the object, one for each comma.
        more = "".join(f',"{number}":0' for number in range(parts - 2))
        request = '{"type":"message","text":"hello"' + more + "}"
        if parts <= MAX_PARTS:
            assert read(request) == ChatCommand("hello", None)
        else:
            with pytest.raises(BadCommand, match="more than 64 values"):
                read(request)

    @pytest.mark.parametrize("text", ["[{," * 1000, '\\"' * 100 + ",[" * 100, "\n[" * 100])
    def test_a_text_may_have_any_number_of_brackets(self, text: str) -> None:
        assert read(json.dumps({"type": "message", "text": text})) == ChatCommand(text, None)

    @pytest.mark.parametrize(
        "text",
        ["[" * (1 << 20), '{"a":[' + "[]," * 340_000 + "0]}", '{"a":' * 200_000, '["",' * 250_000, '"' * (1 << 20)],
    )
    def test_a_megabyte_of_brackets_is_refused_in_little_time(self, text: str) -> None:
        def cost() -> float:
            began = time.thread_time()
            with pytest.raises(BadCommand, match="not JSON"):
                read(text)
            return time.thread_time() - began

        # It took 100 to 400 ms. The best of some runs, because a busy machine lengthens CPU time as well.
        assert min(cost() for _ in range(5)) < 0.1
