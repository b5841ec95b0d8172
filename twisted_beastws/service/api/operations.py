"""`Api`: the operations of the API, apart from HTTP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from twisted_beastws.hub import Hub, Message, PublishError, PublishUnknown
from twisted_beastws.hub.backplane import order_of
from twisted_beastws.service.api.control import Control
from twisted_beastws.service.api.parsing import ApiError, Publication, Reader

MAX_LISTED = 1000
"""Rooms, names or messages in one answer."""

MAX_HISTORY = 1 << 22
"""Bytes of messages in one answer, beyond which no more are added: 4 MiB."""


class Api:
    """Publishes to a hub's rooms, and reports on them.

    Args:
        hub: has the rooms.
        control: reaches all processes.
        reader: reads requests.
        is_chat: the messages are events of the chat's.
    """

    def __init__(self, hub: Hub, control: Control, reader: Reader, is_chat: bool) -> None:
        self._hub = hub
        self._control = control
        self._reader = reader
        self._is_chat = is_chat

    async def publish(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Publish a message, or a batch of them, in order."""
        publications = self._reader.publications(body)
        if "messages" not in body:
            return {"id": await self._publish(publications[0])}
        # All are on their way before the first answer comes.
        answers = await DeferredList([self._publish(each) for each in publications], consumeErrors=True)
        results = [{"id": answer} if ok else {"error": _fields_of(answer)} for ok, answer in answers]
        failed = sum("error" in result for result in results)
        if failed:
            raise ApiError(503, "not_published", f"messages that were not published: {failed}", results=results)
        return {"results": results}

    async def broadcast(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send a message to every connection that is in a room."""
        text = self._reader.broadcast(body).text
        await self._hub.publish_to_all(text).addErrback(_raise)
        return {}

    async def disconnect(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Close connections."""
        await self._control.disconnect(self._reader.disconnection(body)).addErrback(_raise)
        return {}

    async def rooms(self, after: str | None) -> dict[str, Any]:
        """List the rooms that have connections, by name."""
        try:
            counts = await self._control.rooms()
        except PublishError as error:
            raise _unavailable(error) from None
        names = sorted(name for name in counts if after is None or name > after)
        listed = [{"room": name, "connections": counts[name]} for name in names[:MAX_LISTED]]
        return {"rooms": listed, "more": len(names) > MAX_LISTED}

    async def room(self, room: str, after: str | None) -> dict[str, Any]:
        """Describe a room: its members that have a name, and its history after a message."""
        room = self._reader.room(room)
        after = "0-0" if after is None else after
        try:
            order_of(after)
        except ValueError:
            raise ApiError(400, "bad_after", "after: give a message's id, such as 1700000000000-0") from None
        roster = await self._hub.roster(room, most=MAX_LISTED)
        messages, complete, more = await self._history(room, after)
        return {
            "room": room,
            "members": roster.names,
            "count": roster.members,
            "history": messages,
            "complete": complete,
            "more": more,
        }

    async def _history(self, room: str, after: str) -> tuple[list[dict[str, Any]], bool, bool]:
        messages: list[dict[str, Any]] = []
        complete, size = True, 0
        while True:
            try:
                part = await self._hub.backplane.history(room, after)
            except PublishError as error:
                raise _unavailable(error) from None
            complete = complete and part.complete
            messages += [self._described(message) for message in part.messages]
            size += sum(len(message.data) for message in part.messages)
            more = part.more and bool(part.messages)
            if not more or size >= MAX_HISTORY or len(messages) >= MAX_LISTED:
                return messages, complete, more
            after = part.messages[-1].id or after

    def _described(self, message: Message) -> dict[str, Any]:
        if isinstance(message.data, bytes):
            return {"id": message.id, "size": len(message.data)}
        if not self._is_chat:
            return {"id": message.id, "data": message.data}
        said = json.loads(message.data)
        return {"id": message.id, "name": said.get("name"), "data": said.get("text")}

    def _publish(self, publication: Publication) -> Deferred[str | None]:
        room, text, key = publication
        # With a key of its own, a message that the backplane refuses reaches no member, and can be sent again.
        ref = json.dumps(["api", token_hex(16) if key is None else key])
        return self._hub.publish(room or "", text, ref=ref).addErrback(_raise)


def _raise(failure: Failure) -> Any:
    failure.trap(PublishError)
    raise _unavailable(failure.value)


def _fields_of(failure: Any) -> dict[str, Any]:
    failure.trap(ApiError)
    fields: dict[str, Any] = failure.value.fields
    return fields


def _unavailable(error: Any) -> ApiError:
    taken = "unknown" if isinstance(error, PublishUnknown) else "here" if error.delivered_here else "no"
    return ApiError(503, "not_published", str(error), taken=taken)
