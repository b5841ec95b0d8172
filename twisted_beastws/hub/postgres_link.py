"""Connections to a PostgreSQL, through psycopg: import this late."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import randbelow, token_hex
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from twisted_beastws.hub import linked_interfaces as links
from twisted_beastws.hub import linked_reconnecting as timing
from twisted_beastws.hub.backplane import order_of
from twisted_beastws.hub.linked_answers import Page, Part, Place, Standing, Swept, Taken, Verified
from twisted_beastws.hub.linked_errors import LinkLost, Refused
from twisted_beastws.hub.linked_interfaces import LinkUser
from twisted_beastws.hub.linked_reconnecting import Reconnecting, ignored
from twisted_beastws.hub.postgres_batches import BatchedMessage, PublishBatches
from twisted_beastws.hub.postgres_connection import (
    Binary,
    PostgresConnection,
    Row,
    addresses,
    binaries,
    binary,
    numbers,
    texts,
)
from twisted_beastws.hub.postgres_errors import FORBIDDEN, NEWER_SCHEMA, NO_SCHEMA
from twisted_beastws.hub.postgres_feed import RoomFeed
from twisted_beastws.hub.postgres_schema import VERSION, schema_sql
from twisted_beastws.hub.postgres_url import PostgresURL

INBOX_STEP = 32
"""Entries of the inbox in one answer."""

SALT = 1 << 20
"""Ids leave random gaps below this, as in Redis."""

MAX_NUMBER = (1 << 63) - 1

_SETTINGS = (
    "SELECT set_config('default_transaction_isolation', 'read committed', false), set_config('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,"
    " false)"
)
"""Acknowledged means on disk. A stronger setting of the server stays."""


class PostgresLink(Reconnecting):
    """Two connections: one for commands, and one for notifications and the messages that they name.

    Args:
        url: the address.
        user: the backplane.
        reactor: for connections and time.
        schema: the name of the schema.
        max_room_history, max_history: bytes.
        hub_name: the hub's name in the dataset.
    """

    def __init__(
        self,
        url: PostgresURL,
        user: LinkUser,
        reactor: IReactorTime,
        schema: str = "beastws",
        max_room_history: int = 1 << 22,
        max_history: int = 1 << 26,
        hub_name: str = "",
    ) -> None:
        super().__init__(user, reactor)
        self._url = url
        self._schema = schema
        self._prefix = f'"{schema}".'
        self._budgets = (max_room_history, max_history)
        self._hub_name = hub_name
        self._commands: PostgresConnection | None = None
        self._feed = RoomFeed(user, self._prefix)
        self._listener: PostgresConnection | None = None
        self._batches = PublishBatches(self._send)
        self._lease = token_hex(8)
        self._earlier_leases: list[str] = []

    def pause(self) -> None:
        """Stop reading messages."""
        self._feed.pause()

    def resume(self) -> None:
        """Read messages again."""
        self._feed.resume()

    # Commands.

    def position(self, known: str, standing: Standing) -> Deferred[Verified]:
        """Ask for the dataset's place, and whether it is the dataset that the hub knows."""
        hub = (self._hub_name, str(randbelow(SALT)), str(int(links.GRACE * 1000)))
        stands = (standing.vouched, standing.waited, str(standing.waiting))
        return self._call("verify", *_known(known), token_hex(4), *hub, *stands).addCallback(_verified)

    def subscribe(self, rooms: Sequence[str | None]) -> Deferred[None]:
        """Receive the messages of ``rooms``."""
        return self._feed.subscribe(rooms)

    def unsubscribe(self, rooms: Sequence[str]) -> None:
        """End the subscriptions to ``rooms``."""
        self._feed.unsubscribe(rooms)

    def publish(
        self, known: str, room: str | None, payload: bytes, keep: int, ref: str, waiting: bool
    ) -> Deferred[Taken]:
        """Publish a message, and put it into the room's history, which keeps the last ``keep`` messages."""
        name = None if room is None else _bytes(room)
        return self._batches.add(BatchedMessage(known, name, payload, keep, ref, randbelow(SALT), waiting, Deferred()))

    def _send(self, batch: Sequence[BatchedMessage]) -> Deferred[list[Row]]:
        return self._call(
            "publish",
            *_known(batch[-1].known),
            token_hex(4),
            self._hub_name,
            binaries([each.room for each in batch]),
            binaries([each.payload for each in batch]),
            numbers([each.keep for each in batch]),
            texts([each.ref for each in batch]),
            numbers([each.salt for each in batch]),
            *map(str, self._budgets),
            str(any(each.waiting for each in batch)),
        )

    def read(self, known: str, room: str, after: str, count: int, size: int) -> Deferred[Part]:
        """Read at most ``count`` entries after ``after``, of not much more than ``size`` bytes."""
        ms, seq = map(str, _order(after))
        limits = (str(count), str(size))
        part = self._call("read", *_known(known), token_hex(4), binary(_bytes(room)), ms, seq, *limits)
        return part.addCallback(_part)

    def sweep(self, known: str, rooms: Sequence[tuple[str, str]]) -> Deferred[Swept]:
        """Ask for which of ``rooms`` there may be more messages than the readers have, which are at the given ids."""
        places = [_order(after) for _, after in rooms]
        names = binaries([_bytes(room) for room, _ in rooms])
        ms, seq = (numbers([place[part] for place in places]) for part in (0, 1))
        swept = self._call("sweep", *_known(known), token_hex(4), names, ms, seq)
        return swept.addCallback(
            lambda rows: Swept(_place(rows[0]), [int(index) for index in (rows[0][2] or b"").split()])
        )

    def enter(self, room: str, names: dict[str, str]) -> Deferred[object]:
        """List members."""
        listings = binaries([_bytes(name) for name in names.values()])
        return self._call("enter", self._lease, binary(_bytes(room)), texts(list(names)), listings)

    def exit(self, room: str, member: str) -> Deferred[object]:
        """List a member no longer."""
        return self._call("leave", self._lease, binary(_bytes(room)), member)

    def announce(self, room: str) -> Deferred[object]:
        """Inform the other hubs that members of a room joined or left."""
        return self._call("announce", binary(_bytes(room)))

    def renew(self) -> Deferred[object]:
        """Take a new lease. Members that are not listed again go with `forget`."""
        self._earlier_leases.append(self._lease)
        self._lease = token_hex(8)
        return self._extend()

    def forget(self) -> None:
        """End the earlier leases: all members are listed under the present one."""
        leases, self._earlier_leases = self._earlier_leases, []
        if leases:
            self._call("forget", texts(leases), "").addErrback(ignored)

    def inbox(self) -> Deferred[list[tuple[str, dict[str, bytes]]]]:
        """Read the first entries of the inbox: their numbers and fields."""
        return self._call("inbox_entries", str(INBOX_STEP)).addCallback(_entries)

    def remove(self, entry: str) -> Deferred[object]:
        """Remove an entry of the inbox."""
        return self._call("inbox_remove", entry)

    def roster(self, room: str, cursor: int, count: int) -> Deferred[Page]:
        """Return ``count`` listings of the members of all hubs that have given a sign of life, from ``cursor`` on."""

        def page(rows: list[Row]) -> Page:
            total = int(rows[0][1] or b"0") if rows else 0
            names = [(row[2] or b"").decode("utf-8", "replace") for row in rows[:count]]
            return Page(int(rows[count - 1][0] or b"0") if len(rows) > count else 0, total, names)

        # One more row shows whether this is the last page.
        return self._call("listings", binary(_bytes(room)), str(cursor), str(count + 1)).addCallback(page)

    def _extend(self) -> Deferred[Any]:
        return self._call("extend", self._lease, str(int(timing.LEASE * 1000)))

    def _call(self, function: str, *arguments: str | Binary) -> Deferred[Any]:
        if self._commands is None:
            raise LinkLost("the connection to PostgreSQL is not there")
        places = ", ".join(f"${number}" for number in range(1, len(arguments) + 1))
        return self._commands.call(f"SELECT * FROM {self._prefix}{function}({places})", *arguments)

    # Connecting.

    async def _open(self) -> None:
        last: Exception = LinkLost("there is no server")
        for parameters in await addresses(self._url, self._reactor):
            try:
                self._commands = await self._connected(
                    PostgresConnection(self._reactor, timing.REPLY_TIMEOUT), parameters
                )
                break
            except Exception as error:
                last = error
        else:
            raise last
        await self._prepare(self._commands)
        # Both connections go to the same server.
        listener = PostgresConnection(self._reactor, timing.REPLY_TIMEOUT, self._feed.notified)
        self._listener = await self._connected(listener, parameters)
        await self._listener.call(f'LISTEN "{self._schema}"')
        self._feed.begin(self._listener)

    async def _connected(self, connection: PostgresConnection, parameters: dict[str, str]) -> PostgresConnection:
        connection.connect(parameters)
        try:
            await connection.ready.addTimeout(timing.CONNECT_TIMEOUT, self._reactor)
        except BaseException:
            connection.drop()
            raise
        self._connections.append(connection)
        return connection

    async def _prepare(self, connection: PostgresConnection) -> None:
        await connection.call(_SETTINGS)
        try:
            found = int((await self._call("version"))[0][0] or b"0")
        except Refused as refused:
            if refused.trouble is not NO_SCHEMA:
                raise
            found = 0
        if found > VERSION:
            raise Refused("the schema is newer", NEWER_SCHEMA)
        if found < VERSION:
            await self._create(connection)

    async def _create(self, connection: PostgresConnection) -> None:
        try:
            await connection.call(schema_sql(self._schema))
        except Refused as refused:
            raise Refused(str(refused), NO_SCHEMA if refused.trouble is FORBIDDEN else refused.trouble) from refused

    def _take_leave(self) -> Deferred[Any]:
        if self._commands is None:
            return succeed(None)
        return self._call("forget", texts([self._lease, *self._earlier_leases]), self._hub_name)

    async def _give_sign(self) -> None:
        if self._listener is not None:
            self._listener.call("SELECT 1").addErrback(ignored)
        alive = (await self._extend())[0][0] == b"1"
        verified = await self._user.verify()
        self._user.beat(None, verified, not alive)


def _bytes(text: str) -> bytes:
    # PostgreSQL's texts cannot have a NUL.
    return text.encode("utf-8", "surrogatepass")


def _order(message_id: str) -> tuple[int, int]:
    ms, seq = order_of(message_id)
    return min(ms, MAX_NUMBER), min(seq, MAX_NUMBER)


def _known(known: str) -> tuple[str, str, str]:
    message_id, _, epoch = known.partition(" ")
    ms, seq = _order(message_id)
    return str(ms), str(seq), epoch


def _text(part: bytes | None) -> str:
    return (part or b"").decode("ascii", "replace")


def _place(row: Row) -> Place:
    return Place(_text(row[0]), _text(row[1]))


def _verified(rows: list[Row]) -> Verified:
    _, _, sure, server, awaits, unconfirmed = rows[0]
    return Verified(_place(rows[0]), sure == b"1", (server or b"").decode(), _text(awaits), unconfirmed == b"1")


def _part(rows: list[Row]) -> Part:
    first = rows[0]
    whole, exact, more = (part == b"1" for part in first[3:6])
    entries = [(_text(row[6]), row[7] or b"") for row in rows if row[6]]
    return Part(_place(first), _text(first[2]), whole, exact, more, entries)


def _entries(rows: list[Row]) -> list[tuple[str, dict[str, bytes]]]:
    names = ("room", "kind", "data", "keep", "ref")
    return [(_text(row[0]), {name: part or b"" for name, part in zip(names, row[1:], strict=True)}) for row in rows]
