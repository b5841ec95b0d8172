"""`RedisBackplane` joins hubs on any number of machines through a Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_beastws.hub.arguments import check_budgets, check_redis
from twisted_beastws.hub.linked import LinkedBackplane
from twisted_beastws.hub.linked_interfaces import LinkCommands
from twisted_beastws.hub.redis_url import RedisURL

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime


class RedisBackplane(LinkedBackplane):
    """Joins hubs through a Redis of version 6.2 or later; needs the extra ``redis``.

    `RedisClusterBackplane` is for a Redis Cluster.

    Redis gives each message an id, puts it into the room's history and passes it to every hub that has members in the
    room, including the publisher's. So all members see one order. docs/topics/guarantees.md lists the guarantees after
    a failure of Redis.

    Args:
        url: ``redis://[[user]:password@]host[:port][/database]``, ``rediss://...`` for TLS, or
            ``unix:///path/to/socket[?db=database]``.
        history: messages of each room that Redis keeps, for a day from the last; 0 keeps none. 100.
        max_room_history: bytes of a room's history, with 128 for each message. Beyond it Redis drops the oldest
            messages. 4 MiB.
        max_history: bytes of the histories of all rooms in the database, with 1024 for each room. Beyond it Redis
            drops the histories of the rooms that were quiet for longest. 64 MiB, as `LocalBackplane`'s.
        max_in_flight: bytes of publications without an answer. Beyond it `publish` fails, and no member gets the
            message. 16 MiB.
        prefix: the beginning of all keys and channels, by which several applications share a database. 1 to 64
            printable ASCII characters. "beastws".
        reactor: None is the installed one.

    `LinkedBackplane` has the attributes.

    Raises:
        ValueError: an argument cannot be used. Its text has no password in it.
    """

    def __init__(
        self,
        url: str,
        *,
        history: int = 100,
        max_room_history: int = 1 << 22,
        max_history: int = 1 << 26,
        max_in_flight: int = 1 << 24,
        prefix: str = "beastws",
        reactor: IReactorTime | None = None,
    ) -> None:
        self._address = RedisURL.parse(url)
        if self._address.cluster:
            raise ValueError("RedisBackplane takes a Redis of its own: give redis+cluster:// to RedisClusterBackplane")
        self._address.check_files()
        check_redis("RedisBackplane", prefix)
        check_budgets("RedisBackplane", max_room_history, max_history)
        super().__init__(
            self._address,
            history=history,
            max_room_history=max_room_history,
            max_history=max_history,
            max_in_flight=max_in_flight,
            prefix=prefix,
            reactor=reactor,
        )

    def _make_link(self) -> LinkCommands:
        # txredisapi imports the reactor.
        try:
            from twisted_beastws.hub.redis_link import RedisLink
        except ModuleNotFoundError as error:
            raise ImportError("RedisBackplane needs an extra: pip install 'twisted_beastws[redis]'") from error

        budgets = (self.max_room_history, self.max_history)
        return RedisLink(self._address, self, self.reactor, self.prefix, *budgets, self.hub_name)
